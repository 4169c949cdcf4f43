# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Decoding: any audio file as a mono waveform at the model's rate, whole or in blocks."""

import contextlib
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
import torch

from transformers_beats.fbank_beats import to_float_waveform
from transformers_beats.utils.errors import BeatsError, UsageError, first_line


# Largest block that is decoded at once, in seconds, so that resampling to a higher rate makes no block large, and in
# samples of all channels, so that no rate or number of channels in a damaged header does.
BLOCK_SECONDS = 1
BLOCK_SAMPLES = 1 << 20
# In hertz, as for files. At 1e300, soxr never ends.
MAX_RATE = 1 << 31
# Formats and encodings in which libsndfile finds every sample at once and exactly.
SEEKABLE_FORMATS = frozenset({"AIFF", "AU", "CAF", "FLAC", "RF64", "W64", "WAV", "WAVEX"})
SEEKABLE_SUBTYPES = frozenset({"ALAW", "DOUBLE", "FLOAT", "PCM_16", "PCM_24", "PCM_32", "PCM_S8", "PCM_U8", "ULAW"})
# Samples decoded before a part, at the lower of both rates, so that the resampling has no edge there.
MARGIN_SAMPLES = 1000
# Length that libsndfile gives for a file of unknown length, such as a FLAC that was written to a pipe.
UNKNOWN_FRAMES = (1 << 63) - 1
# Error codes of libsndfile for an unknown format. For a file that is called `.mp3` and is none, it is "no such file".
UNKNOWN_FORMAT_CODES = (1, 7)


class AudioError(BeatsError):
    """Audio that cannot be used. The message names the file."""


@dataclass
class AudioStream:
    """
    A recording that is decoded while it is read, so that its length costs no memory.

    Args:
        name (`str`):
            Name for messages.
        blocks (`Iterable[np.ndarray]`):
            Consecutive parts `(num_samples,)`, float32, mono, full scale at 1.0, at the rate that was asked for.
        sampling_rate (`int`):
            That rate, in hertz.
        seconds (`float`, *optional*):
            Length in the file's header. Only for showing progress: damaged files are wrong about it.
    """

    name: str
    blocks: Iterable[np.ndarray]
    sampling_rate: int
    seconds: float | None = None

    def share(self, count: int) -> list["AudioStream"]:
        """
        Returns several streams of the recording, which is decoded once. Blocks are held until all of them have read
        them: read the streams in step. An error of the recording is raised in each of them.
        """

        def blocks_and_error() -> Iterator[Any]:
            try:
                yield from self.blocks
            except Exception as error:  # raised again below
                yield error

        def raise_error(items: Iterator[Any]) -> Iterator[np.ndarray]:
            for item in items:
                if isinstance(item, Exception):
                    raise item
                yield item

        return [replace(self, blocks=raise_error(items)) for items in itertools.tee(blocks_and_error(), count)]


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
        [`UsageError`]: if `start` is negative.
    """
    blocks, num_decoded = [], 0
    for block in stream_audio(source, sampling_rate, start).blocks:
        blocks.append(block)
        num_decoded += len(block)
        if num_samples is not None and num_decoded >= num_samples:
            break
    return np.concatenate(blocks)[:num_samples]


def stream_audio(source: str | Path | bytes | BinaryIO, sampling_rate: int = 16000, start: int = 0) -> AudioStream:
    """
    Opens a file with soundfile (WAV, FLAC, Ogg, MP3 and others) or, if that does not know its format and torchcodec is
    installed, with torchcodec, which decodes it as a whole once its first block is read; averages its channels;
    resamples with soxr.

    Args:
        source, sampling_rate, start:
            File, rate of the blocks and first sample, as for [`decode_audio`]. Samples before `start` are not decoded,
            if the format allows.

    Returns:
        [`AudioStream`]: its blocks can be read once. Reading raises [`AudioError`] where the file is damaged or holds
        NaN or infinite samples, and at the end if there was no sample.

    Raises:
        [`AudioError`]: if it cannot be opened.
        [`UsageError`]: if `start` is negative.
    """
    if start < 0:
        raise UsageError(f"`start` must not be negative, got {start}.")
    name = _name_of(source)
    opened = None if isinstance(source, (str, Path)) else _FileObject(source)
    file, refusal = None, None
    try:
        # As bytes, since a name may not be valid text.
        file = _SequentialFile(os.fsencode(source) if opened is None else opened)  # ty: ignore[invalid-argument-type]
    # For a file called `.raw`, whose format soundfile wants as an argument, it is a TypeError.
    except (soundfile.SoundFileError, OSError, RuntimeError, TypeError) as error:
        refusal = error
    if opened is not None and opened.error is not None:
        raise AudioError(f"{name}: cannot be read: {_reason(opened.error)}") from opened.error
    if file is None:
        stream = _stream_with_torchcodec(source, name, refusal, sampling_rate)
        stream.blocks = _skip(stream.blocks, start, name)
        return stream
    if (file.format, file.subtype) == ("PAF", "PCM_24"):
        raise AudioError(f"{name}: is PAF with 24 bits, which libsndfile may decode wrongly. Use another format.")
    first_sample, first_frame = _place_of(file, name, start, sampling_rate)
    blocks = _read_blocks(file, opened, name, first_frame)
    blocks = _skip(_resample(blocks, name, file.samplerate, sampling_rate), start - first_sample, name)
    seconds = file.frames / file.samplerate if file.frames < UNKNOWN_FRAMES else None
    return AudioStream(name, blocks, sampling_rate, seconds)


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
        channels = array if array.shape[0] <= array.shape[1] else array.T
        array = torch.stack([to_float_waveform(channel, 0) for channel in channels]).mean(dim=0)
    if array.ndim != 1:
        raise UsageError(f"Expected one waveform, got an array of shape {tuple(array.shape)}. Pass clips one by one.")
    starts = range(0, len(array), BLOCK_SECONDS * int(waveform_rate))
    blocks = (to_float_waveform(array[start : start + starts.step], 0).numpy() for start in starts)
    resampled = _resample(blocks, "the waveform", waveform_rate, sampling_rate)
    return AudioStream("the waveform", resampled, sampling_rate, len(array) / waveform_rate)


def open_audio(audio: Any, sampling_rate: int, rate_of_arrays: float | None = None) -> AudioStream:
    """
    Opens any kind of audio as a stream.

    Args:
        audio (`str`, `Path`, `bytes`, a file opened in binary mode, `np.ndarray`, `torch.Tensor` or `dict`):
            A file or its content, of any format that soundfile reads; an array `(num_samples,)` or, of several
            channels, with the shorter dimension for them; a `dict` as of `datasets`, with `"array"` (or `"raw"`) and
            `"sampling_rate"`, or with `"bytes"` or `"path"`; torchcodec's `AudioDecoder`; or an [`AudioStream`] at
            `sampling_rate`. Channels are averaged.
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
        samples = _decode_all(audio, "an AudioDecoder")
        audio = {"array": samples.data, "sampling_rate": samples.sample_rate}
    if isinstance(audio, dict):
        found = [audio[key] for key in ("array", "raw", "bytes", "path") if audio.get(key) is not None]
        if not found:
            raise UsageError(f"A dict needs 'array' and 'sampling_rate', 'bytes' or 'path', got {list(audio)}.")
        stated = audio.get("sampling_rate", rate_of_arrays)
        audio, rate_of_arrays = found[0], stated
    if isinstance(audio, AudioStream):
        if audio.sampling_rate != sampling_rate:
            raise UsageError(f"{audio.name} is read at {audio.sampling_rate} Hz, the model needs {sampling_rate} Hz.")
        return audio
    if isinstance(audio, (bytearray, memoryview)):
        audio = bytes(audio)
    if isinstance(audio, (str, Path, bytes)) or hasattr(audio, "read"):
        return stream_audio(audio, sampling_rate)
    return stream_waveform(audio, rate_of_arrays, sampling_rate)


def _to_array(waveform: Any) -> np.ndarray | torch.Tensor:
    """Returns a waveform as an array of numbers, or as a tensor on the CPU."""
    if isinstance(waveform, torch.Tensor):
        if waveform.layout != torch.strided:
            raise UsageError(f"Expected a file or a dense array of numbers, got a tensor of layout {waveform.layout}.")
        return waveform.detach().cpu()
    array = np.asarray(waveform)
    # torch has no number with more bytes.
    if array.ndim == 0:
        raise UsageError(f"Expected a file or an array of numbers, got {waveform!r}.")
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise UsageError(f"Expected a file or an array of numbers, got {type(waveform).__name__} of {array.dtype}.")
    return array


def _resample(blocks: Iterable[np.ndarray], name: str, rate: float, sampling_rate: int) -> Iterator[np.ndarray]:
    """
    Resamples a waveform block by block, with the result that soxr gives for the whole. Raises an [`AudioError`] where
    samples are NaN or infinite, and at the end if there was none.
    """
    if rate != sampling_rate:
        resampler = soxr.ResampleStream(rate, sampling_rate, num_channels=1, dtype="float32", quality="HQ")
        # The empty block gets what the filter has held back.
        parts = itertools.chain(zip(blocks, itertools.repeat(False)), [(np.zeros(0, dtype=np.float32), True)])
        blocks = (resampler.resample_chunk(block, last=is_last) for block, is_last in parts)
    is_empty = True
    for block in blocks:
        # Not before the filter, in which samples near the largest float32 overflow.
        if not np.isfinite(block).all():
            raise AudioError(f"{name}: contains NaN or infinite samples.")
        if block.size > 0:
            is_empty = False
            yield block
    if is_empty:
        raise AudioError(f"{name}: holds no audio.")


class _SequentialFile(soundfile.SoundFile):
    """Prevents soundfile's seek to the current place after each read, which resets the MP3 decoder."""

    def seekable(self) -> bool:
        return False


class _FileObject:
    """
    A file in memory or opened in Python, for libsndfile. An exception, which C code would print and take for the end
    of the file, is kept in `error`.
    """

    def __init__(self, source: bytes | BinaryIO):
        self.file = io.BytesIO(source) if isinstance(source, bytes) else source
        self.error: Exception | None = None

    def read(self, size: int) -> bytes:
        try:
            return bytes(self.file.read(size))
        except Exception as error:  # those of any storage
            self.error = error
            return b""

    def seek(self, offset: int, whence: int) -> None:
        # A damaged file may point to before its beginning, which libsndfile finds out from the place after the seek.
        with contextlib.suppress(OSError, ValueError):
            self.file.seek(offset, whence)

    def tell(self) -> int:
        try:
            return self.file.tell()
        except Exception as error:  # those of any storage
            self.error = error
            return -1


def _name_of(source: str | Path | bytes | BinaryIO) -> str:
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    if isinstance(source, (str, Path)):
        return str(source)
    return str(getattr(source, "name", f"a {type(source).__name__}"))


def _reason(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        return error.error_string
    return first_line(error)


def _place_of(file: soundfile.SoundFile, name: str, start: int, sampling_rate: int) -> tuple[int, int]:
    """Finds a sample at `sampling_rate` before sample `start` that is at the same time as a frame of the file."""
    # Multiples of the denominator are.
    ratio = Fraction(file.samplerate, sampling_rate)
    margin = 0 if ratio == 1 else MARGIN_SAMPLES * max(1, math.ceil(1 / ratio))
    sample = max(0, start - margin) // ratio.denominator * ratio.denominator
    frame = int(sample * ratio)
    if start > 0 and frame >= file.frames:
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


def _read_blocks(
    file: soundfile.SoundFile, opened: _FileObject | None, name: str, first_frame: int
) -> Iterator[np.ndarray]:
    """Reads the means of the channels, block by block, from a frame on."""
    with file:
        size = max(1, min(BLOCK_SECONDS * file.samplerate, BLOCK_SAMPLES // file.channels))
        num_read = 0
        # Some formats hold a little more, to fill their last packet.
        while num_read < file.frames:
            try:
                if num_read < first_frame and _can_seek(file):
                    num_read = file.seek(first_frame)
                channels = file.read(min(size, file.frames - num_read), dtype="float32", always_2d=True)
                if opened is not None and opened.error is not None:
                    raise opened.error
            except Exception as error:
                raise AudioError(f"{name}: cannot be decoded to its end: {_reason(error)}") from error
            if len(channels) == 0:
                return
            num_skipped = max(0, first_frame - num_read)
            num_read += len(channels)
            if num_skipped >= len(channels):
                continue
            # Damaged samples may be of any size; non-finite sums are refused after resampling.
            with np.errstate(over="ignore", invalid="ignore"):
                yield channels[num_skipped:].mean(axis=1)


def _can_seek(file: soundfile.SoundFile) -> bool:
    is_exact = file.format in SEEKABLE_FORMATS and file.subtype in SEEKABLE_SUBTYPES
    return is_exact and file.frames < UNKNOWN_FRAMES


def _stream_with_torchcodec(
    source: str | Path | bytes | BinaryIO, name: str, refusal: Exception | None, sampling_rate: int
) -> AudioStream:
    """Opens a file with torchcodec; `refusal` is the error of soundfile."""
    if isinstance(source, (str, Path)):
        _check_file(source, name)
    is_unknown = getattr(refusal, "code", None) in UNKNOWN_FORMAT_CODES
    reason = "Format not recognised." if is_unknown or refusal is None else _reason(refusal)
    message = f"{name}: cannot be decoded: {reason}"
    try:
        # A torchcodec that does not fit PyTorch or FFmpeg fails with any of these.
        from torchcodec.decoders import AudioDecoder  # ty: ignore[import-not-found]
    except (ImportError, OSError, RuntimeError) as error:
        hint = " FFmpeg knows more formats: pip install torchcodec" if is_unknown else ""
        raise AudioError(f"{message}{hint}") from error
    try:
        if not isinstance(source, (str, Path, bytes)):
            # Soundfile has read some of it.
            source.seek(0)
        decoder = AudioDecoder(str(source) if isinstance(source, Path) else source)
    except (OSError, RuntimeError, ValueError) as error:
        raise AudioError(message) from error

    def blocks() -> Iterator[np.ndarray]:
        # As a whole: for a part that begins within a packet, torchcodec starts from the beginning.
        samples = _decode_all(decoder, name)
        mean = samples.data.float().mean(dim=0).numpy()
        yield from _resample([mean], name, samples.sample_rate, sampling_rate)

    return AudioStream(name, blocks(), sampling_rate, decoder.metadata.duration_seconds)


def _check_file(path: str | Path, name: str) -> None:
    """Raises an [`AudioError`] for a path at which there can be no audio."""
    if os.path.isdir(path):
        raise AudioError(f"{name}: is a directory, and no file.")
    if os.path.islink(path) and not os.path.exists(path):
        raise AudioError(f"{name}: is a link to a file that is not there.")
    if not os.path.isfile(path):
        raise AudioError(f"{name}: no such file.")
    if os.path.getsize(path) == 0:
        raise AudioError(f"{name}: is empty, it has no bytes.")


def _decode_all(decoder: Any, name: str) -> Any:
    """Decodes with torchcodec: samples with `data` `(num_channels, num_samples)` and `sample_rate`."""
    try:
        return decoder.get_all_samples()
    except (OSError, RuntimeError, ValueError) as error:
        raise AudioError(f"{name}: cannot be decoded: {_reason(error)}") from error


__all__ = [
    "AudioError",
    "AudioStream",
    "decode_audio",
    "open_audio",
    "stream_audio",
    "stream_waveform",
]
