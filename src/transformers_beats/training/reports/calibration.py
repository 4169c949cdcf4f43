# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Calibration of a classifier: whether a score of 0.7 is right for 7 of 10 clips (Guo et al., 2017)."""

from dataclasses import dataclass

import numpy as np

from .report import Predictions


NUM_BINS = 10
# With fewer clips, a bin has none or a few.
MIN_CLIPS = 50


@dataclass
class Calibration:
    """
    Expected calibration error, and for each of ten bins of scores, `(10,)`: number of clips, mean score and accuracy,
    which are NaN without clips. Of a model of events, moments of each class count in the place of clips.
    """

    error: float
    counts: np.ndarray
    scores: np.ndarray
    accuracies: np.ndarray
    of_moments: bool = False


def calibrate(predictions: Predictions) -> Calibration | None:
    """
    Compares the scores of the predicted classes with how often these are right: the mean distance of both, weighted by
    clips, over ten bins of equal width.

    Returns:
        [`Calibration`], or None of a multi-label model, most of whose scores are those of absent classes and near 0,
        or with fewer than 50 clips.
    """
    if predictions.is_multi_label or len(predictions.names) < MIN_CLIPS:
        return None
    return bin_scores(predictions.scores.max(axis=1), predictions.predicted == predictions.labels)


def bin_scores(scores: np.ndarray, is_right: np.ndarray, of_moments: bool = False) -> Calibration:
    """Computes [`Calibration`] of scores `(num_scores,)` in [0, 1], beside what of them is right, boolean."""
    scores = scores.astype(np.float64)
    bins = np.minimum((scores * NUM_BINS).astype(int), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    divisor = np.where(counts > 0, counts, np.nan)
    means, accuracies = (np.bincount(bins, values, NUM_BINS) / divisor for values in (scores, is_right))
    error = np.nansum(counts * np.abs(means - accuracies)) / len(scores)
    return Calibration(float(error), counts, means, accuracies, of_moments)
