# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Measures of the events of a frame-level classifier, with intervals, and the choice of thresholds and filters for each
class.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logit
from transformers.utils import logging

from transformers_beats.inference.events import NO_SCORE, EventSettings, calibrate, find_events, process_scores
from transformers_beats.inference.results import Columns
from transformers_beats.metrics.sound_event_detection import (
    EventCounts,
    LibraryInputs,
    best_collar_f1,
    compute_sound_event_detection,
    count_events,
    f1_of_counts,
    import_sed_scores_eval,
)
from transformers_beats.training.data.labels import frame_labels
from transformers_beats.utils.errors import BeatsError, UsageError, name_some
from transformers_beats.utils.files import check_place, replace_file

from .calibration import Calibration, bin_scores
from .intervals import MAX_RESAMPLES, Interval, percentiles
from .psds import resample_psds


logger = logging.get_logger(__name__)

# Lengths of median filters that are tried, in seconds. DCASE's baselines have 0.45 s, and later systems up to some
# seconds for classes such as vacuum cleaners.
MEDIANS = (0.0, 0.12, 0.2, 0.28, 0.36, 0.48, 0.68, 0.84, 1.0, 1.4, 2.0, 3.0)
# Step filters and rules of merging that are tried: those of Ebbers et al. (2024, arXiv 2406.04212).
BOX_LENGTHS = (0.32, 0.48, 0.64)
MERGES: tuple[dict[str, float], ...] = (
    *({"merge_drop": value} for value in (0.15, 0.2, 0.3)),
    *({"merge_ratio": value} for value in (1.5, 2.0, 3.0)),
)
# Bounds of a temperature, and of logits of which one is fitted.
TEMPERATURES, MAX_LOGIT = (0.1, 10.0), 30.0
# A temperature of a class with fewer columns would say little.
MIN_POSITIVES = 10


def library_error() -> str | None:
    """Returns why the library behind the measures cannot be used, None if it can."""
    try:
        # It may be installed without what it needs.
        import_sed_scores_eval()
    except ImportError as error:
        return str(error)
    return None


@dataclass
class ClipEvents:
    """
    Scores and events of clips, or of windows of them.

    Args:
        tables (`list[np.ndarray]` of shape `(num_columns, num_labels)`):
            Scores of each clip.
        references (`list[list[dict]]`):
            Events of each: `label`, a class index, `onset` and `offset` in seconds from its start; and of a part of
            one, `seconds`, the length of the whole event.
        column_seconds (`float`):
            Time from one score to the next.
        names (`list[str]`):
            Names of the labels.
        files (`np.ndarray` of shape `(num_clips,)`):
            Number of the recording of each clip. Those of one recording are drawn together for intervals.
        known (`np.ndarray` of shape `(num_clips, num_labels)`, *optional*):
            Whether a clip was labelled for a label, boolean. Where it was not, it has no part in what is said of the
            label. By default all were.
        silent (`list[np.ndarray]` of shape `(num_columns,)`, *optional*):
            Columns of digital silence of each clip, boolean: there are no events in them, and their scores mean
            nothing. By default there are none.
    """

    tables: list[np.ndarray]
    references: list[list[dict[str, Any]]]
    column_seconds: float
    names: list[str]
    files: np.ndarray
    known: np.ndarray | None = None
    silent: list[np.ndarray] | None = None

    def columns(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields scores and silence of each clip, `(num_columns, num_labels)` and `(num_columns,)`."""
        silent = [np.zeros(len(table), dtype=bool) for table in self.tables] if self.silent is None else self.silent
        yield from zip(self.tables, silent, strict=True)

    def column_known(self) -> np.ndarray:
        """
        Returns whether the scores of each column of all clips can be judged, boolean `(num_columns, num_labels)`: by
        [`ClipEvents.known`], and outside of silence.
        """
        known = np.ones((len(self.tables), len(self.names)), dtype=bool) if self.known is None else self.known
        known = np.repeat(known, [len(table) for table in self.tables], axis=0)
        return known if self.silent is None else known & ~np.concatenate(self.silent)[:, None]


@dataclass
class EventScores:
    """
    Measures of events: `collar_f1`, `segment_f1`, `psds1` and `psds2`, None where undefined; their intervals of 95 %;
    for each class `label`, `events` (their number), these measures and its settings; and the calibration
    of the scores of moments.
    """

    metrics: dict[str, float | None]
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    classes: list[dict[str, Any]] = field(default_factory=list)
    calibration: Calibration | None = None


def process_tables(clips: ClipEvents, settings: Mapping[str, EventSettings]) -> list[np.ndarray]:
    """Returns the scores that thresholds are compared with, of each clip; labels without settings keep theirs."""
    default = EventSettings()
    processed = []
    for table, silent in clips.columns():
        values = np.where(silent[:, None], NO_SCORE, table)
        columns = [
            process_scores(values[:, label], settings.get(name, default), clips.column_seconds, silent)
            for label, name in enumerate(clips.names)
        ]
        # Below every threshold is 0, too.
        processed.append(np.stack(columns, axis=1).clip(0, 1))
    return processed


def detect(clips: ClipEvents, settings: Mapping[str, EventSettings]) -> list[np.ndarray]:
    """Returns the columns of each clip in which [`find_events`] finds an event of a label, boolean."""
    number_of = {name: number for number, name in enumerate(clips.names)}
    id2label, detected = dict(enumerate(clips.names)), []
    for table, silent in clips.columns():
        found, columns = np.zeros(table.shape, dtype=bool), Columns(table, 0, clips.column_seconds, silent)
        for event in find_events(columns, id2label, EventSettings(), settings):
            first, last = (round(time / clips.column_seconds) for time in (event.start, event.end))
            found[first:last, number_of[event.label]] = True
        detected.append(found)
    return detected


def score_events(clips: ClipEvents, settings: Mapping[str, EventSettings], seed: int = 0) -> EventScores:
    """
    Computes the measures of events that are found with the settings of each label, and by default with a threshold of
    0.5. F1 is that of the events; PSDS needs no threshold, and has the filters only.

    Raises:
        `ImportError`: if sed_scores_eval is not installed.
    """
    seconds, processed = clips.column_seconds, process_tables(clips, settings)
    whole = compute_sound_event_detection(processed, clips.references, seconds, per_class=True, known=clips.known)
    counts = count_events(detect(clips, settings), clips.references, seconds, known=clips.known)
    support = np.array(whole["support"])
    of_kinds = {"collar_f1": counts.collars, "segment_f1": counts.segments}
    per_class = {name: f1_of_counts(each.sum(axis=0)) for name, each in of_kinds.items()}
    metrics: dict[str, float | None] = {
        name: float(values[support > 0].mean()) if support.any() else None for name, values in per_class.items()
    }
    metrics |= {name: whole[name] for name in ("psds1", "psds2")}
    classes = [
        {
            "label": name,
            "events": int(support[label]),
            **{key: float(values[label]) if support[label] else None for key, values in per_class.items()},
            **{key: whole[f"per_class_{key}"][label] for key in ("psds1", "psds2")},
            **as_kept(settings.get(name, EventSettings())),
        }
        for label, name in enumerate(clips.names)
    ]
    inputs = LibraryInputs(processed, clips.references, seconds, known=clips.known)
    draws = resample_f1(counts, clips.files, seed) | resample_psds(inputs, draw_files(clips.files, seed))
    intervals = {name: percentiles(values) for name, values in draws.items()}
    return EventScores(metrics, intervals, classes, calibrate_events(clips, settings))


def draw_files(files: np.ndarray, seed: int = 0) -> np.ndarray:
    """
    Draws recordings with replacement, a thousand times. Returns how often each clip is in each draw, int64 `(1000,
    num_clips)`; `files` `(num_clips,)` have its recording.
    """
    _, file_of = np.unique(files, return_inverse=True)
    num_files = int(file_of.max()) + 1
    generator = np.random.default_rng(seed)
    drawn = [
        np.bincount(generator.integers(num_files, size=num_files), minlength=num_files) for _ in range(MAX_RESAMPLES)
    ]
    return np.stack(drawn)[:, file_of]


def resample_f1(counts: EventCounts, files: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """
    Computes `collar_f1` and `segment_f1`, `(1000,)`, of recordings that are drawn with replacement: the mean over the
    classes that have events or detections in a draw. Other detections of the same clips have the same draws.
    """
    weights = draw_files(files, seed)
    draws = {}
    for name, each in (("collar_f1", counts.collars), ("segment_f1", counts.segments)):
        known = each[:, each[..., 2].sum(axis=0) > 0]
        f1 = f1_of_counts(np.tensordot(weights, known, axes=1))
        is_known = ~np.isnan(f1)
        num_known = is_known.sum(axis=1)
        total = np.where(is_known, f1, 0.0).sum(axis=1)
        draws[name] = np.divide(total, num_known, out=np.full(len(f1), np.nan), where=num_known > 0)
    return draws


# Tuning


def as_kept(settings: EventSettings) -> dict[str, float]:
    """Returns settings as a model's configuration keeps them: the threshold, and what differs from the default."""
    default = asdict(EventSettings(threshold=settings.threshold))
    values = {name: value for name, value in asdict(settings).items() if name == "threshold" or value != default[name]}
    # Scores of rare classes differ by less than any number of decimals.
    exact = ("threshold", "low_threshold")
    return {name: float(value) if name in exact else round(float(value), 6) for name, value in values.items()}


def place_threshold(threshold: float, scores: Iterable[np.ndarray]) -> float | None:
    """
    Returns the number of the fewest digits that divides the `scores` of a label, float32, as a tuned threshold does,
    which is -inf if all are to be found. Those of 0, which silence has, never are. None if there is no such number.
    """
    if threshold == -math.inf:
        threshold = min((float(of_clip[of_clip > 0].min(initial=math.inf)) for of_clip in scores), default=math.inf)
    value = np.float32(threshold)
    # Between two neighbouring numbers there is none: the upper one divides as well.
    value = np.nextafter(value, np.float32(np.inf)) if value < threshold else value
    return float(str(value)) if 0 < value <= 1 else None


def candidates(method: str, column_seconds: float) -> Iterator[EventSettings]:
    """Yields filters that are tried, the shortest first; medians of the same number of columns once."""
    known = set()
    for median in MEDIANS:
        size = max(1, 2 * math.floor(median / column_seconds / 2 + 0.5) - 1) if median else 1
        if size not in known:
            known.add(size)
            yield EventSettings(median_seconds=(size if size > 1 else 0) * column_seconds)
    if method == "boxes":
        for length in BOX_LENGTHS:
            for merge in MERGES:
                yield EventSettings(box_seconds=length, **merge)


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """
    Returns the temperature by which the scores `(num_columns,)` of a label have the least log loss (Guo et al., 2017);
    1 with fewer than ten columns of either kind.
    """
    if min(labels.sum(), len(labels) - labels.sum()) < MIN_POSITIVES:
        return 1.0
    logits = logit(scores.astype(np.float64)).clip(-MAX_LOGIT, MAX_LOGIT)
    signs = np.where(labels > 0, -1.0, 1.0)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, signs * logits / math.exp(log_temperature)).mean())

    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded").x
    return round(math.exp(found), 4) if loss(found) < loss(0.0) else 1.0


def column_labels(clips: ClipEvents) -> list[np.ndarray]:
    """Returns the classes that sound in each column of each clip, `(num_columns, num_labels)`, by [`frame_labels`]."""
    return [
        frame_labels(
            [
                (event["label"], event["onset"], event["offset"], *([event["seconds"]] if "seconds" in event else []))
                for event in events
            ],
            len(clips.names),
            len(table),
            clips.column_seconds,
            start=0.0,
        )
        for table, events in zip(clips.tables, clips.references)
    ]


def tune_settings(clips: ClipEvents, method: str) -> dict[str, EventSettings]:
    """
    Chooses settings of each label: the temperature of the least log loss of columns, then the filter and the threshold
    of the highest collar-based F1, of equal ones the shortest filter.

    Args:
        clips ([`ClipEvents`]):
            Clips that the model has not learned from.
        method (`"median"` or `"boxes"`):
            Filters that are tried: median filters, and with `"boxes"` also those of [`find_boxes`].

    Returns:
        `dict[str, EventSettings]`: by label. Labels without events, or none of which is ever found, have none, which a
        warning counts.

    Raises:
        `ImportError`: if sed_scores_eval is not installed.
    """
    labels, scores = np.concatenate(column_labels(clips)), np.concatenate(clips.tables)
    temperatures = [
        fit_temperature(scores[known, label], labels[known, label])
        for label, known in enumerate(clips.column_known().T)
    ]
    inputs = LibraryInputs(clips.tables, clips.references, clips.column_seconds, known=clips.known)
    best = np.full(len(clips.names), -1.0)
    chosen: dict[str, EventSettings] = {}
    for candidate in candidates(method, clips.column_seconds):
        each = {
            name: replace(candidate, temperature=value) for name, value in zip(clips.names, temperatures, strict=True)
        }
        processed = process_tables(clips, each)
        f1, thresholds = best_collar_f1(inputs, processed)
        for label, name in enumerate(clips.names):
            if f1[label] > best[label] + 1e-9:
                of_clips = (table[:, label] for table, known in zip(processed, inputs.known[:, label]) if known)
                value = place_threshold(thresholds[label], of_clips)
                if value is not None:
                    best[label] = f1[label]
                    chosen[name] = replace(each[name], threshold=value, low_threshold=value)
    if missing := [name for name in clips.names if name not in chosen]:
        logger.warning(
            f"{len(missing)} of {len(clips.names)} classes have no event here that could be found, and keep the "
            f"threshold of 0.5: {name_some(missing)}."
        )
    return chosen


def check_model_directory(model: str) -> Path:
    """Returns the `config.json` of a model; raises a [`UsageError`] if it cannot be replaced in a directory here."""
    path = Path(model) / "config.json"
    if not path.is_file():
        raise UsageError(f"`tune_events` writes to the model's directory, and {model} is no such directory.")
    check_place(path)
    return path


def keep_settings(model: str, settings: Mapping[str, EventSettings]) -> None:
    """Writes the settings of labels to the configuration of a model in a directory, and nothing else in it."""
    path = check_model_directory(model)
    config = json.loads(path.read_text(encoding="utf-8"))
    config["event_settings"] = {name: as_kept(each) for name, each in settings.items()}
    try:
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BeatsError(f"{path}: cannot be written: {error.strerror}.") from error


def calibrate_events(clips: ClipEvents, settings: Mapping[str, EventSettings]) -> Calibration | None:
    """
    Compares the scores of moments for the labels known, after temperature, with how often these sound; None if all is
    silence.
    """
    temperatures = np.array([settings.get(name, EventSettings()).temperature for name in clips.names])
    scores = calibrate(np.concatenate(clips.tables), temperatures)
    known = clips.column_known()
    if not known.any():
        return None
    return bin_scores(scores[known], np.concatenate(column_labels(clips))[known] > 0, of_moments=True)


__all__ = [
    "ClipEvents",
    "EventScores",
    "check_model_directory",
    "keep_settings",
    "library_error",
    "score_events",
    "tune_settings",
]
