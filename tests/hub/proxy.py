# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""An HTTP proxy, as companies and clusters have it: notes what it is asked, and fetches it or refuses."""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class ProxyHandler(BaseHTTPRequestHandler):
    """Fetches what is asked for by `http`; tunnels, which `https` needs, are refused."""

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self.server.asked.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        connection = http.client.HTTPConnection(url.hostname, url.port)
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        connection.request(self.command, f"{url.path}?{url.query}", headers=headers)
        with contextlib.closing(connection), connection.getresponse() as response:
            self.send_response(response.status)
            for name, value in response.getheaders():
                self.send_header(name, value)
            self.end_headers()
            while chunk := response.read(1 << 20):
                self.wfile.write(chunk)

    do_HEAD = do_GET  # noqa: N815

    def do_CONNECT(self):
        self.server.asked.append(f"CONNECT {self.path}")
        self.send_error(403, "Forbidden by policy")


class Proxy(ThreadingHTTPServer):
    """`asked` has a line for each request, such as `GET http://host/path`."""

    def __init__(self):
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def local_proxy() -> Iterator[Proxy]:
    """A running proxy."""
    with Proxy() as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
