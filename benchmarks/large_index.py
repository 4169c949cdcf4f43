# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Search in a large index, exact and with candidates by faiss:

    python -m benchmarks.large_index WORK

Vectors are synthesised: those of a recording lie around a point of its own, and all of them in 40 dimensions, with a
little noise in the others. Queries are of recordings that are not in the index. `WORK` keeps the index for the next
run.
"""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from transformers_beats.search.approximate import FILE, find_candidates
from transformers_beats.search.index import Entry, Index, IndexWriter, State
from transformers_beats.search.nearest import find_nearest


SIZE, DIMENSIONS, MOMENTS, QUERIES, TOP = 768, 40, 100, 20, 10


def make_vectors(number: int, count: int = MOMENTS) -> np.ndarray:
    """Makes the vectors of a recording, `(count, 768)`, float32, of length 1."""
    basis = np.random.default_rng(1).standard_normal((DIMENSIONS, SIZE)) / DIMENSIONS
    generator = np.random.default_rng([2, number])
    places = generator.standard_normal(DIMENSIONS) + 0.5 * generator.standard_normal((count, DIMENSIONS))
    vectors = places @ basis + 0.01 * generator.standard_normal((count, SIZE))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def main(
    work: Annotated[Path, typer.Argument(help="Directory of the index, of 3 GB for a million rows")],
    rows: Annotated[int, typer.Option(help="Rows of a new index; a search is exact below a million")] = 1_000_000,
) -> None:
    """Compares both searches: their times, and how many of the nearest rows the second one finds."""
    if not work.exists():
        with IndexWriter(work, {}, "model") as writer:
            for number in range(rows // MOMENTS):
                entries = [Entry(float(row), row + 1.0, vector) for row, vector in enumerate(make_vectors(number))]
                writer.add(f"/{number}.wav", State(0, 0), entries)
    index, shares, seconds = Index(work), [], {"exact": [], "faiss": []}
    begin = time.perf_counter()
    if find_candidates(index, make_vectors(rows, 1), TOP) is None:
        raise SystemExit("faiss is not installed, or the index has less than a million rows.")
    sizes = [path.stat().st_size / 1e6 for path in work.iterdir() if FILE.fullmatch(path.name)]
    print(f"{len(index):,} rows; first search: {time.perf_counter() - begin:.0f} s, a file of {sizes[0]:,.0f} MB")
    for number in range(QUERIES):
        query, found = make_vectors(rows + 1 + number, 1), {}
        for kind in seconds:
            begin = time.perf_counter()
            candidates = find_candidates(index, query, TOP) if kind == "faiss" else None
            found[kind] = {match.row for match in find_nearest(index, query, TOP, candidates)}
            seconds[kind].append(time.perf_counter() - begin)
        shares.append(len(found["exact"] & found["faiss"]) / TOP)
    exact, faiss = (np.median(values) for values in seconds.values())
    print(
        f"median of a search: exact {exact:.2f} s, with candidates {faiss:.3f} s ({exact / faiss:.0f} times as fast)"
    )
    print(f"of the {TOP} nearest rows it finds {np.mean(shares):.1%}, of one query at least {min(shares):.0%}")


if __name__ == "__main__":
    typer.run(main)
