# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The Hub's API and its files by repository, revision and path."""

import base64
import json
import os
import re
from urllib.parse import parse_qs, quote

from .handler import Handler, route
from .repository import Commit, HubError, Repository, card_metadata, check_card, is_large


class ApiHandler(Handler):
    """The API, and `resolve`."""

    def dispatch(self, path: str) -> None:
        # The body is read first: a slow client must not keep others waiting for the lock.
        self.content = b"".join(self.body())
        with self.hub.lock:
            super().dispatch(re.sub("^/api/datasets/", "/api/models/datasets/", path))

    def json(self) -> dict:
        return json.loads(self.content)

    @property
    def user(self) -> str | None:
        """Who sends the request; None without a token."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return None
        if token not in self.hub.users:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.hub.users[token]

    def readable(self, repo: str) -> Repository:
        if repo in self.hub.new_names:
            location = self.path.replace(f"/{repo}", f"/{self.hub.new_names[repo]}", 1)
            location = location.replace("/api/models/datasets/", "/api/datasets/")
            raise HubError(307, f"Temporary Redirect. Redirecting to {location}", headers={"Location": location})
        user, repository = self.user, self.hub.repositories.get(repo)
        if repository is None or (repository.private and owner_of(repo) != user):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        return repository

    def with_files(self, repo: str) -> Repository:
        """A repository whose files the sender may have."""
        repository, user = self.readable(repo), self.user
        if repository.gated and user not in {owner_of(repo), *repository.access}:
            reason = f"Access to {repo} is restricted."
            if user is None:
                raise HubError(401, f"{reason} You must be authenticated to access it. Please log in.", "GatedRepo")
            raise HubError(403, f"{reason} Visit {self.hub.endpoint}/{repo} to ask for access.", "GatedRepo")
        return repository

    def writable(self, repo: str) -> Repository:
        repository = self.readable(repo)
        self.check_namespace(owner_of(repo))
        return repository

    def check_namespace(self, namespace: str) -> None:
        if self.user is None:
            raise HubError(401, "Invalid username or password.")
        if namespace != self.user:
            raise HubError(403, f"You don't have the rights to write in the namespace {namespace!r}")

    def named_repo(self) -> str:
        """The repository that a request to create or delete names."""
        payload = self.json()
        prefixes = {"model": "", "dataset": "datasets/"}
        if payload.get("type", "model") not in prefixes:
            raise HubError(400, "The local Hub holds models and datasets only")
        namespace = payload.get("organization") or self.user
        self.check_namespace(namespace)
        return f"{prefixes[payload.get('type', 'model')]}{namespace}/{payload['name']}"

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> None:
        if self.user is None:
            raise HubError(401, "Invalid username or password.")
        role = {"accessToken": {"displayName": "local", "role": "write"}, "type": "access_token"}
        self.answer({"type": "user", "id": self.user, "name": self.user, "orgs": [], "auth": role})

    @route("POST", "/api/repos/create")
    def create(self) -> None:
        repo = self.named_repo()
        answer = {"url": f"{self.hub.endpoint}/{repo}", "name": repo, "id": repo.removeprefix("datasets/")}
        if repo in self.hub.repositories:
            self.answer({"error": "You already created this model repo", **answer}, 409)
            return
        payload = self.json()
        private = payload.get("private", False) or payload.get("visibility") == "private"
        directory = self.hub.directory / f"{len(os.listdir(self.hub.directory))}-{repo.replace('/', '--')}"
        self.hub.repositories[repo] = Repository(repo, directory, private)
        self.answer(answer)

    @route("DELETE", "/api/repos/delete")
    def delete(self) -> None:
        repo = self.named_repo()
        self.readable(repo)
        del self.hub.repositories[repo]
        self.answer()

    @route("POST", "/api/repos/move")
    def move(self) -> None:
        payload = self.json()
        prefix = "datasets/" if payload.get("type") == "dataset" else ""
        old, new = prefix + payload["fromRepo"], prefix + payload["toRepo"]
        repository = self.writable(old)
        self.check_namespace(owner_of(new))
        if new in self.hub.repositories:
            raise HubError(409, f"{new} exists already")
        repository.id = new
        self.hub.repositories[new] = self.hub.repositories.pop(old)
        self.hub.new_names[old] = new
        self.answer()

    @route("PUT", "/api/models/{repo}/settings")
    def change_settings(self, repo: str) -> None:
        payload, repository = self.json(), self.writable(repo)
        if payload.keys() & {"private", "visibility"}:
            repository.private = payload.get("private", payload.get("visibility") == "private")
        repository.gated = payload.get("gated", repository.gated)
        self.answer()

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self) -> None:
        warnings, errors = check_card(self.json()["content"])
        answer = {
            name: [{"message": text} for text in texts] for name, texts in (("warnings", warnings), ("errors", errors))
        }
        self.answer(answer, 400 if errors else 200)

    @route("GET", "/api/models/{repo}")
    @route("GET", "/api/models/{repo}/revision/{revision}")
    def info(self, repo: str, revision: str = "main") -> None:
        repository = self.readable(repo)
        commit = repository.at(revision)
        card = commit.files.get("README.md")
        metadata = card_metadata((card.content or b"").decode()) if card is not None else None
        metadata = metadata if isinstance(metadata, dict) else {}
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        if "blobs" in self.query:
            siblings = [{"rfilename": item["path"], "blobId": item["oid"], **item} for item in tree_entries(commit)]
            siblings = [item for item in siblings if item["type"] == "file"]
        shown = {name: metadata[name] for name in ("library_name", "pipeline_tag", "model-index") if name in metadata}
        self.answer(
            {
                "id": repo.removeprefix("datasets/"),
                "author": owner_of(repo),
                "sha": commit.oid,
                "private": repository.private,
                "gated": repository.gated,
                "disabled": False,
                "createdAt": repository.created,
                "lastModified": commit.date,
                "tags": metadata.get("tags", []),
                "cardData": metadata,
                "siblings": siblings,
                "downloads": 0,
                "likes": 0,
                **shown,
            }
        )

    @route("GET", "/api/models/{name}")
    @route("GET", "/{name}/resolve/{revision}/{path}")
    @route("HEAD", "/{name}/resolve/{revision}/{path}")
    def without_namespace(self, name: str, **_) -> None:
        self.readable(name)

    @route("GET", "/api/models/{repo}/refs")
    def refs(self, repo: str) -> None:
        repository = self.readable(repo)

        def listing(kind: str, refs: dict[str, str]) -> list[dict]:
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in refs.items()]

        branches, tags = listing("heads", repository.branches), listing("tags", repository.tags)
        self.answer({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    @route("POST", "/api/models/{repo}/branch/{name}")
    def create_branch(self, repo: str, name: str) -> None:
        repository = self.writable(repo)
        self.add_ref(repository, repository.branches, name, self.json().get("startingPoint", "main"))

    @route("POST", "/api/models/{repo}/tag/{revision}")
    def create_tag(self, repo: str, revision: str) -> None:
        repository = self.writable(repo)
        self.add_ref(repository, repository.tags, self.json()["tag"], revision)

    def add_ref(self, repository: Repository, refs: dict[str, str], name: str, revision: str) -> None:
        if name in repository.branches or name in repository.tags:
            raise HubError(409, f"Reference already exists: {name}")
        refs[name] = repository.at(revision).oid
        self.answer()

    @route("DELETE", "/api/models/{repo}/branch/{name}")
    def delete_branch(self, repo: str, name: str) -> None:
        if name == "main":
            raise HubError(403, "Cannot delete the main branch")
        self.delete_ref(self.writable(repo).branches, name)

    @route("DELETE", "/api/models/{repo}/tag/{name}")
    def delete_tag(self, repo: str, name: str) -> None:
        self.delete_ref(self.writable(repo).tags, name)

    def delete_ref(self, refs: dict[str, str], name: str) -> None:
        if refs.pop(name, None) is None:
            raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
        self.answer()

    @route("GET", "/api/models/{repo}/commits/{revision}")
    def commits(self, repo: str, revision: str) -> None:
        author = {"user": owner_of(repo)}
        self.answer(
            [
                {"id": item.oid, "title": item.title, "message": item.message, "date": item.date, "authors": [author]}
                for item in self.readable(repo).history(revision)
            ]
        )

    @route("GET", "/api/models/{repo}/tree/{revision}")
    @route("GET", "/api/models/{repo}/tree/{revision}/{path}")
    def tree(self, repo: str, revision: str, path: str = "") -> None:
        commit = self.readable(repo).at(revision)
        prefix = f"{path.rstrip('/')}/" if path else ""
        entries = [entry for entry in tree_entries(commit) if entry["path"].startswith(prefix)]
        if prefix and not entries:
            raise HubError(404, f"{path} does not exist", "EntryNotFound", {"X-Repo-Commit": commit.oid})
        if self.query.get("recursive", ["false"])[0].lower() != "true":
            entries = [entry for entry in entries if "/" not in entry["path"][len(prefix) :]]
        self.answer(entries)

    @route("POST", "/api/models/{repo}/paths-info/{revision}")
    def paths_info(self, repo: str, revision: str) -> None:
        paths = parse_qs(self.content.decode()).get("paths", [])
        commit = self.readable(repo).at(revision)
        self.answer([entry for entry in tree_entries(commit) if entry["path"] in paths])

    @route("POST", "/api/models/{repo}/preupload/{revision}")
    def preupload(self, repo: str, revision: str) -> None:
        files = self.writable(repo).at(revision).files
        answers = []
        for file in self.json()["files"]:
            mode = "lfs" if is_large(file["path"], file["size"], base64.b64decode(file["sample"])) else "regular"
            present = {"oid": files[file["path"]].etag} if file["path"] in files else {}
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **present})
        self.answer({"files": answers})

    @route("POST", "/{repo}[.]git/info/lfs/objects/batch")
    def lfs_batch(self, repo: str) -> None:
        repository = self.writable(repo)
        payload = self.json()
        if payload["operation"] != "upload" or "basic" not in payload["transfers"]:
            raise HubError(400, "The local Hub knows uploads with the basic transfer only")
        verify = {"href": f"{self.hub.endpoint}/{repo}.git/info/lfs/objects/verify"}
        objects = []
        for item in payload["objects"]:
            actions = {"upload": {"href": self.signed_url(repo, item["oid"])}, "verify": verify}
            known = repository.has_object(item["oid"])
            objects.append({"oid": item["oid"], "size": item["size"], **({} if known else {"actions": actions})})
        self.answer({"transfer": "basic", "objects": objects})

    @route("POST", "/{repo}[.]git/info/lfs/objects/verify")
    def lfs_verify(self, repo: str) -> None:
        repository, item = self.writable(repo), self.json()
        if not repository.has_object(item["oid"]):
            raise HubError(404, "No such object")
        if (repository.directory / item["oid"]).stat().st_size != item["size"]:
            raise HubError(400, "The object has another size")
        self.answer()

    def signed_url(self, repo: str, oid: str) -> str:
        return f"{self.hub.storage}/{repo}/{oid}?signature={self.hub.storage_key}"

    @route("POST", "/api/models/{repo}/commit/{revision}")
    def commit(self, repo: str, revision: str) -> None:
        repository = self.writable(repo)
        if "create_pr" in self.query:
            raise HubError(400, "The local Hub has no pull requests")
        header, *lines = [json.loads(line) for line in self.content.splitlines()]
        operations = []
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                value = {"path": value["path"], "content": base64.b64decode(value["content"], validate=True)}
                _, errors = check_card(value["content"].decode()) if value["path"] == "README.md" else ([], [])
                if errors:
                    raise HubError(400, f"Invalid metadata in README.md: {errors[0]}")
            operations.append((line["key"], value))
        commit = repository.commit(revision, header["value"], operations)
        url = f"{self.hub.endpoint}/{repo}/commit/{commit.oid}"
        self.answer({"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})

    @route("GET", "/{repo}/resolve/{revision}/{path}")
    @route("HEAD", "/{repo}/resolve/{revision}/{path}")
    def resolve(self, repo: str, revision: str, path: str) -> None:
        repository = self.with_files(repo)
        commit = repository.at(revision)
        blob = repository.blob(path, commit.oid)
        headers = {"X-Repo-Commit": commit.oid, "Content-Disposition": f"inline; filename*=UTF-8''{quote(path)}"}
        if blob.sha256 is None:
            source = repository.source(blob)
            self.answer_file(source, blob.etag, {"Content-Type": "text/plain; charset=utf-8", **headers})
            return
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        self.send_head(302, {"Location": self.signed_url(repo, blob.sha256), **headers}, 0)


def owner_of(repo: str) -> str:
    return repo.removeprefix("datasets/").split("/")[0]


def tree_entries(commit: Commit) -> list[dict]:
    """Files and folders of a commit as the API lists them."""
    folders = {"/".join(path.split("/")[:depth]) for path in commit.files for depth in range(1, path.count("/") + 1)}
    entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders]
    for path, blob in commit.files.items():
        entry = {"type": "file", "oid": blob.git_oid, "size": blob.size, "path": path}
        if blob.sha256 is not None:
            entry["lfs"] = {
                "oid": blob.sha256,
                "sha256": blob.sha256,
                "size": blob.size,
                "pointerSize": len(blob.pointer),
            }
        entries.append(entry)
    return sorted(entries, key=lambda entry: entry["path"])
