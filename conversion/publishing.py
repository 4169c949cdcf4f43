# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Brings a converted directory to the Hub, in one commit, and makes sure that what arrived is right."""

import gc
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from beats_checkpoint import sha256
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,  # of the HTTP library that this version of huggingface_hub uses
    LocalTokenNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from transformers import AutoConfig

import transformers_beats
from transformers_beats import BeatsFeatureExtractor


# Weights and code of an earlier publication that the new one does not have go in the same commit.
STALE = ["*.safetensors", "*.safetensors.index.json", "*.bin", "*.py"]
PROBE_SECONDS = 2


class PublishingError(Exception):
    """Something that must not be published, or did not arrive, with one line that says why."""


@dataclass
class Publication:
    """A repository on the Hub: its id, the commit, and whether this commit was made now or was there already."""

    repo_id: str
    commit: str
    is_new: bool


@contextmanager
def hub_errors() -> Generator[None, None, None]:
    """Turns what the client raises when the Hub refuses or cannot be reached into a [`PublishingError`]."""
    try:
        yield
    except LocalTokenNotFoundError:
        raise PublishingError("no token: run `hf auth login`, or set HF_TOKEN.") from None
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        # The client wraps what stopped an upload into a RuntimeError that names the file only.
        reasons = [error, error.__cause__] if isinstance(error, RuntimeError) and error.__cause__ else [error]
        text = " ".join(str(reason) or type(reason).__name__ for reason in reasons)
        raise PublishingError(" ".join(text.split())) from error


def check_account(repo_id: str) -> None:
    """
    Raises a [`PublishingError`] unless `repo_id` names a repository and the Hub knows the token: asked before the
    conversion, which takes longer.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishingError(f"{repo_id!r} is not the name of a repository: {error}") from None
    if "/" not in repo_id:
        raise PublishingError(f"{repo_id!r} lacks the account: write account/{repo_id}.")
    with hub_errors():
        HfApi().whoami()


def publish(directory: Path, repo_id: str, private: bool = False, revision: str | None = None) -> Publication:
    """
    Uploads `directory` to the Hub and compares what can be downloaded afterwards.

    The repository changes in a single commit, which the Hub makes when all files have arrived: an upload that fails
    leaves nothing visible, and the next one sends only what is missing. Without a difference there is no commit.

    Args:
        directory (`Path`):
            A converted directory.
        repo_id (`str`):
            `account/name`; made if it does not exist.
        private (`bool`, defaults to `False`):
            Whether a new repository is private. One that exists must be private already.
        revision (`str`, *optional*):
            A branch, made if it does not exist; `main` by default.

    Raises:
        [`PublishingError`]: if the Hub cannot be reached or refuses, if private weights would become public, or if
            the download differs.
    """
    api = HfApi()
    with hub_errors():
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise PublishingError(f"{repo_id}: exists and is public, so --private would not be kept.")
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        before = api.model_info(repo_id, revision=revision).sha
        files = {path.name: path for path in sorted(directory.iterdir())}
        stale = [
            name
            for name in api.list_repo_files(repo_id, revision=before)
            if name not in files and any(fnmatch(name, pattern) for pattern in STALE)
        ]
        # Not `upload_folder`, which may divide a slow upload into several commits.
        commit = api.create_commit(
            repo_id,
            [*(CommitOperationAdd(*item) for item in files.items()), *map(CommitOperationDelete, stale)],
            commit_message=f"transformers-beats {transformers_beats.__version__}",
            revision=revision,
            parent_commit=before,
        ).oid
        is_new = commit != before
        if is_new:
            check_download(directory, repo_id, commit)
    return Publication(repo_id, commit, is_new)


def check_download(directory: Path, repo_id: str, commit: str) -> None:
    """
    Downloads `commit` into an empty cache and compares it with `directory`: each file byte by byte, then what both
    models compute from the same sound.

    Raises:
        [`PublishingError`]: naming the first difference.
    """
    with tempfile.TemporaryDirectory() as cache:
        downloaded = Path(HfApi().snapshot_download(repo_id, revision=commit, cache_dir=cache))
        for path in sorted(directory.iterdir()):
            copy = downloaded / path.name
            if not copy.is_file():
                raise PublishingError(f"{repo_id} at {commit}: {path.name} did not arrive; publish it again.")
            if sha256(copy) != sha256(path):
                raise PublishingError(f"{repo_id} at {commit}: {path.name} differs from what was sent.")
        # The hashes are equal; the last digits of a result may still differ from run to run.
        if not torch.allclose(probe(downloaded), probe(directory), rtol=1e-4, atol=1e-5):
            raise PublishingError(f"{repo_id} at {commit}: the model computes something else than {directory}.")


@torch.no_grad()
def probe(directory: Path) -> torch.Tensor:
    """What the model in `directory` makes of a fixed noise: logits, hidden states or codes."""
    # A model refers to itself, so that one that was used before would still take its memory.
    gc.collect()
    extractor = BeatsFeatureExtractor.from_pretrained(directory)
    architecture = AutoConfig.from_pretrained(directory).architectures[0]
    model = getattr(transformers_beats, architecture).from_pretrained(directory)
    num_samples = PROBE_SECONDS * extractor.sampling_rate
    audio = 0.1 * torch.randn(num_samples, generator=torch.Generator().manual_seed(0))
    return model(**extractor(audio, sampling_rate=extractor.sampling_rate, return_tensors="pt"))[0]
