# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Formats that libsndfile does not know, decoded by the program `ffmpeg` or by torchcodec, where one is installed."""

import io
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from transformers_beats.utils.errors import one_line
from transformers_beats.utils.files import work_directory

from .bitstreams import skip_tags
from .containers import Reader
from .recordings import (
    BLOCK_SAMPLES,
    BLOCK_SECONDS,
    RESOURCE_FORK_CODES,
    AudioError,
    Recording,
    Source,
    decode_all,
    reason_of,
)


# Beginnings of files, at a place, and the names of their formats.
MAGIC = (
    (4, b"ftyp", "MP4 (m4a)"),
    (4, b"moov", "MP4 (m4a)"),
    (4, b"mdat", "MP4 (m4a)"),
    (4, b"wide", "MP4 (m4a)"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF (wma)"),
    (0, b"ADIF", "AAC"),
    (0, b"\xff\xf0", "AAC"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf8", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"\x0b\x77", "AC-3"),
    (0, b"#!AMR", "AMR"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "True Audio"),
    (0, b"tBaK", "TAK"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"DSD ", "DSF"),
    (0, b"\x7f\xfe\x80\x01", "DTS"),
    (0, b"FLV\x01", "Flash video"),
    (0, b"\x00\x00\x01\xba", "MPEG video"),
    (188, b"\x47", "MPEG transport stream"),
    (8, b"AVI ", "AVI"),
    (8, b"WAVE", "WAV with a codec that libsndfile does not know"),
    (0, b"OggS", "Ogg with a codec that libsndfile does not know"),
    (0, b"caff", "CAF with a codec that libsndfile does not know"),
)
# Names of ffmpeg's demuxers: none that reads other files or addresses, as those of playlists do.
DEMUXERS = (
    "aac,ac3,amr,ape,asf,avi,caf,dsf,dts,eac3,flv,loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpc,mpc8,mpeg,mpegts,ogg,"
    "tak,tta,wav,wv"
)
INPUT_ARGUMENTS = ["-nostdin", "-hide_banner", "-nostats", "-v", "level+info"]
INPUT_ARGUMENTS += ["-protocol_whitelist", "file", "-format_whitelist", DEMUXERS]
# The format AU has rate and channels in its header, and needs no length.
OUTPUT_ARGUMENTS = ["-vn", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
# Error codes of libsndfile for an unknown format or codec. For a file that is called `.mp3` and is none, the first is
# "no such file".
UNKNOWN_FORMAT_CODES = (1, 3, 7, *RESOURCE_FORK_CODES)
# A line of ffmpeg that names an error.
ERROR = re.compile(r"^(\[[^]]* @ [^]]*\] )?\[(error|fatal)\] ")
INSTALL = "install the program ffmpeg (https://ffmpeg.org; on Debian and Ubuntu: apt install ffmpeg)"


def open_other(source: Source, name: str, refusal: Exception) -> Recording:
    """
    Opens a file that libsndfile refuses.

    Args:
        source, name:
            File, and its name in messages.
        refusal (`Exception`):
            The error of libsndfile.

    Returns:
        [`Recording`]

    Raises:
        [`AudioError`]: if it cannot be opened, with what to do.
    """
    if isinstance(source, (str, Path)):
        check_file(source, name)
    beginning = _read_beginning(source, name)
    # Of FLAC in Ogg, libsndfile reads only what it writes itself.
    is_unknown = getattr(refusal, "code", None) in UNKNOWN_FORMAT_CODES or beginning.startswith(b"OggS")
    reason = "Format not recognised." if is_unknown else reason_of(refusal)
    message = f"{name}: cannot be decoded: {reason}"
    if is_unknown and _is_text(beginning):
        raise AudioError(
            f"{name}: holds text and no audio: it begins with {beginning[:20].decode(errors='ignore')!r}."
        )
    kind = next((kind for place, magic, kind in MAGIC if beginning[place:].startswith(magic)), None)
    program = shutil.which("ffmpeg")
    if is_unknown and kind is not None and program is not None:
        return _open_with_ffmpeg(program, source, name)
    try:
        # A torchcodec that does not fit PyTorch or FFmpeg fails with any of these.
        from torchcodec.decoders import AudioDecoder  # ty: ignore[import-not-found]
    except (ImportError, OSError, RuntimeError) as error:
        if is_unknown and kind is not None:
            message = f"{name}: is {kind}, which needs FFmpeg: {INSTALL}, or convert the file to WAV or FLAC."
        raise AudioError(message) from error
    try:
        if not isinstance(source, (str, Path, bytes)):
            source.seek(0)
        decoder = AudioDecoder(str(source) if isinstance(source, Path) else source)
    except (OSError, RuntimeError, ValueError) as error:
        raise AudioError(message) from error

    def read(first: int) -> Iterator[np.ndarray]:
        # As a whole: for a part that begins within a packet, torchcodec starts from the beginning.
        yield decode_all(decoder, name).data.float().numpy().T[first:]

    return Recording(decoder.metadata.sample_rate, read, stated_seconds=decoder.metadata.duration_seconds)


def check_file(path: str | Path, name: str) -> None:
    """Raises an [`AudioError`] for a path at which there can be no audio."""
    if os.path.isdir(path):
        raise AudioError(f"{name}: is a directory, and no file.")
    if os.path.islink(path) and not os.path.exists(path):
        raise AudioError(f"{name}: is a link to a file that is not there.")
    if not os.path.exists(path):
        raise AudioError(f"{name}: no such file.")
    if not os.path.isfile(path):
        raise AudioError(
            f"{name}: is a pipe or a device, and not in a format that libsndfile reads from one, such as WAV or FLAC. "
            "Of raw samples, `listen - --rate HERTZ` has to be told the rate."
        )
    if os.path.getsize(path) == 0:
        raise AudioError(f"{name}: is empty, it has no bytes.")


def _read_beginning(source: Source, name: str) -> bytes:
    """Returns the first 512 bytes after tags."""
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with ExitStack() as stack:
            file = stack.enter_context(open(source, "rb")) if isinstance(source, (str, Path)) else source
            reader = Reader(file)
            return reader.read(skip_tags(reader, 0), 512)
    except Exception as error:  # those of any storage
        raise AudioError(f"{name}: cannot be read: {reason_of(error)}") from error


def _is_text(data: bytes) -> bool:
    """Returns whether bytes, of which the last character may be cut off, are text."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3 or error.start == 0:
            return False
        text = data[: error.start].decode("utf-8")
    return bool(text.strip()) and all(letter.isprintable() or letter.isspace() for letter in text)


def _open_with_ffmpeg(program: str, source: Source, name: str) -> Recording:
    """Starts ffmpeg, which writes its samples to a pipe while they are read."""
    stack = ExitStack()
    try:
        path = stack.enter_context(_as_file(source))
        errors = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # closed with the stack
        command = [program, *INPUT_ARGUMENTS, "-i", f"file:{path}", *OUTPUT_ARGUMENTS]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        output = process.stdout
        assert output is not None
        stack.callback(_end, process, output)
        header = output.read(24)
        if len(header) == 24:
            offset, _, _, rate, channels = struct.unpack_from(">5I", header, 4)
            output.read(offset - 24)
        else:
            process.wait()
            reason = _error_of(errors).replace(f"file:{path}: ", "") or "Format not recognised."
            raise AudioError(f"{name}: cannot be decoded: {reason}")
        seconds = _duration_of(errors)
    except BaseException:
        stack.close()
        raise

    def read(first: int) -> Iterator[np.ndarray]:
        with stack:
            frame_bytes, num_skipped = 4 * channels, first
            size = frame_bytes * max(1, min(BLOCK_SECONDS * rate, BLOCK_SAMPLES // channels))
            while data := output.read(size):
                samples = np.frombuffer(data[: len(data) // frame_bytes * frame_bytes], dtype=">f4")
                block = samples.astype(np.float32).reshape(-1, channels)
                if num_skipped < len(block):
                    yield block[num_skipped:]
                num_skipped = max(0, num_skipped - len(block))
            if process.wait() != 0:
                raise AudioError(f"{name}: cannot be decoded to its end: {_error_of(errors)}")

    return Recording(rate, read, stated_seconds=seconds)


@contextmanager
def _as_file(source: Source) -> Generator[str, None, None]:
    """Gives the path of a file, which is a copy for one in memory or opened in Python: most formats need seeks."""
    if isinstance(source, (str, Path)):
        yield os.path.abspath(source)
        return
    with work_directory(Path(tempfile.gettempdir()), "beats-audio-") as directory:
        path = directory / "audio"
        with path.open("wb") as file:
            if isinstance(source, bytes):
                file.write(source)
            else:
                source.seek(0)
                shutil.copyfileobj(source, file)
        yield str(path)


def _end(process: subprocess.Popen, output: IO[bytes]) -> None:
    process.kill()
    process.wait()
    output.close()


def _lines_of(errors: IO[bytes]) -> list[str]:
    errors.seek(0)
    return errors.read().decode(errors="replace").splitlines()


def _error_of(errors: IO[bytes]) -> str:
    """Returns the first error that ffmpeg has printed, without the names of its modules."""
    found = (line for line in _lines_of(errors) if ERROR.search(line))
    return one_line(ERROR.sub("", next(found, "")))


def _duration_of(errors: IO[bytes]) -> float | None:
    """Returns the length that ffmpeg has printed, in seconds, if it stands in the file."""
    text = "\n".join(_lines_of(errors))
    found = re.search(r"Duration: (\d+):(\d+):(\d+\.\d+)", text)
    if found is None or "Estimating duration" in text:
        return None
    hours, minutes, seconds = map(float, found.groups())
    return 3600 * hours + 60 * minutes + seconds
