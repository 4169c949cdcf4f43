# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Sound events: labelled time spans, from the scores of time columns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from transformers_beats.utils.errors import UsageError

from .results import Columns


# Seconds are turned into columns with this tolerance, so that 1.12 s are 7 columns of 0.16 s.
TOLERANCE = 1e-6
# Below every threshold.
NO_SCORE = np.float32(-1)


class Event(NamedTuple):
    """
    A labelled time span.

    Args:
        label (`str`):
            Name of its label.
        score (`float`):
            Highest score of its columns, after the median filter.
        start (`float`):
            Start of its first column, in seconds.
        end (`float`):
            End of its last column, in seconds.
    """

    label: str
    score: float
    start: float
    end: float


@dataclass
class EventSettings:
    """
    Settings of [`find_events`]. The steps, in this order: median filter, thresholds, gaps, length.

    Args:
        threshold (`float`, defaults to 0.5):
            An event has at least one column whose score reaches it (`>=`); in [0, 1].
        low_threshold (`float`, *optional*):
            An event goes on as long as scores reach it (hysteresis). Defaults to `threshold`.
        median_seconds (`float`, defaults to 0.0):
            Length of a median filter over the scores, rounded to the nearest odd number of columns, up for ties:
            0.32 s are 3 columns of 0.16 s. Below two columns there is no filter.
        gap_seconds (`float`, defaults to 0.0):
            Longest gap between two events of one label that are joined to one.
        min_seconds (`float`, defaults to 0.0):
            Shortest event that is kept.

    Raises:
        [`UsageError`]: for thresholds outside [0, 1], a low threshold above the other, and lengths that are negative
            or not finite.
    """

    threshold: float = 0.5
    low_threshold: float | None = None
    median_seconds: float = 0.0
    gap_seconds: float = 0.0
    min_seconds: float = 0.0

    def __post_init__(self):
        if self.low_threshold is None:
            self.low_threshold = self.threshold
        for name in ("threshold", "low_threshold"):
            check_range(f"`{name}`", getattr(self, name), 0.0, 1.0)
        if not self.low_threshold <= self.threshold:
            raise UsageError(
                f"`low_threshold` ({self.low_threshold}) must not be above `threshold` ({self.threshold})."
            )
        for name in ("median_seconds", "gap_seconds", "min_seconds"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value < math.inf:
                raise UsageError(f"`{name}` must be finite and not negative, got {value!r}.")


def check_range(name: str, value: Any, low: float, high: float) -> None:
    """Raises a [`UsageError`] for a value that is not a number from `low` to `high`."""
    if not isinstance(value, Real) or not low <= value <= high:
        raise UsageError(f"The {name} must be a number from {low:g} to {high:g}, got {value!r}.")


def find_events(columns: Columns, id2label: Mapping[int, str], settings: EventSettings) -> list[Event]:
    """
    Finds the events of a recording. None is in digital silence, for which the scores of a model mean nothing.

    Args:
        columns ([`Columns`] with values `(num_columns, num_labels)`):
            Scores, for example from [`WindowedInference.frames`].
        id2label (`dict[int, str]`):
            Names of the labels, as in a model's configuration.
        settings ([`EventSettings`]):
            Thresholds and lengths.

    Returns:
        `list[Event]`: in order of their starts. Events of one label neither overlap nor touch.
    """
    seconds = columns.column_seconds
    silent = np.zeros(len(columns.values), dtype=bool) if columns.silent is None else columns.silent
    values = np.where(silent[:, None], NO_SCORE, columns.values) if silent.any() else columns.values
    # A filter longer than the recording on either side gives the same.
    median_columns = min(settings.median_seconds / seconds, 2 * len(columns.values))
    size = 2 * math.floor(median_columns / 2 + TOLERANCE) + 1
    max_gap = settings.gap_seconds / seconds + TOLERANCE
    min_length = settings.min_seconds / seconds - TOLERANCE
    events = []
    # Most labels of a large set never reach the threshold, and a median is at most the largest of its values.
    for label in np.flatnonzero((values >= settings.threshold).any(axis=0)):
        scores = values[:, label]
        if size > 1:
            scores = ndimage.median_filter(scores, size=size, mode="nearest")
            scores[silent] = NO_SCORE
        for start, end in _join(_find_runs(scores, settings), max_gap):
            if end - start >= min_length:
                times = (round(float(columns.first + column) * seconds, 6) for column in (start, end))
                events.append(Event(id2label[int(label)], float(scores[start:end].max()), *times))
    return sorted(events, key=lambda event: (event.start, event.end, event.label))


def _find_runs(scores: np.ndarray, settings: EventSettings) -> list[tuple[int, int]]:
    """Finds the runs at or above the low threshold that reach the other: first column, and column after the last."""
    above = np.concatenate([[False], scores >= settings.low_threshold, [False]])
    starts, ends = np.flatnonzero(np.diff(above.astype(np.int8))).reshape(-1, 2).T
    return [(start, end) for start, end in zip(starts, ends) if scores[start:end].max() >= settings.threshold]


def _join(runs: list[tuple[int, int]], max_gap: float) -> list[tuple[int, int]]:
    """Joins runs that are at most `max_gap` columns apart."""
    joined: list[tuple[int, int]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] <= max_gap:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
