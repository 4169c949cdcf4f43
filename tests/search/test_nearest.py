# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Search in blocks gives what a comparison with all vectors at once gives."""

import numpy as np
import pytest

from transformers_beats.search import index as index_module
from transformers_beats.search.index import Entry, Index, IndexWriter, State
from transformers_beats.search.nearest import find_duplicates, find_nearest, project
from transformers_beats.utils.errors import UsageError


DIM, COUNTS = 8, [3, 1, 9, 2, 5, 1]


@pytest.fixture(params=[4, 2048], ids=["shards of 4", "one shard"])
def collection(request, tmp_path, monkeypatch):
    """An index, its vectors `(num_rows, 8)` and the file of each; two rows are silence."""
    monkeypatch.setattr(index_module, "SHARD_ROWS", request.param)
    generator = np.random.default_rng(0)
    # Pairs of several similarities.
    values = generator.standard_normal((5, DIM))[generator.integers(0, 5, sum(COUNTS))]
    values += 0.2 * generator.standard_normal(values.shape)
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    values[[2, 10]] = 0
    files, start = [], 0
    with IndexWriter(tmp_path / "index", {}, "model") as writer:
        for number, count in enumerate(COUNTS):
            rows = [Entry(float(row), row + 1.0, values[start + row]) for row in range(count)]
            writer.add(f"/{number}.wav", State(0, 0), rows)
            files += [number] * count
            start += count
    index = Index(tmp_path / "index")
    # Shards may change the order.
    moments = index.moments(range(len(index)))
    order = [sum(COUNTS[: int(moment.file[1])]) + int(moment.start) for moment in moments]
    return index, values[order], np.array(files)[order]


@pytest.mark.parametrize("top", [1, 7, 100])
@pytest.mark.parametrize("num_queries", [1, 3])
def test_the_nearest_are_those_of_brute_force(collection, top, num_queries):
    index, values, _ = collection
    queries = np.random.default_rng(1).standard_normal((num_queries, DIM)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found = find_nearest(index, queries, top)
    similarities = values.astype(np.float64) @ queries.T.astype(np.float64)
    sounds = np.flatnonzero(values.any(axis=1))
    order = sounds[np.argsort(-similarities[sounds].max(axis=1))][:top]
    assert [match.row for match in found] == order.tolist()
    assert [match.query for match in found] == similarities[order].argmax(axis=1).tolist()
    np.testing.assert_allclose([match.similarity for match in found], similarities[order].max(axis=1), atol=1e-6)


@pytest.mark.parametrize("threshold", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("top", [3, 1000])
def test_duplicates_are_those_of_brute_force(collection, threshold, top):
    index, values, files = collection
    similarities = values.astype(np.float64) @ values.T.astype(np.float64)
    expected = {
        (first, second): similarities[first, second]
        for first in range(len(values))
        for second in range(first + 1, len(values))
        if similarities[first, second] >= threshold and files[first] != files[second]
    }
    assert threshold == 1.0 or len(expected) > 10
    found = find_duplicates(index, threshold, top)
    assert found.count == len(expected)
    best = sorted(expected, key=lambda pair: -expected[pair])[:top]
    assert {(pair.first, pair.second) for pair in found.pairs} == {*best}
    np.testing.assert_allclose([pair.similarity for pair in found.pairs], [expected[pair] for pair in best], atol=1e-6)


def test_a_query_of_another_size_is_refused(collection):
    with pytest.raises(UsageError, match="has vectors of 8 values, the query has 9"):
        find_nearest(collection[0], np.zeros((1, 9), dtype=np.float32))


def test_the_map_has_the_two_principal_components(collection):
    index, values, _ = collection
    rows, points, shares = project(index)
    assert rows.tolist() == np.flatnonzero(values.any(axis=1)).tolist()
    centred = values[rows] - values[rows].mean(axis=0)
    _, singular, components = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    expected = centred @ components[:2].T
    # Components have no sign. In several blocks, PCA is an approximation.
    tolerance = 0.05 if len(index.shards) > 1 else 1e-4
    for axis in range(2):
        correlation = np.corrcoef(points[:, axis], expected[:, axis])[0, 1]
        assert abs(correlation) > 1 - tolerance
    assert shares == pytest.approx((singular**2 / (singular**2).sum())[:2], abs=tolerance)


def test_a_map_needs_three_sounds(tmp_path):
    with IndexWriter(tmp_path / "index", {}, "model") as writer:
        writer.add(
            "/a.wav", State(0, 0), [Entry(0.0, 1.0, np.ones(3, np.float32)), Entry(1.0, 2.0, np.zeros(3, np.float32))]
        )
    with pytest.raises(UsageError, match="needs three vectors"):
        project(Index(tmp_path / "index"))


def test_a_map_of_equal_vectors_is_refused(tmp_path):
    vector = np.random.default_rng(0).standard_normal(DIM).astype(np.float32)
    vector /= np.linalg.norm(vector)
    with IndexWriter(tmp_path / "index", {}, "model") as writer:
        writer.add("/a.wav", State(0, 0), [Entry(float(row), row + 1.0, vector) for row in range(7)])
    with pytest.raises(UsageError, match="its vectors are all equal"):
        project(Index(tmp_path / "index"))


def test_exact_copies_reach_a_threshold_of_one(tmp_path):
    values = np.random.default_rng(0).standard_normal((50, 768))
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    with IndexWriter(tmp_path, {}, "model") as writer:
        for number, vector in enumerate([*values, *values]):
            writer.add(f"/{number}.wav", State(0, 0), [Entry(0.0, 1.0, vector)])
    assert find_duplicates(Index(tmp_path), 1.0, 100).count == 50
