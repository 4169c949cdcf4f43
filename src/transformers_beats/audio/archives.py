# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Files in tar archives, and where they are."""

import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple


BLOCK_BYTES = 1 << 20


class Member(NamedTuple):
    """File in an archive: its name there, and where it is, if it can be read from its place."""

    name: str
    archive: tarfile.TarFile
    file: tarfile.TarInfo
    is_compressed: bool

    @property
    def offset(self) -> int | None:
        """First byte in the archive; None in a compressed archive, and of a sparse file."""
        return None if self.is_compressed or self.file.issparse() else self.file.offset_data

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.file.size

    def read(self) -> bytes:
        """Reads the file, before the next one is asked for."""
        data = self.archive.extractfile(self.file)
        return data.read() if data is not None else b""


def walk_tar(path: str, is_wanted: Callable[[str], bool]) -> Iterator[Member]:
    """
    Yields the files of a tar archive whose names are wanted, in its order. A link is the file that it leads to.

    Raises:
        `tarfile.TarError`, `EOFError`: where an archive is damaged or cut, after the files before that.
    """
    files: dict[str, tarfile.TarInfo] = {}
    num_bytes = os.path.getsize(path)
    archive, is_compressed = _open_tar(path)
    with archive:
        for member in archive:
            file = _resolve(archive, member, files)
            if file is None or not is_wanted(member.name):
                continue
            if not is_compressed and file.offset_data + file.size > num_bytes:
                raise tarfile.ReadError("unexpected end of data")
            yield Member(member.name, archive, file, is_compressed)
        if not is_compressed:
            _check_rest(path, archive.offset)


def _resolve(
    archive: tarfile.TarFile, member: tarfile.TarInfo, files: dict[str, tarfile.TarInfo]
) -> tarfile.TarInfo | None:
    """Returns the file that a member is or links to, or None, and adds it to the names in `files`."""
    found = member if member.isfile() else None
    if member.islnk():
        found = files.get(posixpath.normpath(member.linkname))
    elif member.issym():
        name = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
        found = files.get(name) or _find_later(archive, name)
    if found is not None:
        files[posixpath.normpath(member.name)] = found
    return found


def _find_later(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo | None:
    """Returns a file that may come later in an archive."""
    try:
        found = next((other for other in archive.getmembers() if posixpath.normpath(other.name) == name), None)
    except tarfile.TarError:
        # The archive's damage is found when it is read up to there.
        return None
    return found if found is not None and found.isfile() else None


def _check_rest(path: str, start: int) -> None:
    """
    Raises a `tarfile.ReadError` unless all is zero from where the files of an archive end: a header that is damaged,
    and another archive behind this one, look like the end.
    """
    with open(path, "rb") as file:
        file.seek(start)
        while block := file.read(BLOCK_BYTES):
            if block.count(0) < len(block):
                raise tarfile.ReadError(f"no file begins at byte {start}, and more follows")


def _open_tar(path: str) -> tuple[tarfile.TarFile, bool]:
    """Opens a tar archive; returns it, and whether it is compressed."""
    try:
        return tarfile.open(path, "r:"), False
    except tarfile.ReadError:
        return tarfile.open(path), True


__all__ = ["Member", "walk_tar"]
