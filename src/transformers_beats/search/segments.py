# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Embeddings of segments of a recording, from those of its time columns."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from transformers_beats.fbank_beats import num_fbank_samples
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.inference.results import Columns
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.inference.windows import column_samples, mean_of_rows

from .index import Entry
from .vectors import to_unit


class Segment(NamedTuple):
    """
    Part of a recording: its start and end in seconds, and the mean embedding `(hidden_size,)`, float32, of its
    columns; and whether all of it is digital silence, of which the embedding means nothing.
    """

    start: float
    end: float
    embedding: np.ndarray
    is_silent: bool


def window_of(seconds: float | None, extractor: BeatsFeatureExtractor) -> float:
    """
    Returns the length of windows, in seconds, for segments of a length: each is heard alone, so that its embedding
    does not depend on what is beside it. The end of a recording that is no whole number of segments is an exception,
    since its last window is as long as the others: a rest of half a segment or more is heard with the end of the
    segment before it, and the embeddings of both depend on each other's audio; with a shorter rest, the last segment
    is heard in two windows that overlap. Recordings as a whole have the usual windows of 10 s.
    """
    if seconds is None:
        return 10.0
    num_columns = segment_columns(seconds, column_samples(extractor) / extractor.sampling_rate)
    return num_fbank_samples(num_columns * extractor.patch_size, extractor.sampling_rate) / extractor.sampling_rate


def segment_columns(seconds: float, column_seconds: float) -> int:
    """Returns the number of columns of a segment: at least one."""
    return max(1, round(seconds / column_seconds))


def stream_segments_many(
    inference: WindowedInference, recordings: Iterable[Any], seconds: float | None = None
) -> Iterator[Iterator[Segment]]:
    """
    Yields the segments of each of several recordings, see [`cut_segments`]: read one before you ask for the next. An
    error before the first segment is raised in place of the recording; `next` goes on with the one after it.
    """

    def begin(blocks: Iterator[Columns]) -> Iterator[Segment]:
        segments = cut_segments(blocks, seconds)
        return itertools.chain([next(segments)], segments)

    return map(begin, inference.stream_embeddings_many(recordings))


def cut_segments(blocks: Iterable[Columns], seconds: float | None = None) -> Iterator[Segment]:
    """
    Yields the segments of a recording, one after another, as soon as they are known. Memory does not grow with the
    length of the recording.

    Args:
        blocks (`Iterable[Columns]` with values `(num_columns, num_freq_patches, hidden_size)`):
            Its embeddings, as of [`WindowedInference.stream_embeddings`].
        seconds (`float`, *optional*):
            Length of a segment, rounded to columns, at least one. A rest that is shorter than half a segment belongs
            to the segment before it. Defaults to one segment for the whole recording.

    Yields:
        [`Segment`]
    """
    if seconds is None:
        yield _whole(blocks)
        return
    size, held = 0, None
    for block in blocks:
        size = segment_columns(seconds, block.column_seconds)
        # Columns of patches become rows at once: they are an eighth of the memory.
        rows = Columns(block.values.mean(axis=1), block.first, block.column_seconds, block.silent)
        held = rows if held is None else Columns.join([held, rows])
        # At least half a segment follows.
        while 2 * len(held.values) >= 3 * size:
            head, held = _split(held, size)
            yield _whole([head])
    if held is not None:
        yield _whole([held])


def _split(columns: Columns, size: int) -> tuple[Columns, Columns]:
    """Splits columns into the first `size` and the rest."""
    silent = (None, None) if columns.silent is None else (columns.silent[:size], columns.silent[size:])
    return (
        Columns(columns.values[:size], columns.first, columns.column_seconds, silent[0]),
        Columns(columns.values[size:], columns.first + size, columns.column_seconds, silent[1]),
    )


def _whole(blocks: Iterable[Columns]) -> Segment:
    """Joins blocks, one at a time, to one segment."""
    start, end, is_silent = None, 0.0, True

    def rows() -> Iterator[np.ndarray]:
        nonlocal start, end, is_silent
        for block in blocks:
            start = float(block.starts[0]) if start is None else start
            end = float(block.ends[-1])
            is_silent = is_silent and block.silent is not None and bool(block.silent.all())
            yield block.values.mean(axis=1) if block.values.ndim == 3 else block.values

    embedding = mean_of_rows(rows())
    return Segment(start or 0.0, end, embedding, is_silent)


def to_entry(segment: Segment) -> Entry:
    """
    Returns a segment for an index: its embedding is scaled to the length 1, so that products are cosines. That of
    silence is zero, since nothing is like it.

    Raises:
        [`BeatsError`]: if the embedding of a sound is zero.
    """
    if segment.is_silent:
        return Entry(segment.start, segment.end, np.zeros_like(segment.embedding))
    return Entry(segment.start, segment.end, to_unit(segment.embedding).astype(np.float32))


__all__ = ["Segment", "cut_segments", "stream_segments_many", "to_entry", "window_of"]
