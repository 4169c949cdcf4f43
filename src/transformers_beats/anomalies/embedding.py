# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Vectors of clips for a detector, from a model."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from transformers_beats.audio.decoding import AudioError
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference

from .choices import DetectorSettings
from .pooling import arrange_bands, pool_time


def embed_clips(
    inference: WindowedInference, recordings: Iterable[Any], settings: DetectorSettings
) -> Iterator[np.ndarray]:
    """
    Yields the vectors `(num_layers, num_bands, dim)`, float32, of each of several clips, of which all columns are
    held, one clip at a time: 1.5 MB for each layer and 10 s of a base model.

    Raises, when the result of a clip is asked for, what [`WindowedInference`] does, and [`AudioError`] for digital
    silence; `next` goes on with the clip after it.
    """

    def pool(columns: Columns) -> np.ndarray:
        return to_vectors(columns.values, settings)

    return map(pool, read_columns(inference, recordings, settings))


def read_columns(
    inference: WindowedInference, recordings: Iterable[Any], settings: DetectorSettings
) -> Iterator[Columns]:
    """Yields the hidden states `(num_columns, num_layers, num_bands, hidden_size)` of each of several clips."""
    return map(_join, inference.stream_embeddings_many(recordings, layers=list(settings.layers)))


def _join(blocks: Iterator[Columns]) -> Columns:
    columns = Columns.join(blocks)
    if columns.silent is not None and columns.silent.all():
        raise AudioError("Is digital silence, of which embeddings say nothing.")
    return columns


def to_vectors(values: np.ndarray, settings: DetectorSettings) -> np.ndarray:
    """Returns the vectors `(num_layers, num_bands, dim)` of columns `(num_columns, num_layers, num_bands, dim)`."""
    return arrange_bands(pool_time(values, settings.pooling), settings.bands)


__all__ = ["embed_clips", "read_columns", "to_vectors"]
