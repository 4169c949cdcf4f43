# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Back ends: how far a vector is from those of normal clips, and how far each of these is from the others.

All scores are finite and not negative, and higher for what is less normal. Those of the bank itself are computed with
the clip left out, so that they are what a new normal clip would have.
"""

from abc import ABC, abstractmethod

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_distances
from sklearn.model_selection import KFold
from sklearn.neighbors import NearestNeighbors

from .choices import BackendName


# Share of the variance that the components of a bank explain.
EXPLAINED = 0.95
# Up to so many clips, each is left out alone where the back end has to be fitted anew for that; of more, a tenth.
MAX_REFITS, NUM_FOLDS = 50, 10
# Relative to what is usual in a bank: smaller radii and variances come from copies of one clip, and would divide by 0.
FLOOR = 1e-6
# Rows of a matrix of distances at a time.
ROWS = 1024


class Backend(ABC):
    """
    Scores against a bank of vectors `(num_clips, dim)` of normal clips, at least three.

    Args:
        bank (`np.ndarray` of shape `(num_clips, dim)`):
            Vectors of normal clips.
    """

    def __init__(self, bank: np.ndarray):
        self.bank = bank.astype(np.float64)

    @abstractmethod
    def score(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the scores `(num_vectors,)`, float64, of vectors `(num_vectors, dim)`."""

    @abstractmethod
    def held_out(self) -> np.ndarray:
        """Returns the scores `(num_clips,)`, float64, of the bank's own clips, each against the others."""


class KNearest(Backend):
    """Mean cosine distance to the nearest vectors of the bank."""

    def __init__(self, bank: np.ndarray, num_neighbors: int = 1):
        super().__init__(bank)
        count = min(num_neighbors, len(bank) - 1)
        self.neighbors = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(self.bank)

    def score(self, vectors: np.ndarray) -> np.ndarray:
        return self.neighbors.kneighbors(vectors.astype(np.float64))[0].mean(axis=1)

    def held_out(self) -> np.ndarray:
        # Without vectors, no one is its own neighbor.
        return self.neighbors.kneighbors()[0].mean(axis=1)


class LocalDensity(Backend):
    """
    Smallest ratio of the cosine distance to a vector of the bank and that vector's radius, its mean distance to its
    own nearest neighbors: a distance counts for more where normal clips are close to each other (Wilkinghoff et al.,
    2025, arXiv 2509.10951).
    """

    def __init__(self, bank: np.ndarray, num_neighbors: int = 1):
        super().__init__(bank)
        self.count = min(num_neighbors, len(bank) - 2)
        neighbors = NearestNeighbors(n_neighbors=self.count + 1, metric="cosine", algorithm="brute").fit(self.bank)
        # One more than count: it takes the place of a neighbor that is left out.
        self.distances, self.indices = neighbors.kneighbors()
        radii = self.distances[:, : self.count].mean(axis=1)
        self.floor = max(FLOOR * radii.mean(), np.finfo(np.float64).tiny)
        self.radii = np.maximum(radii, self.floor)

    def score(self, vectors: np.ndarray) -> np.ndarray:
        parts = [vectors[first : first + ROWS] for first in range(0, len(vectors), ROWS)]
        ratios = [(cosine_distances(part.astype(np.float64), self.bank) / self.radii).min(axis=1) for part in parts]
        return _bounded(np.concatenate(ratios))

    def held_out(self) -> np.ndarray:
        total = self.distances.sum(axis=1, keepdims=True)
        without = np.maximum((total - self.distances[:, : self.count]) / self.count, self.floor)
        ratios = np.empty(len(self.bank))
        for first in range(0, len(self.bank), ROWS):
            rows = np.arange(first, min(first + ROWS, len(self.bank)))
            distances = cosine_distances(self.bank[rows], self.bank)
            ratio = distances / self.radii
            # Those that have the clip as a neighbor have another radius without it.
            of, place = np.nonzero(
                (self.indices[:, : self.count] >= rows[0]) & (self.indices[:, : self.count] <= rows[-1])
            )
            left_out = self.indices[of, place] - first
            ratio[left_out, of] = distances[left_out, of] / without[of, place]
            ratio[rows - first, rows] = np.inf
            ratios[rows] = ratio.min(axis=1)
        return _bounded(ratios)


class Mahalanobis(Backend):
    """
    Mahalanobis distance to the mean of the bank. The covariance is shrunk towards a multiple of the identity by Ledoit
    and Wolf's estimate (scikit-learn), which is kept when a clip is left out; everything else is then without it.
    """

    def __init__(self, bank: np.ndarray):
        super().__init__(bank)
        self.mean = self.bank.mean(axis=0)
        centred = self.bank - self.mean
        # In the directions of the bank; in all others its variance is 0.
        _, singular, self.directions = np.linalg.svd(centred, full_matrices=False)
        self.variances = singular**2 / len(bank)
        # A tiny share at least: as many clips as values may have none.
        self.shrinkage = max(float(ledoit_wolf_shrinkage(self.bank)), FLOOR)
        scale = max(float(np.square(self.bank).mean()) * FLOOR**2, np.finfo(np.float64).tiny ** 0.5)
        self.mean_variance = max(float(self.variances.sum()) / self.bank.shape[1], scale)

    def score(self, vectors: np.ndarray) -> np.ndarray:
        differences = vectors.astype(np.float64) - self.mean
        return _bounded(
            np.sqrt(self._quadratic(differences, self.variances, np.full(len(vectors), self.mean_variance)))
        )

    def _quadratic(self, differences: np.ndarray, variances: np.ndarray, mean_variance: np.ndarray) -> np.ndarray:
        """Quadratic forms of differences with the inverse of a covariance, each with a mean variance of its own."""
        along = differences @ self.directions.T
        rest = np.maximum(np.square(differences).sum(axis=1) - np.square(along).sum(axis=1), 0)
        outside = (self.shrinkage * mean_variance)[:, None]
        inside = (1 - self.shrinkage) * variances + outside
        return (np.square(along) / inside).sum(axis=1) + rest / outside[:, 0]

    def held_out(self) -> np.ndarray:
        # Without a clip that differs by x from the mean of n, the covariance is n / (n - 1) S - n / (n - 1)^2 x x^T,
        # and the clip differs by n / (n - 1) x from the mean. Sherman and Morrison have the inverse.
        count, centred = len(self.bank), self.bank - self.mean
        growth, dim = count / (count - 1), self.bank.shape[1]
        squares = np.square(centred).sum(axis=1)
        means = (growth * self.variances.sum() - growth / (count - 1) * squares) / dim
        means = np.maximum(means, FLOOR * self.mean_variance)
        forms = self._quadratic(centred, growth * self.variances, means)
        removed = (1 - self.shrinkage) * growth / (count - 1)
        return growth * np.sqrt(forms / np.maximum(1 - removed * forms, FLOOR))


class PcaResidual(Backend):
    """
    Distance to the subspace of the principal components that explain 95 % of the variance of the bank. Each clip of a
    bank is left out alone if there are 50 at most, else with a tenth of the others.
    """

    def __init__(self, bank: np.ndarray):
        super().__init__(bank)
        self.pca = _fit_pca(self.bank)

    def score(self, vectors: np.ndarray) -> np.ndarray:
        return _residual(self.pca, self.bank, vectors.astype(np.float64))

    def held_out(self) -> np.ndarray:
        count, residuals = len(self.bank), np.empty(len(self.bank))
        for kept, left_out in KFold(count if count <= MAX_REFITS else NUM_FOLDS).split(self.bank):
            others = self.bank[kept]
            residuals[left_out] = _residual(_fit_pca(others), others, self.bank[left_out])
        return residuals


def _fit_pca(bank: np.ndarray) -> PCA | None:
    """Fits components; None for vectors that are all equal, which have no variance to be explained."""
    if not np.ptp(bank, axis=0).any():
        return None
    return PCA(n_components=EXPLAINED, svd_solver="full").fit(bank)


def _residual(pca: PCA | None, bank: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    nearest = bank[:1] if pca is None else pca.inverse_transform(pca.transform(vectors))
    return np.linalg.norm(vectors - nearest, axis=1)


def _bounded(scores: np.ndarray) -> np.ndarray:
    """Scores against a bank of copies of one clip may be too large for further computation."""
    return np.minimum(scores, 1e12)


def make_backend(name: BackendName, bank: np.ndarray, num_neighbors: int = 1) -> Backend:
    """
    Fits a back end.

    - `"knn"`: [`KNearest`], mean cosine distance to the nearest normal clips.
    - `"density"`: [`LocalDensity`], that distance relative to those among the normal clips there.
    - `"mahalanobis"`: [`Mahalanobis`], with a shrunk covariance.
    - `"pca"`: [`PcaResidual`], distance to the subspace of the normal clips.

    Args:
        name (`str`):
            Its name.
        bank (`np.ndarray` of shape `(num_clips, dim)`):
            Vectors of normal clips, at least three.
        num_neighbors (`int`, defaults to 1):
            Neighbors of the first two; fewer if the bank is smaller.
    """
    if name == "knn":
        return KNearest(bank, num_neighbors)
    if name == "density":
        return LocalDensity(bank, num_neighbors)
    return Mahalanobis(bank) if name == "mahalanobis" else PcaResidual(bank)


__all__ = ["Backend", "KNearest", "LocalDensity", "Mahalanobis", "PcaResidual", "make_backend"]
