# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Fréchet distance between the embeddings of two collections, as of the Fréchet audio distance (FAD)."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh, svdvals

from transformers_beats.utils.errors import UsageError


# The extrapolation divides both collections into so many parts at most.
MAX_PARTS, SEED = 3, 0


class Gaussian(NamedTuple):
    """Mean `(dim,)` and covariance `(dim, dim)` of embeddings, float64."""

    mean: np.ndarray
    covariance: np.ndarray


class Distance(NamedTuple):
    """
    Fréchet distance of two collections.

    Args:
        value (`float`):
            The distance of all embeddings, which is too large for few of them.
        extrapolated (`float`, *optional*):
            The distance that is expected of infinitely many; `None` if there are too few to tell.
        is_biased (`bool`):
            Whether a covariance is singular, as there are no more embeddings than they have values.
    """

    value: float
    extrapolated: float | None
    is_biased: bool


def count_needed(dim: int) -> int:
    """Returns how many embeddings of `dim` values each collection must have for an extrapolation."""
    return 2 * (dim + 1)


def fit_gaussian(embeddings: np.ndarray) -> Gaussian:
    """
    Returns mean and unbiased covariance of embeddings `(num_embeddings, dim)`; raises a [`UsageError`] for fewer than
    two.
    """
    if len(embeddings) < 2:
        raise UsageError(f"A covariance needs two embeddings at least, got {len(embeddings)}.")
    values = embeddings.astype(np.float64)
    return Gaussian(values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False)))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """
    Returns the squared Fréchet distance of two Gaussians, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), of means m and
    covariances S. The trace of the root is the sum of the singular values of S1^(1/2) S2^(1/2), which are real and not
    negative also where a covariance is singular.
    """
    root = svdvals(_square_root(first.covariance) @ _square_root(second.covariance)).sum()
    means = np.square(first.mean - second.mean).sum()
    # Rounding may leave a little less than nothing.
    return max(0.0, float(means + np.trace(first.covariance) + np.trace(second.covariance) - 2 * root))


def _square_root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def measure_distance(first: np.ndarray, second: np.ndarray) -> Distance:
    """
    Measures the Fréchet distance of two collections of embeddings.

    The distance of finite samples is too large, by about a / n1 + b / n2 for samples of n1 and n2 embeddings. If both
    are divided at random into k parts, the mean distance of the parts is therefore nearly linear in k, and the
    extrapolation is where the line through k = 1, 2 and 3 meets k = 0 (after Chong and Forsyth, 2020, arXiv
    1911.07023, who draw samples). There is none for fewer embeddings than [`count_needed`], since the covariance
    of one of the halves is singular. It may be a little below 0, and for one collection compared with itself it means
    nothing.

    Args:
        first, second (`np.ndarray` of shape `(num_embeddings, dim)`):
            Embeddings of both.

    Returns:
        [`Distance`]

    Raises:
        [`UsageError`]: for fewer than two embeddings.
    """
    value = frechet_distance(fit_gaussian(first), fit_gaussian(second))
    dim, fewest = first.shape[1], min(len(first), len(second))
    if fewest < count_needed(dim):
        return Distance(value, None, fewest <= dim)
    counts = [count for count in range(1, MAX_PARTS + 1) if fewest // count > dim]
    generator = np.random.default_rng(SEED)
    shuffled = [generator.permutation(values) for values in (first, second)]
    means = [
        np.mean([frechet_distance(fit_gaussian(one), fit_gaussian(other)) for one, other in zip(*parts)])
        for parts in ([np.array_split(values, count) for values in shuffled] for count in counts)
    ]
    _, intercept = np.polyfit(counts, means, 1)
    return Distance(value, float(intercept), False)


__all__ = ["Distance", "Gaussian", "count_needed", "fit_gaussian", "frechet_distance", "measure_distance"]
