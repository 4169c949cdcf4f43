# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Scores as rates of false alarms, by those of normal clips that were left out of their bank."""

import math

import numpy as np

from transformers_beats.utils.errors import UsageError


# In (n + 1) times a rate, which is rarely exact.
ROUNDING = 1e-9


def check_rate(rate: float) -> None:
    """Raises a [`UsageError`] for a rate of false alarms that is not between 0 and 1."""
    if not 0 < rate < 1:
        raise UsageError(f"The rate of false alarms must be between 0 and 1, got {rate:g}.")


def p_values(scores: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """
    Returns the p-values of scores `(num_scores,)`: (1 + m) / (n + 1), if m of n `normal` scores are as high or higher.
    They are those of conformal prediction: of normal clips, a share of p at most has a p-value of p or less, as far
    as normal clips to come are like those of the bank.

    Args:
        scores (`np.ndarray` of shape `(num_scores,)`):
            Scores, higher for what is less normal.
        normal (`np.ndarray` of shape `(num_clips,)`):
            Scores of normal clips that were left out.

    Returns:
        `np.ndarray` of shape `(num_scores,)`, float64, from 1 / (num_clips + 1) to 1

    Raises:
        [`UsageError`]: for scores of other shapes, such as vectors of clips.
    """
    for name, values in (("scores", scores), ("normal", normal)):
        if np.ndim(values) != 1:
            raise UsageError(f"`{name}` must be one score for each clip, (num_clips,), got {np.shape(values)}.")
    above = len(normal) - np.searchsorted(np.sort(normal), scores, side="left")
    return (1 + above) / (len(normal) + 1)


def clips_needed(rate: float) -> int:
    """Returns the smallest number of normal clips that tells a rate of false alarms."""
    return math.ceil(1 / rate - 1 - ROUNDING)


def threshold_of(normal: np.ndarray, rate: float) -> float:
    """
    Returns the score above which a clip is anomalous, so that its p-value is `rate` at most.

    Args:
        normal (`np.ndarray` of shape `(num_clips,)`):
            Scores of normal clips that were left out.
        rate (`float`):
            Rate of false alarms that is asked for, between 0 and 1.

    Raises:
        [`UsageError`]: for a rate that so few clips cannot tell, or that is not between 0 and 1.
    """
    check_rate(rate)
    rank = math.floor(rate * (len(normal) + 1) + ROUNDING)
    if rank < 1:
        raise UsageError(
            f"A rate of false alarms of {rate:g} needs {clips_needed(rate)} normal clips or more, and there are "
            f"{len(normal)}: ask for at least {1 / (len(normal) + 1):.3g}, or fit on more."
        )
    return float(np.sort(normal)[-rank])


__all__ = ["check_rate", "clips_needed", "p_values", "threshold_of"]
