# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Search for audio files in folders, the same for inference and training."""

import io
import os
import re
from collections.abc import Collection, Iterable
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


def search_folder(folder: str | Path, suffixes: Collection[str] = AUDIO_SUFFIXES) -> list[Path]:
    """
    Lists the files in a folder, and in those below it, that have one of some suffixes.

    Links to folders are followed, except to those that they lie in. A folder is listed once, also if links lead to it
    from several places; under its own path if that is below `folder`. Hidden files and folders are left out, and those
    of systems, such as `__MACOSX`: they hold other programs' data, such as notes about files of the same name. So are
    folders that may not be read. A link to a file that is not there is listed, so that whoever reads it can name it.
    Suffixes are given in lower case, with their dots; those of files may be in any case. The paths begin with
    `folder` and are sorted.
    """
    searched: set[str] = set()
    found: list[Path] = []
    # Links come last, after all folders that are reached without them.
    folders, links = [str(folder)], []
    while folders or links:
        directory = folders.pop() if folders else links.pop(0)
        place = os.path.realpath(directory)
        if place in searched:
            continue
        searched.add(place)
        for name in _list_names(directory):
            path = os.path.join(directory, name)
            if os.path.isdir(path):
                # A link to a folder that it lies in would lead to all that lies beside.
                if not os.path.islink(path):
                    folders.append(path)
                elif not Path(place).is_relative_to(os.path.realpath(path)):
                    links.append(path)
            elif os.path.splitext(name)[1].lower() in suffixes and (os.path.isfile(path) or not os.path.exists(path)):
                found.append(Path(path))
    return sorted(found)


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder of this name is hidden, or one of a system."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def _list_names(directory: str) -> list[str]:
    """Returns the sorted names in a directory that are not hidden; none if it may not be read."""
    try:
        return sorted(name for name in os.listdir(directory) if not is_hidden(name))
    except OSError:
        return []


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
