# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
PSDS of recordings that are drawn with replacement. What each clip adds to the counts at each threshold is computed
once, by sed_scores_eval; the curves of a draw are cumulative sums of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from transformers_beats.metrics.sound_event_detection import (
    MAX_RATE,
    PSDS1,
    PSDS2,
    Curve,
    LibraryInputs,
    LibraryPart,
    area_of_curves,
    intersection_deltas,
)

from .intervals import MAX_RESAMPLES, MIN_RESAMPLES


# Points of the curves of all draws together, beyond which there are fewer draws; and products of columns and pairs of
# labels, beyond which there are none: they would take minutes, and gigabytes.
MAX_DRAWN, MAX_SCORES = 50_000_000, 50_000_000
# Points that are held at a time.
CHUNK = 4_000_000


@dataclass
class LabelPoints:
    """
    Thresholds at which the counts of a label change, the highest first. Clips are those of its [`LibraryPart`].

    Args:
        clips (`np.ndarray` of shape `(num_points,)`):
            Clip whose counts change.
        right, wrong (`np.ndarray` of shape `(num_points,)`):
            Changes of the events that are found, and of wrong detections.
        triggers (`np.ndarray` of shape `(num_points, num_others)`):
            Changes of the detections of events of other labels.
        last (`np.ndarray` of shape `(num_thresholds,)`):
            Last point of each threshold.
        events (`np.ndarray` of shape `(num_clips,)`), durations (`np.ndarray` of shape `(num_clips,)`):
            Number of events, and seconds, of each clip.
        other_seconds (`np.ndarray` of shape `(num_clips, num_others)`):
            Seconds of events of the other labels.
    """

    clips: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    triggers: np.ndarray
    last: np.ndarray
    events: np.ndarray
    durations: np.ndarray
    other_seconds: np.ndarray

    def curves(self, weights: np.ndarray, alpha_ct: float) -> Iterator[Curve | None]:
        """
        Yields the curve of each draw, None if it has no event of the label. `weights` `(num_draws, num_clips)` are the
        times that each clip was drawn.
        """
        of_points = weights[:, self.clips]
        right, rates = (np.cumsum(of_points * each, axis=1)[:, self.last] for each in (self.right, self.wrong))
        num_events, seconds = weights @ self.events, weights @ self.durations
        rates *= 1 / np.maximum(seconds, 1e-12)[:, None]
        if self.triggers.shape[1]:
            other_seconds = weights @ self.other_seconds
            has_others = other_seconds > 0
            shares = has_others / np.maximum(has_others.sum(axis=1), 1)[:, None]
            shares = np.divide(shares, other_seconds, out=np.zeros_like(shares), where=has_others)
            triggers = np.cumsum(of_points * (shares @ self.triggers.T), axis=1)[:, self.last]
            rates += alpha_ct * triggers
        for found, of_draw, count in zip(right, 3600 * rates, num_events):
            inside = np.flatnonzero(of_draw <= MAX_RATE)
            inside = inside[np.argsort(of_draw[inside], kind="stable")]
            yield (np.maximum.accumulate(found[inside]) / count, of_draw[inside]) if count else None


def read_points(part: LibraryPart, scenario: Mapping[str, float]) -> dict[int, LabelPoints]:
    """Computes the points of the labels of a part, for the thresholds of a scenario."""
    inputs, labels = part.inputs, part.all_labels
    with_triggers = "cttc_threshold" in scenario and len(labels) > 1
    criteria = scenario if with_triggers else {**scenario, "cttc_threshold": None}
    deltas = intersection_deltas(part, criteria)
    seconds = np.zeros((len(part.clips), len(labels)))
    column_of = {str(label): column for column, label in enumerate(labels)}
    for clip, events in enumerate(part.truth.values()):
        for onset, offset, label in events:
            seconds[clip, column_of[label]] += offset - onset
    durations = np.array(list(part.durations.values()))
    points = {}
    for label in part.labels:
        others = [other for other in labels if other != label] if with_triggers else []
        scores, changes = zip(*(of_clip[str(label)] for of_clip in deltas.values()))
        clips = np.repeat(np.arange(len(scores)), [len(each) for each in scores])
        triggers = np.zeros((len(clips), len(others)))
        for column, other in enumerate(others):
            triggers[:, column] = np.concatenate([each[f"cts\\{other}"] for each in changes])
        order = np.argsort(-np.concatenate(scores), kind="stable")
        thresholds = np.concatenate(scores)[order]
        points[label] = LabelPoints(
            clips=clips[order],
            right=np.concatenate([each["tps"] for each in changes])[order].astype(np.float64),
            wrong=np.concatenate([each["fps"] for each in changes])[order].astype(np.float64),
            triggers=triggers[order],
            last=np.flatnonzero(np.append(np.diff(thresholds) != 0, True)),
            events=inputs.counts[part.clips, label],
            durations=durations,
            other_seconds=seconds[:, [column_of[str(other)] for other in others]],
        )
    return points


def resample_psds(inputs: LibraryInputs, weights: np.ndarray) -> dict[str, np.ndarray]:
    """
    Computes `psds1` and `psds2` of draws of clips: of the labels that have events in a draw, NaN without any.

    Args:
        inputs ([`LibraryInputs`]):
            Scores, events, durations, and what is known.
        weights (`np.ndarray` of shape `(num_draws, num_clips)`):
            Times that each clip was drawn. Of many clips the first draws alone are used, see [`count_draws`].

    Returns:
        `dict[str, np.ndarray]`: `(num_draws,)` each; empty for so many clips and labels that they would take minutes.
    """
    draws: dict[str, np.ndarray] = {}
    # Every score may be a point, with detections of each other label.
    if sum(map(len, inputs.tables)) * len(inputs.labels) ** 2 > MAX_SCORES:
        return draws
    for name, scenario in (("psds1", PSDS1), ("psds2", PSDS2)):
        parts = [(part, read_points(part, scenario)) for part in inputs.parts()]
        lengths = [len(each.clips) for _, points in parts for each in points.values()]
        num_draws = min(len(weights), count_draws(sum(lengths)))
        chunk = max(1, CHUNK // max([1, *lengths]))
        values = []
        for start in range(0, num_draws, chunk):
            of_chunk = weights[start : min(start + chunk, num_draws)]
            of_labels = [
                each.curves(of_chunk[:, part.clips], scenario["alpha_ct"])
                for part, points in parts
                for each in points.values()
            ]
            for curves in zip(*of_labels):
                known = [curve for curve in curves if curve is not None]
                values.append(area_of_curves(known, scenario["alpha_st"]) if known else np.nan)
        draws[name] = np.array(values)
    return draws


def count_draws(num_points: int) -> int:
    """Returns the number of draws: 1,000, of many points fewer, but at least 200."""
    return int(np.clip(MAX_DRAWN // max(num_points, 1), MIN_RESAMPLES, MAX_RESAMPLES))
