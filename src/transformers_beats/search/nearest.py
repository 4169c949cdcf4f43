# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Exact search in an index: nearest rows, pairs that are near duplicates, and a map in two dimensions."""

from typing import NamedTuple

import numpy as np

from transformers_beats.utils.errors import UsageError

from .index import Index
from .vectors import reaches, to_cosine


# The default of what counts as a near duplicate; docs/search.md has how copies and other sounds compare.
DUPLICATE_SIMILARITY = 0.99
# Of vectors of length 1, float32: less is rounding.
MIN_VARIANCE = 1e-12


class Match(NamedTuple):
    """A row of the index, its cosine similarity with the query, and the number of the vector of the query."""

    row: int
    similarity: float
    query: int


class Pair(NamedTuple):
    """Two rows of the index, and their cosine similarity."""

    first: int
    second: int
    similarity: float


class Duplicates(NamedTuple):
    """The most similar pairs, and how many reach the threshold."""

    pairs: list[Pair]
    count: int


def find_nearest(
    index: Index, queries: np.ndarray, top: int = 10, candidates: np.ndarray | None = None
) -> list[Match]:
    """
    Finds the rows that are most similar to a query, comparing it with all of them, a block at a time.

    Args:
        index ([`Index`]):
            The index. Rows of silence are left out.
        queries (`np.ndarray` of shape `(num_vectors, hidden_size)`):
            Vectors of length 1. A row counts with that of them which it is most similar to.
        top (`int`, defaults to 10):
            Largest number of rows.
        candidates (`np.ndarray` of shape `(num_rows,)`, *optional*):
            Rows that are compared, ascending: see [`find_candidates`]. Defaults to all.

    Returns:
        `list[Match]`: the most similar first.

    Raises:
        [`UsageError`]: if the vectors have another size than those of the index.
    """
    best = np.zeros((0, 3))
    for first, vectors in index.blocks() if candidates is None else index.read(candidates):
        if vectors.shape[1] != queries.shape[1]:
            raise UsageError(
                f"{index.directory}: has vectors of {vectors.shape[1]} values, the query has {queries.shape[1]}."
            )
        similarities = vectors @ queries.T
        rows = np.flatnonzero(vectors.any(axis=1))
        query = similarities[rows].argmax(axis=1)
        found = np.stack([rows + first, similarities[rows, query], query], axis=1)
        best = _best(np.concatenate([best, found]), 1, top)
    return [Match(int(row), to_cosine(similarity), int(query)) for row, similarity, query in best]


def find_duplicates(index: Index, threshold: float = DUPLICATE_SIMILARITY, top: int = 100) -> Duplicates:
    """
    Finds pairs of rows of different files that are very similar, comparing all pairs, two blocks at a time: the time
    grows with the square of the number of rows, the memory does not grow.

    Args:
        index ([`Index`]):
            The index.
        threshold (`float`, defaults to 0.99):
            Lowest cosine similarity (`>=`).
        top (`int`, defaults to 100):
            Largest number of pairs that are returned.

    Returns:
        [`Duplicates`], the most similar pair first.
    """
    best, count = np.zeros((0, 3)), 0
    for first, vectors in index.blocks():
        for second, others in index.blocks(first=first):
            similarities = vectors @ others.T
            files, other_files = index.file_of[first:][: len(vectors)], index.file_of[second:][: len(others)]
            is_pair = reaches(similarities, threshold) & (files[:, None] != other_files)
            # Silence is like nothing.
            is_pair &= np.logical_and.outer(vectors.any(axis=1), others.any(axis=1))
            if second == first:
                is_pair = np.triu(is_pair, k=1)
            rows, columns = np.nonzero(is_pair)
            count += len(rows)
            found = np.stack([rows + first, columns + second, similarities[rows, columns]], axis=1)
            best = _best(np.concatenate([best, found]), 2, top)
    return Duplicates([Pair(int(row), int(other), to_cosine(similarity)) for row, other, similarity in best], count)


class Projection(NamedTuple):
    """
    Rows of an index, but for those of silence, in two dimensions: numbers `(num_rows,)`, points `(num_rows, 2)`, and
    shares of the variance along both axes.
    """

    rows: np.ndarray
    points: np.ndarray
    shares: np.ndarray


def project(index: Index) -> Projection:
    """
    Projects the vectors of an index on their two principal components, a block at a time.

    Raises:
        [`UsageError`]: for an index of fewer than three rows of sounds, or if all of these are equal.
    """
    from sklearn.decomposition import IncrementalPCA

    pca, held, num_rows = IncrementalPCA(n_components=2), [], 0
    for _, vectors in index.blocks():
        held.append(vectors[vectors.any(axis=1)])
        # It takes no fewer vectors than components at a time.
        if sum(map(len, held)) > 2:
            # Equal vectors have no variance to be divided by: refused below.
            with np.errstate(invalid="ignore"):
                pca.partial_fit(np.concatenate(held))
            num_rows, held = num_rows + sum(map(len, held)), []
    if num_rows == 0:
        raise UsageError(f"{index.directory}: a map needs three vectors of sounds at least.")
    if np.sum(pca.var_) < MIN_VARIANCE:
        raise UsageError(f"{index.directory}: its vectors are all equal, and a map would be a single point.")
    rows, points = [], []
    for first, vectors in index.blocks():
        sounds = np.flatnonzero(vectors.any(axis=1))
        if len(sounds):
            rows.append(sounds + first)
            points.append(pca.transform(vectors[sounds]))
    return Projection(np.concatenate(rows), np.concatenate(points), np.asarray(pca.explained_variance_ratio_))


def _best(found: np.ndarray, column: int, top: int) -> np.ndarray:
    """Returns the `top` rows with the highest values in a column, the highest first, and those that came first."""
    return found[np.argsort(-found[:, column], kind="stable")[:top]]


__all__ = [
    "DUPLICATE_SIMILARITY",
    "Duplicates",
    "Match",
    "Pair",
    "Projection",
    "find_duplicates",
    "find_nearest",
    "project",
]
