# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""How the local Hub speaks HTTP: routes, answers, a log of requests, and faults on demand."""

import json
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from .repository import CHUNK_BYTES, HubError, read


@dataclass
class Request:
    """A request that was answered (`status`), or whose connection was closed or left silent (None)."""

    method: str
    path: str
    status: int | None = None
    body_bytes: int = 0
    range: str | None = None


@dataclass
class Fault:
    """
    Fails `times` requests of `method` whose path contains `contains`, after `skip` others: with the error `status` (if
    `applied`, after doing what was asked), with `page` and status 200, or, without either, by closing the connection
    after `after` bytes of the body; with `is_silent` it stays open instead, and nothing more arrives. With `part`, the
    answer to a request for a part of a file is the part that this function makes of its first and last byte.
    """

    method: str
    contains: str
    status: int | None = None
    page: str | None = None
    after: int = 0
    skip: int = 0
    times: int = 1
    applied: bool = False
    is_silent: bool = False
    part: Callable[[int, int], tuple[int, int]] | None = None

    @property
    def cuts(self) -> bool:
        return self.status is None and self.page is None and self.part is None

    def hits(self, request: Request) -> bool:
        if request.method != self.method or self.contains not in request.path or self.times == 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class ConnectionCut(Exception):  # noqa: N818
    """The connection is to be closed without an answer."""


def route(method: str, template: str) -> Callable:
    """Marks what answers `method` on paths like `template`, whose parts in braces become arguments."""
    parts = {"repo": r"(?:datasets/)?[\w.-]+/[\w.-]+?", "path": r".+"}
    pattern = re.sub(r"\{(\w+)\}", lambda part: f"(?P<{part[1]}>{parts.get(part[1], '[^/]+')})", template)

    def mark(function: Callable) -> Callable:
        function.routes = [*getattr(function, "routes", []), (method, re.compile(pattern))]
        return function

    return mark


class Handler(BaseHTTPRequestHandler):
    """Finds the route of a request, applies faults, and turns errors into answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def hub(self):
        return self.server.hub

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.request_log = Request(self.command, unquote(url.path), range=self.headers.get("Range"))
        with self.hub.lock:
            self.hub.requests.append(self.request_log)
            self.fault = next((fault for fault in self.hub.faults if fault.hits(self.request_log)), None)
        self.raw_body = self.read_chunks()
        self.cut_after = self.fault.after if self.fault is not None and self.fault.cuts else None
        try:
            if self.cut_after == 0:
                raise ConnectionCut
            if self.fault is not None and self.fault.page is not None:
                self.answer_text(self.fault.page)
            elif self.fault is not None and self.fault.status is not None and not self.fault.applied:
                raise HubError(self.fault.status, "The local Hub was asked to fail")
            else:
                self.dispatch(url.path)
        except ConnectionCut:
            self.request_log.status = None
            if self.fault.is_silent:
                self.wfile.flush()
                self.hub.is_silent.set()
                self.hub.is_closed.wait()
            self.close_connection = True
        except HubError as error:
            # An answer in the middle of an upload would be lost with the connection.
            for _ in self.body():
                pass
            code = {"X-Error-Code": error.code} if error.code else {}
            headers = {"X-Error-Message": str(error).splitlines()[0], **code, **error.headers}
            self.answer({"error": str(error)}, error.status, headers)
        except ConnectionError:
            self.close_connection = True
        except Exception:
            self.hub.crashes.append(traceback.format_exc())
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def dispatch(self, path: str) -> None:
        for name in dir(type(self)):
            for method, pattern in getattr(getattr(type(self), name), "routes", []):
                match = pattern.fullmatch(path) if method == self.command else None
                if match:
                    arguments = {key: unquote(value) for key, value in match.groupdict(default="").items()}
                    getattr(self, name)(**arguments)
                    return
        raise HubError(501, f"The local Hub does not know {self.command} {path}")

    def body(self) -> Iterator[bytes]:
        """What has not been read yet of the request's body, in chunks."""
        for chunk in self.raw_body:
            self.request_log.body_bytes += len(chunk)
            if self.cut_after is not None and self.request_log.body_bytes >= self.cut_after:
                raise ConnectionCut
            yield chunk

    def read_chunks(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        missing = int(self.headers.get("Content-Length", 0))
        while missing > 0:
            chunk = self.rfile.read1(min(CHUNK_BYTES, missing))
            if not chunk:
                raise ConnectionAbortedError("the client closed the connection")
            missing -= len(chunk)
            yield chunk

    def answer(self, value: object = None, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Sends JSON."""
        if self.fault is not None and self.fault.applied and self.fault.status is not None:
            status = self.fault.status
        self.answer_text(json.dumps(value), status, {"Content-Type": "application/json", **(headers or {})})

    def answer_text(self, text: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = text.encode()
        self.send_head(status, {"Content-Type": "text/html; charset=utf-8", **(headers or {})}, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.request_log.status = status
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def answer_file(self, source: bytes | Path, etag: str, headers: dict[str, str]) -> None:
        """Sends a file, or the range of it that is asked for."""
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes", **headers}
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        start, stop = 0, size
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if self.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
            asked = None
        if asked:
            first, last = (int(number) if number else None for number in asked.groups())
            start = max(0, size - (last or 0)) if first is None else first
            stop = size if first is None or last is None else min(size, last + 1)
            if start >= stop:
                raise HubError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"})
            if self.fault is not None and self.fault.part is not None:
                start, stop = self.fault.part(start, stop)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self.send_head(206 if asked else 200, headers, stop - start)
        if self.command == "HEAD":
            return
        sent, path = 0, self.request_log.path
        is_corrupted = any(path.startswith(f"/{repo}/") and etag == bad for repo, bad in self.hub.corrupted)
        for chunk in read(source, start, stop):
            if is_corrupted and start + sent + len(chunk) == size:
                chunk = chunk[:-1] + bytes([chunk[-1] ^ 0xFF])
            if self.cut_after is not None and sent + len(chunk) >= self.cut_after:
                self.wfile.write(chunk[: self.cut_after - sent])
                raise ConnectionCut
            self.wfile.write(chunk)
            sent += len(chunk)
