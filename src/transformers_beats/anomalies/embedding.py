# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Vectors of clips for a detector, from a model."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from transformers_beats.audio.decoding import AudioError
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference

from .choices import DetectorSettings
from .pooling import arrange_bands, pool_blocks, pool_time


def embed_clips(
    inference: WindowedInference, recordings: Iterable[Any], settings: DetectorSettings
) -> Iterator[np.ndarray]:
    """
    Yields the vectors `(num_layers, num_bands, dim)`, float32, of each of several clips. With the poolings `"rdp"` and
    `"rdp-gem"` all columns of a clip are held: 1.5 MB for each layer and 10 s of a base model.

    Raises, when the result of a clip is asked for, what [`WindowedInference`] does, and [`AudioError`] for digital
    silence; `next` goes on with the clip after it.
    """

    def pool(blocks: Iterator[Columns]) -> np.ndarray:
        pooled = pool_blocks((block.values for block in _with_sound(blocks)), settings.pooling)
        return arrange_bands(pooled, settings.bands)

    return map(pool, inference.stream_embeddings_many(recordings, layers=list(settings.layers)))


def read_columns(
    inference: WindowedInference, recordings: Iterable[Any], settings: DetectorSettings
) -> Iterator[Columns]:
    """Yields the hidden states `(num_columns, num_layers, num_bands, hidden_size)` of each of several clips."""
    return map(_join, inference.stream_embeddings_many(recordings, layers=list(settings.layers)))


def _join(blocks: Iterator[Columns]) -> Columns:
    return Columns.join(_with_sound(blocks))


def _with_sound(blocks: Iterator[Columns]) -> Iterator[Columns]:
    """Yields the blocks of a clip; at its end, raises an [`AudioError`] if all was digital silence."""
    is_silent = True
    for block in blocks:
        is_silent = is_silent and block.silent is not None and bool(block.silent.all())
        yield block
    if is_silent:
        raise AudioError("Is digital silence, of which embeddings say nothing.")


def to_vectors(values: np.ndarray, settings: DetectorSettings) -> np.ndarray:
    """Returns the vectors `(num_layers, num_bands, dim)` of columns `(num_columns, num_layers, num_bands, dim)`."""
    return arrange_bands(pool_time(values, settings.pooling), settings.bands)


__all__ = ["embed_clips", "read_columns", "to_vectors"]
