# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Confidence intervals of metrics: percentiles of a bootstrap over clips (Efron, 1979)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import rankdata

from transformers_beats.metrics.audioset_map import separation


if TYPE_CHECKING:
    from .report import Predictions

LEVEL = 0.95
MAX_RESAMPLES, MIN_RESAMPLES = 1000, 200
# Scores of all resamples together, beyond which there are fewer resamples; and scores of one, beyond which there are
# none: so many take minutes.
MAX_RESAMPLED, MAX_SCORES = 100_000_000, 50_000_000
# Weights of files that are held at a time, and sums of them.
BLOCK, CHUNK = 20_000_000, 4_000_000
# Metrics of clips with one label and with several, which have intervals here; those of events have their own.
ONE_LABEL, SEVERAL_LABELS = ("accuracy", "macro_f1"), ("mAP", "auc", "d_prime", "lwlrap")
Interval = tuple[float, float]


@dataclass
class Resamples:
    """
    Metrics of sets of clips that were drawn with replacement: of each metric `(num_resamples,)`, and F1 or average
    precision of each class `(num_resamples, num_labels)`; NaN where undefined. A d-prime may be infinite.
    """

    metrics: dict[str, np.ndarray]
    classes: np.ndarray


Compute = Callable[[np.ndarray], Resamples]


def count_resamples(predictions: "Predictions") -> int:
    """
    Returns the number of resamples: 1,000, for large multi-label evaluations fewer, but at least 200, and none for
    more than 50 million scores, such as those of all moments of thousands of clips.
    """
    if not predictions.is_multi_label:
        return MAX_RESAMPLES
    if predictions.scores.size > MAX_SCORES:
        return 0
    return int(np.clip(MAX_RESAMPLED // predictions.scores.size, MIN_RESAMPLES, MAX_RESAMPLES))


def resample(predictions: "Predictions", seed: int = 0) -> Resamples:
    """
    Draws clips with replacement, and computes the metrics of [`compute_metrics`] for each draw. Rows of one file are
    drawn together, since they are not independent.
    """
    num_files, num_resamples = len(predictions.files), count_resamples(predictions)
    if not num_resamples:
        return Resamples(dict.fromkeys(SEVERAL_LABELS, np.zeros(0)), np.zeros((0, len(predictions.label_names))))
    compute = (_several_labels if predictions.is_multi_label else _one_label)(predictions)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // num_files)
    parts = []
    for start in range(0, num_resamples, block):
        weights = np.zeros((num_files, min(block, num_resamples - start)))
        for draw in weights.T:
            draw += np.bincount(generator.integers(num_files, size=num_files), minlength=num_files)
        parts.append(compute(weights))
    metrics = {name: np.concatenate([part.metrics[name] for part in parts]) for name in parts[0].metrics}
    return Resamples(metrics, np.concatenate([part.classes for part in parts]))


def _one_label(predictions: "Predictions") -> Compute:
    """
    Returns a function that computes the metrics of draws from `weights` `(num_files, num_draws)`, the times that each
    file was drawn. What does not depend on a draw is computed before.
    """
    labels, predicted = predictions.labels, predictions.predicted
    shape = (len(predictions.label_names), len(predictions.files))

    def count(classes: np.ndarray, rows: np.ndarray) -> csr_array:
        """Returns the numbers of rows by class and file."""
        return csr_array((np.ones(len(rows)), (classes[rows], predictions.file_of[rows])), shape=shape)

    everything = np.arange(len(labels))
    right, true = count(labels, np.flatnonzero(labels == predicted)), count(labels, everything)
    both = true + count(predicted, everything)

    def compute(weights: np.ndarray) -> Resamples:
        num_right = (right @ weights).T
        f1 = _divide(2 * num_right, (both @ weights).T)
        accuracy = num_right.sum(axis=1) / (true @ weights).sum(axis=0)
        return Resamples(dict(zip(ONE_LABEL, (accuracy, _mean(f1)), strict=True)), f1)

    return compute


def _several_labels(predictions: "Predictions") -> Compute:
    """Returns a function as [`_one_label`] does, for multi-label predictions."""
    scores, labels, known = predictions.scores, predictions.labels, predictions.is_known
    files, num_files = predictions.file_of.astype(np.int32), len(predictions.files)
    shares = np.bincount(files, weights=_ranked_shares(scores, labels, known), minlength=num_files)
    num_positives = np.bincount(files, weights=labels.sum(axis=1), minlength=num_files)

    def compute(weights: np.ndarray) -> Resamples:
        of_classes = [
            _ap_and_auc(weights, files[rows], scores[rows, label], labels[rows, label])
            for label, rows in enumerate(known.T)
        ]
        ap, auc = (np.stack(values, axis=1) for values in zip(*of_classes))
        mean_auc = _mean(auc)
        values = (
            _mean(ap),
            mean_auc,
            # Infinite for an AUC of 0 or 1: without these draws, an end would be too near.
            separation(mean_auc),
            _divide(shares @ weights, num_positives @ weights),
        )
        return Resamples(dict(zip(SEVERAL_LABELS, values, strict=True)), ap)

    return compute


def _ranked_shares(scores: np.ndarray, labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """
    Computes what scikit-learn's ranking average precision is the mean of, summed over the classes of each row,
    `(num_clips,)`: the rank of a class among those that the clip has, divided by that among all.
    """
    shares = np.zeros(len(scores))
    positive = np.flatnonzero(labels.any(axis=1))
    chunk = max(1, CHUNK // scores.shape[1])
    for rows in (positive[start : start + chunk] for start in range(0, len(positive), chunk)):
        has_label = labels[rows] > 0
        ranks = rankdata(np.where(known[rows], -scores[rows], np.inf), "max", axis=1)
        own = rankdata(np.where(has_label, -scores[rows], np.inf), "max", axis=1)
        shares[rows] = np.where(has_label, own / ranks, 0.0).sum(axis=1)
    return shares


def _ap_and_auc(
    weights: np.ndarray, files: np.ndarray, scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    Computes both of one class, for each column of `weights`, as scikit-learn does with `sample_weight`; `files` are
    those of the rows that are known.
    """
    order = np.argsort(-scores, kind="stable")
    descending, hits = -scores[order], np.flatnonzero(labels[order])
    of_hits = descending[hits]
    # Rows before those of the score of each hit, and up to the last of these, since those of one score are above a
    # threshold together; and as many hits.
    bounds = [np.searchsorted(descending, of_hits, side) for side in ("left", "right")]
    bounds_of_hits = [np.searchsorted(of_hits, of_hits, side) for side in ("left", "right")]
    # Weights are summed between these places only.
    places = np.unique(np.concatenate([[0, len(order)], *bounds]))
    steps = csr_array((np.ones(len(order)), files[order], places), shape=(len(places) - 1, len(weights)))
    bounds = [np.searchsorted(places, each) for each in bounds]
    values = []
    chunk = max(1, CHUNK // max(len(places), len(hits)))
    for start in range(0, weights.shape[1], chunk):
        of_chunk = np.ascontiguousarray(weights[:, start : start + chunk])
        of_steps = of_chunk[files[order[hits]]]
        totals, positives = (
            np.pad(np.cumsum(each, axis=0), ((1, 0), (0, 0))) for each in (steps @ of_chunk, of_steps)
        )
        (first, last), (first_hit, last_hit) = totals[bounds], positives[bounds_of_hits]
        ap = _divide((of_steps * np.nan_to_num(_divide(last_hit, last))).sum(axis=0), positives[-1])
        # A negative of the same score counts half.
        above = (last - last_hit + first - first_hit) / 2
        num_negatives = totals[-1] - positives[-1]
        values.append((ap, _divide((of_steps * (num_negatives - above)).sum(axis=0), positives[-1] * num_negatives)))
    ap, auc = (np.concatenate(each) for each in zip(*values))
    return ap, auc


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divides; NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Computes the mean of each row over what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def percentiles(values: np.ndarray, of_differences: bool = False) -> Interval | None:
    """
    Returns the central interval of 95 % of what is defined; None if nothing is, an end is infinite, or both ends are
    equal, unless values are `of_differences`: draws of clips that are all right say nothing of clips that are not.
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    # Between infinite values, there is none.
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    if not np.isfinite([low, high]).all() or (low == high and not of_differences):
        return None
    return low, high


def metric_intervals(parts: Sequence["Predictions"]) -> Mapping[str, Interval | None]:
    """Returns the intervals of the metrics, of several folds those of the means over folds; clips stay in theirs."""
    return {name: percentiles(values) for name, values in resampled_means(parts).items()}


def resampled_means(parts: Sequence["Predictions"]) -> dict[str, np.ndarray]:
    """
    Returns the metrics of the draws of [`resample`], means over several folds, `(num_resamples,)`. Other predictions
    for the same clips have the same draws: of the differences between both, [`percentiles`] are a paired interval.
    """
    # Those of the first seed are kept for the classes of a report.
    resamples = [part.resamples if seed == 0 else resample(part, seed) for seed, part in enumerate(parts)]
    # Folds of an evaluation that is smaller have more resamples.
    size = min(len(next(iter(part.metrics.values()))) for part in resamples)
    return {
        name: _mean(np.stack([part.metrics[name][:size] for part in resamples], axis=1))
        for name in resamples[0].metrics
    }


def describe_intervals(
    parts: Sequence["Predictions"],
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, Interval | None],
) -> str:
    """
    Returns a text that says how the `intervals` of `metrics` were computed, and which metrics have none, and why.
    `intervals` are those of [`metric_intervals`] and of the measures of events that were drawn, which have other
    numbers of resamples; None where the draws have none.
    """
    size = min(map(count_resamples, parts))
    drawn = "over clips"
    if any(len(part.files) < len(part.names) for part in parts):
        of_moments = any(part.of_moments for part in parts)
        drawn += ", each with all its moments" if of_moments else ", those of one file together"
    within = ", each fold on its own" if len(parts) > 1 else ""
    counts = [(f"{size:,}", "")] if size else []
    known = {name for name, interval in intervals.items() if interval is not None}
    if known & {"collar_f1", "segment_f1"}:
        counts.append((f"{MAX_RESAMPLES:,}", " for F1 of events"))
    if known & {"psds1", "psds2"}:
        counts.append((f"{MIN_RESAMPLES:,} to {MAX_RESAMPLES:,}", " for PSDS"))
    sentences = []
    if counts:
        listed = ", ".join(f"{count}{' resamples' if not at else ''}{of}" for at, (count, of) in enumerate(counts))
        sentences.append(f"Intervals of {LEVEL:.0%}: percentiles of a bootstrap {drawn} ({listed}{within}).")
    missing = [name for name, value in metrics.items() if value is not None and intervals.get(name) is None]
    too_large = [] if size else [name for name in SEVERAL_LABELS if name in missing]
    if equal := [name for name in missing if name in intervals and name not in too_large]:
        sentences.append(
            f"None for {', '.join(equal)}, for which the draws are all equal, or an end would be infinite."
        )
    if too_large:
        largest = max(part.scores.size for part in parts)
        sentences.append(f"{', '.join(too_large)} have no intervals: {largest:,} scores are more than {MAX_SCORES:,}.")
    if undrawn := [name for name in missing if name not in intervals]:
        named = ", ".join(undrawn)
        sentences.append(
            f"None over folds for {named}: see the reports of the folds."
            if len(parts) > 1
            else f"None for {named}, whose draws would take too long."
        )
    return " ".join(sentences)
