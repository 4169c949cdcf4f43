# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Fréchet distance between the embeddings of two collections, as of the Fréchet audio distance (FAD)."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh, svdvals

from transformers_beats.utils.errors import UsageError


# Extrapolation: parts of both collections, from half of them to all, and draws of each part.
SHARES = np.linspace(0.5, 1.0, 6)
DRAWS, SEED = 4, 0


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

    The distance of finite samples is too large, by about a / n1 + b / n2 for samples of n1 and n2 embeddings. So that
    of random parts of both, of the same share s from a half to 1, is nearly linear in 1 / s: the extrapolation is
    where the fitted line meets 1 / s = 0 (Chong and Forsyth, 2020, arXiv 1911.07023). There is none if a part has no
    more embeddings than these have values, since its covariance is singular. It may be a little below 0, and for one
    collection compared with itself it means nothing.

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
    if round(SHARES[0] * fewest) <= dim:
        return Distance(value, None, fewest <= dim)
    generator = np.random.default_rng(SEED)
    distances = []
    for share in SHARES:
        parts = (
            [fit_gaussian(_draw(values, share, generator)) for values in (first, second)]
            for _ in range(DRAWS if share < 1 else 1)
        )
        distances.append(np.mean([frechet_distance(*pair) for pair in parts]))
    _, intercept = np.polyfit(1 / SHARES, distances, 1)
    return Distance(value, float(intercept), False)


def _draw(embeddings: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Draws a share of the embeddings, each once at most."""
    return embeddings[generator.permutation(len(embeddings))[: round(share * len(embeddings))]]


__all__ = ["Distance", "Gaussian", "fit_gaussian", "frechet_distance", "measure_distance"]
