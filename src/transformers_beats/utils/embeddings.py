# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""One file for the embeddings of many recordings: Parquet, a row for each vector, or safetensors."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import FOREIGN_ERRORS
from .files import replace_file
from .resume import as_json


# Key of the settings in the metadata of a file, as JSON.
METADATA = "transformers_beats"
# Vectors of a row group of Parquet: with one for each recording, most of a file could be their descriptions.
ROW_GROUP = 10_000
# Key of the digest of the sources among the settings.
SOURCES = "sources"


class Recording(NamedTuple):
    """Name, length in seconds and embeddings `(num_layers, num_vectors, dim)` of a recording, float32."""

    name: str
    seconds: float
    values: np.ndarray


class Layout(NamedTuple):
    """
    Meaning of the vectors of a recording: numbers of the layers, and whether arrays have no axis of them; the number
    of bands that follow each other, or None for means over bands; and the seconds from one column to the next, or None
    for means over time.
    """

    layers: list[int]
    is_single: bool
    num_bands: int | None
    column_seconds: float | None

    def rows(self, recording: Recording) -> dict[str, Any]:
        """Returns the columns of the table for a recording, a row for each layer and vector."""
        num_layers, num_vectors, dim = recording.values.shape
        bands = self.num_bands or 1
        step = np.arange(num_vectors) // bands
        starts = np.zeros(num_vectors) if self.column_seconds is None else step * self.column_seconds
        ends = np.full(num_vectors, recording.seconds)
        if self.column_seconds is not None:
            ends = starts + self.column_seconds
        numbers = [None] * num_vectors if self.num_bands is None else (np.arange(num_vectors) % bands).tolist()
        return {
            "file": [recording.name] * (num_layers * num_vectors),
            "layer": np.repeat(self.layers, num_vectors),
            "start": np.tile(starts, num_layers),
            "end": np.tile(ends, num_layers),
            "band": numbers * num_layers,
            "embedding": recording.values.reshape(-1, dim),
        }


def digest_sources(sources: Iterable[tuple[str, str]]) -> str:
    """
    Returns a digest of the names of recordings and of the files that they are of, in whatever order they come. A
    million paths would make metadata that readers of Parquet refuse.
    """
    pairs = (hashlib.blake2b(os.fsencode(f"{name}\0{place}"), digest_size=16) for name, place in sources)
    return f"{sum(int(pair.hexdigest(), 16) for pair in pairs) % (1 << 128):032x}"


def write_embeddings(
    path: Path, recordings: Iterable[Recording], layout: Layout, settings: Mapping[str, Any], sources: str
) -> None:
    """
    Writes the embeddings of recordings to one file, whole or not at all, with `settings` and the digest of `sources`
    ([`digest_sources`]) in its metadata.

    - Parquet: a row for each vector, with `file`, `layer`, `start` and `end` in seconds, `band` (null for means over
      bands) and `embedding`, a list of float32. About `ROW_GROUP` vectors are held at a time, or one recording.
    - safetensors: a tensor `(num_layers, num_vectors, dim)` for each recording, under its name; the metadata have
      their lengths in seconds. All are held at once.

    There must be a recording.
    """
    settings = {**settings, SOURCES: sources}
    iterator = iter(recordings)
    first = next(iterator)
    with replace_file(path) as temporary:
        if path.suffix.lower() == ".parquet":
            _write_parquet(temporary, first, iterator, layout, settings)
        else:
            from safetensors.numpy import save_file

            everything = [first, *iterator]
            seconds = {recording.name: recording.seconds for recording in everything}
            described = {**settings, "layers": layout.layers, "seconds": seconds}
            tensors = {recording.name: recording.values for recording in everything}
            save_file(tensors, temporary, metadata={METADATA: json.dumps(described)})


def has_embeddings(path: Path, layout: Layout, settings: Mapping[str, Any], sources: str) -> bool:
    """Returns whether a file that exists is of [`write_embeddings`], with these settings and sources."""
    settings = {**settings, SOURCES: sources}
    try:
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet

            described = json.loads(parquet.read_schema(path).metadata[METADATA.encode()])
            wanted = as_json(settings)
        else:
            from safetensors import safe_open

            with safe_open(path, "numpy") as file:
                described = json.loads(file.metadata()[METADATA])
            del described["seconds"]
            wanted = as_json({**settings, "layers": layout.layers})
    # That of another program has none of this.
    except (*FOREIGN_ERRORS, LookupError, TypeError, AttributeError):
        return False
    return described == wanted


def _write_parquet(
    path: Path, first: Recording, others: Iterator[Recording], layout: Layout, settings: Mapping[str, Any]
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    dim = first.values.shape[-1]
    fields = {
        "file": pa.string(),
        "layer": pa.int16(),
        "start": pa.float64(),
        "end": pa.float64(),
        "band": pa.int16(),
        "embedding": pa.list_(pa.float32(), dim),
    }
    schema = pa.schema(fields, metadata={METADATA: json.dumps(settings)})
    with parquet.ParquetWriter(path, schema) as writer:
        held: list[pa.Table] = []
        for recording in chain([first], others):
            rows = layout.rows(recording)
            flat = pa.array(rows["embedding"].ravel(), pa.float32())
            rows["embedding"] = pa.FixedSizeListArray.from_arrays(flat, dim)
            held.append(pa.table(rows, schema=schema))
            if sum(map(len, held)) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(held))
                held = []
        if held:
            writer.write_table(pa.concat_tables(held))


__all__ = ["METADATA", "Layout", "Recording", "digest_sources", "has_embeddings", "write_embeddings"]
