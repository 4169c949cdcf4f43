# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Candidates by faiss in an index that counts as large here, and what is done without them."""

import numpy as np
import pytest

from transformers_beats.search import approximate
from transformers_beats.search.approximate import FILE, find_candidates
from transformers_beats.search.index import Entry, Index, IndexWriter, State
from transformers_beats.search.nearest import find_nearest
from transformers_beats.utils.errors import BeatsError


DIM, NUM_FILES, NUM_ROWS = 16, 100, 50


def vectors_of(number: int) -> np.ndarray:
    """Vectors of a file, around one that is its own; those of file 0 are silence."""
    generator = np.random.default_rng(number)
    values = generator.standard_normal(DIM) + 0.3 * generator.standard_normal((NUM_ROWS, DIM))
    values = values / np.linalg.norm(values, axis=1, keepdims=True) * (number > 0)
    return values.astype(np.float32)


def write(directory, files) -> Index:
    with IndexWriter(directory, {}, "model") as writer:
        for number in files:
            rows = [Entry(float(row), row + 1.0, vector) for row, vector in enumerate(vectors_of(number))]
            writer.add(f"/{number}.wav", State(0, 0), rows)
    return Index(directory)


@pytest.fixture
def index(tmp_path, monkeypatch) -> Index:
    pytest.importorskip("faiss")
    monkeypatch.setattr(approximate, "LARGE", 1000)
    return write(tmp_path / "index", range(NUM_FILES))


def faiss_files(index: Index) -> list[str]:
    return [path.name for path in index.directory.iterdir() if FILE.fullmatch(path.name)]


def test_candidates_hold_nearly_all_of_the_nearest(index):
    shares = []
    for number in range(1, NUM_FILES, 7):
        # Of a recording that is not in the index.
        queries = vectors_of(number)[:2] + 0.05
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        candidates = find_candidates(index, queries, top=10)
        assert (np.diff(candidates) > 0).all()
        assert len(candidates) <= 200
        found, expected = find_nearest(index, queries, 10, candidates), find_nearest(index, queries, 10)
        # Similarities are exact.
        exact = {match.row: match for match in expected}
        assert all(match == exact[match.row] for match in found if match.row in exact)
        shares.append(len({match.row for match in found} & exact.keys()) / 10)
    assert np.mean(shares) > 0.9
    assert len(faiss_files(index)) == 1


def test_what_faiss_needs_follows_the_index(index):
    find_candidates(index, vectors_of(1)[:1], 10)
    (before,) = faiss_files(index)
    changed = write(index.directory, [NUM_FILES])
    queries = vectors_of(NUM_FILES)[:1]
    (best, *_) = find_nearest(changed, queries, 10, find_candidates(changed, queries, 10))
    assert changed.moments([best.row])[0].file == f"/{NUM_FILES}.wav"
    (after,) = faiss_files(index)
    assert after != before


def test_a_damaged_file_is_named(index):
    find_candidates(index, vectors_of(1)[:1], 10)
    (name,) = faiss_files(index)
    (index.directory / name).write_bytes(b"no index")
    with pytest.raises(BeatsError, match=f"{name}: cannot be read: remove it"):
        find_candidates(index, vectors_of(1)[:1], 10)


def test_where_nothing_can_be_written_all_vectors_are_compared(index, monkeypatch):
    def refuse(index, path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(approximate, "build", refuse)
    assert find_candidates(index, vectors_of(1)[:1], 10) is None


def test_a_small_index_and_one_without_faiss_are_compared_as_a_whole(tmp_path, monkeypatch):
    index = write(tmp_path / "index", range(3))
    assert find_candidates(index, vectors_of(1)[:1], 10) is None
    monkeypatch.setattr(approximate, "LARGE", 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find_candidates(index, vectors_of(1)[:1], 10) is None


def test_all_vectors_are_compared_for_more_than_the_cells_hold(index):
    queries = vectors_of(1)[:1]
    assert find_candidates(index, queries, 10) is not None
    assert find_candidates(index, queries, len(index)) is None
