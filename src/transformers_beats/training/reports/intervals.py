# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Confidence intervals of metrics: percentiles of a bootstrap over clips (Efron, 1979)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from transformers_beats.metrics.audioset_map import d_prime


if TYPE_CHECKING:
    from .report import Predictions

LEVEL = 0.95
MAX_RESAMPLES, MIN_RESAMPLES = 1000, 200
# Scores of all resamples together, beyond which there are fewer resamples.
MAX_SCORES = 100_000_000
# Scores that are held at a time.
CHUNK = 4_000_000
Interval = tuple[float, float]


@dataclass
class Resamples:
    """
    Metrics of sets of clips that were drawn with replacement: of each metric `(num_resamples,)`, and F1 or average
    precision of each class `(num_resamples, num_labels)`; NaN where undefined.
    """

    metrics: dict[str, np.ndarray]
    classes: np.ndarray


def count_resamples(predictions: "Predictions") -> int:
    """Returns the number of resamples: 1,000, for large multi-label evaluations fewer, but at least 200."""
    if not predictions.is_multi_label:
        return MAX_RESAMPLES
    return int(np.clip(MAX_SCORES // predictions.scores.size, MIN_RESAMPLES, MAX_RESAMPLES))


def resample(predictions: "Predictions", seed: int = 0) -> Resamples:
    """
    Draws clips with replacement, and computes the metrics of [`compute_metrics`] for each draw. Rows of one file are
    drawn together, since they are not independent.
    """
    _, file_of = np.unique(predictions.names, return_inverse=True)
    num_files, num_resamples = int(file_of.max()) + 1, count_resamples(predictions)
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK // len(file_of))
    parts = []
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        counts = [np.bincount(generator.integers(num_files, size=num_files), minlength=num_files) for _ in range(size)]
        weights = np.stack(counts)[:, file_of].astype(np.float64)
        parts.append((_of_several_labels if predictions.is_multi_label else _of_one_label)(predictions, weights))
    metrics = {name: np.concatenate([part.metrics[name] for part in parts]) for name in parts[0].metrics}
    return Resamples(metrics, np.concatenate([part.classes for part in parts]))


def _of_one_label(predictions: "Predictions", weights: np.ndarray) -> Resamples:
    num_labels = len(predictions.label_names)
    labels, predicted = predictions.labels, predictions.predicted
    is_right = labels == predicted

    def count(classes: np.ndarray, of: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(classes, weights=row, minlength=num_labels) for row in of])

    f1 = _divide(2 * count(labels, weights * is_right), count(labels, weights) + count(predicted, weights))
    accuracy = (weights * is_right).sum(axis=1) / weights.sum(axis=1)
    return Resamples({"accuracy": accuracy, "macro_f1": _mean(f1)}, f1)


def _of_several_labels(predictions: "Predictions", weights: np.ndarray) -> Resamples:
    scores, labels, known = predictions.scores, predictions.labels, predictions.is_known
    of_classes = [
        _ap_and_auc(weights[:, rows], scores[rows, label], labels[rows, label]) for label, rows in enumerate(known.T)
    ]
    ap, auc = (np.stack(values, axis=1) for values in zip(*of_classes))
    mean_auc = _mean(auc)
    distances = [d_prime(value) for value in mean_auc.tolist()]
    # As in scikit-learn's ranking average precision: ranks among all classes, and among those that a clip has.
    ranks = rankdata(np.where(known, -scores, np.inf), "max", axis=1)
    own = rankdata(np.where(labels, -scores, np.inf), "max", axis=1)
    shares = np.where(labels, own / ranks, 0.0).sum(axis=1)
    metrics = {
        "mAP": _mean(ap),
        "auc": mean_auc,
        "d_prime": np.array([np.nan if value is None else value for value in distances]),
        "lwlrap": _divide(weights @ shares, weights @ labels.sum(axis=1)),
    }
    return Resamples(metrics, ap)


def _ap_and_auc(weights: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes both of one class, for each row of `weights`, as scikit-learn does with `sample_weight`."""
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.flatnonzero(labels[order])
    # Sums over the clips before each one, and over all. Those of one score are above a threshold together.
    totals = np.cumsum(weights[:, order], axis=1)
    totals = np.pad(totals, ((0, 0), (1, 0)))
    steps = weights[:, order[hits]]
    positives = np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0)))
    first, last = (totals[:, np.searchsorted(-scores, -scores[hits], side)] for side in ("left", "right"))
    first_hit, last_hit = (
        positives[:, np.searchsorted(-scores[hits], -scores[hits], side)] for side in ("left", "right")
    )
    ap = _divide((steps * np.nan_to_num(_divide(last_hit, last))).sum(axis=1), positives[:, -1])
    # A negative of the same score counts half.
    above = (last - last_hit + first - first_hit) / 2
    num_negatives = totals[:, -1] - positives[:, -1]
    below = num_negatives[:, None] - above
    return ap, _divide((steps * below).sum(axis=1), positives[:, -1] * num_negatives)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divides; NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Computes the mean of each row over what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def percentiles(values: np.ndarray) -> Interval | None:
    """Returns the central interval of 95 % of what is defined; None if nothing is."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def metric_intervals(parts: Sequence["Predictions"]) -> Mapping[str, Interval | None]:
    """Returns the intervals of the metrics, of several folds those of the means over folds; clips stay in theirs."""
    return {name: percentiles(values) for name, values in resampled_means(parts).items()}


def resampled_means(parts: Sequence["Predictions"]) -> dict[str, np.ndarray]:
    """
    Returns the metrics of the draws of [`resample`], means over several folds, `(num_resamples,)`. Other predictions
    for the same clips have the same draws: of the differences between both, [`percentiles`] are a paired interval.
    """
    resamples = [resample(part, seed) for seed, part in enumerate(parts)]
    # Folds of an evaluation that is smaller have more resamples.
    size = min(len(next(iter(part.metrics.values()))) for part in resamples)
    return {
        name: _mean(np.stack([part.metrics[name][:size] for part in resamples], axis=1))
        for name in resamples[0].metrics
    }


def describe_intervals(parts: Sequence["Predictions"]) -> str:
    """Returns a sentence that says how [`metric_intervals`] were computed."""
    size = min(map(count_resamples, parts))
    within = ", each fold on its own" if len(parts) > 1 else ""
    return f"Intervals of {LEVEL:.0%}: percentiles of a bootstrap over clips ({size:,} resamples{within})."
