# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""A manifest with one small model, its mirrors on the local Hub and its website, and accidents."""

import hashlib
import os
import resource
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import yaml
from golden import FIXTURES
from huggingface_hub import CommitOperationAdd, HfApi, constants

from transformers_beats import BeatsModel
from transformers_beats.conversion import released
from transformers_beats.utils.errors import BeatsError

from .server import LocalHub


NAME = "beats-small"
SOURCE = FIXTURES / "beats_tiny.pt"
FIRST, SECOND = "user/first", "user/second"


@dataclass
class Release:
    """
    The model `beats-small`, a golden checkpoint, in a manifest of its own.

    Attributes:
        api: client of the owner of the mirrors, for whom the process of the tests is a stranger.
        manifest: file for `TRANSFORMERS_BEATS_MANIFEST`.
        home: directory for `HF_HOME`; converted models are in `cache`.
    """

    hub: LocalHub
    api: HfApi
    manifest: Path
    home: Path
    content: bytes = field(default_factory=SOURCE.read_bytes)

    def __post_init__(self):
        self.write_manifest(self.upload(FIRST), self.upload(SECOND))

    def write_manifest(self, *mirrors: str, **values) -> None:
        """Writes the manifest, with other `values` of the entry if there are any."""
        entry = {
            "file": SOURCE.name,
            "name": NAME,
            "kind": "pretrained",
            "bytes": len(self.content),
            "sha256": self.sha256,
            "mirrors": list(mirrors),
        }
        self.manifest.write_text(yaml.safe_dump({"checkpoints": [entry | values]}))

    def upload(self, repo: str, content: bytes | None = None, repo_type: str = "model") -> str:
        """The location of a file in a repository, which is made if it is not there."""
        self.api.create_repo(repo, repo_type=repo_type, exist_ok=True)
        operation = CommitOperationAdd(SOURCE.name, self.content if content is None else content)
        self.api.create_commit(repo, [operation], commit_message="Upload", repo_type=repo_type)
        return f"hf://{'datasets/' if repo_type == 'dataset' else ''}{repo}/{SOURCE.name}"

    def share(self, content: bytes | None = None) -> str:
        """The address of a file on the website."""
        file = self.manifest.with_name("shared.pt")
        file.write_bytes(self.content if content is None else content)
        return self.hub.share(f"files/{SOURCE.name}", file)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def cache(self) -> Path:
        return self.home / "transformers-beats"

    @property
    def models(self) -> list[Path]:
        """Directories of the model in the cache, whole or not."""
        return [path for path in (self.cache / NAME).glob("*") if path.is_dir()]

    @property
    def leftovers(self) -> list[str]:
        """What runs have left in the cache of converted models besides models, locks and downloads."""
        hidden = (path for path in self.cache.rglob(".*") if path.name != ".lock" and ".downloads" not in path.parts)
        return sorted(str(path.relative_to(self.cache)) for path in hidden)

    def environment(self, **variables: str) -> dict[str, str]:
        """Environment of a fresh process, signed out."""
        variables |= {"TRANSFORMERS_BEATS_MANIFEST": str(self.manifest), "OMP_NUM_THREADS": "1"}
        return self.hub.environment(self.home, signed_in=False, **variables)


def assert_complete(directory: Path, release: Release) -> None:
    """Checks that a directory holds the model, and that nothing else is left."""
    assert BeatsModel.from_pretrained(directory).config.hidden_size == 64
    assert release.leftovers == []


def failure(**kwargs) -> str:
    """The message if `get` fails: one line."""
    with pytest.raises(BeatsError) as error:
        released.get(NAME, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """No file can be written beyond this size, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def interrupt() -> None:
    """Sends Ctrl-C to this process, whose main thread receives it."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@contextmanager
def interrupt_when_silent(hub: LocalHub) -> Iterator[None]:
    """Sends Ctrl-C once the Hub has fallen silent; until then, the client is patient."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
        pool.submit(lambda: hub.is_silent.wait(60) and interrupt())
        yield


class Malicious:
    """Object whose pickle runs a command when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def save_malicious(file: Path, marker: Path) -> None:
    """Writes a checkpoint that makes `marker` if it is loaded without care."""
    torch.save({"cfg": {}, "model": Malicious(marker)}, file)
