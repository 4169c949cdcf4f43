# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Candidates in a large index, by faiss: of all vectors only those near the query are looked at, in eight bits a value.
The candidates are then compared with the query as they are.

What faiss needs is a file beside the shards, which the first search writes and one of a changed index writes anew.
"""

import hashlib
import importlib
import importlib.util
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from transformers_beats.utils.errors import BeatsError, first_line
from transformers_beats.utils.files import replace_file
from transformers_beats.utils.numbers import format_number

from .index import Index


logger = logging.get_logger(__name__)

# With fewer vectors, an exact search takes a few seconds.
LARGE = 1_000_000
FILE = re.compile(r"nearest-[0-9a-f]{16}\.faiss")
# For each result that is asked for.
NUM_CANDIDATES = 10
# Vectors of each cell that its centre is computed from, and the share of the cells that is searched.
SAMPLES_OF_CELL, SEARCHED = 64, 1 / 4


def find_candidates(index: Index, queries: np.ndarray, top: int) -> np.ndarray | None:
    """
    Finds the rows among which the nearest ones of queries are likely to be.

    Args:
        index ([`Index`]):
            The index.
        queries (`np.ndarray` of shape `(num_vectors, hidden_size)`):
            Vectors of length 1, float32.
        top (`int`):
            Number of results.

    Returns:
        `np.ndarray` of shape `(num_rows,)`: numbers of rows, ascending; `None` for an index of less than a million
        rows, without faiss, or if the index cannot be written to: then all rows are compared.

    Raises:
        [`BeatsError`]: for a file of an earlier search that is damaged.
    """
    if len(index) < LARGE or importlib.util.find_spec("faiss") is None:
        return None
    # Most of what is asked for would not be among them.
    if NUM_CANDIDATES * top > SEARCHED * len(index):
        return None
    digest = hashlib.sha256(json.dumps(index.shards).encode()).hexdigest()[:16]
    path = index.directory / f"nearest-{digest}.faiss"
    if not path.exists():
        try:
            build(index, path)
        # The latter is faiss's, for a disk that is full.
        except (OSError, RuntimeError) as error:
            logger.warning_once(f"{index.directory}: {first_line(error)}: all vectors are compared.")
            return None
    faiss: Any = importlib.import_module("faiss")
    try:
        cells = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise BeatsError(f"{path}: cannot be read: remove it, and the next search makes it again.") from error
    cells.nprobe = max(1, round(SEARCHED * cells.nlist))
    _, rows = cells.search(queries, min(len(index), NUM_CANDIDATES * top))
    return np.unique(rows[rows >= 0])


def build(index: Index, path: Path) -> None:
    """Writes what faiss needs to find candidates in an index, and removes what it needed before the index changed."""
    faiss: Any = importlib.import_module("faiss")
    logger.warning(f"{index.directory}: {format_number(len(index))} vectors are sorted, once until the index changes.")
    num_cells = max(1, round(len(index) ** 0.5))
    stride = max(1, len(index) // (SAMPLES_OF_CELL * num_cells))
    sample = np.concatenate([vectors[-first % stride :: stride] for first, vectors in index.blocks()])
    cells = faiss.index_factory(sample.shape[1], f"IVF{num_cells},SQ8", faiss.METRIC_INNER_PRODUCT)
    cells.train(sample)
    for _, vectors in index.blocks():
        cells.add(np.ascontiguousarray(vectors))
    with replace_file(path) as temporary:
        faiss.write_index(cells, str(temporary))
    for other in index.directory.iterdir():
        if FILE.fullmatch(other.name) and other != path:
            with suppress(OSError):
                other.unlink()


__all__ = ["find_candidates"]
