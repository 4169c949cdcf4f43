# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Search for audio files in folders, the same for inference and training."""

import io
import os
import re
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypeVar, overload

from transformers_beats.utils.errors import UsageError


# Formats that soundfile reads and, after them, those that need the program ffmpeg, or torchcodec.
AUDIO_SUFFIXES = frozenset(
    (
        *(".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp2", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd"),
        *(".sph", ".voc", ".w64", ".wav"),
        *(".aac", ".m4a", ".mka", ".mkv", ".mp4", ".webm", ".wma", ".wv"),
    )
)
# Formats of raw samples by their names in ffmpeg and sox: type as of numpy, and what full scale is.
RAW_FORMATS = {"s16le": ("<i2", 2**15), "s32le": ("<i4", 2**31), "f32le": ("<f4", 1), "u8": ("u1", 2**7)}
# Folders that systems make beside those of their users, in lower case: of archives of macOS, network storage, Windows,
# Linux and Python.
SYSTEM_FOLDERS = frozenset(
    (
        *("__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "recycler", "system volume information"),
        *("lost+found", "__pycache__"),
    )
)


T = TypeVar("T")
# Name of standard input on command lines.
STDIN = "-"


class NamedBytes(io.BytesIO):
    """Content of a file, with its name for messages."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name


@dataclass(frozen=True, slots=True)
class AudioFile:
    """
    An input of a command. Paths are kept as text: a `Path` takes longer to make than all else of a million files.

    Args:
        full_name (`str`):
            Path of the file, as it was named or found.
        short_name (`str`):
            Path within the folder that was named, or the file's name: its place in an output directory.
        data (`bytes`, *optional*):
            Content of standard input, which has no path.
    """

    full_name: str
    short_name: str
    data: bytes | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        """The file, as it was named or found."""
        return Path(self.full_name)

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.full_name if self.data is None else "standard input"

    @property
    def address(self) -> str:
        """Absolute path, or "-" for standard input."""
        if self.data is not None:
            return STDIN
        # What is above the target of a link is not what is above the link; the current folder is none.
        is_above = f"{os.sep}{os.pardir}{os.sep}" in self.full_name.lstrip(f"{os.curdir}{os.sep}")
        return place_of(self.full_name) if is_above else os.path.abspath(self.full_name)

    def open(self) -> "Path | NamedBytes":
        """Returns what decoders read."""
        return self.path if self.data is None else NamedBytes(self.data, self.name)

    def result(self, directory: Path, suffix: str) -> Path:
        """Returns the file of its results in a directory. The name keeps its suffix: `a.wav` and `a.flac` are two."""
        return Path(directory, self.short_name + suffix)


class FileList(Sequence[AudioFile]):
    """
    Files of a command line, each of which is made when it is asked for: a million of them take a few bytes each more
    than their names. Slices share the names.

    Args:
        from_one_folder (`bool`, defaults to `False`):
            Whether all files are of one folder, so that no two have the same `short_name`.
    """

    def __init__(self, from_one_folder: bool = False):
        self.from_one_folder = from_one_folder
        # Beginnings of the paths in folders that were named; of a file that was named itself, `None`.
        self._folders: list[str | None] = []
        self._folder_of, self._names, self._ends = array("I"), bytearray(), array("Q", [0])
        # Of those that this is a part of.
        self._rows: Sequence[int] | None = None

    def add(self, folder: str | None, names: Iterable[str]) -> None:
        """Adds files of a folder by their paths in it or, without a folder, by their paths."""
        # As in a `Path`, the current folder has no name.
        self._folders.append("" if folder == os.curdir else folder and os.path.join(folder, ""))
        for name in names:
            self._names += os.fsencode(name)
            self._ends.append(len(self._names))
            self._folder_of.append(len(self._folders) - 1)

    def take(self, rows: Sequence[int]) -> "FileList":
        """Returns a part: the files of these numbers."""
        part = FileList(self.from_one_folder)
        part._folders, part._folder_of = self._folders, self._folder_of
        part._names, part._ends = self._names, self._ends
        part._rows = rows if self._rows is None else array("Q", (self._rows[row] for row in rows))
        return part

    def _all_rows(self) -> Sequence[int]:
        return range(len(self._folder_of)) if self._rows is None else self._rows

    def __len__(self) -> int:
        return len(self._all_rows())

    @overload
    def __getitem__(self, index: int) -> AudioFile: ...

    @overload
    def __getitem__(self, index: slice) -> "FileList": ...

    def __getitem__(self, index: int | slice) -> "AudioFile | FileList":
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        row = self._all_rows()[index]
        name = os.fsdecode(bytes(self._names[self._ends[row] : self._ends[row + 1]]))
        folder = self._folders[self._folder_of[row]]
        return AudioFile(name, os.path.basename(name)) if folder is None else AudioFile(folder + name, name)


def place_of(path: str | Path, real_path: Callable[[str], str] = os.path.realpath) -> str:
    """
    Returns the real path of a file's folder and its name. A link to a file is another file than its target. With
    `real_path`, a function of a folder, many files are asked for at the cost of their folders.
    """
    directory, name = os.path.split(path)
    return os.path.join(real_path(directory), name)


def remember_folders() -> Callable[[str], str]:
    """Returns a function for [`place_of`] that asks for the real path of each of the last folders once."""
    return lru_cache(maxsize=1 << 12)(os.path.realpath)


def check_no_url(path: str | Path) -> None:
    """Raises a [`UsageError`] for an address, such as `https://...`."""
    # One slash of two is left in a `Path`; a letter alone is a drive of Windows.
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(path)) and not os.path.exists(path):
        raise UsageError(
            f"{path}: addresses are not fetched: download the file first, and pass its path or its bytes."
        )


def walk_folder(
    folder: str | Path, suffixes: Collection[str] = AUDIO_SUFFIXES, special_suffixes: Collection[str] = ()
) -> Iterator[str]:
    """
    Yields the files in a folder, and in those below it, that have one of some suffixes.

    Links to folders are followed, except to those that they lie in. A folder is listed once, also if links lead to it
    from several places; under its own path if that is below `folder`. Hidden files and folders are left out, and those
    of systems, such as `__MACOSX`: they hold other programs' data, such as notes about files of the same name. So are
    folders that may not be read. A link to a file that is not there is listed, so that whoever reads it can name it.
    Pipes, sockets and devices, which may block whoever opens them, are left out with a warning, except those that have
    one of `special_suffixes`: these are listed for a caller that names them and does not open them.
    Suffixes are given in lower case, with their dots; those of files may be in any case. The paths begin with
    `folder`; they come in the order of their parts, except that those behind links to folders are last.
    """
    root = str(folder)
    searched: set[str] = set()
    links: list[str] = []
    # What nested folders hold that is left to look at: names of files, entries of folders and links; and real paths.
    stack: list[tuple[str, Iterator[str | os.DirEntry], str]] = []

    def enter(path: str, place: str) -> None:
        if place not in searched:
            searched.add(place)
            stack.append((os.path.join(path, ""), iter(_list_audio(path, suffixes, special_suffixes)), place))

    enter(root, os.path.realpath(root))
    while stack or links:
        if not stack:
            # After all folders that are reached without them.
            link = links.pop(0)
            enter(link, os.path.realpath(link))
            continue
        folder_path, entries, place = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, str):
            yield folder_path + entry
        elif entry.is_symlink():
            if os.path.isdir(entry.path):
                # A link to a folder that it lies in would lead to all that lies beside.
                if not Path(place).is_relative_to(os.path.realpath(entry.path)):
                    links.append(entry.path)
            elif has_suffix(entry.name, suffixes) and (
                os.path.isfile(entry.path)
                or not os.path.exists(entry.path)
                or _is_wanted(entry.path, special_suffixes)
            ):
                yield entry.path
        else:
            enter(entry.path, os.path.join(place, entry.name))


def _is_wanted(special: str, suffixes: Collection[str]) -> bool:
    """Returns whether a pipe, socket or device has one of some suffixes; if not, warns that it is left out."""
    if has_suffix(special, suffixes):
        return True
    # Not above: commands that only show their help need no transformers.
    from transformers.utils import logging

    logger = logging.get_logger(__name__)
    logger.warning(f"{special}: is no file that can be read again, but a pipe, a socket or a device: it is left out.")
    return False


def _list_audio(
    directory: str, suffixes: Collection[str], special_suffixes: Collection[str]
) -> list[str | os.DirEntry]:
    """
    Returns what a directory holds that [`walk_folder`] looks at, by name: folders and links as entries, and files that
    have one of some suffixes as their names alone, since there may be a million of them.
    """

    def name_or_entry(entry: os.DirEntry) -> str | os.DirEntry | None:
        if entry.is_symlink() or entry.is_dir():
            return entry
        if not has_suffix(entry.name, suffixes):
            return None
        return entry.name if entry.is_file() or _is_wanted(entry.path, special_suffixes) else None

    def name_of(found: str | os.DirEntry) -> str:
        return found if isinstance(found, str) else found.name

    return sorted(filter(None, _list_entries(directory, name_or_entry)), key=name_of)


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


def _list_entries(directory: str, take: Callable[[os.DirEntry], T]) -> list[T]:
    """
    Returns what `take` makes of each entry of a directory that is not hidden; nothing, with a warning, if it cannot be
    listed.
    """
    try:
        with os.scandir(directory) as entries:
            return [take(entry) for entry in entries if not is_hidden(entry.name)]
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
        for entry in sorted(_list_entries(str(folder), lambda entry: entry), key=lambda entry: entry.name)
        if (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir())
        or (with_missing and entry.is_symlink() and not os.path.exists(entry.path))
    ]


def find_audio(inputs: Iterable[Path]) -> FileList:
    """
    Lists the files of a command line: those named, and the audio files in the folders named; each once.

    Raises:
        [`UsageError`]: if an input does not exist, or there is no audio.
    """
    inputs = list(inputs)
    for path in inputs:
        if not path.exists():
            check_no_url(path)
            raise UsageError(f"{path}: no such file or folder.")
    if len(inputs) == 1 and inputs[0].is_dir():
        # A folder has each file once: nothing is held to compare with.
        files = _add_folder(FileList(from_one_folder=True), str(inputs[0]))
    else:
        files = FileList()
        for folder, group in groupby(_find_once(inputs), key=itemgetter(0)):
            files.add(folder, map(itemgetter(1), group))
    if not files:
        raise UsageError(f"No audio in {', '.join(map(str, inputs))}.")
    return files


def _add_folder(files: FileList, folder: str) -> FileList:
    """Adds the audio files in a folder, sorted as by [`search_folder`], to a list without files, and returns it."""
    last, is_sorted = [""], True

    def names() -> Iterator[str]:
        nonlocal last, is_sorted
        for path in walk_folder(folder):
            name = path[len(folder) :].lstrip(os.sep)
            parts = name.split(os.sep)
            last, is_sorted = parts, is_sorted and last < parts
            yield name

    files.add(folder, names())
    if is_sorted:
        return files
    # Only links to folders are out of order.
    ordered = FileList(files.from_one_folder)
    ordered.add(folder, sorted((file.short_name for file in files), key=lambda name: name.split(os.sep)))
    return ordered


def _find_once(inputs: Iterable[Path]) -> Iterable[tuple[str | None, str]]:
    """Returns folder and name of each file of several inputs. What is named twice has its place in the last folder."""
    found: dict[str, tuple[str | None, str]] = {}
    real_path = remember_folders()
    for path in inputs:
        if path.is_dir():
            for file in _add_folder(FileList(), str(path)):
                found[place_of(file.full_name, real_path)] = (str(path), file.short_name)
        else:
            found.setdefault(place_of(path, real_path), (None, str(path)))
    return found.values()


def check_names(files: Iterable[AudioFile]) -> None:
    """Raises a [`UsageError`] if results of two files would have one name in an output directory."""
    if isinstance(files, FileList) and files.from_one_folder:
        return
    owners: dict[str, str] = {}
    for file in files:
        other = owners.setdefault(file.short_name, file.full_name)
        if other != file.full_name:
            raise UsageError(
                f"{other} and {file.full_name} would both be written as {file.short_name}: name the folder above "
                "them, or choose another output directory for one."
            )
