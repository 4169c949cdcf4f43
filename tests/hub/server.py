# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
A small Hub on this machine, for the real client of huggingface_hub.

    with local_hub() as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("user/beats")
        subprocess.run([...], env=hub.environment(tmp_path / "home"))

    PYTHONPATH=tests python -m hub.server    # for a person with `hf`; prints what to export

What it covers, for models and datasets: `whoami`; repositories (create, rename, delete, settings; private and gated
ones); branches, tags and refs; info, list of commits, tree, paths-info; `validate-yaml`; uploads (preupload, LFS
batch, PUT, verify, commit of files, large files and deletions); downloads (`resolve` with ETag, `X-Repo-Commit` and
ranges). As on the Hub, large files lie on another host than the API (here: port), to which an upload or a download is
sent with a signed URL and without the token, and an old name leads to the new one. It has real checks: content must
hash to its name, a commit may name only what was uploaded, metadata of a card must be valid, nothing is seen or
changed without the right.

Beside it is a website that knows nothing of repositories: `share` a file there, or `redirect` to one.

What it lacks: Xet, pull requests, `.gitignore`, search, the web pages. Other requests are answered with 501.

Tests can look at `hub.requests` and `hub.repository(id)`, and make it fail: `fail`, `disconnect`, `silence`,
`intercept`, `send_part`, `corrupt`. The first of several faults that hits a request takes it; the others do not count
it.
"""

import contextlib
import os
import secrets
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

from .api import ApiHandler
from .handler import Fault, Handler, Request
from .repository import Repository
from .storage import StorageHandler, WebsiteHandler


USER = "user"
STRANGER = "stranger"


class LocalHub:
    """Its state, what tests ask of it, and its servers: the API, the storage of large files, and the website."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.token = f"hf_{secrets.token_hex(16)}"
        self.stranger_token = f"hf_{secrets.token_hex(16)}"
        self.users = {self.token: USER, self.stranger_token: STRANGER}
        self.storage_key = secrets.token_hex(16)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.corrupted: set[tuple[str, str]] = set()
        self.crashes: list[str] = []
        self.new_names: dict[str, str] = {}
        self.shared: dict[str, Path | str] = {}
        self.is_silent, self.is_closed = threading.Event(), threading.Event()
        self.lock = threading.RLock()
        self.servers = [Server(self, handler) for handler in (ApiHandler, StorageHandler, WebsiteHandler)]
        urls = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)
        self.endpoint, self.storage, self.website = urls

    def environment(self, home: Path | str, signed_in: bool = True, **variables: str) -> dict[str, str]:
        """
        Environment of a fresh process that knows this Hub only.

        Args:
            home: a private `HF_HOME`.
            signed_in: with the user's token, or with none.
            variables: others.
        """
        own = ("HF_", "HUGGING", "TRANSFORMERS_")
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(own) and not name.lower().endswith("_proxy")
        }
        environment |= {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        return environment | ({"HF_TOKEN": self.token} if signed_in else {}) | variables

    def repository(self, repo_id: str) -> Repository:
        """A repository, to look into."""
        return self.repositories[repo_id]

    def sent(self, method: str, contains: str = "") -> list[Request]:
        """Requests of `method` whose path contains `contains`, in their order."""
        return [request for request in self.requests if request.method == method and contains in request.path]

    def fail(
        self, method: str, contains: str = "", status: int = 503, skip: int = 0, times: int = 1, applied: bool = False
    ) -> None:
        """Answers with an error; with `applied` after doing what was asked, as if only the answer was lost."""
        self.faults.append(Fault(method, contains, status, skip=skip, times=times, applied=applied))

    def disconnect(self, method: str, contains: str = "", after: int = 0, skip: int = 0, times: int = 1) -> None:
        """Closes the connection after `after` bytes of a body: of the upload, or of the download."""
        self.faults.append(Fault(method, contains, after=after, skip=skip, times=times))

    def silence(self, method: str, contains: str = "", after: int = 0, skip: int = 0, times: int = 1) -> None:
        """Sends no more after `after` bytes of a body, without closing the connection; sets `is_silent`."""
        self.faults.append(Fault(method, contains, after=after, skip=skip, times=times, is_silent=True))

    def intercept(self, method: str, contains: str = "", skip: int = 0, times: int = 1) -> None:
        """Answers with status 200 and a web page, as the login page of a network does."""
        page = "<!DOCTYPE html>\n<html><title>Sign in</title>Sign in to use this network.</html>\n"
        self.faults.append(Fault(method, contains, page=page, skip=skip, times=times))

    def send_part(
        self, part: Callable[[int, int], tuple[int, int]], contains: str = "", skip: int = 0, times: int = 1
    ) -> None:
        """Answers requests for a part of a file with another one: `part` takes and returns first byte and end."""
        self.faults.append(Fault("GET", contains, part=part, skip=skip, times=times))

    def share(self, path: str, file: Path) -> str:
        """The URL of a file on the website, where it is `path`."""
        self.shared[path] = file
        return f"{self.website}/{path}"

    def redirect(self, path: str, url: str) -> str:
        """The URL of a `path` on the website that leads to `url`."""
        self.shared[path] = url
        return f"{self.website}/{path}"

    def corrupt(self, repo_id: str, path: str, revision: str = "main") -> None:
        """From now on the last byte of a file arrives inverted; size and ETag stay."""
        self.corrupted.add((repo_id, self.repository(repo_id).blob(path, revision).etag))

    def heal(self) -> None:
        """Forgets all faults and corruptions."""
        self.faults.clear()
        self.corrupted.clear()


class Server(ThreadingHTTPServer):
    def __init__(self, hub: LocalHub, handler: type[Handler]):
        self.hub = hub
        super().__init__(("127.0.0.1", 0), handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            self.hub.crashes.append(traceback.format_exc())


@contextlib.contextmanager
def local_hub() -> Iterator[LocalHub]:
    """
    A running Hub without repositories.

    Raises:
        AssertionError: at the end, if the Hub itself had an error.
    """
    with tempfile.TemporaryDirectory(prefix="local-hub-") as directory:
        hub = LocalHub(Path(directory))
        try:
            yield hub
        finally:
            hub.is_closed.set()
            for server in hub.servers:
                server.shutdown()
                server.server_close()
        assert not hub.crashes, "\n".join(hub.crashes)


if __name__ == "__main__":
    with local_hub() as running_hub:
        for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DISABLE_XET"):
            print(f"export {name}={running_hub.environment('')[name]}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
