# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Decoding: any audio file as a mono waveform at the model's rate, whole or in blocks."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
from transformers.utils import logging

from transformers_beats.fbank_beats import LOUDEST, LOUDEST_PLAUSIBLE, split_pair, to_float_waveform
from transformers_beats.utils.errors import UsageError

from .ffmpeg import open_other
from .files import check_no_url
from .recordings import BLOCK_SECONDS, MAX_RATE, AudioError, Recording, decode_all, name_of, open_recordings
from .resampling import resample


logger = logging.get_logger(__name__)

# Samples decoded before a part, at the lower of both rates, so that the resampling has no edge there; over `REACH`.
MARGIN_SAMPLES = 1000
# Lengths that differ by no more than this, in seconds, or by a tenth, agree: decoders leave out what encoders added.
LENGTH_TOLERANCE = 0.1
# Channels cancel if their mean has less energy than this share of what it has if they have nothing in common, which is
# one n-th of theirs for n channels.
CANCELLED = 0.5
# Share of the energy that seconds must have in which channels cancel.
CANCELLED_PART = 0.1
# Integers whose full scale is known.
PCM = ("uint8", "int16", "int32")


@dataclass
class AudioReport:
    """
    Findings about a recording, complete once all its blocks are read.

    Args:
        seconds (`float`):
            Length of what was decoded so far.
        stated_seconds (`float`, *optional*):
            Length in the header, if there is one.
        warnings (`list[str]`):
            Messages about what may be wrong.
        is_logged (`bool`, defaults to `True`):
            Whether each of them is logged as well. Set it before the blocks are read.
        file_rate (`int`, *optional*):
            Rate of the file in hertz, of its first recording if it has several.
        num_channels (`int`, *optional*):
            Number of its channels.
    """

    seconds: float = 0.0
    stated_seconds: float | None = None
    warnings: list[str] = field(default_factory=list)
    is_logged: bool = True
    file_rate: int | None = None
    num_channels: int | None = None


@dataclass
class AudioStream:
    """
    A recording that is decoded while it is read, so that its length costs no memory.

    Args:
        name (`str`):
            Name for messages.
        blocks (`Iterable[np.ndarray]`):
            Consecutive parts `(num_samples,)`, mono, at the rate that was asked for: float32, full scale at 1.0. Those
            of one's own may be PCM, which [`open_audio`] makes float32.
        sampling_rate (`int`):
            That rate, in hertz.
        seconds (`float`, *optional*):
            Length, as far as it is known before the recording is read. Only for showing progress: damaged files are
            wrong about it.
        report ([`AudioReport`]):
            What was found out, complete once the blocks are read.
        is_checked (`bool`, defaults to `False`):
            Whether blocks are checked as they are read, as [`open_audio`] does for those of one's own.
    """

    name: str
    blocks: Iterable[np.ndarray]
    sampling_rate: int
    seconds: float | None = None
    report: AudioReport = field(default_factory=AudioReport)
    is_checked: bool = False

    def share(self, count: int) -> list["AudioStream"]:
        """
        Returns several streams of the recording, which is decoded once. Blocks are held until all of them have read
        them: read the streams in step. An error of the recording is raised in each of them.
        """
        checked = self if self.is_checked else _check_blocks(self)

        def blocks_and_error() -> Iterator[Any]:
            try:
                yield from checked.blocks
            except Exception as error:  # raised again below
                yield error

        def raise_error(items: Iterator[Any]) -> Iterator[np.ndarray]:
            for item in items:
                if isinstance(item, Exception):
                    raise item
                yield item

        return [replace(checked, blocks=raise_error(items)) for items in itertools.tee(blocks_and_error(), count)]


def decode_audio(
    source: str | Path | bytes | BinaryIO, sampling_rate: int = 16000, start: int = 0, num_samples: int | None = None
) -> np.ndarray:
    """
    Decodes an audio file, or a part of it, as a mono waveform; see [`stream_audio`].

    Args:
        source (`str`, `Path`, `bytes` or a file opened in binary mode):
            A file, or its content.
        sampling_rate (`int`, defaults to 16000):
            Rate of the result in hertz.
        start (`int`, defaults to 0):
            First sample of the part, at `sampling_rate`.
        num_samples (`int`, *optional*):
            Length of the part, which is shorter if the file ends before. Defaults to all until the end.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: float32, full scale at 1.0.

    Raises:
        [`AudioError`]: if it cannot be decoded, is empty, ends before `start`, or holds NaN or infinite samples.
        [`UsageError`]: if `start` or `num_samples` is negative, or `sampling_rate` no positive integer.
    """
    if num_samples is not None and num_samples < 0:
        raise UsageError(f"`num_samples` must not be negative, got {num_samples}: None is all until the end.")
    return read_samples(stream_audio(source, sampling_rate, start), num_samples)


def read_samples(stream: AudioStream, num_samples: int | None = None) -> np.ndarray:
    """Reads a stream, to its end or up to a number of samples, `(num_samples,)`; raises [`AudioError`]."""
    blocks, num_decoded = [], 0
    for block in stream.blocks:
        blocks.append(block)
        num_decoded += len(block)
        if num_samples is not None and num_decoded >= num_samples:
            break
    return np.concatenate(blocks)[:num_samples]


def stream_audio(source: str | Path | bytes | BinaryIO, sampling_rate: int = 16000, start: int = 0) -> AudioStream:
    """
    Opens a file with soundfile (WAV, FLAC, Ogg, MP3 and others) or, if that does not know its format, with the program
    `ffmpeg` or with torchcodec, which decodes it as a whole once its first block is read; averages its channels;
    resamples with soxr.

    Decoding goes on to the true end of the data, whatever the header says, and through all recordings that were joined
    to one file. A warning is logged and kept in the stream's report where the lengths do not agree, where channels
    cancel each other and where there is no sound at all.

    Args:
        source, sampling_rate, start:
            File, which is read from its beginning, rate of the blocks and first sample, as for [`decode_audio`].
            Samples before `start` are not decoded, if the format allows.

    Returns:
        [`AudioStream`]: its blocks can be read once. Reading raises [`AudioError`] where the file is damaged or holds
        NaN or infinite samples, and at the end if there was no sample.

    Raises:
        [`AudioError`]: if it cannot be opened.
        [`UsageError`]: for a negative `start`, a `sampling_rate` that is no positive integer, an address of the web.
    """
    if start < 0:
        raise UsageError(f"`start` must not be negative, got {start}.")
    if not isinstance(sampling_rate, Integral) or sampling_rate < 1:
        raise UsageError(f"`sampling_rate` must be a positive integer, got {sampling_rate!r}.")
    name = name_of(source)
    if isinstance(source, (str, Path)):
        check_no_url(source)
    recordings = open_recordings(source)
    try:
        first = next(recordings)
    # For a file called `.raw`, whose format soundfile wants as an argument, it is a TypeError.
    except (soundfile.SoundFileError, OSError, RuntimeError, TypeError) as refusal:
        first, recordings = open_other(source, name, refusal), iter(())
    inspector = _Inspector(name, sampling_rate)
    inspector.report.file_rate = first.sampling_rate
    sample, frame, seconds = 0, 0, None
    # Several may have different rates.
    if first.is_last:
        sample, frame = _place_of(first, name, start, sampling_rate)
        known = first.num_samples
        seconds = first.expected_seconds if known is None else known / first.sampling_rate
        seconds = first.stated_seconds if seconds is None else seconds
    blocks = _skip(inspector.decode(itertools.chain([first], recordings), frame), start - sample, name)
    return AudioStream(name, blocks, sampling_rate, seconds, inspector.report, is_checked=True)


def stream_waveform(waveform: Any, waveform_rate: float | None, sampling_rate: int = 16000) -> AudioStream:
    """
    Makes an array a stream, resampled if its rate is another.

    Args:
        waveform (`np.ndarray`, `torch.Tensor` or `list[float]` of shape `(num_samples,)`):
            One clip: floating point with full scale at 1.0, or int16, int32 or uint8 PCM. Of an array with two
            dimensions, the shorter is that of the channels, which are averaged.
        waveform_rate (`int` or `float`):
            Its sampling rate in hertz.
        sampling_rate (`int`, defaults to 16000):
            Rate of the blocks in hertz.

    Returns:
        [`AudioStream`]

    Raises:
        [`UsageError`]: if the rate is missing, or this is not one clip.
    """
    array = _to_array(waveform)
    if not isinstance(waveform_rate, Real) or not 1 <= waveform_rate < MAX_RATE:
        raise UsageError(f"An array needs its `sampling_rate` in hertz, got {waveform_rate!r}.")
    # A batch of recordings is a list, so that two dimensions are not ambiguous.
    if array.ndim == 2 and 0 not in array.shape:
        channels = list(array if array.shape[0] <= array.shape[1] else array.T)
    elif array.ndim == 1:
        channels = [array]
    else:
        raise UsageError(f"Expected one waveform, got an array of shape {tuple(array.shape)}. Pass clips one by one.")
    num_samples = len(channels[0])
    starts = range(0, num_samples, BLOCK_SECONDS * int(waveform_rate))
    parts = ([channel[start : start + starts.step] for channel in channels] for start in starts)
    blocks = (np.stack([to_float_waveform(part, 0).numpy() for part in block], axis=1) for block in parts)
    stream = stream_blocks("the waveform", blocks, waveform_rate, sampling_rate)
    return replace(stream, seconds=num_samples / waveform_rate)


def stream_blocks(
    name: str, blocks: Iterable[np.ndarray], rate: float, sampling_rate: int = 16000, is_whole: bool = True
) -> AudioStream:
    """
    Makes consecutive blocks a stream, as of a microphone: channels are averaged, and it is resampled.

    Args:
        name (`str`):
            Name for messages.
        blocks (`Iterable[np.ndarray]` of arrays `(num_samples, num_channels)`):
            Float32, full scale at 1.0.
        rate (`float`):
            Their sampling rate in hertz.
        sampling_rate (`int`, defaults to 16000):
            Rate of the stream in hertz.
        is_whole (`bool`, defaults to `True`):
            Whether to warn at the end of what may be wrong with the recording as a whole, such as silence.

    Returns:
        [`AudioStream`]: reading it raises an [`AudioError`] for NaN or infinite samples, and if there is none at all.
    """
    inspector = _Inspector(name, sampling_rate)
    checked = inspector.check(resample(inspector.mix(blocks), rate, sampling_rate), is_whole)
    return AudioStream(name, checked, sampling_rate, None, inspector.report, is_checked=True)


def open_audio(audio: Any, sampling_rate: int, rate_of_arrays: float | None = None) -> AudioStream:
    """
    Opens any kind of audio as a stream.

    Args:
        audio (`str`, `Path`, `bytes`, a file opened in binary mode, `np.ndarray`, `torch.Tensor`, `tuple` or `dict`):
            A file or its content, see [`stream_audio`] for formats; an array `(num_samples,)` or, of several channels,
            with the shorter dimension for them; a pair of an array and its rate in hertz, in either order, as
            `soundfile.read`, `torchaudio.load` and Gradio return it; a `dict` as of `datasets`, with `"array"` (or
            `"raw"`) and `"sampling_rate"`, or with `"bytes"` or `"path"`; torchcodec's `AudioDecoder`; or an
            [`AudioStream`] at `sampling_rate`. Channels are averaged.
        sampling_rate (`int`):
            Rate of the stream in hertz.
        rate_of_arrays (`int` or `float`, *optional*):
            Rate of an array without a `"sampling_rate"`, in hertz.

    Returns:
        [`AudioStream`]

    Raises:
        [`AudioError`]: for files, see [`stream_audio`], and if an `AudioDecoder` fails.
        [`UsageError`]: for anything else that cannot be used.
    """
    if hasattr(audio, "get_all_samples"):
        samples = decode_all(audio, "an AudioDecoder")
        audio = {"array": samples.data, "sampling_rate": samples.sample_rate}
    if isinstance(audio, dict):
        found = [audio[key] for key in ("array", "raw", "bytes", "path") if audio.get(key) is not None]
        if not found:
            raise UsageError(f"A dict needs 'array' and 'sampling_rate', 'bytes' or 'path', got {list(audio)}.")
        stated = audio.get("sampling_rate", rate_of_arrays)
        audio, rate_of_arrays = found[0], stated
    if (pair := split_pair(audio)) is not None:
        audio, rate_of_arrays = pair
    if isinstance(audio, AudioStream):
        if audio.sampling_rate != sampling_rate:
            raise UsageError(f"{audio.name} is read at {audio.sampling_rate} Hz, the model needs {sampling_rate} Hz.")
        return audio if audio.is_checked else _check_blocks(audio)
    if isinstance(audio, (bytearray, memoryview)):
        audio = bytes(audio)
    if isinstance(audio, os.PathLike):
        audio = os.fspath(audio)
    if isinstance(audio, (str, bytes)) or hasattr(audio, "read"):
        return stream_audio(audio, sampling_rate)
    return stream_waveform(audio, rate_of_arrays, sampling_rate)


def _check_blocks(stream: AudioStream) -> AudioStream:
    """Returns a stream of somebody else's blocks, which are checked, and made float32 if they are PCM."""
    inspector = _Inspector(stream.name, stream.sampling_rate, stream.report)
    mono = (to_float_waveform(_to_array(block), 0).numpy()[:, None] for block in stream.blocks if len(block))
    return replace(stream, blocks=inspector.check(inspector.mix(mono), is_whole=True), is_checked=True)


def _to_array(waveform: Any) -> np.ndarray | torch.Tensor:
    """Returns a waveform as an array of numbers, or as a tensor on the CPU."""
    if isinstance(waveform, torch.Tensor):
        if waveform.layout != torch.strided:
            raise UsageError(f"Expected a file or a dense array of numbers, got a tensor of layout {waveform.layout}.")
        return waveform.detach().cpu()
    array = np.asarray(waveform)
    if array.ndim == 0:
        raise UsageError(f"Expected a file or an array of numbers, got {waveform!r}.")
    # torch has no number with more bytes.
    if array.dtype.name not in PCM and (array.dtype.kind != "f" or array.dtype.itemsize > 8):
        given = f"{type(waveform).__name__} of {array.dtype}"
        raise UsageError(f"Expected a file or an array of numbers, got {given}; PCM is {', '.join(PCM)}.")
    return array


class _Inspector:
    """Mixes the channels of a recording and checks what is decoded; its findings go into a report."""

    def __init__(self, name: str, sampling_rate: int, report: AudioReport | None = None):
        self.name, self.sampling_rate = name, sampling_rate
        self.report = AudioReport() if report is None else report
        self.notes: list[str] = []
        self.num_opened = 0
        self.lowest, self.highest = math.inf, -math.inf
        # Of what the model hears.
        self.peak = 0.0
        # Sums of squares: of all channels, and of the mean times the number of channels.
        self.energy = self.mixed_energy = 0.0
        # Of blocks in which they cancel.
        self.cancelled = 0.0

    def decode(self, recordings: Iterable[Recording], first: int) -> Iterator[np.ndarray]:
        """Decodes recordings, one after another, from a sample of the first one on; resamples and checks them."""
        blocks = (
            block
            for rate, group in itertools.groupby(recordings, key=lambda recording: recording.sampling_rate)
            for block in resample(self.mix(self._read(group, first)), rate, self.sampling_rate)
        )
        yield from self.check(blocks, is_whole=first == 0)

    def _read(self, recordings: Iterable[Recording], first: int) -> Iterator[np.ndarray]:
        for recording in recordings:
            stated, total = recording.stated_seconds, self.report.stated_seconds
            is_known = stated is not None and (total is not None or self.num_opened == 0)
            self.report.stated_seconds = (total or 0.0) + stated if is_known else None
            self.num_opened += 1
            yield from recording.read(first)
            self.notes += recording.notes

    def mix(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Returns the means of the channels of blocks `(num_samples, num_channels)`."""
        for channels in filter(len, blocks):
            self.report.num_channels = channels.shape[1]
            # Damaged samples may be of any size; non-finite sums are refused after resampling.
            with np.errstate(over="ignore", invalid="ignore"):
                mixed = channels.mean(axis=1)
                if channels.shape[1] > 1:
                    # Without constant offsets, which are no sound, and do not cancel.
                    energy = float(np.square(channels - channels.mean(axis=0)).sum(dtype=np.float64))
                    of_mean = float(np.square(mixed - mixed.mean()).sum(dtype=np.float64))
                    self.energy += energy
                    self.mixed_energy += channels.shape[1] ** 2 * of_mean
                    self.cancelled += energy if channels.shape[1] ** 2 * of_mean < CANCELLED * energy else 0.0
            self.lowest, self.highest = min(self.lowest, mixed.min()), max(self.highest, mixed.max())
            yield mixed

    def check(self, blocks: Iterable[np.ndarray], is_whole: bool) -> Iterator[np.ndarray]:
        """
        Passes on resampled blocks. Raises an [`AudioError`] where samples are NaN or infinite, and at the end if there
        was none; warns at the end of a whole recording of what may be wrong with it.
        """
        num_samples = 0
        for block in blocks:
            # Not before the filter, in which samples near the largest float32 overflow.
            if not np.isfinite(block).all():
                raise AudioError(f"{self.name}: contains NaN or infinite samples.")
            if block.size > 0:
                self.peak = max(self.peak, float(block.max()), -float(block.min()))
                if self.peak > LOUDEST:
                    raise AudioError(f"{self.name}: reaches {self.peak:.0e}, but full scale is 1.0.")
                num_samples += len(block)
                self.report.seconds = num_samples / self.sampling_rate
                yield block
        if num_samples == 0:
            raise AudioError(f"{self.name}: holds no audio.")
        if is_whole:
            for warning in self._find_faults():
                self.report.warnings.append(warning)
                if self.report.is_logged:
                    logger.warning(f"{self.name}: {warning}")

    def _find_faults(self) -> Iterator[str]:
        seconds, stated = self.report.seconds, self.report.stated_seconds
        if stated is not None and abs(seconds - stated) > min(LENGTH_TOLERANCE, stated / 10):
            if seconds < stated:
                yield f"ends after {seconds:.3f} of {stated:.3f} s, which its header states: it is cut off or damaged."
            else:
                yield f"holds {seconds:.3f} s, all decoded, but its header states {stated:.3f} s."
        elif self.notes:
            yield f"{', '.join(dict.fromkeys(self.notes))}; {seconds:.3f} s were decoded."
        if self.peak > LOUDEST_PLAUSIBLE:
            yield f"reaches {self.peak:,.0f}, but full scale is 1.0. Divide 16-bit samples by 32768."
        # The squares of finite samples may be infinite.
        if self.mixed_energy < CANCELLED * self.energy < math.inf:
            kept = self.mixed_energy / self.energy
            yield (
                f"its channels cancel each other: their mean has {kept:.1%} of the energy that it would have if they "
                "had nothing in common. Choose one channel, for example `soundfile.read(path)[0][:, 0]`."
            )
        elif CANCELLED_PART * self.energy < self.cancelled < math.inf:
            yield (
                f"its channels cancel each other in seconds with {self.cancelled / self.energy:.0%} of its energy. "
                "Choose one channel, for example `soundfile.read(path)[0][:, 0]`."
            )
        elif self.lowest == self.highest:
            yield "is digital silence, all samples are equal: scores and embeddings mean nothing."


def _place_of(recording: Recording, name: str, start: int, sampling_rate: int) -> tuple[int, int]:
    """Finds a sample at `sampling_rate` before `start` that is at the same time as a sample of the recording."""
    # Multiples of the denominator are.
    ratio = Fraction(recording.sampling_rate, sampling_rate)
    margin = 0 if ratio == 1 else MARGIN_SAMPLES * max(1, math.ceil(1 / ratio))
    sample = max(0, start - margin) // ratio.denominator * ratio.denominator
    frame = int(sample * ratio)
    if start > 0 and recording.num_samples is not None and frame >= recording.num_samples:
        raise AudioError(f"{name}: ends before sample {start} at {sampling_rate} Hz.")
    return sample, frame


def _skip(blocks: Iterable[np.ndarray], num_samples: int, name: str) -> Iterator[np.ndarray]:
    """Leaves out the first samples."""
    is_empty = True
    for block in blocks:
        if len(block) > num_samples:
            yield block[num_samples:]
            is_empty = False
        num_samples = max(0, num_samples - len(block))
    if is_empty:
        raise AudioError(f"{name}: ends before the part that was asked for.")


__all__ = [
    "AudioError",
    "AudioReport",
    "AudioStream",
    "decode_audio",
    "open_audio",
    "stream_audio",
    "stream_blocks",
    "stream_waveform",
]
