# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Sound events: labelled time spans, from the scores of time columns."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

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
        box_seconds (`float`, defaults to 0.0):
            Length of the step filter of [`find_boxes`], which gives the columns of an event one score, their mean.
            0 is no such filter.
        merge_drop, merge_ratio (`float`, *optional*):
            Of [`find_boxes`]: fall of the scores over which two boxes become one.
        temperature (`float`, defaults to 1.0):
            Divisor of the logits of scores, before all else, by which a score says how often it is right.

    Raises:
        [`UsageError`]: for thresholds outside [0, 1], a low threshold above the other, lengths that are negative or
            not finite, and a temperature or ratio that is not positive.
    """

    threshold: float = 0.5
    low_threshold: float | None = None
    median_seconds: float = 0.0
    gap_seconds: float = 0.0
    min_seconds: float = 0.0
    box_seconds: float = 0.0
    merge_drop: float | None = None
    merge_ratio: float | None = None
    temperature: float = 1.0

    def __post_init__(self):
        if self.low_threshold is None:
            self.low_threshold = self.threshold
        for name in ("threshold", "low_threshold"):
            check_range(f"`{name}`", getattr(self, name), 0.0, 1.0)
        if not self.low_threshold <= self.threshold:
            raise UsageError(
                f"`low_threshold` ({self.low_threshold}) must not be above `threshold` ({self.threshold})."
            )
        for name in ("median_seconds", "gap_seconds", "min_seconds", "box_seconds", "merge_drop"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Real) or not 0 <= value < math.inf):
                raise UsageError(f"`{name}` must be finite and not negative, got {value!r}.")
        for name in ("merge_ratio", "temperature"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Real) or not 0 < value < math.inf):
                raise UsageError(f"`{name}` must be positive and finite, got {value!r}.")


def check_range(name: str, value: Any, low: float, high: float) -> None:
    """Raises a [`UsageError`] for a value that is not a number from `low` to `high`."""
    if not isinstance(value, Real) or not low <= value <= high:
        raise UsageError(f"The {name} must be a number from {low:g} to {high:g}, got {value!r}.")


def find_events(
    columns: Columns,
    id2label: Mapping[int, str],
    settings: EventSettings,
    of_labels: Mapping[str, EventSettings] | None = None,
) -> list[Event]:
    """
    Finds the events of a recording. None is in digital silence, for which the scores of a model mean nothing.

    Args:
        columns ([`Columns`] with values `(num_columns, num_labels)`):
            Scores, for example from [`WindowedInference.frames`].
        id2label (`dict[int, str]`):
            Names of the labels, as in a model's configuration.
        settings ([`EventSettings`]):
            Thresholds and lengths.
        of_labels (`Mapping[str, EventSettings]`, *optional*):
            Those of some labels, by their names, such as from [`settings_of_labels`]. The others have `settings`.

    Returns:
        `list[Event]`: in order of their starts. Events of one label neither overlap nor touch.
    """
    seconds = columns.column_seconds
    silent = np.zeros(len(columns.values), dtype=bool) if columns.silent is None else columns.silent
    values = np.where(silent[:, None], NO_SCORE, columns.values) if silent.any() else columns.values
    names = [id2label[label] for label in range(values.shape[1])]
    each = [(of_labels or {}).get(name, settings) for name in names]
    # Most labels of a large set never reach the threshold, and a median or mean is at most the largest of its values.
    highest = np.fmax.reduce(values, axis=0, initial=NO_SCORE).astype(np.float64)
    thresholds, temperatures = (
        np.array([getattr(one, name) for one in each]) for name in ("threshold", "temperature")
    )
    calibrated = np.where(temperatures == 1, highest, calibrate(highest, temperatures))
    events = []
    for label in np.flatnonzero(calibrated >= thresholds * (1 - TOLERANCE)):
        own = each[label]
        scores = process_scores(values[:, label], own, seconds, silent)
        max_gap, min_length = own.gap_seconds / seconds + TOLERANCE, own.min_seconds / seconds - TOLERANCE
        for start, end in _join(_find_runs(scores, own), max_gap):
            if end - start >= min_length:
                times = (round(float(columns.first + column) * seconds, 6) for column in (start, end))
                events.append(Event(names[label], float(scores[start:end].max()), *times))
    return in_order(events)


def in_order(events: Iterable[Event]) -> list[Event]:
    """Sorts events by start, then by end and label."""
    return sorted(events, key=lambda event: (event.start, event.end, event.label))


def process_scores(scores: np.ndarray, settings: EventSettings, seconds: float, silent: np.ndarray) -> np.ndarray:
    """
    Returns the scores that thresholds are compared with, `(num_columns,)`, of those of one label: after temperature,
    median filter and boxes. `seconds` is the time from a column to the next; in the columns of `silent`, boolean, they
    are below every threshold.
    """
    if settings.temperature != 1:
        scores = calibrate(scores, settings.temperature).astype(scores.dtype)
    size = median_columns(settings, seconds, len(scores))
    if size > 1:
        scores = ndimage.median_filter(scores, size=size, mode="nearest")
    if settings.box_seconds:
        half = max(1, round(min(settings.box_seconds / seconds, 2 * len(scores)) / 2))
        # A median beside silence may be below every threshold, and would count in means.
        boxes = find_boxes(np.where(silent, 0.0, scores).clip(0), half, settings.merge_drop, settings.merge_ratio)
        scores = np.full(len(scores), NO_SCORE)
        for start, end, score in boxes:
            scores[start:end] = score
    return np.where(silent, NO_SCORE, scores) if silent.any() else scores


def median_columns(settings: EventSettings, seconds: float, num_columns: int) -> int:
    """
    Returns the number of columns of the median filter, which is odd. One that is longer than `num_columns`, those of
    the recording, on either side gives the same as that length. `seconds` is from a column to the next.
    """
    return 2 * math.floor(min(settings.median_seconds / seconds, 2 * num_columns) / 2 + TOLERANCE) + 1


def calibrate(scores: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Returns scores, float64, whose logits are divided by a temperature; those below 0 are 0."""
    return expit(logit(scores.astype(np.float64).clip(0, 1)) / temperature)


def find_boxes(
    scores: np.ndarray, half: int, merge_drop: float | None = None, merge_ratio: float | None = None
) -> list[tuple[int, int, float]]:
    """
    Finds the events of one label by where its scores change, and not by a threshold: sound event bounding boxes from
    change points (cSEBBs; Ebbers et al., 2024, arXiv 2406.04212). A box begins where the mean of the next scores
    exceeds that of those before by most, and ends at the next place where it falls short of it by most.

    Args:
        scores (`np.ndarray` of shape `(num_columns,)`):
            Scores in [0, 1]; before and after them, they are 0.
        half (`int`):
            Number of columns of both means, at least 1: half of the length of the step filter.
        merge_drop, merge_ratio (`float`, *optional*):
            Two boxes become one if the highest score of each exceeds the lowest one between them by less than this,
            and is less than so many times that one. One that is not given does not count; without both, none is
            merged.

    Returns:
        `list[tuple[int, int, float]]`: first column, column after the last, and mean score of each box, in order.
        There is at least a column between two.
    """
    sums = np.concatenate([[0.0], np.cumsum(scores, dtype=np.float64)])
    places = np.arange(len(scores) + 1)
    after = sums[np.minimum(places + half, len(scores))] - sums
    before = sums - sums[np.maximum(places - half, 0)]
    # Of a constant score, rounding would make changes.
    change = np.round((after - before) / half, 6)
    bounds: list[int] = []
    # Both ends have no change beyond them.
    steps = np.diff(np.concatenate([[0.0], change, [0.0]]))
    rises = True
    for place in np.flatnonzero(steps).tolist():
        if (steps[place] > 0) != rises:
            # The last place of the highest or the lowest change.
            bounds.append(place - 1)
            rises = not rises
    if len(bounds) % 2:
        bounds.append(len(scores))
    boxes = [(start, end) for start, end in zip(bounds[::2], bounds[1::2]) if start < end]
    merged: list[tuple[int, int]] = []
    for index, (start, end) in enumerate(boxes):
        if index and _is_merged(scores, boxes[index - 1], (start, end), merge_drop, merge_ratio):
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return [(start, end, float(np.mean(scores[start:end], dtype=np.float64))) for start, end in merged]


def _is_merged(
    scores: np.ndarray, first: tuple[int, int], second: tuple[int, int], drop: float | None, ratio: float | None
) -> bool:
    if drop is None and ratio is None:
        return False
    low = float(scores[first[1] : second[0]].min()) if first[1] < second[0] else 1.0
    highs = [float(scores[start:end].max()) for start, end in (first, second)]
    return all(
        (drop is None or high - low < drop) and (ratio is None or high < ratio * max(low, TOLERANCE)) for high in highs
    )


def settings_of_labels(config: Any, given: Mapping[str, Any] | None = None) -> dict[str, EventSettings]:
    """
    Returns the settings of labels that are kept in a model's configuration (`event_settings`), by their names; values
    that are `given` stand in their place.

    Raises:
        [`UsageError`]: for settings that are impossible. The message names the label.
    """
    given = dict(given or {})
    found = {}
    for label, kept in (getattr(config, "event_settings", None) or {}).items():
        # A lower threshold would be above a given one.
        kept = {name: value for name, value in kept.items() if name != "low_threshold" or "threshold" not in given}
        try:
            found[label] = EventSettings(**(kept | given))
        except (TypeError, UsageError) as error:
            raise UsageError(f"`event_settings` of {label!r}: {error}") from error
    return found


def _find_runs(scores: np.ndarray, settings: EventSettings) -> list[tuple[int, int]]:
    """Finds the runs at or above the low threshold that reach the other: first column, and column after the last."""
    # A threshold with few digits is the number of that precision which is nearest.
    kind = np.result_type(scores, np.float32)
    low, high = (np.asarray(value, kind) for value in (settings.low_threshold, settings.threshold))
    above = np.concatenate([[False], scores >= low, [False]])
    starts, ends = np.flatnonzero(np.diff(above.astype(np.int8))).reshape(-1, 2).T
    return [(start, end) for start, end in zip(starts, ends) if scores[start:end].max() >= high]


def _join(runs: list[tuple[int, int]], max_gap: float) -> list[tuple[int, int]]:
    """Joins runs that are at most `max_gap` columns apart."""
    joined: list[tuple[int, int]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] <= max_gap:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
