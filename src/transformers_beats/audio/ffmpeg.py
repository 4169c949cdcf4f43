# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Formats that libsndfile does not know, decoded by the program `ffmpeg` or by torchcodec, where one is installed."""

import io
import os
import re
import shutil
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
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
# Seconds by which the times of packets may differ from those of their samples, which some formats round, and by which
# they may at the beginning of ASF: the decoder of WMA leaves out two packets.
MAX_SHIFT, MAX_SHIFT_ASF = 0.05, 0.2
# Seconds of silence for a jump of the times in a file that does not state its length. A longer jump is damage.
MAX_SILENCE = 60
# An expression of ffmpeg that passes all samples on and prints two times in seconds for the first packet, and for each
# that begins later than the one before it ends: those of this end and of the beginning. Variable 0 is the end.
PRINT_JUMPS = (
    f"st(1,gt(pts-ld(0),{MAX_SHIFT}/TB));if(ld(1)+not(n),print(ld(0)*TB);print(pts*TB));if(ld(1),st(0,pts));"
    "st(0,ld(0)+samples_n/(sample_rate*TB));1"
)
FILTER_ARGUMENTS = ["-vn", "-af", f"aselect='{PRINT_JUMPS}'"]
# The format AU has rate and channels in its header, and needs no length.
OUTPUT_ARGUMENTS = [*FILTER_ARGUMENTS, "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
# Formats in which ffmpeg counts the times from the first stream that it decodes, and not from the first one.
SHIFTED_FORMATS = ("mpeg", "mpegts")
# Error codes of libsndfile for an unknown format or codec. For a file that is called `.mp3` and is none, the first is
# "no such file".
UNKNOWN_FORMAT_CODES = (1, 3, 7, *RESOURCE_FORK_CODES)
# For a codec that it does not know in a format that it does.
UNKNOWN_CODEC_CODES = (4, 18, 64)
# Lines of ffmpeg: modules, level, message. Those with tags, which may hold any text, begin with more spaces.
LINE = re.compile(r"((?:\[[^]]* @ [^]]*\] )*)\[(\w+)\] (.*)")
DURATION = re.compile(r"  Duration: (\d+):(\d+):(\d+\.\d+)(?:, start: (-?\d+\.\d+))?")
INPUT = re.compile(r"Input #0, (\S+), from ")
STREAM = re.compile(r"  Stream #0:[^ ]+: (Audio|Video|Subtitle): ")
TIME = re.compile(r"-?(\d+\.\d+|nan)")
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
        check_file(source, name, refusal)
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
    # Whatever libsndfile says: for a codec that it does not know, it may find the header damaged.
    if kind is not None and program is not None:
        return _open_with_ffmpeg(program, source, name, "" if is_unknown else reason)
    try:
        # A torchcodec that does not fit PyTorch or FFmpeg fails with any of these.
        from torchcodec.decoders import AudioDecoder  # ty: ignore[import-not-found]
    except (ImportError, OSError, RuntimeError) as error:
        if is_unknown and kind is not None:
            message = f"{name}: is {kind}, which needs FFmpeg: {INSTALL}, or convert the file to WAV or FLAC."
        elif kind is not None and getattr(refusal, "code", None) in UNKNOWN_CODEC_CODES:
            message += f" FFmpeg may know its codec: {INSTALL}, or convert the file to WAV or FLAC."
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


def check_file(path: str | Path, name: str, refusal: Exception) -> None:
    """Raises an [`AudioError`] for a path at which there is no audio, or none that can be read again."""
    if os.path.isdir(path):
        raise AudioError(f"{name}: is a directory, and no file.")
    if os.path.islink(path) and not os.path.exists(path):
        raise AudioError(f"{name}: is a link to a file that is not there.")
    if not os.path.exists(path):
        raise AudioError(f"{name}: no such file.")
    if not os.path.isfile(path):
        raise AudioError(
            f"{name}: is a pipe or a device, and not in a format that libsndfile reads from one, such as WAV: "
            f"{reason_of(refusal).rstrip('.')}. Of raw samples, `listen - --rate HERTZ` has to be told the rate."
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


class _Log:
    """
    Lines that ffmpeg prints to a file, read while it runs.

    Attributes:
        format (`str`):
            Name of the format.
        start (`float`):
            Time at which the file begins, in seconds.
        seconds (`float`, *optional*):
            Its length, with that of pictures; `None` if none stands in it.
        num_streams (`int`):
            Number of streams of sound, pictures and subtitles.
        first_error (`str`):
            The first error, without the names of modules.
        errors (`list[str]`):
            Those that concern the sound: the ones before it begins may be of pictures, of which none is decoded.
        jumps (`list[float]`):
            Pairs of times that `PRINT_JUMPS` has printed.
    """

    def __init__(self, path: Path):
        self.file = path.open("rb")
        self.rest = b""
        self.format, self.start, self.num_streams = "", 0.0, 0
        self.seconds: float | None = None
        self.first_error = ""
        self.errors: list[str] = []
        self.jumps: list[float] = []
        self._is_begun = self._is_estimated = False

    @property
    def stated_seconds(self) -> float | None:
        """Length of the sound: not stated if other streams may be longer, or if it was cut from a longer stream."""
        return self.seconds if self.num_streams == 1 and self.start <= MAX_SHIFT else None

    def is_possible(self, begin: float, end: float) -> bool:
        """Returns whether a jump stays within the file."""
        return end - begin <= MAX_SILENCE if self.seconds is None else end <= self.seconds + BLOCK_SECONDS

    def update(self) -> None:
        """Reads the lines that have come. Those about samples are there before the samples are."""
        *lines, self.rest = (self.rest + self.file.read()).split(b"\n")
        for line in lines:
            if found := LINE.fullmatch(line.decode(errors="replace").rstrip("\r")):
                self._add(*found.groups())

    def _add(self, modules: str, level: str, message: str) -> None:
        if level in ("error", "fatal"):
            self.first_error = self.first_error or one_line(message)
            # It complains about times that do not increase, as in joined files, and writes none.
            if self._is_begun and not modules.startswith("[au @"):
                self.errors.append(one_line(message))
        elif self._is_begun:
            self.jumps += [float(message)] if TIME.fullmatch(message) else []
        elif message.startswith("Stream mapping:"):
            self._is_begun = True
        elif message.startswith("Estimating duration"):
            self._is_estimated = True
        elif found := INPUT.match(message):
            self.format = found[1]
        elif STREAM.match(message) and "(attached pic)" not in message:
            self.num_streams += 1
        elif found := DURATION.match(message):
            hours, minutes, seconds, self.start = map(float, found.groups(default="0"))
            self.seconds = None if self._is_estimated else 3600 * hours + 60 * minutes + seconds


def _open_with_ffmpeg(program: str, source: Source, name: str, refusal: str) -> Recording:
    """Starts ffmpeg, which writes its samples to a pipe while they are read. `refusal` is what libsndfile has said."""
    stack = ExitStack()
    try:
        directory = stack.enter_context(work_directory(Path(tempfile.gettempdir()), "beats-audio-"))
        path = _path_of(source, directory)
        arguments = [program, *INPUT_ARGUMENTS, "-i", f"file:{path}", *OUTPUT_ARGUMENTS]
        with (directory / "log").open("wb") as errors:
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        output = process.stdout
        assert output is not None
        stack.callback(_end, process, output)
        log = _Log(directory / "log")
        stack.enter_context(log.file)
        header = output.read(24)
        if len(header) == 24:
            offset, _, _, rate, channels = struct.unpack_from(">5I", header, 4)
            output.read(offset - 24)
            log.update()
        else:
            process.wait()
            log.update()
            reason = log.first_error.replace(f"file:{path}: ", "") or "Format not recognised."
            before = f"{refusal.rstrip('.')}; by ffmpeg: " if refusal else ""
            raise AudioError(f"{name}: cannot be decoded: {before}{reason}")
        is_shifted = log.format in SHIFTED_FORMATS and log.num_streams > 1
        delay = _find_delay(program, path, directory) if is_shifted else 0.0
    except BaseException:
        stack.close()
        raise
    notes: list[str] = []

    def read(first: int) -> Iterator[np.ndarray]:
        num_skipped = first
        with stack:
            for block in _fill_jumps(output, log, rate, channels, delay, notes):
                if num_skipped < len(block):
                    yield block[num_skipped:]
                num_skipped = max(0, num_skipped - len(block))
            is_whole = process.wait() == 0
            log.update()
        if not is_whole:
            raise AudioError(f"{name}: cannot be decoded to its end: {log.first_error}")
        if log.errors:
            count = "an error" if len(log.errors) == 1 else f"{len(log.errors)} errors, the first one"
            notes.append(f"ffmpeg reports {count}: {log.errors[0].rstrip('.')}")
        recording.note = ", ".join(notes)

    recording = Recording(rate, read, stated_seconds=log.stated_seconds, expected_seconds=log.seconds)
    # If it is never read.
    weakref.finalize(recording, stack.close)
    return recording


def _find_delay(program: str, path: str, directory: Path) -> float:
    """Returns how many seconds after its pictures the sound of a file in one of `SHIFTED_FORMATS` begins."""
    arguments = [program, *INPUT_ARGUMENTS, "-copyts", "-i", f"file:{path}", *FILTER_ARGUMENTS, "-frames:a", "1"]
    with (directory / "start").open("wb") as errors:
        subprocess.run([*arguments, "-f", "null", "-"], stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
    log = _Log(directory / "start")
    with log.file:
        log.update()
    return log.jumps[1] - log.start if len(log.jumps) > 1 else 0.0


def _fill_jumps(
    output: IO[bytes], log: _Log, rate: int, channels: int, delay: float, notes: list[str]
) -> Iterator[np.ndarray]:
    """
    Yields blocks `(num_samples, channels)`, float32, with silence where a file has no sound: for `delay` seconds at
    its beginning, and where the times of its packets jump. Adds to `notes` what is missing within it.
    """
    frame_bytes = 4 * channels
    size = max(1, min(BLOCK_SECONDS * rate, BLOCK_SAMPLES // channels))

    def silence(count: int) -> Iterator[np.ndarray]:
        return (np.zeros((min(size, count - place), channels), np.float32) for place in range(0, count, size))

    if delay > MAX_SHIFT and log.is_possible(0, delay):
        yield from silence(round(delay * rate))
    # In samples: read, passed in jumps, and of these, within the file as silence or not at all.
    num_read = num_jumped = num_silent = num_left_out = 0
    is_first = True
    while data := output.read(frame_bytes * size):
        block = np.frombuffer(data[: len(data) // frame_bytes * frame_bytes], dtype=">f4").astype(np.float32)
        block = block.reshape(-1, channels)
        log.update()
        while len(log.jumps) > 1 and (place := round(log.jumps[0] * rate) - num_jumped - num_read) < len(block):
            begin, end = log.jumps[:2]
            del log.jumps[:2]
            # Where rate or channels change, ffmpeg counts from 0 again.
            is_jump = end - begin > MAX_SHIFT and (is_first or begin > 0)
            count = round(end * rate) - round(begin * rate) if is_jump else 0
            num_jumped += count
            if count > 0 and not log.is_possible(begin, end):
                num_left_out += count
            elif count > 0 and not (is_first and log.format == "asf" and end <= MAX_SHIFT_ASF):
                place = max(0, place)
                yield block[:place]
                yield from silence(count)
                num_silent += 0 if is_first else count
                num_read, block = num_read + place, block[place:]
            is_first = False
        yield block
        num_read += len(block)
    if num_silent > 0:
        notes.append(f"{num_silent / rate:.3f} s within it are missing, which are silence here")
    if num_left_out > 0:
        notes.append(f"its times jump by {num_left_out / rate:.3f} s, which are left out")


def _path_of(source: Source, directory: Path) -> str:
    """Returns the path of a file, which is a copy for one in memory or opened in Python: most formats need seeks."""
    if isinstance(source, (str, Path)):
        return os.path.abspath(source)
    path = directory / "audio"
    with path.open("wb") as file:
        if isinstance(source, bytes):
            file.write(source)
        else:
            source.seek(0)
            shutil.copyfileobj(source, file)
    return str(path)


def _end(process: subprocess.Popen, output: IO[bytes]) -> None:
    process.kill()
    process.wait()
    output.close()
