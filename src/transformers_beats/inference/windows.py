# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Windows of a recording: cutting them, and joining the results."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from transformers_beats.configuration_beats import BeatsConfig
from transformers_beats.fbank_beats import frame_shift, num_fbank_frames, num_fbank_samples
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


# Energy in a band of the fbank, in 16-bit units, up to which a frame is digital silence: equal samples in [-1, 1] have
# up to 0.0013, since float32 rounds their mean, which is subtracted; the last bit of 24, as noise, has 0.02 and more.
SILENCE_ENERGY = 2e-3


class Window(NamedTuple):
    """
    First column, number of columns and values of a window: `(num_columns, ...)`, or `(num_labels,)` for all; and which
    columns are digital silence, `(num_columns,)`. For the scores of a frame-level model with steps, these are steps.
    """

    first: int
    num_columns: int
    values: np.ndarray
    silent: np.ndarray


def find_silence(
    input_values: torch.Tensor,
    waveforms: Sequence[Any],
    extractor: BeatsFeatureExtractor,
    frames_per_step: int | None = None,
) -> torch.Tensor:
    """
    Returns which columns `(batch_size, num_columns)` of the features of `waveforms`, arrays `(num_samples,)`, are
    digital silence, equal samples; of so many frames each, if that is given, which steps, the last of which may have
    fewer.
    """
    silent = _find_silent_frames(input_values, extractor, frames_per_step)
    shortest = num_fbank_samples(extractor.patch_size, extractor.sampling_rate)
    short = [index for index, waveform in enumerate(waveforms) if len(waveform) < shortest]
    if short:
        # The extractor pads them with zeros, which equal samples of another value do not continue: there is a step.
        clips = [np.pad(waveforms[index], (0, shortest - len(waveforms[index])), mode="edge") for index in short]
        values = extractor(
            clips, sampling_rate=extractor.sampling_rate, return_tensors="pt", device=input_values.device
        )["input_values"]
        found = _find_silent_frames(values, extractor, frames_per_step)
        silent[short, : found.shape[1]] = found
    return silent


def _find_silent_frames(
    input_values: torch.Tensor, extractor: BeatsFeatureExtractor, frames_per_step: int | None
) -> torch.Tensor:
    """Returns which columns or steps have no frame with more energy than equal samples have."""
    loudest = (math.log(SILENCE_ENERGY) - extractor.fbank_mean) / (2 * extractor.fbank_std)
    frames = input_values.amax(dim=-1) <= loudest
    if frames_per_step is not None:
        frames = torch.nn.functional.pad(frames, (0, -frames.shape[1] % frames_per_step), value=True)
        return frames.unflatten(1, (-1, frames_per_step)).all(dim=-1)
    num_columns = frames.shape[1] // extractor.patch_size
    return frames[:, : num_columns * extractor.patch_size].unflatten(1, (num_columns, -1)).all(dim=-1)


def repeat_values(window: Window) -> tuple[int, np.ndarray]:
    """Repeats the values of a window for all its columns, if it has no values of columns."""
    if window.values.ndim > 1:
        return window.first, window.values
    return window.first, np.tile(window.values, (window.num_columns, 1))


def cut_windows(
    blocks: Iterable[np.ndarray],
    extractor: BeatsFeatureExtractor,
    window_columns: int,
    hop_columns: int,
    window_samples: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """
    Cuts a recording into windows of the same length. The last one ends with the last column of the recording, and for
    that begins less than a hop after the one before it. A recording shorter than a window is one shorter window.

    Args:
        blocks (`Iterable[np.ndarray]`):
            Consecutive parts `(num_samples,)` of the recording, at the extractor's rate, of any lengths.
        extractor ([`BeatsFeatureExtractor`]):
            The model's.
        window_columns (`int`):
            Columns of a window.
        hop_columns (`int`):
            Columns from one window to the next, not more than `window_columns`.
        window_samples (`int`, *optional*):
            Samples of a window of so many columns, as far as there are any. Defaults to those of its columns alone.

    Yields:
        `tuple[int, np.ndarray]`: the number of the window's first column, and its samples `(num_samples,)`. At most
        two windows and a block are held.
    """
    step = column_samples(extractor)
    length = window_samples or num_fbank_samples(window_columns * extractor.patch_size, extractor.sampling_rate)
    # `parts` begin with column `first`, the next window with column `start`.
    parts, num_held, first, start = [np.zeros(0, dtype=np.float32)], 0, 0, 0
    for block in blocks:
        parts.append(block)
        num_held += len(block)
        if num_held < (start - first) * step + length:
            continue
        held = np.concatenate(parts)
        while len(held) >= (start - first) * step + length:
            # All from here on is kept: the last window may begin with any column after this one.
            held, first = held[(start - first) * step :], start
            yield start, held[:length]
            start += hop_columns
        parts, num_held = [held], len(held)
    held = np.concatenate(parts)
    num_columns = first + count_columns(len(held), extractor)
    if start == 0:
        yield 0, held
    elif num_columns > first + window_columns:
        offset = (num_columns - window_columns - first) * step
        yield num_columns - window_columns, held[offset : offset + length]


def column_samples(extractor: BeatsFeatureExtractor) -> int:
    """Returns the samples from one time column to the next: 2,560 in the released models."""
    return frame_shift(extractor.sampling_rate) * extractor.patch_size


def step_samples(config: BeatsConfig, extractor: BeatsFeatureExtractor) -> int:
    """Returns the samples from one score of a frame-level model to the next: a column, or a step that is shorter."""
    return column_samples(extractor) // extractor.patch_size * config.frames_per_step


def step_seconds(config: BeatsConfig, extractor: BeatsFeatureExtractor) -> float:
    """Returns the time from one score of a frame-level model to the next: 0.16 or 0.04 s in the released models."""
    return step_samples(config, extractor) / extractor.sampling_rate


def count_steps(num_samples: int, config: BeatsConfig, extractor: BeatsFeatureExtractor) -> int:
    """Returns the number of scores of a frame-level model for a clip, which the extractor pads to one column."""
    return config.count_steps(max(extractor.patch_size, num_fbank_frames(num_samples, extractor.sampling_rate)))


def count_columns(num_samples: int, extractor: BeatsFeatureExtractor) -> int:
    """Returns the number of time columns of a clip; the extractor pads a shorter one to one column."""
    return max(1, num_fbank_frames(num_samples, extractor.sampling_rate) // extractor.patch_size)


def merge_windows(windows: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """
    Joins the results of overlapping windows by a weighted mean for each column or step. The weight of a window is the
    distance of the column from the window's nearer edge, since a column in the middle has more context. Integers,
    which have no mean, come from the window with the largest weight.

    Args:
        windows (`Iterable[tuple[int, np.ndarray]]`):
            Number of the first column, not falling and leaving no gap, and values `(num_columns, ...)` of windows,
            none of which ends before an earlier one.

    Yields:
        `tuple[int, np.ndarray]`: number of the first column, and values `(num_columns, ...)` of consecutive columns,
        as soon as no other window can change them. At most the columns of one window are held.
    """
    held, weight, first = None, np.zeros(0), 0
    for start, values in windows:
        distance = np.arange(1, len(values) + 1)
        new_weight = np.minimum(distance, distance[::-1]).astype(np.float32)
        if held is None:
            held, weight, first = values, new_weight, start
            continue
        if start > first:
            # A copy: a view would keep the whole window in memory.
            yield first, held[: start - first].copy()
            held, weight, first = held[start - first :], weight[start - first :], start
        overlap = len(held)
        columns = (-1,) + (1,) * (values.ndim - 1)
        if np.issubdtype(values.dtype, np.integer):
            is_better = (new_weight[:overlap] > weight).reshape(columns)
            merged, weight = np.where(is_better, values[:overlap], held), np.maximum(weight, new_weight[:overlap])
        else:
            weight = weight + new_weight[:overlap]
            # In this form, equal values stay exactly equal.
            merged = held + (new_weight[:overlap] / weight).reshape(columns) * (values[:overlap] - held)
        held, weight = np.concatenate([merged, values[overlap:]]), np.concatenate([weight, new_weight[overlap:]])
    if held is not None:
        yield first, held


class RowMean:
    """Mean of the rows of blocks `(num_columns, dim)` that are added one at a time."""

    def __init__(self):
        self.total, self.num_columns = np.zeros(1), 0

    def add(self, values: np.ndarray) -> None:
        """Adds a block."""
        self.total, self.num_columns = (
            self.total + values.sum(axis=0, dtype=np.float64),
            self.num_columns + len(values),
        )

    def value(self) -> np.ndarray:
        """Returns the mean `(dim,)`, float32, of all rows so far, at least one."""
        return (self.total / self.num_columns).astype(np.float32)


def mean_of_rows(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Mean `(dim,)` of the rows of blocks `(num_columns, dim)`, one at a time."""
    mean = RowMean()
    for values in blocks:
        mean.add(values)
    return mean.value()
