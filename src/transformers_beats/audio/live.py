# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Audio as it comes: a microphone, raw samples on a pipe, or a file that is read from its beginning."""

import importlib
import os
from collections.abc import Iterator

import numpy as np
from transformers.utils import logging

from transformers_beats.utils.errors import BeatsError, UsageError, first_line, install_command

from .decoding import AudioStream, stream_blocks
from .files import RAW_FORMATS


logger = logging.get_logger(__name__)

# Audio that is passed on at once, in seconds.
BLOCK_SECONDS = 0.1


def stream_raw(descriptor: int, rate: float, format: str, num_channels: int, sampling_rate: int) -> AudioStream:
    """
    Opens raw interleaved samples on a file descriptor, such as 0 for standard input, as a stream.

    Args:
        descriptor (`int`):
            Number of the open file, which is read from where it is to its end.
        rate (`float`):
            Sampling rate in hertz.
        format (`str`):
            One of `RAW_FORMATS`.
        num_channels (`int`):
            Number of channels, which are averaged.
        sampling_rate (`int`):
            Rate of the stream in hertz.

    Returns:
        [`AudioStream`]

    Raises:
        [`UsageError`]: for another format, or a rate or number of channels that is not positive.
    """
    if format not in RAW_FORMATS:
        raise UsageError(f"The format must be one of {', '.join(RAW_FORMATS)}, got {format!r}.")
    if not 1 <= rate < 2**31 or not 1 <= num_channels <= 64:
        raise UsageError(f"Raw audio needs its rate in hertz and 1 to 64 channels, got {rate:g} and {num_channels}.")
    return stream_blocks("standard input", _read_raw(descriptor, rate, format, num_channels), rate, sampling_rate)


def _read_raw(descriptor: int, rate: float, format: str, num_channels: int) -> Iterator[np.ndarray]:
    """Yields blocks `(num_samples, num_channels)`; a sample that is cut off at the end is left out."""
    dtype, scale = np.dtype(RAW_FORMATS[format][0]), RAW_FORMATS[format][1]
    num_bytes = dtype.itemsize * num_channels
    held = b""
    # Not through `sys.stdin`, whose lock a thread that waits for audio would keep while Python ends.
    while data := os.read(descriptor, num_bytes * max(1, round(BLOCK_SECONDS * rate))):
        held += data
        whole = len(held) // num_bytes * num_bytes
        if whole:
            samples = np.frombuffer(held[:whole], dtype=dtype).reshape(-1, num_channels)
            held = held[whole:]
            yield ((samples.astype(np.float32) - (scale if format == "u8" else 0)) / scale).astype(np.float32)


def stream_microphone(sampling_rate: int, device: str | None = None) -> AudioStream:
    """
    Opens a microphone as a stream without end. Needs the extra `live`.

    Args:
        sampling_rate (`int`):
            Rate of the stream in hertz.
        device (`str`, *optional*):
            Number, or part of the name, of a device of `python -m sounddevice`. Defaults to the system's.

    Raises:
        [`BeatsError`]: if there is no sounddevice, PortAudio or device.
    """
    try:
        sounddevice = importlib.import_module("sounddevice")
    except ImportError as error:
        raise BeatsError(f"A microphone needs sounddevice: {install_command('live')}") from error
    except OSError as error:
        reason = first_line(error)
        raise BeatsError(f"A microphone needs PortAudio (Debian: apt install libportaudio2): {reason}") from error
    chosen = int(device) if device is not None and device.isdigit() else device
    try:
        rate = float(sounddevice.query_devices(chosen, "input")["default_samplerate"])
        source = sounddevice.InputStream(samplerate=rate, device=chosen, channels=1, dtype="float32")
    except (sounddevice.PortAudioError, ValueError) as error:
        raise BeatsError(f"The microphone cannot be opened: {first_line(error)}") from error

    def blocks() -> Iterator[np.ndarray]:
        with source:
            while True:
                samples, has_lost = source.read(round(BLOCK_SECONDS * rate))
                if has_lost:
                    logger.warning("The microphone lost audio that was not read in time: later times are too early.")
                yield samples.copy()

    return stream_blocks("the microphone", blocks(), rate, sampling_rate, is_whole=False)


__all__ = ["stream_microphone", "stream_raw"]
