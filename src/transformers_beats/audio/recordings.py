# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Recordings in files, opened with libsndfile: each of several, to its true end."""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import soundfile

from transformers_beats.utils.errors import BeatsError, first_line

from .containers import RIFF, Part, Reader, find_parts, is_unknown_size


Source: TypeAlias = str | Path | bytes | BinaryIO

# Largest block that is decoded at once, in seconds, so that resampling to a higher rate makes no block large, and in
# samples of all channels, so that no rate or number of channels in a damaged header does.
BLOCK_SECONDS = 1
BLOCK_SAMPLES = 1 << 20
# Formats and encodings in which libsndfile finds every sample at once and exactly.
SEEKABLE_FORMATS = frozenset({"AIFF", "AU", "CAF", "FLAC", "RF64", "W64", "WAV", "WAVEX"})
SEEKABLE_SUBTYPES = frozenset({"ALAW", "DOUBLE", "FLOAT", "PCM_16", "PCM_24", "PCM_32", "PCM_S8", "PCM_U8", "ULAW"})
# In hertz, of files and arrays. At 1e300, soxr never ends.
MAX_RATE = 1 << 31
# Length that libsndfile gives for a file of unknown length, such as a FLAC that was written to a pipe.
UNKNOWN_FRAMES = (1 << 63) - 1
# Errors of libsndfile about resource forks, in which Sound Designer II keeps its header, and about a path of more than
# 1,024 bytes.
RESOURCE_FORK_CODES = range(148, 155)
NAME_CODES = (*RESOURCE_FORK_CODES, 174)
# Bytes of a sample.
SAMPLE_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


class AudioError(BeatsError):
    """Audio that cannot be used. The message names the file."""


@dataclass
class Recording:
    """
    A recording that is open.

    Args:
        sampling_rate (`int`):
            Its rate in hertz.
        read (`Callable[[int], Iterator[np.ndarray]]`):
            Function that returns its blocks `(num_samples, num_channels)`, float32, from a sample on.
        num_samples (`int`, *optional*):
            Its length, if that is known before it is read.
        stated_seconds (`float`, *optional*):
            Its length in the header, if that states one.
        notes (`list[str]`):
            What is missing, for a warning; complete once it is read.
        is_last (`bool`, defaults to `True`):
            Whether no other recording follows it in its file.
        expected_seconds (`float`, *optional*):
            Its length, for showing progress: that of the pictures too, of a video.
    """

    sampling_rate: int
    read: Callable[[int], Iterator[np.ndarray]]
    num_samples: int | None = None
    stated_seconds: float | None = None
    notes: list[str] = field(default_factory=list)
    is_last: bool = True
    expected_seconds: float | None = None


class SequentialFile(soundfile.SoundFile):
    """Prevents soundfile's seek to the current place after each read, which resets the MP3 decoder."""

    def seekable(self) -> bool:
        return False


class FileObject:
    """
    A file in memory or opened in Python, or pieces of it, for libsndfile. An exception, which C code would print and
    take for the end of the file, is kept in `error`.
    """

    def __init__(self, file: BinaryIO, pieces: tuple[bytes | range, ...] | None = None):
        self.file = file
        self.place = 0
        self.pieces = pieces
        self.starts = np.cumsum([0, *map(len, pieces or ())])
        self.error: Exception | None = None

    def read(self, size: int) -> bytes:
        try:
            return bytes(self.file.read(size)) if self.pieces is None else self._read_pieces(self.pieces, size)
        except Exception as error:  # those of any storage
            self.error = error
            return b""

    def seek(self, offset: int, whence: int) -> None:
        if self.pieces is not None:
            self.place = max(0, offset + (0, self.place, int(self.starts[-1]))[whence])
            return
        # A damaged file may point to before its beginning, which libsndfile finds out from the place after the seek.
        with contextlib.suppress(OSError, ValueError):
            self.file.seek(offset, whence)

    def tell(self) -> int:
        if self.pieces is not None:
            return self.place
        try:
            return self.file.tell()
        except Exception as error:  # those of any storage
            self.error = error
            return -1

    def _read_pieces(self, pieces: tuple[bytes | range, ...], size: int) -> bytes:
        found = []
        while size > 0 and self.place < self.starts[-1]:
            index = int(np.searchsorted(self.starts, self.place, side="right")) - 1
            piece, offset = pieces[index], self.place - int(self.starts[index])
            if isinstance(piece, range):
                self.file.seek(piece.start + offset)
                data = bytes(self.file.read(min(size, len(piece) - offset)))
                # A file that has become shorter.
                if not data:
                    break
            else:
                data = piece[offset : offset + size]
            found.append(data)
            self.place += len(data)
            size -= len(data)
        return b"".join(found)


def name_of(source: Source) -> str:
    """Returns the name of a file in messages."""
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    if isinstance(source, (str, Path)):
        return str(source)
    return str(getattr(source, "name", f"a {type(source).__name__}"))


def reason_of(error: Exception) -> str:
    """Returns the message of an error in one line."""
    if isinstance(error, soundfile.LibsndfileError):
        # Its words for a header that cannot be right.
        return re.sub("(Unspecified i|I)nternal error.*", "Its header is damaged.", error.error_string)
    return first_line(error)


def open_recordings(source: Source) -> Iterator[Recording]:
    """
    Opens the recordings in a file, each when it is asked for.

    Raises:
        [`AudioError`]: if a file object cannot be read, or a header cannot be right.
        `soundfile.SoundFileError`, `OSError`, `RuntimeError`, `TypeError`: if libsndfile refuses it.
    """
    name = name_of(source)
    if isinstance(source, (str, Path)):
        # Not of pipes and devices, which can be read once.
        parts = _parts_of_path(source) if os.path.isfile(source) else []
        if len(parts) <= 1 and not _is_changed(parts, lambda: os.path.getsize(source)):
            yield _open(name, source, parts[0] if parts else None, None)
            return
        file = open(source, "rb")  # noqa: SIM115
    else:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        try:
            file.seek(0)
            parts = find_parts(Reader(file))
            file.seek(0)
        except Exception as error:  # those of any storage
            raise AudioError(f"{name}: cannot be read: {reason_of(error)}") from error
    try:
        yield replace(_open(name, source, parts[0] if parts else None, file), is_last=len(parts) <= 1)
        for number, part in enumerate(parts[1:], start=2):
            try:
                recording = _open(name, source, part, file)
            except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
                which = f"recording {number} of {len(parts)} in it"
                raise AudioError(f"{name}: cannot be decoded to its end: {which}: {reason_of(error)}") from error
            yield recording
    finally:
        if file is not source:
            file.close()


def _is_changed(parts: list[Part], size: Callable[[], int]) -> bool:
    return bool(parts) and parts[0].pieces != (range(size()),)


def _parts_of_path(path: str | Path) -> list[Part]:
    stat = os.stat(path)
    return _cached_parts(os.fspath(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)


# Parts of a file are read again and again in training.
@lru_cache(maxsize=1 << 14)
def _cached_parts(path: str, inode: int, size: int, modified: int) -> list[Part]:
    with open(path, "rb") as file:
        return find_parts(Reader(file))


def _open(name: str, source: Source, part: Part | None, opened: BinaryIO | None) -> Recording:
    """Opens a part of a file, given by its path or as an object in Python."""
    if part is not None and part.sampling_rate is not None and not 1 <= part.sampling_rate < MAX_RATE:
        raise AudioError(f"{name}: its header states a sampling rate of {part.sampling_rate:g} Hz.")
    wrapped = None if opened is None else FileObject(opened, None if part is None else part.pieces)
    # As bytes, since a name may not be valid text.
    target: Any = os.fsencode(source) if wrapped is None else wrapped  # ty: ignore[invalid-argument-type]
    try:
        file = _open_file(target)
    except (soundfile.SoundFileError, OSError, RuntimeError, TypeError):
        if wrapped is not None and wrapped.error is not None:
            raise AudioError(f"{name}: cannot be read: {reason_of(wrapped.error)}") from wrapped.error
        raise
    if (file.format, file.subtype) == ("PAF", "PCM_24"):
        raise AudioError(f"{name}: is PAF with 24 bits, which libsndfile may decode wrongly. Use another format.")
    num_samples = file.frames if file.frames < UNKNOWN_FRAMES else None
    is_piped = wrapped is None and part is None and not os.path.isfile(str(source))
    if is_piped and is_unknown_size(file.frames * file.channels * SAMPLE_BYTES.get(file.subtype, 1), RIFF):
        # As a program writes it that cannot go back to the header.
        num_samples = None
    # Where a file ends before the length in its header, libsndfile gives that of what is there; it cannot for a pipe.
    is_stated = num_samples is not None and (is_piped if part is None else part.is_length_decoders)
    stated = num_samples / file.samplerate if is_stated else None if part is None else part.stated_seconds

    def read(first: int) -> Iterator[np.ndarray]:
        return _read_blocks(file, wrapped, name, first)

    return Recording(file.samplerate, read, num_samples, stated, [part.note] if part is not None and part.note else [])


def _open_file(target: Any) -> SequentialFile:
    """
    Opens a path or an object. libsndfile takes a file of which it knows no signature, such as MP3 without tags, for
    Sound Designer II if `._NAME` lies beside it, where macOS keeps attributes. Without its name, none is looked for,
    and the name may have any length.
    """
    try:
        return SequentialFile(target)
    except soundfile.LibsndfileError as error:
        if not isinstance(target, bytes) or error.code not in NAME_CODES:
            raise
    return SequentialFile(os.open(target, os.O_RDONLY | getattr(os, "O_BINARY", 0)), closefd=True)


def _read_blocks(file: soundfile.SoundFile, opened: FileObject | None, name: str, first: int) -> Iterator[np.ndarray]:
    """Reads a file block by block, from a sample on."""
    with file:
        size = max(1, min(BLOCK_SECONDS * file.samplerate, BLOCK_SAMPLES // file.channels))
        num_read = 0
        # Some formats hold a little more, to fill their last packet.
        while num_read < file.frames:
            try:
                if num_read < first and _can_seek(file):
                    num_read = file.seek(first)
                channels = file.read(min(size, file.frames - num_read), dtype="float32", always_2d=True)
                if opened is not None and opened.error is not None:
                    raise opened.error
            except Exception as error:
                seconds = f"only {num_read / file.samplerate:.3f} s"
                raise AudioError(f"{name}: cannot be decoded to its end, {seconds}: {reason_of(error)}") from error
            if len(channels) == 0:
                return
            num_skipped = max(0, first - num_read)
            num_read += len(channels)
            if num_skipped < len(channels):
                yield channels[num_skipped:]


def _can_seek(file: soundfile.SoundFile) -> bool:
    is_exact = file.format in SEEKABLE_FORMATS and file.subtype in SEEKABLE_SUBTYPES
    return is_exact and file.frames < UNKNOWN_FRAMES


def decode_all(decoder: Any, name: str) -> Any:
    """Decodes with torchcodec: samples with `data` `(num_channels, num_samples)` and `sample_rate`."""
    try:
        return decoder.get_all_samples()
    except (OSError, RuntimeError, ValueError) as error:
        raise AudioError(f"{name}: cannot be decoded: {reason_of(error)}") from error
