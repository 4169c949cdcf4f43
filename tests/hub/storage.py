# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Hosts of files beside the API: the storage of large files, and a website."""

from .handler import Handler, route
from .repository import HubError, Repository


class StorageHandler(Handler):
    """Large files, for whoever has a signed URL."""

    @route("GET", "/{repo}/{oid}")
    @route("HEAD", "/{repo}/{oid}")
    def download(self, repo: str, oid: str) -> None:
        repository = self.signed_repository(repo)
        if not repository.has_object(oid):
            raise HubError(404, "No such object")
        self.answer_file(repository.directory / oid, oid, {"Content-Type": "application/octet-stream"})

    @route("PUT", "/{repo}/{oid}")
    def upload(self, repo: str, oid: str) -> None:
        self.signed_repository(repo).store(oid, self.body())
        self.answer()

    def signed_repository(self, repo: str) -> Repository:
        if "Authorization" in self.headers:
            raise HubError(400, "Only one of a signed URL and an Authorization header is allowed")
        if self.query.get("signature") != [self.hub.storage_key] or repo not in self.hub.repositories:
            raise HubError(403, "The signature does not match")
        return self.hub.repositories[repo]


class WebsiteHandler(Handler):
    """Files and redirects."""

    @route("GET", "/{path}")
    @route("HEAD", "/{path}")
    def page(self, path: str) -> None:
        shared = self.hub.shared.get(path)
        if shared is None:
            self.answer_text("<html>Not found</html>", 404)
        elif isinstance(shared, str):
            self.answer_text("<html>Found</html>", 302, {"Location": shared})
        else:
            modified = shared.stat()
            etag = f"{modified.st_mtime_ns:x}-{modified.st_size:x}"
            self.answer_file(shared, etag, {"Content-Type": "application/octet-stream"})
