# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Search for audio files in folders, the same for inference and training."""

import io
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformers_beats.utils.errors import UsageError


# Formats that soundfile reads and, after them, those that need the program ffmpeg, or torchcodec.
AUDIO_SUFFIXES = frozenset(
    (
        *(".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp2", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd"),
        *(".sph", ".voc", ".w64", ".wav"),
        *(".aac", ".m4a", ".mka", ".mkv", ".mp4", ".webm", ".wma", ".wv"),
    )
)
# Folders that systems make beside those of their users, in lower case: of archives of macOS, network storage, Windows,
# Linux and Python.
SYSTEM_FOLDERS = frozenset(
    (
        *("__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "recycler", "system volume information"),
        *("lost+found", "__pycache__"),
    )
)


# Name of standard input on command lines.
STDIN = "-"


class NamedBytes(io.BytesIO):
    """Content of a file, with its name for messages."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name


@dataclass(frozen=True)
class AudioFile:
    """
    An input of a command.

    Args:
        path (`Path`):
            The file, as it was named or found.
        relative (`Path`):
            Path within the folder that was named, or the file's name: its place in an output directory.
        data (`bytes`, *optional*):
            Content of standard input, which has no path.
    """

    path: Path
    relative: Path
    data: bytes | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Name for messages."""
        return str(self.path) if self.data is None else "standard input"

    @property
    def address(self) -> str:
        """Absolute path, or "-" for standard input."""
        return os.path.abspath(self.path) if self.data is None else STDIN

    def open(self) -> "Path | NamedBytes":
        """Returns what decoders read."""
        return self.path if self.data is None else NamedBytes(self.data, self.name)

    def result(self, directory: Path, suffix: str) -> Path:
        """Returns the file of its results in a directory. The name keeps its suffix: `a.wav` and `a.flac` are two."""
        return directory / self.relative.with_name(self.relative.name + suffix)


def place_of(path: str | Path) -> Path:
    """Returns the real path of a file's folder and its name. A link to a file is another file than its target."""
    directory, name = os.path.split(os.path.abspath(path))
    return Path(os.path.realpath(directory), name)


def check_no_url(path: str | Path) -> None:
    """Raises a [`UsageError`] for an address, such as `https://...`."""
    # One slash of two is left in a `Path`; a letter alone is a drive of Windows.
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(path)) and not os.path.exists(path):
        raise UsageError(
            f"{path}: addresses are not fetched: download the file first, and pass its path or its bytes."
        )


def walk_folder(folder: str | Path, suffixes: Collection[str] = AUDIO_SUFFIXES) -> Iterator[str]:
    """
    Yields the files in a folder, and in those below it, that have one of some suffixes.

    Links to folders are followed, except to those that they lie in. A folder is listed once, also if links lead to it
    from several places; under its own path if that is below `folder`. Hidden files and folders are left out, and those
    of systems, such as `__MACOSX`: they hold other programs' data, such as notes about files of the same name. So are
    folders that may not be read. A link to a file that is not there is listed, so that whoever reads it can name it.
    Suffixes are given in lower case, with their dots; those of files may be in any case. The paths begin with
    `folder`; they come in the order of their parts, except that those behind links to folders are last.
    """
    root = str(folder)
    searched: set[str] = set()
    links: list[str] = []
    # Entries of nested folders that are left to look at, and the real path of each.
    stack: list[tuple[Iterator[os.DirEntry], str]] = []

    def enter(path: str, place: str) -> None:
        if place not in searched:
            searched.add(place)
            stack.append((iter(_list_entries(path)), place))

    enter(root, os.path.realpath(root))
    while stack or links:
        if not stack:
            # After all folders that are reached without them.
            link = links.pop(0)
            enter(link, os.path.realpath(link))
            continue
        entries, place = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
        elif entry.is_symlink():
            if os.path.isdir(entry.path):
                # A link to a folder that it lies in would lead to all that lies beside.
                if not Path(place).is_relative_to(os.path.realpath(entry.path)):
                    links.append(entry.path)
            elif has_suffix(entry.name, suffixes) and (os.path.isfile(entry.path) or not os.path.exists(entry.path)):
                yield entry.path
        elif entry.is_dir():
            enter(entry.path, os.path.join(place, entry.name))
        elif has_suffix(entry.name, suffixes) and entry.is_file():
            yield entry.path


def search_folder(folder: str | Path, suffixes: Collection[str] = AUDIO_SUFFIXES) -> list[Path]:
    """Lists the files of [`walk_folder`], sorted."""
    return sorted(map(Path, walk_folder(folder, suffixes)))


def has_suffix(name: str, suffixes: Collection[str]) -> bool:
    """Returns whether a name of a file has one of some suffixes, which are given in lower case."""
    _, dot, suffix = name.rpartition(".")
    return bool(dot) and f".{suffix.lower()}" in suffixes


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder of this name is hidden, or one of a system."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def _list_entries(directory: str) -> list[os.DirEntry]:
    """Returns what a directory holds that is not hidden, by name; nothing, with a warning, if it cannot be listed."""
    try:
        with os.scandir(directory) as entries:
            return sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        # Not above: commands that only show their help need no transformers.
        from transformers.utils import logging

        logger = logging.get_logger(__name__)
        logger.warning(f"{directory}: cannot be listed: {error.strerror}: no audio is read from it.")
        return []


def list_folders(folder: Path, with_missing: bool = False) -> list[os.DirEntry]:
    """
    Lists the folders in a folder that are not hidden, and links to folders, by name; `with_missing` also links to what
    is not there.
    """
    return [
        entry
        for entry in _list_entries(str(folder))
        if (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir())
        or (with_missing and entry.is_symlink() and not os.path.exists(entry.path))
    ]


def find_audio(inputs: Iterable[Path]) -> list[AudioFile]:
    """
    Lists the files of a command line: those named, and the audio files in the folders named; each once.

    Raises:
        [`UsageError`]: if an input does not exist, or there is no audio.
    """
    files: dict[Path, AudioFile] = {}
    inputs = list(inputs)
    for path in inputs:
        if path.is_dir():
            files.update((place_of(file), AudioFile(file, file.relative_to(path))) for file in search_folder(path))
        elif path.exists():
            files.setdefault(place_of(path), AudioFile(path, Path(path.name)))
        else:
            check_no_url(path)
            raise UsageError(f"{path}: no such file or folder.")
    if not files:
        raise UsageError(f"No audio in {', '.join(map(str, inputs))}.")
    return list(files.values())


def check_names(files: Iterable[AudioFile]) -> None:
    """Raises a [`UsageError`] if results of two files would have one name in an output directory."""
    owners: dict[Path, Path] = {}
    for file in files:
        other = owners.setdefault(file.relative, file.path)
        if other != file.path:
            raise UsageError(
                f"{other} and {file.path} would both be written as {file.relative}: name the folder above them, or "
                "choose another output directory for one."
            )
