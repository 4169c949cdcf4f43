# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Publication of a converted directory on the Hub: one commit, compared with the directory after a download."""

import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id

import transformers_beats
from transformers_beats.inference.loading import load_extractor, load_model
from transformers_beats.utils.errors import BeatsError, UsageError, name_some
from transformers_beats.utils.files import sha256
from transformers_beats.utils.hub import hub_errors


# Weights and code of an earlier publication that the new one does not have go in the same commit.
STALE = ["*.safetensors", "*.safetensors.index.json", "*.bin", "*.py"]
# A repository without a `config.json` holds another model if it has, in any folder, one of these.
MODEL = [
    *STALE,
    *("*.pt", "*.pth", "*.ckpt", "*.h5", "*.keras", "*.msgpack", "*.onnx", "*.gguf", "*.tflite", "*.pkl", "*.joblib"),
    *("adapter_config.json", "model_index.json"),
]


class RefusedError(BeatsError):
    """Publication that would fail again: another repository or model is needed, not another attempt."""


class Publication(NamedTuple):
    """Commit on the Hub, and whether it was made now or was there already."""

    commit: str
    is_new: bool


def check_account(repo_id: str) -> None:
    """
    Checks that the token may write to a repository: asked before the conversion, which takes longer.

    Raises:
        [`UsageError`]: if no repository can have that name, or the account is missing in it.
        [`BeatsError`]: if the Hub cannot be reached, or the token may not write to that account.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"{repo_id!r} is not the name of a repository: {error}") from None
    account, _, name = repo_id.rpartition("/")
    if not account:
        raise UsageError(f"{repo_id!r} lacks the account: write account/{name}.")
    with hub_errors():
        user = HfApi().whoami()
    accounts = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
    if account not in accounts:
        raise BeatsError(f"the token may write to {', '.join(accounts)}, not to {account}.")
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise BeatsError("the token may only read: make one that may write.")


def account_name() -> str:
    """Returns the name of the account that the token belongs to; raises a [`BeatsError`] if there is none."""
    with hub_errors():
        return str(HfApi().whoami()["name"])


def files_of(directory: Path, leave_out: Sequence[str] = ()) -> dict[str, Path]:
    """Returns the files of a directory, without those of folders in it, by their names."""
    return {path.name: path for path in sorted(directory.iterdir()) if path.is_file() and path.name not in leave_out}


def publish(
    directory: Path,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    checked: str | None = None,
    leave_out: Sequence[str] = (),
) -> Publication:
    """
    Uploads the files of a directory to the Hub, but those named in `leave_out` and those in its folders, downloads
    them again and compares both.

    The repository changes in a single commit, which the Hub makes when all files have arrived: an upload that fails
    leaves nothing visible, and the next one sends only what is missing. Without a difference there is no commit, but
    the download is compared all the same, unless it was before, as that of the commit `checked`.

    Repository (`account/name`) and branch are made if they do not exist. With `private`, a new repository is private,
    and one that exists must be.

    Raises:
        [`RefusedError`]: if private weights would become public, or the repository holds another model, and nothing
            was changed; or if the published model computes something else.
        [`BeatsError`]: if the Hub cannot be reached or refuses, or if the download differs.
    """
    api = HfApi()
    with hub_errors():
        # Without --private, an organisation's own default holds.
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise RefusedError(f"{repo_id}: exists and is public, so --private would not be kept.")
        try:
            before = str(api.model_info(repo_id, revision=revision).sha)
        except RevisionNotFoundError:
            # A new branch begins as `main`.
            before = str(api.model_info(repo_id).sha)
        present = api.list_repo_files(repo_id, revision=before)
        # Before anything is written.
        check_is_ours(repo_id, before, present)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, revision=before, exist_ok=True)
        files = files_of(directory, leave_out)
        stale = [name for name in present if name not in files and "/" not in name and _matches(name, STALE)]
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
            check_download(directory, repo_id, commit, leave_out)
    return Publication(commit, is_new=commit != before)


def check_is_ours(repo_id: str, commit: str, files: Sequence[str]) -> None:
    """
    Checks that a repository, which has these files, holds a BEATs model or none: another one would be overwritten.
    Raises a [`RefusedError`].
    """
    if "config.json" not in files:
        if found := [name for name in files if _matches(name.rpartition("/")[2], MODEL)]:
            raise RefusedError(f"{repo_id}: holds another model ({name_some(found)}); nothing was changed.")
        return
    with tempfile.TemporaryDirectory() as cache:
        path = HfApi().hf_hub_download(repo_id, "config.json", revision=commit, cache_dir=cache)
        try:
            config = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError:
            config = None
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if not str(model_type).startswith("beats"):
        raise RefusedError(f"{repo_id}: holds another model (`model_type` {model_type!r}); nothing was changed.")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def check_download(directory: Path, repo_id: str, commit: str, leave_out: Sequence[str] = ()) -> None:
    """
    Downloads a commit into an empty cache and compares it with a directory: the files by their hashes, the models by
    their outputs for the same sound.

    Raises:
        [`BeatsError`]: if something differs; the message names the first difference.
    """
    with tempfile.TemporaryDirectory() as cache:
        files = files_of(directory, leave_out)
        names = list(files)
        downloaded = Path(HfApi().snapshot_download(repo_id, revision=commit, cache_dir=cache, allow_patterns=names))
        for path in files.values():
            copy = downloaded / path.name
            if not copy.is_file():
                raise BeatsError(f"{repo_id} at {commit}: {path.name} did not arrive; publish it again.")
            if sha256(copy) != sha256(path):
                raise BeatsError(f"{repo_id} at {commit}: {path.name} differs from what was sent.")
        # The hashes are equal; the last digits of a result may still differ from run to run.
        outputs = probe_in_fresh_process(downloaded, directory)
        if not np.allclose(*outputs, rtol=1e-4, atol=1e-5):
            raise RefusedError(f"{repo_id} at {commit}: the model computes something else than {directory}.")


def probe_in_fresh_process(*directories: Path) -> list[np.ndarray]:
    """Runs [`probe`] as a user's process would, and without the memory of what this process did before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(probe, directories))


@torch.no_grad()
def probe(directory: Path) -> np.ndarray:
    """Returns the first output (logits, hidden states or codes) of the model in a directory for noise of 0.5 s."""
    extractor = load_extractor(directory)
    audio = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    features = extractor(audio, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return load_model(directory)(**features)[0].float().numpy()
