# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Waveforms as PyTorch takes them, and their Kaldi-compatible log mel filter banks."""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import torch
from transformers.utils import TensorType


# Kaldi's analysis settings, as in the reference: 25 ms frames every 10 ms, pre-emphasis, lowest filter from 20 Hz.
FRAME_LENGTH_MS = 25
FRAME_SHIFT_MS = 10
PREEMPHASIS = 0.97
LOW_FREQUENCY = 20.0
# Kaldi works on the 16-bit integer scale and floors the mel energies at the epsilon of float32.
INT16_SCALE = 2.0**15
MEL_FLOOR = 1.1920928955078125e-07
# Full scale is 1.0. A sample above the first of these is one of 16 bits that was not scaled, most likely; none that is
# a sound is above the second, near which float32 overflows.
LOUDEST_PLAUSIBLE, LOUDEST = 32.0, 1e10
# Whether what reads the audio warns of such samples.
LOUDNESS_IS_REPORTED: ContextVar[bool] = ContextVar("LOUDNESS_IS_REPORTED", default=False)
# Clips are transformed in blocks of about this many frames, which stay in a CPU's caches.
FRAMES_PER_BLOCK = 1024
# And their mel filters in bands, each on the frequencies that it covers: most values of all filters are zero.
NUM_MEL_BANDS = 4


@contextmanager
def loudness_was_reported() -> Generator[None, None, None]:
    """Leaves out the feature extractor's warning of samples that are too loud: that of a stream names the file."""
    token = LOUDNESS_IS_REPORTED.set(True)
    try:
        yield
    finally:
        LOUDNESS_IS_REPORTED.reset(token)


def frame_shift(sampling_rate: int) -> int:
    """Number of samples from a frame to the next, 10 ms, rounded down."""
    return sampling_rate * FRAME_SHIFT_MS // 1000


def num_fbank_frames(num_samples: int, sampling_rate: int = 16000) -> int:
    """Number of whole 25 ms frames in `num_samples` samples, 10 ms apart (no padding at the edges)."""
    frame_length = sampling_rate * FRAME_LENGTH_MS // 1000
    return max(0, 1 + (num_samples - frame_length) // frame_shift(sampling_rate))


def num_fbank_samples(num_frames: int, sampling_rate: int = 16000) -> int:
    """Number of samples that `num_frames` frames cover: the inverse of [`num_fbank_frames`]."""
    return sampling_rate * FRAME_LENGTH_MS // 1000 + (num_frames - 1) * frame_shift(sampling_rate)


# Neither is cached: tensors made during an export or a compilation must not be used later. Device and dtype are
# explicit, since both have defaults that users can change.
def _povey_window(frame_length: int, device: torch.device) -> torch.Tensor:
    window = torch.hann_window(frame_length, periodic=False, dtype=torch.float32, device="cpu")
    return window.pow(0.85).to(device)


def _mel_filters(num_mel_bins: int, fft_length: int, sampling_rate: int) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """
    Triangular filters in Kaldi's mel scale, `(fft_length // 2 + 1, num_mel_bins)`, and for each the first frequency
    bin that it covers and the one after the last. The Nyquist bin is unused.
    """
    mel_low = 1127.0 * math.log(1.0 + LOW_FREQUENCY / 700.0)
    mel_high = 1127.0 * math.log(1.0 + 0.5 * sampling_rate / 700.0)
    step = (mel_high - mel_low) / (num_mel_bins + 1)
    index = torch.arange(num_mel_bins, dtype=torch.float32, device="cpu").unsqueeze(1)
    left, center, right = (mel_low + (index + offset) * step for offset in (0, 1.0, 2.0))
    frequencies = (sampling_rate / fft_length) * torch.arange(fft_length // 2, dtype=torch.float32, device="cpu")
    mel = 1127.0 * (1.0 + frequencies / 700.0).log().unsqueeze(0)
    filters = torch.minimum((mel - left) / (center - left), (right - mel) / (right - center)).clamp(min=0.0)
    # From the formula: while exporting or compiling, the values of tensors are not known.
    edges = [
        700.0 * math.expm1((mel_low + i * step) / 1127.0) * fft_length / sampling_rate for i in range(num_mel_bins + 2)
    ]
    covered = [(math.floor(first), min(math.ceil(last) + 1, fft_length // 2)) for first, last in zip(edges, edges[2:])]
    return torch.nn.functional.pad(filters, (0, 1)).T, covered


def kaldi_fbank(waveforms: torch.Tensor, num_mel_bins: int = 128, sampling_rate: int = 16000) -> torch.Tensor:
    """
    Kaldi-compatible log mel filter banks, batched, on any device, differentiable.

    The operations and their order are those of torchaudio's `compliance.kaldi.fbank` with Microsoft's settings
    (25 ms Povey window, 10 ms shift, DC offset removed, pre-emphasis 0.97, no dither, power spectrum), so that the
    result equals the reference's. Always computed in float32, also under autocast: at the 16-bit scale half
    precision overflows.

    Args:
        waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`):
            Mono waveforms with full scale at 1.0.
        num_mel_bins (`int`, defaults to 128):
            Number of mel filters.
        sampling_rate (`int`, defaults to 16000):
            Sampling rate in hertz.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_frames, num_mel_bins)`, float32, natural logarithm, with
        `num_frames = 1 + (num_samples - 400) // 160` at 16 kHz.

    Raises:
        `ValueError`: if `waveforms` is not two-dimensional or is shorter than one frame.
    """
    if waveforms.ndim != 2:
        raise ValueError(f"`waveforms` must have shape (batch_size, num_samples), got {tuple(waveforms.shape)}.")
    num_frames = num_fbank_frames(waveforms.shape[1], sampling_rate)
    if num_frames == 0:
        raise ValueError(f"`waveforms` have {waveforms.shape[1]} samples, less than one {FRAME_LENGTH_MS} ms frame.")
    constants = fbank_constants(num_mel_bins, sampling_rate, waveforms.device)
    size = clips_per_block(waveforms.shape[0], num_frames, waveforms.device)
    blocks = [kaldi_fbank_block(block, *constants) for block in waveforms.split(size)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def clips_per_block(num_clips: int, num_frames: int, device: torch.device) -> int:
    """Number of clips to compute at once: on a CPU, those that stay in its caches."""
    # One graph is to serve all numbers of clips.
    if device.type != "cpu" or torch.compiler.is_compiling():
        return num_clips
    return max(1, FRAMES_PER_BLOCK // num_frames)


def fbank_constants(
    num_mel_bins: int, sampling_rate: int, device: torch.device
) -> tuple[int, torch.Tensor, list[tuple[int, torch.Tensor]]]:
    """
    Frame shift in samples, window `(frame_length,)` that scales to 16 bit, and mel filters in bands: for each, the
    first frequency bin that one of its filters covers, and the filters `(num_frequency_bins, num_mel_bins)` from there
    to the last.
    """
    frame_length = sampling_rate * FRAME_LENGTH_MS // 1000
    filters, covered = _mel_filters(num_mel_bins, _fft_length(frame_length), sampling_rate)
    num_bands = min(num_mel_bins, NUM_MEL_BANDS if device.type == "cpu" else 1)
    # With the numbers of Python: those of NumPy do not compile.
    bands = []
    for band in range(num_bands):
        start, end = band * num_mel_bins // num_bands, (band + 1) * num_mel_bins // num_bands
        first, last = covered[start][0], covered[end - 1][1]
        bands.append((first, filters[first:last, start:end].contiguous().to(device)))
    # Before the window, everything is linear, and the scale is a power of two: scaled here, the numbers are the same.
    return frame_shift(sampling_rate), _povey_window(frame_length, device) * INT16_SCALE, bands


def _fft_length(frame_length: int) -> int:
    return 1 << (frame_length - 1).bit_length()


def kaldi_fbank_block(
    waveforms: torch.Tensor, frame_shift: int, window: torch.Tensor, bands: list[tuple[int, torch.Tensor]]
) -> torch.Tensor:
    """Filter banks as [`kaldi_fbank`] computes them, of all waveforms at once, with the [`fbank_constants`]."""
    with torch.autocast(device_type=waveforms.device.type, enabled=False):
        frames = waveforms.float().unfold(1, window.shape[0], frame_shift)
        frames = frames - frames.mean(dim=-1, keepdim=True)
        # The first sample of a frame has no predecessor, and the window is zero there: without it, the frame begins
        # one sample later, which its power does not show.
        frames = torch.sub(frames[..., 1:], frames[..., :-1], alpha=PREEMPHASIS) * window[1:]
        spectrum = torch.fft.rfft(frames, n=_fft_length(window.shape[0]))
        # The square of `abs()`, without its root, which costs as much as the product with the filters.
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag).flatten(0, 1)
        energies = [power[:, first : first + len(filters)] @ filters for first, filters in bands]
        return torch.cat(energies, dim=1).clamp(min=MEL_FLOOR).log().unflatten(0, spectrum.shape[:2])


def is_finite(value: float) -> bool:
    """Returns whether `value` is a number, and finite as a float32."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= torch.finfo(torch.float32).max


def to_number(value: Any) -> Any:
    """Returns a number of Python's module `decimal` as a float, and anything else as it is."""
    return float(value) if isinstance(value, Decimal) else value


def to_rate(value: Any) -> float:
    """Returns a rate in hertz: a number, also as an array or a tensor without dimensions. Raises a `ValueError`."""
    rate = value.item() if getattr(value, "ndim", None) == 0 else to_number(value)
    if not is_finite(rate):
        raise ValueError(f"`sampling_rate` must be a number, in hertz, got {value!r}.")
    return rate


def silence_value(fbank_mean: float, fbank_std: float) -> float:
    """Returns the normalised fbank of digital silence: -2.39 with AudioSet's statistics."""
    return (math.log(MEL_FLOOR) - fbank_mean) / (2 * fbank_std)


def to_float_waveform(clip, index: int) -> torch.Tensor:
    """Converts one clip to a one-dimensional float32 tensor with full scale at 1.0."""
    if isinstance(clip, torch.Tensor):
        waveform = clip
    else:
        array = np.ascontiguousarray(clip)
        if array.dtype.kind not in "fciub":
            raise ValueError(
                f"Clip {index} of the batch is no waveform: numbers were expected, got {_kind_of(clip)}. Load files "
                "first, and of rows of `datasets` pass `row['audio']['array']`."
            )
        if not (array.flags.writeable and array.dtype.isnative) or min(array.strides) < 0:
            # Memory-mapped, foreign or reversed: torch takes none without complaint.
            array = array.astype(array.dtype.newbyteorder("="))
        if array.dtype in (np.longdouble, np.clongdouble):
            # PyTorch has no numbers of extended precision.
            array = array.astype(np.float64 if array.dtype.kind == "f" else np.complex128, copy=False)
        waveform = torch.from_numpy(array)
    if waveform.ndim == 2 and waveform.shape[0] == 1:
        waveform = waveform[0]
    if waveform.ndim != 1:
        raise ValueError(several_channels(waveform.shape))
    if waveform.shape[0] == 0:
        raise ValueError(f"Clip {index} of the batch is empty.")
    if waveform.dtype == torch.uint8:
        return (waveform.float() - 128.0) / 128.0
    if waveform.dtype in (torch.int16, torch.int32):
        return waveform.float() / -float(torch.iinfo(waveform.dtype).min)
    if not waveform.is_floating_point():
        raise ValueError(
            f"Clip {index} of the batch has dtype {waveform.dtype}, whose full scale is unknown. Pass floating point "
            "samples in [-1, 1], or PCM as int16, int32 or uint8."
        )
    return waveform.float()


def _kind_of(clip: Any) -> str:
    first = clip[0] if isinstance(clip, (list, tuple)) and clip else clip
    return type(first).__name__ if first is clip else f"a list of {type(first).__name__}"


def to_array(value: Any) -> Any:
    """
    Returns one value of an example as an array, or as a scalar of NumPy; numbers of Python and float64 as float32, and
    so bfloat16, which NumPy does not know. A truth value stays one of Python, as transformers takes NumPy's for no
    number and makes no tensor of it.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        array = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    else:
        array = np.asarray(value)
    if array.ndim == 0 and array.dtype == bool:
        return bool(array)
    # A scalar of NumPy, such as a label, instead of an array without dimensions.
    return (array.astype(np.float32) if array.dtype in (np.float64, np.longdouble) else array)[()]


def join_examples(examples: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    """Returns the values of all examples under each of their keys; raises a `ValueError` where these differ."""
    names = [*examples[0]] if examples else []
    for index, example in enumerate(examples):
        if differing := {*names} ^ {*example}:
            name, (has, lacks) = min(differing), (0, index) if min(differing) in names else (index, 0)
            raise ValueError(f"Clip {has} has `{name}` and clip {lacks} has not: give it to all clips or to none.")
    return {name: [example[name] for example in examples] for name in names}


def check_shapes(batch: Mapping[str, list]) -> None:
    """Raises a `ValueError` for values of clips, under each name, that differ in shape: they are no tensor."""
    for name, values in batch.items():
        shapes = list(dict.fromkeys(np.shape(value) for value in values))
        if len(shapes) > 1 and name in ("input_values", "attention_mask"):
            raise ValueError("The clips differ in length: pass `padding=True` to return them as one tensor.")
        if len(shapes) > 1:
            raise ValueError(
                f"`{name}` have shape {shapes[0]} for one clip and {shapes[1]} for another, and are not padded: bring "
                "them to one shape to return them as one tensor."
            )


def to_tensors(values: torch.Tensor | list[torch.Tensor], return_tensors: str | TensorType | None):
    """Converts `values` to one tensor, one array, or a list of arrays."""
    if return_tensors is None:
        return [value.detach().cpu().numpy() for value in values]
    tensor_type = TensorType(return_tensors)
    if isinstance(values, list):
        check_shapes({"input_values": values})
        values = torch.stack(values)
    if tensor_type not in (TensorType.PYTORCH, TensorType.NUMPY):
        raise ValueError(f"`return_tensors` must be 'pt' or 'np', got {return_tensors!r}.")
    return values if tensor_type == TensorType.PYTORCH else values.detach().cpu().numpy()


def split_pair(audio: Any) -> tuple[Any, float] | None:
    """Returns waveform and rate of a pair of both, in either order; `None` for anything else."""
    if not isinstance(audio, (tuple, list)) or len(audio) != 2:
        return None
    for waveform, rate in (audio, audio[::-1]):
        is_number = isinstance(rate, Real) and not isinstance(rate, bool)
        if is_number and (isinstance(waveform, (list, tuple)) or getattr(waveform, "ndim", 0) > 0):
            return waveform, rate
    return None


def split_pairs(raw_speech: Any) -> tuple[Any, list[float]]:
    """Returns clips without the rates that they are given with, and these rates."""
    if (pair := split_pair(raw_speech)) is not None:
        # A list of the clip, whose channels would be clips otherwise.
        return [pair[0]], [pair[1]]
    # Not looked for among the numbers of a long list.
    if not isinstance(raw_speech, (list, tuple)) or not raw_speech or split_pair(raw_speech[0]) is None:
        return raw_speech, []
    pairs = [pair for clip in raw_speech if (pair := split_pair(clip)) is not None]
    if len(pairs) < len(raw_speech):
        raise ValueError("Some clips of the batch are pairs of a waveform and its rate, others are not.")
    return [waveform for waveform, _ in pairs], [rate for _, rate in pairs]


def several_channels(shape: Sequence[int]) -> str:
    """Message for audio that is not mono."""
    return (
        f"Expected mono audio, got an array of shape {tuple(shape)}. Average the channels first, for example "
        "`audio.mean(axis=0)` for (channels, samples) or `audio.mean(axis=1)` for (samples, channels)."
    )


__all__ = [
    "fbank_constants",
    "kaldi_fbank",
    "kaldi_fbank_block",
    "num_fbank_frames",
    "num_fbank_samples",
    "split_pair",
    "split_pairs",
    "to_float_waveform",
]
