# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Address of the page, from options or variables, checked before the page is made."""

import errno
import os
import socket
from contextlib import closing

from transformers_beats.utils.errors import UsageError


LOCALHOST = "127.0.0.1"
HOST_VARIABLE, PORT_VARIABLE = "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"


def choose_address(host: str | None, port: int | None) -> tuple[str | None, int | None]:
    """
    Chooses where the page is served: host and port default to the variables that Gradio reads. Returns them as Gradio
    takes them, `None` for its own default.

    Raises:
        [`UsageError`]: if one of them cannot be used. Gradio would try a hundred ports one after the other, or end
            with a traceback.
    """
    host_name, port_name = "--host", "--port"
    if host is None and (host := os.environ.get(HOST_VARIABLE) or None) is not None:
        host_name = HOST_VARIABLE
    if port is None and (stated := os.environ.get(PORT_VARIABLE)):
        port_name, port = PORT_VARIABLE, to_port(PORT_VARIABLE, stated)
    elif port is not None:
        port = to_port(port_name, port)
    # IPv6 has brackets in URLs, which Gradio makes of the host.
    plain = None if host is None else host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(plain or LOCALHOST, port or 0, type=socket.SOCK_STREAM)
    # For a name that no host can have, such as one with an empty part.
    except ValueError as error:
        raise UsageError(f"{host_name} {host}: no name of a host.") from error
    except OSError as error:
        raise UsageError(f"{host_name} {host}: {error.strerror}.") from error
    problems = [problem for family, *_, address in found if (problem := try_address(family, address)) is not None]
    for problem in problems:
        if port is not None and problem.errno in (errno.EADDRINUSE, errno.EACCES):
            raise UsageError(f"{port_name} {port}: {problem.strerror}.")
    # A name may have addresses of IPv6 on a machine without it.
    if len(problems) == len(found):
        raise UsageError(f"{host_name} {host or LOCALHOST}: {problems[0].strerror}.")
    return (f"[{plain}]" if plain is not None and ":" in plain else plain), port


def to_port(name: str, value: int | str) -> int:
    """Returns a port as a number; raises a [`UsageError`], with the name of the option or variable, if it is none."""
    try:
        port = int(value)
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise UsageError(f"{name} must be a port from 1 to 65535, got {value!r}.")
    return port


def try_address(family: int, address: tuple) -> OSError | None:
    """Returns the error if nothing can be served at an address, or None."""
    try:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # As servers do, so that one of IPv4 at the same port is no obstacle.
                tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            tried.bind(address)
    except OSError as error:
        return error
    return None
