# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Recordings of any length, in windows.

Attention compares all pairs of patches of what it is given, so a long recording goes through the model in windows of
10 s. All windows begin at a column of patches of the recording, so that their columns are those that the model would
see in the whole, and none is lost between two windows. The file is decoded, the windows are computed and their results
are joined one batch at a time: memory does not grow with the length.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedConfig, PreTrainedModel

from .audio import AudioStream, open_audio
from .feature_extraction_beats import (
    FRAME_SHIFT_MS,
    BeatsFeatureExtractor,
    num_fbank_frames,
    num_fbank_samples,
)
from .modeling_beats import BeatsModel


# From `input_values` of windows of the same length to what is wanted of each.
Compute: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Columns:
    """
    What is known of consecutive time columns of a recording.

    Args:
        values (`np.ndarray` of shape `(num_columns, ...)`):
            Scores, embeddings or codes.
        first (`int`):
            Number of the first of them in the recording, from 0.
        column_seconds (`float`):
            From one column to the next: 0.16 in the released models.
    """

    values: np.ndarray
    first: int
    column_seconds: float

    @property
    def starts(self) -> np.ndarray:
        """Where the columns begin, `(num_columns,)`, in seconds."""
        return (self.first + np.arange(len(self.values))) * self.column_seconds

    @property
    def ends(self) -> np.ndarray:
        """Where they end, and the next ones begin, `(num_columns,)`, in seconds."""
        return self.starts + self.column_seconds

    @classmethod
    def join(cls, blocks: Iterable["Columns"]) -> "Columns":
        """One table of consecutive blocks."""
        blocks = list(blocks)
        return cls(np.concatenate([block.values for block in blocks]), blocks[0].first, blocks[0].column_seconds)


@dataclass
class WindowScores:
    """
    What a model says of one window.

    Args:
        scores (`np.ndarray` of shape `(num_labels,)`):
            Probabilities, float32.
        start (`float`):
            Where the window begins, in seconds.
        end (`float`):
            Where its last column ends, in seconds.
    """

    scores: np.ndarray
    start: float
    end: float


@dataclass
class ClipScores:
    """
    What a model says of a recording.

    Args:
        scores (`np.ndarray` of shape `(num_labels,)`):
            Probabilities, float32, in the order of `model.config.id2label`.
        windows (`list[WindowScores]`):
            Those of the windows.
    """

    scores: np.ndarray
    windows: list[WindowScores]


def cut_windows(
    blocks: Iterable[np.ndarray], extractor: BeatsFeatureExtractor, window_columns: int, hop_columns: int
) -> Iterator[tuple[int, np.ndarray]]:
    """
    Cuts a recording into windows of the same length. The last one ends with the last column of the recording, and for
    that begins less than a hop after the one before it. A recording shorter than a window is one shorter window.

    Args:
        blocks (`Iterable[np.ndarray]`):
            Consecutive parts `(num_samples,)` of the recording, at the extractor's rate, of any lengths.
        extractor ([`BeatsFeatureExtractor`]):
            Gives the geometry.
        window_columns (`int`):
            Columns of a window.
        hop_columns (`int`):
            Columns from one window to the next, not more than `window_columns`.

    Yields:
        `tuple[int, np.ndarray]`: the number of the window's first column, and its samples `(num_samples,)`. At most
        two windows and a block are held.
    """
    step = column_samples(extractor)
    length = num_fbank_samples(window_columns * extractor.patch_size, extractor.sampling_rate)
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
    """Samples from one time column to the next: 2,560 in the released models."""
    return extractor.sampling_rate * FRAME_SHIFT_MS // 1000 * extractor.patch_size


def count_columns(num_samples: int, extractor: BeatsFeatureExtractor) -> int:
    """Time columns that the model sees of a clip; the extractor pads a shorter one to one column."""
    return max(1, num_fbank_frames(num_samples, extractor.sampling_rate) // extractor.patch_size)


def merge_windows(windows: Iterable[tuple[int, np.ndarray]]) -> Iterator[tuple[int, np.ndarray]]:
    """
    Joins what a model says of the columns of overlapping windows: the mean, in which a window counts by the distance
    of the column from the window's nearer edge, since the model has seen more of what is around the columns in the
    middle. Integers, which have no mean, come from the window that counts most.

    Args:
        windows (`Iterable[tuple[int, np.ndarray]]`):
            Number of the first column, not falling and leaving no gap, and values `(num_columns, ...)` of windows of
            the same length.

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
            # A copy: whoever keeps a view would keep the whole window.
            yield first, held[: start - first].copy()
            held, weight, first = held[start - first :], weight[start - first :], start
        overlap = len(held)
        columns = (-1,) + (1,) * (values.ndim - 1)
        if np.issubdtype(values.dtype, np.integer):
            is_better = (new_weight[:overlap] > weight).reshape(columns)
            merged, weight = np.where(is_better, values[:overlap], held), np.maximum(weight, new_weight[:overlap])
        else:
            weight = weight + new_weight[:overlap]
            # Written so that equal values stay what they are.
            merged = held + (new_weight[:overlap] / weight).reshape(columns) * (values[:overlap] - held)
        held, weight = np.concatenate([merged, values[overlap:]]), np.concatenate([weight, new_weight[overlap:]])
    if held is not None:
        yield first, held


def problem_type_of(config: PreTrainedConfig) -> str:
    """
    The `problem_type` of a classifier; unset, what its loss takes it for: one label means regression (of which
    transformers' pipeline would take the softmax, always 1), several a single class.
    """
    return config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")


def to_scores(logits: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Probabilities `(..., num_labels)`, float32, or the values of a regression."""
    problem_type = problem_type_of(config)
    if problem_type == "regression":
        return logits.float()
    return logits.float().sigmoid() if problem_type == "multi_label_classification" else logits.float().softmax(dim=-1)


class Window(NamedTuple):
    """A window's first column, its number of columns, and values `(num_columns, ...)`, or `(num_labels,)` of all."""

    first: int
    num_columns: int
    values: np.ndarray


def _spread(window: Window) -> tuple[int, np.ndarray]:
    """Gives all columns the values of their window, if it has no values of columns."""
    if window.values.ndim > 1:
        return window.first, window.values
    return window.first, np.tile(window.values, (window.num_columns, 1))


def _mean(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Mean `(dim,)` of the rows of blocks `(num_columns, dim)`, one at a time."""
    total, num_columns = np.zeros(1), 0
    for values in blocks:
        total, num_columns = total + values.sum(axis=0, dtype=np.float64), num_columns + len(values)
    return (total / num_columns).astype(np.float32)


class WindowedInference:
    """
    Applies a model to recordings of any length, in windows of the same shape, several at once.

    A recording that one window covers gives what the model gives for it. A longer one has a result for each time
    column that the model would see in the whole. Where windows overlap, results are averaged ([`merge_windows`]):
    probabilities and not logits, as in the evaluation of this package, since a mean of probabilities is again one, and
    a single window cannot outweigh all others. Without overlap, only the last window shares columns with the one
    before it: it is as long as the others, since models do badly on scraps.

    The model stays on its device and in its dtype; it is put into evaluation mode. Compile it with `model.compile()`:
    all windows have the same shape, except that the last batch may be smaller and a recording shorter than a window
    has its own length.

    Args:
        model (`PreTrainedModel`):
            [`BeatsForAudioClassification`], [`BeatsForAudioFrameClassification`], [`BeatsModel`] or a tokenizer.
        feature_extractor ([`BeatsFeatureExtractor`]):
            The model's.
        window_seconds (`float`, defaults to 10.0):
            Length of a window, cut down to whole columns: 10 s are 62 columns, 9.92 s, as for a clip of 10 s.
        hop_seconds (`float`, *optional*):
            From the beginning of one window to that of the next, rounded to columns, at least one and at most the
            columns of a window. Defaults to `window_seconds`: no overlap. Half of that doubles the work.
        batch_size (`int`, defaults to 8):
            How many windows the model gets at once.
        progress (`bool`, defaults to `False`):
            Whether to show a progress bar, in seconds of audio.

    All methods take `audio` of any kind that [`open_audio`] opens, an array together with its `sampling_rate`. They
    raise [`AudioError`] for a file that cannot be used: a stream may do so only when it comes to the bad place.

    Raises:
        `ValueError`: if the lengths or `batch_size` are impossible, or model and extractor do not fit.

    Example:

    ```python
    >>> inference = WindowedInference(model, feature_extractor, hop_seconds=5.0)  # doctest: +SKIP
    >>> clip = inference.classify("three_hours.flac")  # doctest: +SKIP
    >>> clip.scores.shape, clip.windows[0].end  # doctest: +SKIP
    ((527,), 9.92)
    ```
    """

    def __init__(
        self,
        model: PreTrainedModel,
        feature_extractor: BeatsFeatureExtractor,
        window_seconds: float = 10.0,
        hop_seconds: float | None = None,
        batch_size: int = 8,
        progress: bool = False,
    ):
        hop_seconds = window_seconds if hop_seconds is None else hop_seconds
        if not 0 < hop_seconds <= window_seconds < math.inf:
            raise ValueError(
                f"`hop_seconds` ({hop_seconds}) must be positive and not exceed `window_seconds` ({window_seconds})."
            )
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        for name, needed in {"patch_size": "patch_size", "feature_size": "num_mel_bins"}.items():
            has, needs = getattr(feature_extractor, name), getattr(model.config, needed)
            if has != needs:
                raise ValueError(f"The feature extractor has `{name}` {has}, the model needs {needs}.")
        rate = feature_extractor.sampling_rate
        shortest = num_fbank_samples(feature_extractor.patch_size, rate)
        if round(window_seconds * rate) < shortest:
            raise ValueError(f"`window_seconds` must be at least {shortest / rate}, a patch, got {window_seconds}.")
        self.model = model
        self.feature_extractor = feature_extractor
        self.batch_size = batch_size
        self.progress = progress
        self.column_seconds = column_samples(feature_extractor) / rate
        self.window_columns = count_columns(round(window_seconds * rate), feature_extractor)
        self.hop_columns = min(max(1, round(hop_seconds / self.column_seconds)), self.window_columns)

    def classify(self, audio: Any, sampling_rate: int | None = None) -> ClipScores:
        """
        Scores of a whole recording, with a clip-level model: the mean over its columns, so that every moment counts
        once, whether one or several windows saw it.
        """
        windows = list(self._windows(self._open(audio, sampling_rate), self._clip_scores))
        scores = _mean(values for _, values in merge_windows(map(_spread, windows)))
        return ClipScores(scores, [self._window_scores(window) for window in windows])

    def stream_windows(self, audio: Any, sampling_rate: int | None = None) -> Iterator[WindowScores]:
        """The scores of each window, with a clip-level model, as soon as they are known."""
        return map(self._window_scores, self._windows(self._open(audio, sampling_rate), self._clip_scores))

    def frames(self, audio: Any, sampling_rate: int | None = None) -> Columns:
        """Scores `(num_columns, num_labels)` of all time columns; see [`~WindowedInference.stream_frames`]."""
        return Columns.join(self.stream_frames(audio, sampling_rate))

    def stream_frames(self, audio: Any, sampling_rate: int | None = None) -> Iterator[Columns]:
        """
        Scores `(num_columns, num_labels)` of time columns, block by block. A clip-level model gives all columns of a
        window the window's scores: short hops then make a timeline.
        """
        return self._columns(audio, sampling_rate, self._scores)

    def embed(self, audio: Any, sampling_rate: int | None = None) -> np.ndarray:
        """The mean of the last hidden state over all patches of a recording, `(hidden_size,)`, float32."""
        return _mean(block.values.mean(axis=1) for block in self.stream_embeddings(audio, sampling_rate))

    def stream_embeddings(self, audio: Any, sampling_rate: int | None = None) -> Iterator[Columns]:
        """
        The last hidden state of the encoder of any model, block by block: `(num_columns, num_freq_patches,
        hidden_size)`, float32. A column's embedding is the mean over its patches, or all of them after one another.
        """
        return self._columns(audio, sampling_rate, self._hidden_states)

    def codes(self, audio: Any, sampling_rate: int | None = None) -> Columns:
        """Acoustic tokens `(num_columns, num_freq_patches)`, int64, with a tokenizer."""
        return Columns.join(self.stream_codes(audio, sampling_rate))

    def stream_codes(self, audio: Any, sampling_rate: int | None = None) -> Iterator[Columns]:
        """Acoustic tokens `(num_columns, num_freq_patches)`, int64, with a tokenizer, block by block."""
        return self._columns(audio, sampling_rate, lambda input_values: self._output(input_values, "codes"))

    def _open(self, audio: Any, sampling_rate: int | None) -> AudioStream:
        return open_audio(audio, self.feature_extractor.sampling_rate, sampling_rate)

    def _columns(self, audio: Any, sampling_rate: int | None, compute: Compute) -> Iterator[Columns]:
        """Opens the recording at once, so that a missing file is an error here; the rest is done when it is read."""
        merged = merge_windows(map(_spread, self._windows(self._open(audio, sampling_rate), compute)))
        return (Columns(values, first, self.column_seconds) for first, values in merged)

    def _windows(self, stream: AudioStream, compute: Compute) -> Iterator[Window]:
        self.model.eval()
        windows = cut_windows(stream.blocks, self.feature_extractor, self.window_columns, self.hop_columns)
        total = None if stream.seconds is None else round(stream.seconds)
        with tqdm(total=total, desc=Path(stream.name).name, unit="s", disable=not self.progress) as bar:
            while batch := list(islice(windows, self.batch_size)):
                values = self._compute([waveform for _, waveform in batch], compute)
                if not np.isfinite(values).all():
                    raise ValueError(
                        f"{stream.name}: what the model gives in {self.model.dtype} is not finite: its training has "
                        "diverged, or its precision is too low."
                    )
                # Only a recording shorter than a window has another number.
                num_columns = count_columns(len(batch[0][1]), self.feature_extractor)
                yield from (Window(first, num_columns, row) for (first, _), row in zip(batch, values))
                bar.update(round((batch[-1][0] + num_columns) * self.column_seconds) - bar.n)

    # Not around a `yield`: the mode would hold for whoever reads the stream.
    @torch.inference_mode()
    def _compute(self, waveforms: list[np.ndarray], compute: Compute) -> np.ndarray:
        """What `compute` gives for windows of the same length. They hold no padding, so there is no mask."""
        inputs = self.feature_extractor(
            waveforms,
            sampling_rate=self.feature_extractor.sampling_rate,
            return_attention_mask=False,
            return_tensors="pt",
            device=self.model.device,
        )
        values = compute(inputs["input_values"])
        return (values.float() if values.is_floating_point() else values).cpu().numpy()

    def _output(self, input_values: torch.Tensor, name: str) -> torch.Tensor:
        output = getattr(self.model(input_values, return_dict=True), name, None)
        if output is None:
            raise ValueError(f"A {type(self.model).__name__} gives no {name}: load a model that does.")
        return output

    def _scores(self, input_values: torch.Tensor) -> torch.Tensor:
        return to_scores(self._output(input_values, "logits"), self.model.config)

    def _clip_scores(self, input_values: torch.Tensor) -> torch.Tensor:
        scores = self._scores(input_values)
        if scores.ndim == 3:
            raise ValueError(f"A {type(self.model).__name__} gives scores of time columns: use `frames`.")
        return scores

    def _hidden_states(self, input_values: torch.Tensor) -> torch.Tensor:
        encoder = self.model.base_model
        if not isinstance(encoder, BeatsModel):
            raise ValueError(f"A {type(self.model).__name__} has no encoder: load a model that does.")
        return encoder.to_grid(encoder(input_values, return_dict=True).last_hidden_state)

    def _window_scores(self, window: Window) -> WindowScores:
        start = window.first * self.column_seconds
        return WindowScores(window.values, start, start + window.num_columns * self.column_seconds)


__all__ = [
    "ClipScores",
    "Columns",
    "WindowScores",
    "WindowedInference",
    "column_samples",
    "count_columns",
    "cut_windows",
    "merge_windows",
    "problem_type_of",
    "to_scores",
]
