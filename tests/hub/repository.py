# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What the local Hub stores: repositories as immutable commits, large files on disk, checks of model cards."""

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import yaml


CHUNK_BYTES = 1 << 20
LARGE_FILE_BYTES = 10_000_000
LARGE_FILE_SUFFIXES = (".bin", ".ckpt", ".npy", ".npz", ".onnx", ".pt", ".pth", ".safetensors", ".zip")
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE_FILE_SUFFIXES).encode()


class HubError(Exception):
    """A request that the Hub refuses: HTTP status, message and, where the client looks at it, an error code."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


@dataclass(frozen=True)
class Blob:
    """A file of a commit: a small one with its `content`, or a large one (`sha256`) whose content lies on disk."""

    size: int
    content: bytes | None = None
    sha256: str | None = None

    @property
    def pointer(self) -> bytes:
        """What git stores: the content, or the pointer of Git LFS to it."""
        if self.content is not None:
            return self.content
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def git_oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.pointer) + self.pointer).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 or self.git_oid


@dataclass(frozen=True)
class Commit:
    """One state of all files."""

    oid: str
    parent: "Commit | None"
    title: str
    message: str
    date: str
    files: dict[str, Blob]


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def new_commit(parent: Commit | None, title: str, message: str, files: dict[str, Blob]) -> Commit:
    date = now()
    identity = [parent and parent.oid, title, message, date, *((path, blob.etag) for path, blob in files.items())]
    return Commit(hashlib.sha1(repr(identity).encode()).hexdigest(), parent, title, message, date, files)


@dataclass
class Repository:
    """
    A repository; `directory` holds its large files, each under its SHA-256. The name of a dataset begins with
    `datasets/`. Files of a `gated` one are for its owner and those with `access`, though all see that it is there.
    """

    id: str
    directory: Path
    private: bool = False
    gated: Literal["auto", "manual", False] = False
    access: set[str] = field(default_factory=set)
    created: str = field(default_factory=now)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.directory.mkdir(parents=True)
        attributes = {".gitattributes": Blob(len(GIT_ATTRIBUTES), GIT_ATTRIBUTES)}
        self._add("main", new_commit(None, "initial commit", "", attributes))

    def _add(self, branch: str, commit: Commit) -> Commit:
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def at(self, revision: str) -> Commit:
        """The commit that a branch, a tag or a commit's name stands for."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def blob(self, path: str, revision: str = "main") -> Blob:
        commit = self.at(revision)
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.oid})
        return commit.files[path]

    def history(self, revision: str = "main") -> list[Commit]:
        """Commits from the newest to the oldest."""
        commits: list[Commit] = []
        commit: Commit | None = self.at(revision)
        while commit is not None:
            commits.append(commit)
            commit = commit.parent
        return commits

    def has_object(self, sha256: str) -> bool:
        return (self.directory / sha256).is_file()

    def store(self, sha256: str, chunks: Iterable[bytes]) -> None:
        """Writes a large file; refused unless the content hashes to `sha256`."""
        work = self.directory / f"{sha256}.{secrets.token_hex(4)}.incomplete"
        digest = hashlib.sha256()
        try:
            with work.open("wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise HubError(400, f"Content has SHA-256 {digest.hexdigest()}, expected {sha256}")
            work.rename(self.directory / sha256)
        finally:
            work.unlink(missing_ok=True)

    def source(self, blob: Blob) -> bytes | Path:
        """The content of a small file, or where a large one lies."""
        return self.directory / str(blob.sha256) if blob.content is None else blob.content

    def commit(self, branch: str, header: dict, operations: Iterable[tuple[str, dict]]) -> Commit:
        """
        Applies all `operations` or none: `("file", {path, content as bytes})`, `("lfsFile", {path, oid})`,
        `("deletedFile", {path})` or `("deletedFolder", {path})`.
        """
        if branch not in self.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        parent = self.at(branch)
        if header.get("parentCommit", parent.oid) != parent.oid:
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for key, value in operations:
            path = value["path"]
            if key == "file":
                files[path] = Blob(len(value["content"]), value["content"])
            elif key == "lfsFile":
                if not self.has_object(value["oid"]):
                    raise HubError(400, f"LFS pointer of {path} points to {value['oid']}, which was never uploaded")
                files[path] = Blob((self.directory / value["oid"]).stat().st_size, sha256=value["oid"])
            elif key in ("deletedFile", "deletedFolder"):
                prefix = path.rstrip("/") + "/"
                gone = [
                    name for name in files if (name.startswith(prefix) if key == "deletedFolder" else name == path)
                ]
                if not gone:
                    raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                for name in gone:
                    del files[name]
            else:
                raise HubError(400, f"Unknown operation of a commit: {key}")
        return self._add(branch, new_commit(parent, header["summary"], header.get("description", ""), files))


def read(source: bytes | Path, start: int, stop: int) -> Iterator[bytes]:
    """Content from byte `start` up to `stop`, in chunks."""
    if isinstance(source, bytes):
        yield source[start:stop]
        return
    with source.open("rb") as file:
        file.seek(start)
        while start < stop and (chunk := file.read(min(CHUNK_BYTES, stop - start))):
            start += len(chunk)
            yield chunk


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether a file goes to Git LFS: by its name, its size, or because it is no text."""
    is_text = b"\0" not in sample
    return size > 0 and (path.endswith(LARGE_FILE_SUFFIXES) or size > LARGE_FILE_BYTES or not is_text)


def card_metadata(content: str) -> object:
    """Metadata between the first two lines `---` of a card; None without them. Raises `yaml.YAMLError`."""
    match = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n?---[ \t]*(\r?\n|$)", content, re.DOTALL)
    return yaml.safe_load(match[1]) if match else None


def check_card(content: str) -> tuple[list[str], list[str]]:
    """Warnings and errors of a card's metadata. The Hub also knows lists of licences, languages and tasks."""
    try:
        metadata = card_metadata(content)
    except yaml.YAMLError as error:
        return [], [f"YAML: {error}"]
    if metadata is None:
        return ["empty or missing yaml metadata in repo card"], []
    if not isinstance(metadata, dict):
        return [], ["metadata must be a mapping"]
    errors = []
    for key in ("license", "pipeline_tag", "library_name"):
        values = metadata.get(key, "x")
        for value in values if isinstance(values, list) and key == "license" else [values]:
            if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9.+_-]+", value):
                errors.append(f'"{key}" must be an identifier in lower case, not {value!r}')
    for key in ("tags", "datasets", "metrics", "language", "base_model"):
        values = metadata.get(key, [])
        if not isinstance(values, (str if key in ("language", "base_model") else list, list)):
            errors.append(f'"{key}" must be an array')
        elif not all(isinstance(value, str) for value in values):
            errors.append(f'"{key}" must hold strings only')
    return [], errors + list(check_model_index(metadata.get("model-index", [])))


def check_model_index(entries: object) -> Iterator[str]:
    """Errors of a card's `model-index`: what the Hub needs to show a result."""
    if not isinstance(entries, list):
        yield '"model-index" must be an array'
        return
    for number, entry in enumerate(entries):
        where = f'"model-index[{number}]'
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            yield f'{where}.name" is required'
            continue
        for place, result in enumerate(entry.get("results") or []):
            here = f"{where}.results[{place}]"
            if not result.get("task", {}).get("type"):
                yield f'{here}.task.type" is required'
            for key in ("type", "name"):
                if "dataset" in result and not result["dataset"].get(key):
                    yield f'{here}.dataset.{key}" is required'
            if not result.get("metrics"):
                yield f'{here}.metrics" is required'
            for metric in result.get("metrics") or []:
                if not metric.get("type") or metric.get("value") is None:
                    yield f'{here}.metrics" need a type and a value'
