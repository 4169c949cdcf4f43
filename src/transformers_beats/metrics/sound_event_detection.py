# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Sound event detection from frame-level scores: F1 of segments and events, PSDS, by the library sed_scores_eval."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
import pandas
from evaluate.utils.file_utils import add_start_docstrings

from .audioset_map import check_known


_DESCRIPTION = """
Measures of sound event detection for frame-level scores, by the library sed_scores_eval (`pip install
sed_scores_eval 'setuptools<81'`). Segment-based F1: time is divided into segments of one second, and a class counts as
present in a segment if one of its scores there reaches the threshold, or one of its events reaches into it; the F1 of
the classes are averaged. Collar-based F1: a run of scores that reach the threshold is right if it begins within 200 ms
of an event, and ends within 200 ms of its end or 20 % of its length, whichever is more; each event counts once. PSDS,
the polyphonic sound detection score, needs no threshold: it is the area under a curve of event detections over false
alarms per hour, in the two scenarios of the DCASE challenge. A score of 0 or less is below every threshold of PSDS:
what such scores alone would find is not found. Classes without events are left out of all four, which are None if no
class has events. With `known`, each class is judged by the clips in which it was labelled alone.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (sequence of length `num_clips` of `float` tables of shape `(num_columns, num_labels)`):
        Scores of each clip, without padding; clips may differ in `num_columns`.
    references (sequence of length `num_clips` of sequences of `dict`):
        Events of each clip: `label`, a class index, `onset` and `offset`, in seconds from the clip's start. Events of
        one class that overlap or touch are one event.
    column_seconds (`float`, defaults to 0.16):
        Duration of a column; BEATs has one every 160 ms.
    durations (sequence of `float` of length `num_clips`, *optional*):
        Durations of the clips, in seconds. By default each ends with its last column or its last event, whichever is
        later.
    threshold (`float`, defaults to 0.5):
        For the F1: a score from it on is a detection.
    segment_seconds (`float`, defaults to 1.0):
        For the F1: the length of a segment.
    per_class (`bool`, defaults to `False`):
        Whether to add the values of each class.
    known (`bool` table of shape `(num_clips, num_labels)`, *optional*):
        Whether a clip was labelled for a class. Clips where it was not are left out of all values of the class; they
        cost nothing, and count in no duration. By default all were.

Returns:
    `dict[str, Any]`:
        - `segment_f1` and `collar_f1` (`float`), in [0, 1];
        - `psds1` (`float`), in [0, 1]: detections and events must overlap by 70 %;
        - `psds2` (`float`), in [0, 1]: 10 % are enough, but detections of another class' events cost;
        - `num_classes_without_events` (`int`);
        - with `per_class`: `per_class_segment_f1`, `per_class_collar_f1`, `per_class_psds1` and `per_class_psds2`
          (`list[float | None]` of length `num_labels`; their mean is not quite the PSDS, which also has a cost of
          instability across classes) and `support` (`list[int]`), the number of events.

Example:

    >>> events = [[{"label": 0, "onset": 0.0, "offset": 0.5}]]
    >>> metric.compute(predictions=[[[0.9], [0.8], [0.1], [0.1]]], references=events, column_seconds=0.25)
    {'segment_f1': 1.0, 'collar_f1': 1.0, 'psds1': 1.0, 'psds2': 1.0, 'num_classes_without_events': 0}
"""

_CITATION = """
@inproceedings{ebbers2022threshold,
  title     = {Threshold Independent Evaluation of Sound Event Detection Scores},
  author    = {Ebbers, Janek and Haeb-Umbach, Reinhold and Serizel, Romain},
  booktitle = {ICASSP},
  year      = {2022}
}
@inproceedings{bilen2020framework,
  title     = {A Framework for the Robust Evaluation of Sound Event Detection},
  author    = {Bilen, {\\c{C}}a{\\u{g}}da{\\c{s}} and Ferroni, Giacomo and Tuveri, Francesco and Azcarreta, Juan and
               Krstulovi{\\'c}, Sacha},
  booktitle = {ICASSP},
  year      = {2020}
}
"""

# The scenarios of task 4 of the DCASE challenges 2021 to 2023.
PSDS1 = {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "alpha_ct": 0.0, "alpha_st": 1.0}
PSDS2 = {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0}
CRITERIA = ("dtc_threshold", "gtc_threshold", "cttc_threshold")
# False alarms per hour up to which the area of both is counted.
MAX_RATE = 100.0
# Those of collar-based F1 in these challenges: 200 ms, and for ends at least 20 % of the event.
COLLARS = {"onset_collar": 0.2, "offset_collar": 0.2, "offset_collar_rate": 0.2}
# The last samples of a clip, fewer than two columns of them, are in no column: events may begin there.
UNREAD_COLUMNS = 2

Event = tuple[float, float, int]
# Shares of the events of a class that are found, and false alarms per hour, ascending.
Curve = tuple[np.ndarray, np.ndarray]
# For each clip and label: scores at which counts change, and the changes of each count.
Deltas = dict[str, dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]]


class WritableFrame(pandas.DataFrame):
    """
    Table that returns copies of its values. pandas 3 returns views that must not be written to, which sed_scores_eval
    0.0.4 cannot read (fixed after it: github.com/fgnt/sed_scores_eval/pull/17).
    """

    @property
    def _constructor(self) -> type["WritableFrame"]:
        return WritableFrame

    def to_numpy(self, *args, **kwargs) -> np.ndarray:
        return np.array(super().to_numpy(*args, **kwargs))


def import_sed_scores_eval() -> Any:
    """Imports the library, which is optional."""
    try:
        # No import statement: `evaluate.load` would demand what it names, without saying how to get it.
        return importlib.import_module("sed_scores_eval")
    except Exception as error:  # of a version of a library under it that does not fit, any
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ImportError(
            "Sound event detection is evaluated by sed_scores_eval, which cannot be imported "
            f"({reason}): pip install 'transformers-beats[sed]'"
        ) from error


def reaches(scores: np.ndarray, threshold: float) -> np.ndarray:
    """
    Returns where scores reach a threshold, boolean. Those of a model have single precision, also in a table of
    float64: its number that is nearest to the threshold counts as the threshold.
    """
    return (scores >= np.float64(threshold)) | (scores == np.float64(np.float32(threshold)))


def check_scores(predictions: Any) -> list[np.ndarray]:
    """Returns the scores of each clip as float64; raises a `ValueError` if shapes do not fit or one is not finite."""
    if not len(predictions):
        raise ValueError("predictions are empty: there must be at least one clip.")
    tables = []
    for clip, scores in enumerate(predictions):
        table = np.asarray(scores, dtype=np.float64)
        if table.ndim != 2 or not table.size:
            raise ValueError(f"predictions of clip {clip} must be (num_columns, num_labels), got {table.shape}.")
        if not np.isfinite(table).all():
            column, label = np.argwhere(~np.isfinite(table))[0]
            value = table[column, label]
            raise ValueError(
                f"predictions must be finite, got {value} for clip {clip}, column {column}, label {label}."
            )
        if tables and table.shape[1] != tables[0].shape[1]:
            raise ValueError(
                f"predictions have {tables[0].shape[1]} labels for clip 0, but {table.shape[1]} for clip {clip}."
            )
        tables.append(table)
    return tables


def check_events(events: Any, clip: int, num_labels: int, end: float) -> list[Event]:
    """
    Returns the events of a clip as `(onset, offset, label)`, sorted; those of one class that overlap or touch are
    joined. Raises a `ValueError` for a label that is no class index, and for times without 0 <= onset < offset or with
    onset >= end.
    """
    checked = []
    for event in events:
        label, onset, offset = event.get("label"), event.get("onset"), event.get("offset")
        if label is None or not (0 <= label < num_labels and label == int(label)):
            raise ValueError(
                f"An event of clip {clip} has the label {label}: must be an index from 0 to {num_labels - 1}."
            )
        if onset is None or offset is None or not 0 <= onset < offset < np.inf:
            raise ValueError(f"An event of clip {clip} lasts from {onset} to {offset}: must be 0 <= onset < offset.")
        if not onset < end:
            raise ValueError(f"An event of clip {clip} begins at {onset:g} s, but the clip ends at {end:g} s.")
        checked.append((float(onset), float(offset), int(label)))
    joined: list[Event] = []
    for onset, offset, label in sorted(checked, key=lambda event: (event[2], event[0])):
        if joined and joined[-1][2] == label and onset <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(offset, joined[-1][1]), label)
        else:
            joined.append((onset, offset, label))
    return joined


def check_references(
    references: Any, tables: list[np.ndarray], column_seconds: float, durations: Sequence[float] | None
) -> tuple[list[list[Event]], list[float]]:
    """Returns the events of each clip, and its duration in seconds; raises a `ValueError` if they do not fit it."""
    if len(references) != len(tables):
        raise ValueError(f"There are predictions for {len(tables)} clips, references for {len(references)}.")
    if durations is not None and len(durations) != len(tables):
        raise ValueError(f"There are predictions for {len(tables)} clips, durations for {len(durations)}.")
    all_events, all_durations = [], []
    for clip, (table, events) in enumerate(zip(tables, references)):
        seconds = len(table) * column_seconds
        if durations is None:
            events = check_events(events, clip, table.shape[1], seconds + UNREAD_COLUMNS * column_seconds)
            duration = max([seconds, *(offset for _, offset, _ in events)])
        else:
            duration = float(durations[clip])
            # Rounding of the duration, or padding to a whole column, is no mistake.
            if not (seconds - column_seconds <= duration < np.inf):
                raise ValueError(f"Clip {clip} has {seconds:g} s of columns, but the duration {duration:g} s.")
            events = check_events(events, clip, table.shape[1], duration)
        all_events.append(events)
        all_durations.append(duration)
    return all_events, all_durations


def make_frame(table: np.ndarray, labels: list[int], column_seconds: float) -> WritableFrame:
    """Returns the scores of a clip for some labels as a table for sed_scores_eval, with the time of each column."""
    times = np.arange(len(table) + 1) * column_seconds
    columns = {"onset": times[:-1], "offset": times[1:]}
    return WritableFrame(columns | {str(label): table[:, label] for label in labels})


class LibraryInputs:
    """
    Inputs of sed_scores_eval, for the labels that have events: scores and events of each clip by its name, durations.
    """

    def __init__(
        self,
        predictions: Any,
        references: Any,
        column_seconds: float,
        durations: Sequence[float] | None = None,
        known: Any = None,
    ):
        self.tables = check_scores(predictions)
        events, seconds = check_references(references, self.tables, column_seconds, durations)
        self.num_labels, self.column_seconds = self.tables[0].shape[1], column_seconds
        self.known = check_known(known, (len(self.tables), self.num_labels))
        for clip, of_clip in enumerate(events):
            if unknown := sorted({label for _, _, label in of_clip if not self.known[clip, label]}):
                raise ValueError(f"Clip {clip} has an event of the label {unknown[0]}, which is not known there.")
        # Events of each clip and label.
        self.counts = np.array(
            [np.bincount([label for _, _, label in of_clip], minlength=self.num_labels) for of_clip in events]
        )
        self.support = self.counts.sum(axis=0)
        # The library refuses classes without events.
        self.labels = np.flatnonzero(self.support).tolist()
        self.names = [f"{clip:09d}" for clip in range(len(self.tables))]
        self.truth = {
            name: [(on, off, str(label)) for on, off, label in clip] for name, clip in zip(self.names, events)
        }
        self.durations = dict(zip(self.names, seconds))

    def frames(self, tables: Sequence[np.ndarray] | None = None) -> dict[str, WritableFrame]:
        """Returns the scores as tables of the library; others of the same shapes, if they are given."""
        tables = self.tables if tables is None else tables
        return {name: make_frame(table, self.labels, self.column_seconds) for name, table in zip(self.names, tables)}

    def parts(self) -> list["LibraryPart"]:
        """Returns the inputs of all labels, those that are known in the same clips together."""
        of_clips: dict[bytes, list[int]] = {}
        for label in self.labels:
            of_clips.setdefault(self.known[:, label].tobytes(), []).append(label)
        return [LibraryPart(self, labels) for labels in of_clips.values()]

    def by_label(self, values: Mapping[int, Any]) -> list[float | None]:
        """Returns values for each label, `(num_labels,)`."""
        return [float(values[label]) if self.support[label] else None for label in range(self.num_labels)]


class LibraryPart:
    """
    Inputs of sed_scores_eval of `labels` that are known in the same clips: those clips, with all labels that are known
    in each of them and have events there, which may be more than these.
    """

    def __init__(self, inputs: LibraryInputs, labels: list[int]):
        self.inputs, self.labels = inputs, labels
        self.clips = np.flatnonzero(inputs.known[:, labels[0]])
        is_there = inputs.known[self.clips].all(axis=0) & (inputs.counts[self.clips].sum(axis=0) > 0)
        self.all_labels = np.flatnonzero(is_there).tolist()
        known = {str(label) for label in self.all_labels}
        names = [inputs.names[clip] for clip in self.clips]
        self.truth = {name: [event for event in inputs.truth[name] if event[2] in known] for name in names}
        self.durations = {name: inputs.durations[name] for name in names}

    def frames(self, tables: Sequence[np.ndarray] | None = None) -> dict[str, WritableFrame]:
        """Returns the scores as tables of the library; see [`LibraryInputs.frames`]."""
        tables = self.inputs.tables if tables is None else tables
        return {
            self.inputs.names[clip]: make_frame(tables[clip], self.all_labels, self.inputs.column_seconds)
            for clip in self.clips
        }


@dataclass
class EventCounts:
    """
    Counts of each clip and label, int64 `(num_clips, num_labels, 3)`: right detections, wrong ones, and what there is
    to detect; of events by their collars, and of segments. Those of labels without any event are 0, and those of
    labels in clips where they are not known.
    """

    collars: np.ndarray
    segments: np.ndarray


def count_events(
    detections: Any,
    references: Any,
    column_seconds: float = 0.16,
    durations: Sequence[float] | None = None,
    segment_seconds: float = 1.0,
    known: Any = None,
) -> EventCounts:
    """
    Counts detections by clip and label, from which F1 follows by [`f1_of_counts`], also for clips that are drawn.

    Args:
        detections (sequence of length `num_clips` of `bool` tables of shape `(num_columns, num_labels)`):
            Columns in which a label is detected; a run of them is an event.
        references, column_seconds, durations, segment_seconds, known:
            As of [`compute_sound_event_detection`].

    Raises:
        `ValueError`: if shapes or events do not fit.
        `ImportError`: if sed_scores_eval is not installed.
    """
    inputs = LibraryInputs(detections, references, column_seconds, durations, known)
    shape = (len(inputs.tables), inputs.num_labels, 3)
    counts = EventCounts(np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64))
    if not inputs.labels:
        return counts
    library, frames = import_sed_scores_eval(), inputs.frames()
    of_collars = library.collar_based.intermediate_statistics_deltas(frames, inputs.truth, **COLLARS)
    segments = importlib.import_module("sed_scores_eval.segment_based.intermediate_statistics")
    of_segments = segments.intermediate_statistics_deltas(
        frames, inputs.truth, inputs.durations, segment_length=segment_seconds
    )
    for clip, name in enumerate(inputs.names):
        for label in [label for label in inputs.labels if inputs.known[clip, label]]:
            for target, deltas in ((counts.collars, of_collars), (counts.segments, of_segments)):
                scores, found = deltas[name].get(str(label), (np.zeros(0), {"tps": np.zeros(0), "fps": np.zeros(0)}))
                is_detected = np.asarray(scores) > 0.5
                for column, kind in enumerate(("tps", "fps")):
                    target[clip, label, column] = np.asarray(found[kind])[is_detected].sum()
            counts.collars[clip, label, 2] = inputs.counts[clip, label]
            counts.segments[clip, label, 2] = np.asarray(of_segments[name][str(label)][1]["tps"]).sum()
    return counts


def f1_of_counts(counts: np.ndarray) -> np.ndarray:
    """Computes F1 `(...)` from counts `(..., 3)` of [`EventCounts`]; NaN without events and detections."""
    right, wrong, present = (counts[..., column].astype(np.float64) for column in range(3))
    total = right + wrong + present
    return np.divide(2 * right, total, out=np.full(total.shape, np.nan), where=total > 0)


def compute_sound_event_detection(
    predictions: Any,
    references: Any,
    column_seconds: float = 0.16,
    durations: Sequence[float] | None = None,
    threshold: float = 0.5,
    segment_seconds: float = 1.0,
    per_class: bool = False,
    known: Any = None,
) -> dict[str, Any]:
    """
    Computes the measures; see the description of [`SoundEventDetection`].

    Raises:
        `ValueError`: if scores are not finite, or shapes or events do not fit.
        `ImportError`: if sed_scores_eval is not installed.
    """
    if not (0 < column_seconds < np.inf and 0 < segment_seconds < np.inf and np.isfinite(threshold)):
        raise ValueError(
            "column_seconds and segment_seconds must be positive and threshold finite, "
            f"got {column_seconds}, {segment_seconds} and {threshold}."
        )
    inputs = LibraryInputs(predictions, references, column_seconds, durations, known)
    names, num_labels = ("segment_f1", "collar_f1", "psds1", "psds2"), inputs.num_labels
    num_without = num_labels - len(inputs.labels)
    if not inputs.labels:
        undefined: dict[str, Any] = {**dict.fromkeys(names), "num_classes_without_events": num_without}
        by_class = {f"per_class_{name}": [None] * num_labels for name in names} | {"support": inputs.support.tolist()}
        return undefined | by_class if per_class else undefined
    library = import_sed_scores_eval()
    detections = [reaches(table, threshold).astype(np.float64) for table in inputs.tables]
    of_labels: dict[str, dict[int, float]] = {name: {} for name in names}
    curves: dict[str, dict[int, Curve]] = {"psds1": {}, "psds2": {}}
    for part in inputs.parts():
        detected = part.frames(detections)
        segments, *_ = library.segment_based.fscore(
            detected, part.truth, part.durations, 0.5, segment_length=segment_seconds
        )
        collars, *_ = library.collar_based.fscore(detected, part.truth, 0.5, **COLLARS)
        # Without other classes there are no cross triggers, whose mean the library would take.
        scenario2 = PSDS2 if len(part.all_labels) > 1 else {**PSDS2, "cttc_threshold": None, "alpha_ct": 0.0}
        found = {"segment_f1": segments, "collar_f1": collars}
        of_curves = {}
        for name, scenario in (("psds1", PSDS1), ("psds2", scenario2)):
            points = intersection_deltas(part, scenario)
            _, found[name], _, of_curves[name] = library.intersection_based.psds(
                None, part.truth, part.durations, deltas=points, **scenario, max_efpr=MAX_RATE
            )
        for label in part.labels:
            for name in names:
                of_labels[name][label] = float(found[name][str(label)])
            for name, of_part in of_curves.items():
                rights, rates, *_ = of_part[str(label)]
                curves[name][label] = rights, rates
    result: dict[str, Any] = {name: float(np.mean(list(of_labels[name].values()))) for name in names[:2]}
    result |= {
        "psds1": area_of_curves(list(curves["psds1"].values()), PSDS1["alpha_st"]),
        "psds2": area_of_curves(list(curves["psds2"].values()), PSDS2["alpha_st"]),
        "num_classes_without_events": num_without,
    }
    if per_class:
        result |= {f"per_class_{name}": inputs.by_label(values) for name, values in of_labels.items()}
        result["support"] = inputs.support.tolist()
    return result


def intersection_deltas(part: LibraryPart, scenario: Mapping[str, Any]) -> Deltas:
    """
    Computes the points of the curves of PSDS, by the criteria of a scenario, for each clip and label by their names:
    scores `(num_points,)`, below which counts change, and the changes, `(num_points,)` each. A score of 0 or less is
    no point, as below every threshold; each label has a point in one clip at least.
    """
    criteria = {name: value for name, value in scenario.items() if name in CRITERIA and value is not None}
    library = import_sed_scores_eval()
    deltas = library.intersection_based.intermediate_statistics_deltas(part.frames(), part.truth, **criteria)
    for of_labels in deltas.values():
        for label, (scores, changes) in of_labels.items():
            of_labels[label] = scores[scores > 0], {name: each[scores > 0] for name, each in changes.items()}
    first = next(iter(deltas.values()))
    for label, (_, changes) in first.items():
        if not any(len(of_labels[label][0]) for of_labels in deltas.values()):
            # The library cannot read a label without points. Here nothing changes.
            first[label] = np.ones(1), {name: np.zeros(1) for name in changes}
    return deltas


def area_of_curves(curves: Sequence[Curve], alpha_st: float) -> float:
    """
    Computes the polyphonic sound detection score, in [0, 1]: the area up to 100 false alarms per hour under the mean
    of the classes' curves less `alpha_st` times their standard deviation (Bilen et al., 2020). Each curve is a
    staircase of ascending rates, 0 before the first.
    """
    rates = np.unique(np.concatenate([rates for _, rates in curves]))
    shares = np.stack([np.append(0.0, found)[np.searchsorted(own, rates, side="right")] for found, own in curves])
    effective = np.maximum(shares.mean(axis=0) - alpha_st * shares.std(axis=0), 0.0)
    return float((effective * np.diff(rates, append=MAX_RATE)).sum() / MAX_RATE)


def best_collar_f1(inputs: LibraryInputs, tables: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """
    Finds the threshold of each label with the highest collar-based F1, for scores of the shapes of `inputs`. A score
    of 0, which digital silence has, is below every threshold.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: F1 and thresholds `(num_labels,)`, float64; a threshold lies between two
        scores of detections, and is -inf where all scores but 0 are to be found. Both are NaN for labels without
        events, and the threshold where F1 is 0.
    """
    scores, thresholds = (np.full(inputs.num_labels, np.nan) for _ in range(2))
    for part in inputs.parts():
        library = import_sed_scores_eval()
        curves = library.collar_based.fscore_curve(part.frames(tables), part.truth, **COLLARS)
        for label in part.labels:
            # F1 of thresholds below each score and not below the one before it.
            f1, _, _, bounds, _ = curves[str(label)]
            f1 = np.where(bounds > 0, f1, -1.0)
            # Of equal ones the highest, which is furthest from what must not be found.
            place = len(f1) - 1 - int(np.argmax(f1[::-1]))
            scores[label] = f1[place]
            if f1[place] > 0:
                thresholds[label] = (bounds[place - 1] + bounds[place]) / 2 if place else -np.inf
    return scores, thresholds


@add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class SoundEventDetection(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # Not an integer for the label: 0.5 would silently become 0.
        event = {name: datasets.Value("float64") for name in ("label", "onset", "offset")}
        features = {
            "predictions": datasets.List(datasets.List(datasets.Value("float64"))),
            "references": datasets.List(event),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
            reference_urls=["https://github.com/fgnt/sed_scores_eval"],
        )

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs) -> dict[str, Any]:
        return compute_sound_event_detection(predictions, references, **kwargs)
