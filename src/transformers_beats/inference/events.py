# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Sound events: from the scores of time columns to a list of what is heard from when to when."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from .windowed import Columns


# Seconds are turned into columns with this tolerance, so that 1.12 s are 7 columns of 0.16 s.
TOLERANCE = 1e-6


class Event(NamedTuple):
    """
    Something that is heard for a while.

    Args:
        label (`str`):
            What.
        score (`float`):
            The highest of its columns, after the median filter.
        start (`float`):
            Where its first column begins, in seconds.
        end (`float`):
            Where its last column ends, in seconds.
    """

    label: str
    score: float
    start: float
    end: float


@dataclass
class EventSettings:
    """
    How scores become events. The steps, in this order: median filter, thresholds, gaps, length.

    Args:
        threshold (`float`, defaults to 0.5):
            An event has at least one column with a score above it; in [0, 1].
        low_threshold (`float`, *optional*):
            An event goes on as long as scores are above it (hysteresis). Defaults to `threshold`.
        median_seconds (`float`, defaults to 0.0):
            Length of a median filter over the scores, rounded to the nearest odd number of columns, and up where two
            are as near: 0.32 s are 3 columns of 0.16 s. Below two columns, none.
        gap_seconds (`float`, defaults to 0.0):
            Events of one label that are not farther apart are one event.
        min_seconds (`float`, defaults to 0.0):
            Shorter events are left out.

    Raises:
        `ValueError`: for thresholds outside [0, 1] or a low one above the other, and for lengths that are negative
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
            raise ValueError(
                f"`low_threshold` ({self.low_threshold}) must not be above `threshold` ({self.threshold})."
            )
        for name in ("median_seconds", "gap_seconds", "min_seconds"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be finite and not negative, got {value!r}.")


def check_range(name: str, value: Any, low: float, high: float) -> None:
    """Refuses what is no number from `low` to `high`."""
    if not isinstance(value, Real) or not low <= value <= high:
        raise ValueError(f"The {name} must be a number from {low:g} to {high:g}, got {value!r}.")


def find_events(columns: Columns, id2label: Mapping[int, str], settings: EventSettings) -> list[Event]:
    """
    The events of a recording.

    Args:
        columns ([`Columns`] with values `(num_columns, num_labels)`):
            Scores, for example from [`WindowedInference.frames`].
        id2label (`dict[int, str]`):
            Name of each label, as in a model's configuration.
        settings ([`EventSettings`]):
            Thresholds and lengths.

    Returns:
        `list[Event]`: by their starts. Those of one label neither overlap nor touch.
    """
    seconds = columns.column_seconds
    # A filter over more than the recording on either side sees nothing new.
    median_columns = min(settings.median_seconds / seconds, 2 * len(columns.values))
    size = 2 * math.floor(median_columns / 2 + TOLERANCE) + 1
    max_gap = settings.gap_seconds / seconds + TOLERANCE
    min_length = settings.min_seconds / seconds - TOLERANCE
    events = []
    # Most labels of a large set are never heard, and a median is not above what it is taken of.
    for label in np.flatnonzero((columns.values > settings.threshold).any(axis=0)):
        scores = columns.values[:, label]
        if size > 1:
            scores = ndimage.median_filter(scores, size=size, mode="nearest")
        for start, end in _join(_find_runs(scores, settings), max_gap):
            if end - start >= min_length:
                times = (round(float(columns.first + column) * seconds, 6) for column in (start, end))
                events.append(Event(id2label[int(label)], float(scores[start:end].max()), *times))
    return sorted(events, key=lambda event: (event.start, event.end, event.label))


def _find_runs(scores: np.ndarray, settings: EventSettings) -> list[tuple[int, int]]:
    """First column, and column after the last, of the runs above the low threshold that come above the other."""
    above = np.concatenate([[False], scores > settings.low_threshold, [False]])
    starts, ends = np.flatnonzero(np.diff(above.astype(np.int8))).reshape(-1, 2).T
    return [(start, end) for start, end in zip(starts, ends) if scores[start:end].max() > settings.threshold]


def _join(runs: list[tuple[int, int]], max_gap: float) -> list[tuple[int, int]]:
    """Runs, with those not more than `max_gap` columns apart made one."""
    joined: list[tuple[int, int]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] <= max_gap:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


__all__ = ["Event", "EventSettings", "check_range", "find_events"]
