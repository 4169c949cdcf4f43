# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Brings a converted directory to the Hub, in one commit, and makes sure that what arrived is right."""

import json
import multiprocessing
import tempfile
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
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

from .checkpoint import sha256


# Weights and code of an earlier publication that the new one does not have go in the same commit.
STALE = ["*.safetensors", "*.safetensors.index.json", "*.bin", "*.py"]
PROBE_SECONDS = 0.5


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
    Raises a [`PublishingError`] unless `repo_id` names a repository of an account that the token may write to: asked
    before the conversion, which takes longer.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishingError(f"{repo_id!r} is not the name of a repository: {error}") from None
    account, _, name = repo_id.rpartition("/")
    if not account:
        raise PublishingError(f"{repo_id!r} lacks the account: write account/{name}.")
    with hub_errors():
        user = HfApi().whoami()
    accounts = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
    if account not in accounts:
        raise PublishingError(f"the token may write to {', '.join(accounts)}, not to {account}.")
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PublishingError("the token may only read: make one that may write.")


def publish(
    directory: Path, repo_id: str, private: bool = False, revision: str | None = None, checked: str | None = None
) -> Publication:
    """
    Uploads `directory` to the Hub and compares what can be downloaded afterwards.

    The repository changes in a single commit, which the Hub makes when all files have arrived: an upload that fails
    leaves nothing visible, and the next one sends only what is missing. Without a difference there is no commit, but
    the download is compared all the same.

    Args:
        directory (`Path`):
            A converted directory.
        repo_id (`str`):
            `account/name`; made if it does not exist.
        private (`bool`, defaults to `False`):
            Whether a new repository is private. One that exists must be private already.
        revision (`str`, *optional*):
            A branch, made if it does not exist; `main` by default.
        checked (`str`, *optional*):
            A commit whose download was compared before, and needs not be again.

    Raises:
        [`PublishingError`]: if the Hub cannot be reached or refuses, if private weights would become public, if the
            repository holds another model, or if the download differs.
    """
    api = HfApi()
    with hub_errors():
        # Without --private, an organisation's own default holds.
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise PublishingError(f"{repo_id}: exists and is public, so --private would not be kept.")
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        before = str(api.model_info(repo_id, revision=revision).sha)
        check_is_ours(repo_id, before)
        files = {path.name: path for path in sorted(directory.iterdir())}
        stale = [
            name
            for name in api.list_repo_files(repo_id, revision=before)
            if name not in files and "/" not in name and any(fnmatch(name, pattern) for pattern in STALE)
        ]
        # Not `upload_folder`, which may divide a slow upload into several commits.
        commit = api.create_commit(
            repo_id,
            [*(CommitOperationAdd(*item) for item in files.items()), *map(CommitOperationDelete, stale)],
            commit_message=f"transformers-beats {transformers_beats.__version__}",
            revision=revision,
            parent_commit=before,
        ).oid
        # Also without a new commit: the run before may have been interrupted here.
        if commit != checked:
            check_download(directory, repo_id, commit)
    return Publication(repo_id, commit, is_new=commit != before)


def check_is_ours(repo_id: str, commit: str) -> None:
    """Raises a [`PublishingError`] if a repository holds a model that is not BEATs, which would be overwritten."""
    api = HfApi()
    if not api.file_exists(repo_id, "config.json", revision=commit):
        return
    with tempfile.TemporaryDirectory() as cache:
        path = api.hf_hub_download(repo_id, "config.json", revision=commit, cache_dir=cache)
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if not str(model_type).startswith("beats"):
        raise PublishingError(f"{repo_id}: holds another model (`model_type` {model_type!r}); nothing was changed.")


def check_download(directory: Path, repo_id: str, commit: str) -> None:
    """
    Downloads `commit` into an empty cache and compares it with `directory`: each file byte by byte, then what both
    models compute from the same sound.

    Raises:
        [`PublishingError`]: naming the first difference.
    """
    with tempfile.TemporaryDirectory() as cache:
        paths = sorted(directory.iterdir())
        names = [path.name for path in paths]
        downloaded = Path(HfApi().snapshot_download(repo_id, revision=commit, cache_dir=cache, allow_patterns=names))
        for path in paths:
            copy = downloaded / path.name
            if not copy.is_file():
                raise PublishingError(f"{repo_id} at {commit}: {path.name} did not arrive; publish it again.")
            if sha256(copy) != sha256(path):
                raise PublishingError(f"{repo_id} at {commit}: {path.name} differs from what was sent.")
        # The hashes are equal; the last digits of a result may still differ from run to run.
        outputs = [probe_in_fresh_process(path) for path in (downloaded, directory)]
        if not np.allclose(*outputs, rtol=1e-4, atol=1e-5):
            raise PublishingError(f"{repo_id} at {commit}: the model computes something else than {directory}.")


def probe_in_fresh_process(directory: Path) -> np.ndarray:
    """[`probe`] as a user would see it, and without the memory of what this process did before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(probe, directory).result()


@torch.no_grad()
def probe(directory: Path) -> np.ndarray:
    """What the model in `directory` makes of a fixed noise: logits, hidden states or codes."""
    extractor = BeatsFeatureExtractor.from_pretrained(directory)
    architecture = AutoConfig.from_pretrained(directory).architectures[0]
    model = getattr(transformers_beats, architecture).from_pretrained(directory)
    num_samples = round(PROBE_SECONDS * extractor.sampling_rate)
    audio = 0.1 * torch.randn(num_samples, generator=torch.Generator().manual_seed(0))
    return model(**extractor(audio, sampling_rate=extractor.sampling_rate, return_tensors="pt"))[0].float().numpy()
