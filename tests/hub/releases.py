# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""A manifest with one small model, and its mirrors on the local Hub and its website."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from golden import FIXTURES
from huggingface_hub import CommitOperationAdd, HfApi

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
            "sha256": hashlib.sha256(self.content).hexdigest(),
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
    def cache(self) -> Path:
        return self.home / "transformers-beats"

    @property
    def leftovers(self) -> list[str]:
        """What runs have left in the cache of converted models besides models and locks."""
        hidden = (path for path in self.cache.rglob(".*") if path.name != ".lock")
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
