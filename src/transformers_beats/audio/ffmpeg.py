# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Formats that libsndfile does not know, decoded by the program `ffmpeg` or by torchcodec, where one is installed."""

import io
import math
import mmap
import os
import re
import shutil
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from transformers_beats.utils.errors import one_line
from transformers_beats.utils.files import work_directory

from .bitstreams import find_ends, skip_tags
from .containers import TAGS, Reader, find_parts, is_chunked
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
# With the times of the file: otherwise ffmpeg counts, in some formats and versions, from the first stream that it
# decodes, and leaves out jumps of more than 10 s. Sound may begin 30 s after pictures, as far as it looks for streams.
INPUT_ARGUMENTS = ["-nostdin", "-hide_banner", "-nostats", "-v", "level+info", "-copyts"]
INPUT_ARGUMENTS += ["-protocol_whitelist", "file,subfile", "-format_whitelist", DEMUXERS]
INPUT_ARGUMENTS += ["-probesize", "50M", "-analyzeduration", "30M"]
# Tags at the end of a file, which ffmpeg takes for damage of some formats.
TAG_STARTS = (*TAGS, b"LYRICSBEGIN")
# Seconds by which the times of packets may differ from those of their samples, which some formats round, and by which
# they may at the beginning of ASF: the decoder of WMA leaves out two packets.
MAX_SHIFT, MAX_SHIFT_ASF = 0.05, 0.2
# Seconds by which a packet may begin too early: after more, as in joined files, times begin anew.
MAX_EARLY = 1
# Seconds of silence for a jump of the times in a file that does not state its length. A longer jump is damage.
MAX_SILENCE = 60
# An expression of ffmpeg that passes all samples on and prints two times in seconds for each packet that does not
# begin where the ones before it end: those of this end and of the beginning. Variable 0 is the end. It is 0 for the
# first packet, and for the first of another rate or number of channels, at which ffmpeg starts the expression anew.
PRINT_JUMPS = (
    f"st(1,gt(pts-ld(0),{MAX_SHIFT}/TB)+gt(ld(0)-pts,{MAX_EARLY}/TB));if(not(n),print(0);print(pts*TB),if(ld(1),print(ld(0)*TB);"
    "print(pts*TB)));if(ld(1)+not(n),st(0,pts));st(0,ld(0)+samples_n/(sample_rate*TB));1"
)
# The format AU has rate and channels in its header, and needs no length.
OUTPUT_ARGUMENTS = ["-vn", "-af", f"aselect='{PRINT_JUMPS}'", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
# Packets, one in a line, of the same stream of sound.
PACKET_ARGUMENTS = ["-vn", "-sn", "-dn", "-c:a", "copy", "-f", "framecrc", "pipe:1"]
# Error codes of libsndfile for an unknown format or codec. For a file that is called `.mp3` and is none, the first is
# "no such file".
UNKNOWN_FORMAT_CODES = (1, 3, 7, *RESOURCE_FORK_CODES)
# For a codec that it does not know in a format that it does.
UNKNOWN_CODEC_CODES = (4, 18, 64)
# Lines of ffmpeg: modules, level, message. Those with tags, which may hold any text, begin with more spaces.
LINE = re.compile(r"((?:\[[^]]* @ [^]]*\] )*)\[(\w+)\] (.*)")
DURATION = re.compile(r"  Duration: (?:N/A|(\d+):(\d+):(\d+\.\d+))(?:, start: (-?\d+\.\d+))?")
INPUT = re.compile(r"Input #0, (\S+), from ")
# With more spaces before ffmpeg 5.
STREAM = re.compile(r" +Stream #0:[^ ]+: (Audio|Video|Subtitle): ")
NO_SOUND = re.compile("Output file (#0 )?does not contain any stream")
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
    beginning, end, num_parts = _look_into(source, name)
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
        notes = [f"only the first of {num_parts} recordings in it is decoded"] if num_parts > 1 else []
        return _open_with_ffmpeg(program, source, name, end, "" if is_unknown else reason, notes)
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


def _look_into(source: Source, name: str) -> tuple[bytes, int, int]:
    """
    Returns the first 512 bytes after tags, the place of the tags at its end, as far as they are known, and the number
    of recordings that were joined, of formats of which ffmpeg reads the first one only.
    """
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with ExitStack() as stack:
            file = stack.enter_context(open(source, "rb")) if isinstance(source, (str, Path)) else source
            reader = Reader(file)
            end = reader.size
            for place in find_ends(reader, 0, reader.size):
                # What a wrong size leads to is no tag.
                if place < reader.size and not reader.read(place, 11).startswith(TAG_STARTS):
                    break
                end = place
            beginning = reader.read(skip_tags(reader, 0), 512)
            return beginning, end, len(find_parts(reader)) if is_chunked(beginning) else 1
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


class _Jump(NamedTuple):
    """Times in seconds at which a packet ends, `None` if it is not known, and at which the following one begins."""

    end: float | None
    begin: float


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
        jumps (`list[_Jump]`):
            Those that `PRINT_JUMPS` has printed, from the beginning of the file on.
    """

    def __init__(self, file: IO[bytes]):
        self.file = file
        self.num_bytes, self.rest = 0, b""
        self.format, self.start, self.num_streams = "", 0.0, 0
        self.seconds: float | None = None
        self.first_error = ""
        self.errors: list[str] = []
        self.times: list[float] = []
        self.jumps: list[_Jump] = []
        self._is_begun = self._is_estimated = False

    @property
    def stated_seconds(self) -> float | None:
        """Length of the sound: not stated if other streams may be longer, or if it was cut from a longer stream."""
        return self.seconds if self.num_streams == 1 and self.start <= MAX_SHIFT else None

    def is_possible(self, begin: float, end: float) -> bool:
        """Returns whether silence between two times stays within the file."""
        return end - begin <= MAX_SILENCE if self.seconds is None else end <= self.seconds + BLOCK_SECONDS

    def update(self) -> None:
        """Reads the lines that have come. Those about samples are there before the samples are."""
        size = os.fstat(self.file.fileno()).st_size
        if size <= self.num_bytes:
            return
        # By its place in the file, which is one for both programs, ffmpeg would write where this one has read.
        with mmap.mmap(self.file.fileno(), size, access=mmap.ACCESS_READ) as view:
            *lines, self.rest = (self.rest + view[self.num_bytes :]).split(b"\n")
        self.num_bytes = size
        for line in lines:
            if found := LINE.fullmatch(line.decode(errors="replace").rstrip("\r")):
                self._add(*found.groups())

    def _add(self, modules: str, level: str, message: str) -> None:
        if level in ("error", "fatal"):
            self.first_error = self.first_error or one_line(message)
            # It complains about times that do not increase, as in joined files, and writes none.
            if self._is_begun and not modules.startswith("[au @"):
                self.errors.append(one_line(message))
        elif self._is_begun and TIME.fullmatch(message):
            self.times.append(float(message))
            if len(self.times) == 2:
                end, begin = self.times
                self.times = []
                # A format without times has none to print.
                if not math.isnan(begin):
                    self.jumps.append(_Jump(end - self.start if end else None, begin - self.start))
        elif message.startswith("Stream mapping:"):
            self._is_begun = True
        elif message.startswith("Estimating duration"):
            self._is_estimated = True
        elif found := INPUT.match(message):
            self.format = found[1]
        elif STREAM.match(message) and "(attached pic)" not in message and not self._is_begun:
            self.num_streams += 1
        elif (found := DURATION.match(message)) and not self._is_begun:
            hours, minutes, seconds, self.start = map(float, found.groups(default="0"))
            is_stated = found[1] is not None and not self._is_estimated
            self.seconds = 3600 * hours + 60 * minutes + seconds if is_stated else None


def _open_with_ffmpeg(program: str, source: Source, name: str, end: int, refusal: str, notes: list[str]) -> Recording:
    """
    Starts ffmpeg, which writes the samples of a file, before its byte `end`, to a pipe while they are read. `refusal`
    is what libsndfile has said.
    """
    stack = ExitStack()
    try:
        path, descriptors = _path_of(source, stack)
        url = f"subfile,,start,0,end,{end},,:file:{path}" if end < os.path.getsize(path) else f"file:{path}"
        command = [program, *INPUT_ARGUMENTS, "-i", url]
        # Without a name, so that it is gone with the processes, however they end.
        log = _Log(stack.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115
        process = _start([*command, *OUTPUT_ARGUMENTS], log.file, descriptors)
        output = process.stdout
        assert output is not None
        stack.callback(_end, process, output)
        header = output.read(24)
        if len(header) == 24:
            offset, _, _, rate, channels = struct.unpack_from(">5I", header, 4)
            output.read(offset - 24)
            log.update()
        else:
            reason = _reason(process, log).replace(f"{url}: ", "")
            before = f"{refusal.rstrip('.')}; by ffmpeg: " if refusal else ""
            raise AudioError(f"{name}: cannot be decoded: {before}{reason}")
    except BaseException:
        stack.close()
        raise

    def read(first: int) -> Iterator[np.ndarray]:
        num_skipped = first
        with stack:
            jumps = cache(lambda: _jumps_of_packets([*command, *PACKET_ARGUMENTS], log.start, descriptors))
            for block in _fill_jumps(output, log, rate, channels, jumps, notes):
                if num_skipped < len(block):
                    yield block[num_skipped:]
                num_skipped = max(0, num_skipped - len(block))
            if process.wait() != 0:
                raise AudioError(f"{name}: cannot be decoded to its end: {_reason(process, log)}")
            log.update()
        if log.errors:
            count = "an error" if len(log.errors) == 1 else f"{len(log.errors)} errors, the first one"
            notes.append(f"ffmpeg reports {count}: {log.errors[0].rstrip('.')}")

    # If it is never read: at once, since nothing that the log holds leads back to it.
    weakref.finalize(log, stack.close)
    return Recording(rate, read, stated_seconds=log.stated_seconds, notes=notes, expected_seconds=log.seconds)


def _start(command: list[str], errors: IO[bytes] | int, descriptors: tuple[int, ...]) -> "subprocess.Popen[bytes]":
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=errors, pass_fds=descriptors)


def _reason(process: "subprocess.Popen[bytes]", log: _Log) -> str:
    """Returns why a process has ended that should have written samples."""
    code = process.wait()
    log.update()
    if NO_SOUND.search(log.first_error):
        return "no sound was found in it."
    return log.first_error or f"ffmpeg ended with code {code}, and without a message."


def _jumps_of_packets(command: list[str], start: float, descriptors: tuple[int, ...]) -> list[_Jump]:
    """Returns where the times of packets jump, which are read for that once more, and not decoded."""
    jumps: list[_Jump] = []
    unit, end = 0.0, math.nan
    with _start(command, subprocess.DEVNULL, descriptors) as process:
        assert process.stdout is not None
        for line in process.stdout:
            fields = line.split(b",")
            if line.startswith(b"#tb 0: "):
                numerator, denominator = map(int, line[7:].split(b"/"))
                unit = numerator / denominator
            elif not line.startswith(b"#") and len(fields) > 3:
                begin = int(fields[2]) * unit - start
                if abs(begin - end) > MAX_SHIFT:
                    jumps.append(_Jump(end, begin))
                end = begin + int(fields[3]) * unit
    return jumps


def _fill_jumps(
    output: IO[bytes],
    log: _Log,
    rate: int,
    channels: int,
    jumps_of_packets: Callable[[], list[_Jump]],
    notes: list[str],
) -> Iterator[np.ndarray]:
    """
    Yields blocks `(num_samples, channels)`, float32, with silence where a file has no sound: at its beginning, and
    where the times of its packets jump. Adds to `notes` what is missing within it.
    """
    frame_bytes = 4 * channels
    size = max(1, min(BLOCK_SECONDS * rate, BLOCK_SAMPLES // channels))

    def end_before(begin: float) -> float:
        """Returns where the packet before one ends at which rate or channels change."""
        ends = (jump.end for jump in jumps_of_packets() if abs(jump.begin - begin) <= MAX_SHIFT)
        return next((end for end in ends if end is not None), begin)

    # In samples: read, passed in jumps, and of these, within the file as silence or not at all.
    num_read = num_jumped = num_silent = num_left_out = 0
    is_first = True
    while data := output.read(frame_bytes * size):
        block = np.frombuffer(data[: len(data) // frame_bytes * frame_bytes], dtype=">f4").astype(np.float32)
        block = block.reshape(-1, channels)
        log.update()
        while log.jumps:
            end, begin = log.jumps[0]
            if end is None:
                end = 0.0 if is_first else end_before(begin)
                log.jumps[0] = _Jump(end, begin)
            place = round(end * rate) - num_jumped - num_read
            if place >= len(block):
                break
            del log.jumps[0]
            # Less than none where times begin anew.
            count = round(begin * rate) - round(end * rate)
            num_jumped += count
            is_gap = begin - end > (MAX_SHIFT_ASF if is_first and log.format == "asf" else MAX_SHIFT)
            if is_gap and not log.is_possible(end, begin):
                num_left_out += count
            elif is_gap:
                place = max(0, place)
                yield block[:place]
                yield from (np.zeros((min(size, count - at), channels), np.float32) for at in range(0, count, size))
                num_silent += 0 if is_first else count
                num_read, block = num_read + place, block[place:]
            is_first = False
        yield block
        num_read += len(block)
    if num_silent > 0:
        notes.append(f"{num_silent / rate:.3f} s within it are missing, which are silence here")
    if num_left_out > 0:
        notes.append(f"its times jump by {num_left_out / rate:.3f} s, which are left out")


def _path_of(source: Source, stack: ExitStack) -> tuple[str, tuple[int, ...]]:
    """
    Returns the path of a file, which is a copy for one in memory or opened in Python, since most formats need seeks,
    and what ffmpeg needs open for it.
    """
    if isinstance(source, (str, Path)):
        return os.path.abspath(source), ()
    file: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    path = f"/proc/self/fd/{file.fileno()}"
    descriptors = (file.fileno(),)
    if not os.path.exists(path):
        directory = stack.enter_context(work_directory(Path(tempfile.gettempdir()), "beats-audio-"))
        file, path, descriptors = stack.enter_context((directory / "audio").open("wb")), str(directory / "audio"), ()
    if isinstance(source, bytes):
        file.write(source)
    else:
        source.seek(0)
        shutil.copyfileobj(source, file)
    file.flush()
    return path, descriptors


def _end(process: "subprocess.Popen[bytes]", output: IO[bytes]) -> None:
    process.kill()
    process.wait()
    output.close()
