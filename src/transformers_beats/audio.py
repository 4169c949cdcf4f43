# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Decoding: any audio file as a mono waveform at the model's rate."""

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr


class AudioError(ValueError):
    """Audio that cannot be used; the message is one line and names the file."""


def decode_audio(source: str | Path | bytes, sampling_rate: int = 16000) -> np.ndarray:
    """
    Decodes a file with soundfile (WAV, FLAC, Ogg, MP3 and others) or, if that does not know its format and torchcodec
    is installed, with torchcodec; averages its channels; resamples with soxr.

    Args:
        source (`str`, `Path` or `bytes`):
            A file, or what it holds.
        sampling_rate (`int`, defaults to 16000):
            Rate of the result in hertz.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: float32, full scale at 1.0.

    Raises:
        [`AudioError`]: if it cannot be decoded, is empty, or holds NaN or infinite samples.
    """
    name = f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        channels, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        channels, rate = _decode_with_torchcodec(source, name, error)
    waveform = channels.mean(axis=1)
    if waveform.size == 0:
        raise AudioError(f"{name}: holds no audio.")
    if not np.isfinite(waveform).all():
        raise AudioError(f"{name}: contains NaN or infinite samples.")
    if rate != sampling_rate:
        waveform = soxr.resample(waveform, rate, sampling_rate, quality="HQ")
    return np.ascontiguousarray(waveform, dtype=np.float32)


def _decode_with_torchcodec(source: str | Path | bytes, name: str, reason: Exception) -> tuple[np.ndarray, int]:
    """Samples `(num_samples, num_channels)` and their rate; `reason` is why soundfile gave up."""
    message = f"{name}: cannot be decoded: {str(reason).splitlines()[0] if str(reason) else type(reason).__name__}"
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise AudioError(f"{name}: no such file.")
    try:
        # A torchcodec that does not fit PyTorch or FFmpeg fails with any of these.
        from torchcodec.decoders import AudioDecoder  # ty: ignore[import-not-found]
    except (ImportError, OSError, RuntimeError) as error:
        raise AudioError(f"{message} (torchcodec, which knows more formats, is not installed)") from error
    try:
        samples = AudioDecoder(source if isinstance(source, bytes) else str(source)).get_all_samples()
    except (OSError, RuntimeError, ValueError) as error:
        raise AudioError(message) from error
    return samples.data.T.float().numpy(), samples.sample_rate


__all__ = ["AudioError", "decode_audio"]
