# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Address of the page, from options and from the variables of Gradio."""

import re
import socket

import pytest

from transformers_beats.utils.errors import UsageError
from transformers_beats.web import address as address_module
from transformers_beats.web.address import choose_address


@pytest.fixture(autouse=True)
def _variables(monkeypatch):
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hosts(monkeypatch):
    """Addresses at which nothing can be served, and why; all others can be."""
    refused: dict = {}

    def try_address(family, address):
        return refused.get(address[0]) or refused.get(address[1])

    monkeypatch.setattr(address_module, "try_address", try_address)
    return refused


@pytest.fixture
def taken():
    """A port at which another program is."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_it_is_left_to_gradio_unless_it_is_given(monkeypatch):
    assert choose_address(None, None) == (None, None)
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.setenv(name, "")
    assert choose_address(None, None) == (None, None)


def test_options_come_before_variables(hosts, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7900")
    assert choose_address(None, None) == ("0.0.0.0", 7900)
    assert choose_address("127.0.0.1", 7000) == ("127.0.0.1", 7000)
    # One that is not used is not looked at.
    monkeypatch.setenv("GRADIO_SERVER_PORT", "abc")
    assert choose_address(None, 7000) == ("0.0.0.0", 7000)


@pytest.mark.parametrize("host", ["::1", "::", "[::1]"])
def test_ipv6_has_brackets_for_gradio(hosts, host):
    assert choose_address(host, 7000) == (f"[{host.strip('[]')}]", 7000)


@pytest.mark.parametrize("host", ["999.1.1.1", "a..b", "::1::"])
def test_a_host_that_is_none_is_named(no_such_host, host, monkeypatch):
    with pytest.raises(UsageError, match=re.escape(f"--host {host}: ")):
        choose_address(host, None)
    monkeypatch.setenv("GRADIO_SERVER_NAME", host)
    with pytest.raises(UsageError, match=re.escape(f"GRADIO_SERVER_NAME {host}: ")):
        choose_address(None, 7000)


def test_a_host_of_another_machine_is_named(hosts):
    hosts["192.0.2.1"] = OSError(99, "Cannot assign requested address")
    with pytest.raises(UsageError, match=r"--host 192\.0\.2\.1: Cannot assign requested address\."):
        choose_address("192.0.2.1", 7000)


def test_a_name_needs_one_address_that_can_be_used(hosts, monkeypatch):
    """As `localhost` has one of IPv6 on machines without it."""
    found = [(socket.AF_INET6, 1, 6, "", ("::1", 7000, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 7000))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
    hosts["::1"] = OSError(99, "Cannot assign requested address")
    assert choose_address("localhost", 7000) == ("localhost", 7000)
    hosts["127.0.0.1"] = OSError(98, "Address already in use")
    with pytest.raises(UsageError, match="--port 7000: Address already in use"):
        choose_address("localhost", 7000)


def test_a_port_that_is_taken_is_named(taken, monkeypatch):
    with pytest.raises(UsageError, match=rf"--port {taken}: .*in use"):
        choose_address(None, taken)
    monkeypatch.setenv("GRADIO_SERVER_PORT", str(taken))
    with pytest.raises(UsageError, match=rf"GRADIO_SERVER_PORT {taken}: .*in use"):
        choose_address("127.0.0.1", None)


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "7860.5"])
def test_a_port_that_is_none_is_named(port, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_PORT", port)
    with pytest.raises(
        UsageError, match=re.escape(f"GRADIO_SERVER_PORT must be a port from 1 to 65535, got '{port}'")
    ):
        choose_address(None, None)
