# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Scores of clips and of time columns from a classifier's logits, and their metrics."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction
from transformers.utils import logging

from transformers_beats.inference.events import settings_of_labels
from transformers_beats.training.data.labelled import Windows
from transformers_beats.training.data.labels import Labels, frame_labels
from transformers_beats.utils.errors import BeatsError, DivergenceError

from .events import ClipEvents, EventScores, library_error, score_events
from .intervals import ONE_LABEL, SEVERAL_LABELS
from .report import Evidence, Predictions, compute_metrics


logger = logging.get_logger(__name__)


def clip_scores(logits: np.ndarray, clip_of: np.ndarray, problem_type: str) -> np.ndarray:
    """
    Computes the probabilities of clips, float32 `(num_clips, num_labels)`, from the logits `(num_windows, num_labels)`
    of their windows: means of the softmax for `"single_label_classification"`, of the sigmoid otherwise. `clip_of`
    `(num_windows,)` has the clip of each window, in ascending order.

    Raises:
        [`DivergenceError`]: if a logit is not finite.
        [`BeatsError`]: if there are not as many as windows.
    """
    if len(logits) != len(clip_of):
        raise BeatsError(f"There are logits of {len(logits)} windows, but {len(clip_of)} windows.")
    values = torch.from_numpy(np.asarray(logits, dtype=np.float32))
    if not torch.isfinite(values).all():
        raise DivergenceError(
            "The model's logits are not finite: the training has diverged, or its precision is too low."
        )
    scores = values.softmax(-1) if problem_type == "single_label_classification" else values.sigmoid()
    return mean_over_windows(scores.numpy(), clip_of)


def mean_over_windows(scores: np.ndarray, clip_of: np.ndarray) -> np.ndarray:
    """Computes means `(num_clips, num_labels)` over the windows of each clip; `clip_of` is in ascending order."""
    firsts = np.flatnonzero(np.diff(clip_of, prepend=-1))
    return np.add.reduceat(scores, firsts, axis=0) / np.diff(firsts, append=len(clip_of))[:, None]


def frame_scores(predictions: tuple[np.ndarray, ...], clip_of: np.ndarray) -> list[np.ndarray]:
    """
    Computes the probabilities of the time columns of clips, `(num_columns, num_labels)` each, from the logits
    `(num_windows, max_columns, num_labels)` and column masks `(num_windows, max_columns)` of their windows.
    """
    # Others follow, such as the logits of clips.
    logits, mask = predictions[:2]
    scores: list[list[np.ndarray]] = [[] for _ in range(int(clip_of[-1]) + 1)]
    for clip, window, valid in zip(clip_of, logits, mask):
        # `Trainer` pads with -100.
        scores[clip].append(torch.from_numpy(window[valid == 1]).float().sigmoid().numpy())
    return [np.concatenate(of_clip) for of_clip in scores]


def as_predictions(output: Any, windows: Windows, labels: Labels, problem_type: str) -> Predictions:
    """
    Returns the scores of clips beside their labels, from the output of `Trainer.predict` for their windows; of a
    frame-level model, those of every valid column.
    """
    names = list(windows.clips.names)
    if labels.task != "frames":
        logits = output[0] if isinstance(output, tuple) else output
        scores = clip_scores(logits, windows.clip_of, problem_type)
        return Predictions(names, scores, labels.as_array(), labels.names)
    of_windows = frame_scores(output, np.arange(len(windows)))
    targets = np.concatenate([windows.target(index).numpy() for index in range(len(windows))])
    columns = [names[clip] for clip, of_window in zip(windows.clip_of, of_windows) for _ in of_window]
    known = None if labels.annotated is None else ~np.isnan(targets)
    scores, targets = np.concatenate(of_windows), np.nan_to_num(targets)
    return Predictions(columns, scores, targets, labels.names, known, of_moments=True)


def event_clips(output: Any, windows: Windows, labels: Labels) -> ClipEvents:
    """
    Returns the scores, events and silence of the windows of a frame-level model. `output` is that of
    `Trainer.predict`.
    """
    if windows.targets is None:
        raise BeatsError("These clips have no labels.")
    column_seconds = windows.targets.column_seconds
    scores = frame_scores(output, np.arange(len(windows)))
    events = []
    for clip, start, of_window in zip(windows.clip_of, windows.starts / windows.sampling_rate, scores):
        events.append(events_of_window(labels.values[clip], start, len(of_window), column_seconds))
    known = None
    if labels.annotated is not None:
        known = np.stack([labels.is_known(clip) for clip in windows.clip_of])
    return ClipEvents(scores, events, column_seconds, labels.names, windows.clip_of, known, windows.silent)


def events_of_window(
    events: Sequence[tuple[int, float, float]], start: float, num_columns: int, column_seconds: float
) -> list[dict[str, Any]]:
    """
    Returns the events of a window of [`ClipEvents`] from those of its clip, class, onset and offset in seconds; the
    window begins `start` seconds after the clip. A part of an event in which the class sounds in no column, by
    [`frame_labels`], is left out: targets do not have it either.
    """
    end, found = start + column_seconds * num_columns, []
    for label, onset, offset in events:
        if onset >= end or offset <= start:
            continue
        event = {"label": label, "onset": max(onset, start) - start, "offset": min(offset, end) - start}
        if onset < start or offset > end:
            event["seconds"] = offset - onset
            if not frame_labels([(0, onset, offset)], 1, num_columns, column_seconds, start).any():
                continue
        found.append(event)
    return found


def event_scores(output: Any, windows: Windows, labels: Labels, config: Any) -> EventScores:
    """
    Computes the measures of events of a frame-level model, each window being a clip, with the settings of its
    configuration; nothing, with a warning, where the library behind them cannot be used.
    """
    if error := library_error():
        logger.warning(error)
        return EventScores({})
    return score_events(event_clips(output, windows, labels), settings_of_labels(config))


def clip_and_event_metrics(
    output: Any, predictions: Predictions, windows: Windows, labels: Labels, evidence: Evidence, config: Any
) -> dict[str, float | None]:
    """
    Computes the metrics of [`as_predictions`], with [`event_scores`] for a frame-level model, whose intervals and
    classes go into `evidence`.
    """
    if labels.task != "frames":
        return compute_metrics(predictions)
    found = event_scores(output, windows, labels, config)
    evidence.intervals, evidence.events, evidence.calibration = found.intervals, found.classes, found.calibration
    return compute_metrics(predictions) | found.metrics


def metric_names(labels: Labels) -> tuple[str, ...]:
    """Returns the names of the metrics of [`metrics_function`] for clips with such labels."""
    return ONE_LABEL if labels.task == "single_label" else SEVERAL_LABELS


def metrics_function(windows: Windows, labels: Labels, problem_type: str) -> Callable[[EvalPrediction], dict]:
    """Returns `compute_metrics` of a `Trainer` that evaluates `windows`; undefined metrics are left out."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        metrics = compute_metrics(as_predictions(prediction.predictions, windows, labels, problem_type))
        return {name: value for name, value in metrics.items() if value is not None}

    return compute
