# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Writing without leaving anything half-written."""

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

from .errors import BeatsError, UsageError, name_some


# Imported in the function, so that --help comes at once.
if TYPE_CHECKING:
    import numpy as np

# A configuration has some kB, one with the names of 10,000 classes under 1 MB; YAML is read at about 0.1 MB a second.
MAX_SETTINGS_BYTES = 5_000_000
# Name of the file that `replace_file` gives: a digest of the target's name, then the writer's machine, process and a
# number of its own. Without the writer in files of older versions.
PARTIAL = re.compile(r"\.[0-9a-f]{16}(\.(?P<machine>[0-9a-f]{16})-(?P<process>\d{1,9})-[0-9a-f]{8})?\.partial")
# A file that nobody has written to for so long is what a killed run has left, wherever it ran.
SECONDS_LEFT = 24 * 3600


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
    _remove_leftovers(target.absolute().parent)
    # Short, since names are as long as the file system allows. Each writer has a file of its own: of several, the last
    # one decides, with all that it has written.
    digest = hashlib.blake2b(os.fsencode(target.name), digest_size=8).hexdigest()
    temporary = target.with_name(f".{digest}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        # Made with the umask.
        temporary.touch()
        allowed = temporary.stat().st_mode & 0o666
        temporary.unlink()
        yield temporary
        _allow(temporary, allowed)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """Returns a digest of where the number of a process means this one: the host since its start, or a container."""
    facts = [socket.gethostname()]
    with suppress(OSError):
        facts += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.blake2b("\n".join(facts).encode(), digest_size=8).hexdigest()


# Once in a process: a folder may have a million files, and as many are written to it.
@lru_cache(1024)
def _remove_leftovers(directory: Path) -> None:
    """Removes what killed runs have left of [`replace_file`] in a directory."""
    # The directory may not be there, and a file may be gone or belong to another user.
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if name := PARTIAL.fullmatch(entry.name):
                with suppress(OSError):
                    if _is_left(entry, name):
                        os.unlink(entry.path)


def _is_left(entry: "os.DirEntry[str]", name: "re.Match[str]") -> bool:
    """Returns whether the writer of a file is gone: its process has ended, or has written nothing for a day."""
    if name["machine"] == _machine() and not _is_running(int(name["process"])):
        return True
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > SECONDS_LEFT


def _is_running(process: int) -> bool:
    """Returns whether a process of this machine may be running."""
    # On Windows, the same call would end it.
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _allow(path: Path, mode: int) -> None:
    """Adds permissions: a library may write a file for its owner only, as safetensors does."""
    path.chmod(path.stat().st_mode | mode)


def _allow_files(directory: Path) -> None:
    """Gives the files of a new directory the permissions of the directory, which was made with the umask."""
    allowed = directory.stat().st_mode & 0o666
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            _allow(path, allowed)


def replace_directory(new: Path, target: Path) -> None:
    """
    Moves the directory `new` to `target` on the same disk. An older `target` goes only once `new` is in its place; if
    the move fails or is interrupted, it comes back.
    """
    _allow_files(new)
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
    """
    Raises a [`UsageError`] if the file that a command writes exists and is not to be overwritten, or if it cannot be
    written: it is a folder, or as [`check_place`] says.
    """
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a folder, and a file is to be written.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"{path}: is a device or a pipe, and a file is to be written.")
    if os.path.exists(path) and not overwrite:
        raise UsageError(f"{path}: exists; pass --overwrite to replace it.")
    check_place(path)


def check_folder_of(path: Path, overwrite: bool = True) -> None:
    """Raises a [`UsageError`] for a file that cannot be written ([`check_absent`]), or whose folder is not there."""
    check_absent(path, overwrite)
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}.")


def check_place(path: Path) -> None:
    """
    Raises a [`UsageError`] for an output that cannot be made or replaced: its folder, or the nearest one above that is
    there, is closed to writing, what should be a folder is a file, or a name is too long.
    """
    path = path.absolute()
    missing = [folder for folder in path.parents if not os.path.isdir(folder)]
    folder = next(folder for folder in path.parents if os.path.isdir(folder))
    for above in missing:
        if os.path.lexists(above):
            raise UsageError(f"{path}: cannot be written: {above} is no folder.")
    for name in [path.name, *(above.name for above in missing)]:
        try:
            # In the folder that is there: in one that is not, each name is merely missing.
            os.lstat(folder / name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: cannot be written: {folder} is closed to writing.")


def make_directory(directory: Path) -> None:
    """Makes a directory for outputs, if it is not there; raises a [`UsageError`] if it cannot."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be an output directory: {error.strerror}.") from error


@contextmanager
def new_directory(target: Path, check: Callable[[], object] | None = None) -> Generator[Path, None, None]:
    """
    Yields a directory to write to, which becomes `target` at the end, or is gone if an exception was raised. An empty
    `target` that [`is_fixed`] is filled. Before any other one is replaced, to which others may have written meanwhile,
    `check` is called.
    """
    target = target.absolute()
    make_directory(target.parent)
    is_filled = is_fixed(target) and not any(target.iterdir())
    with work_directory(target if is_filled else target.parent, ".writing-") as work:
        (work / "new").mkdir()
        yield work / "new"
        if is_filled:
            _fill_directory(work / "new", target)
            return
        if check is not None:
            check()
        replace_directory(work / "new", target)


def is_fixed(directory: Path) -> bool:
    """Returns whether a directory is there and cannot be moved: a mount point, or in a folder closed to writing."""
    is_open = os.access(directory.absolute().parent, os.W_OK | os.X_OK)
    return os.path.isdir(directory) and (os.path.ismount(directory) or not is_open)


def _fill_directory(new: Path, target: Path) -> None:
    """
    Moves what is in `new` to the directory `target`, in which `new` itself is, and nothing else. If a move fails or is
    interrupted, all goes back.
    """
    if others := sorted(path.name for path in target.iterdir() if path != new.parent):
        raise UsageError(f"{target}: was empty, and now holds {name_some(others)}: move it away, and begin again.")
    _allow_files(new)
    moved = []
    try:
        # What makes a directory that of a model comes last.
        for path in sorted(new.iterdir(), key=lambda path: path.name == "config.json"):
            moved.append(path.name)
            path.rename(target / path.name)
    except BaseException:
        for name in moved:
            if (target / name).exists():
                (target / name).rename(new / name)
        raise


class _OnlyWrites:
    """A file for numpy, which writes to it some megabytes at a time."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream

    def write(self, data: bytes) -> int:
        return self.stream.write(data)


def write_array(path: Path, array: "np.ndarray") -> None:
    """Writes a .npy file. An error of the disk is raised, also one that comes when the file is closed."""
    import numpy as np

    with path.open("wb") as stream:
        # To a file of Python, numpy would write behind its back, and not notice a failure to flush.
        np.save(_OnlyWrites(stream), array)


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
