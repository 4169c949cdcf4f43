# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Writing without leaving anything half-written."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .errors import BeatsError, UsageError


# A configuration has some kB, one with the names of 10,000 classes under 1 MB; YAML is read at about 0.1 MB a second.
MAX_SETTINGS_BYTES = 5_000_000


@contextmanager
def work_directory(parent: Path, prefix: str) -> Generator[Path, None, None]:
    """
    A new directory in `parent` that is gone at the end, whatever happens in between: unlike with
    `tempfile.TemporaryDirectory`, there is no moment at which it exists and an exception, for example from a signal
    handler, would leave it behind.
    """
    path = parent / f"{prefix}{secrets.token_hex(6)}"
    try:
        path.mkdir(mode=0o700)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def replace_file(target: Path) -> Generator[Path, None, None]:
    """Gives a path beside `target` to write to, which then takes its place, or is gone if an exception was raised."""
    # Short, since names are as long as the file system allows, and always the same one: what a killed run has left is
    # written over.
    digest = hashlib.blake2b(os.fsencode(target.name), digest_size=8).hexdigest()
    temporary = target.with_name(f".{digest}.partial")
    try:
        # Made with the umask.
        temporary.unlink(missing_ok=True)
        temporary.touch()
        allowed = temporary.stat().st_mode & 0o666
        temporary.unlink()
        yield temporary
        _allow(temporary, allowed)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _allow(path: Path, mode: int) -> None:
    """Adds permissions: a library may write a file for its owner only, as safetensors does."""
    path.chmod(path.stat().st_mode | mode)


def replace_directory(new: Path, target: Path) -> None:
    """
    Moves the directory `new` to `target` on the same disk. An older `target` goes only once `new` is in its place; if
    the move fails or is interrupted, it comes back.
    """
    # The directory was made with the umask.
    allowed = new.stat().st_mode & 0o666
    for path in new.rglob("*"):
        if path.is_file() and not path.is_symlink():
            _allow(path, allowed)
    with work_directory(target.parent, ".old-") as trash:
        old = trash / target.name
        try:
            if target.exists():
                target.rename(old)
            new.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise


def check_new(path: Path) -> None:
    """Raises a [`UsageError`] if an output exists already: nothing is overwritten."""
    if path.exists():
        raise UsageError(f"{path} exists already: move it away, or choose another `output_dir`.")


def check_absent(path: Path, overwrite: bool) -> None:
    """Raises a [`UsageError`] if an output of a command exists and is not to be overwritten."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; pass --overwrite to replace it.")


def check_folder_of(path: Path) -> None:
    """Raises a [`UsageError`] for a file that cannot be written: its folder is not there, or it is a folder itself."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, and a file is to be written.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}.")


def make_directory(directory: Path) -> None:
    """Makes a directory for outputs, if it is not there; raises a [`UsageError`] if it cannot."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be an output directory: {error.strerror}.") from error


@contextmanager
def new_directory(target: Path) -> Generator[Path, None, None]:
    """Yields a directory to write to, which becomes `target` at the end, or is gone if an exception was raised."""
    target = target.absolute()
    make_directory(target.parent)
    with work_directory(target.parent, ".writing-") as work:
        (work / "new").mkdir()
        yield work / "new"
        replace_directory(work / "new", target)


def sha256(path: Path) -> str:
    """Returns the hash of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_file(path: Path) -> None:
    """Raises a [`UsageError`] for a path that is no regular file."""
    if not path.is_file():
        raise UsageError(f"{path}: {'is no regular file' if path.exists() else 'no such file'}.")


def check_settings_size(name: str | Path, num_bytes: int) -> None:
    """Raises a [`BeatsError`] for a file that is too large to hold settings."""
    if num_bytes > MAX_SETTINGS_BYTES:
        raise BeatsError(f"{name}: has {num_bytes / 1e6:.0f} MB, which are no settings.")


def read_yaml(path: Path) -> Mapping[str, Any]:
    """
    Reads a YAML or JSON file of keys and values.

    Raises:
        [`UsageError`]: if there is no such file.
        [`BeatsError`]: if it is too large, cannot be read, or holds something else.
    """
    check_file(path)
    check_settings_size(path, path.stat().st_size)
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
        contents = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except Exception as error:  # dates that are none, too many brackets: not only YAMLError
        raise BeatsError(f"{path}: not a YAML or JSON file.") from error
    if not isinstance(contents, Mapping):
        raise BeatsError(f"{path}: expected keys and values, found {type(contents).__name__}.")
    return contents
