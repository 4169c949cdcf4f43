# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Queries of an index with recordings."""

from collections.abc import Iterable, Iterator
from copy import copy
from typing import Any, NamedTuple

import numpy as np

from transformers_beats.audio.decoding import AudioError
from transformers_beats.inference.loading import load_again
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.resume import check_settings

from .approximate import find_candidates
from .index import Entry, Index, Moment
from .nearest import find_nearest
from .segments import stream_segments_many, to_entry, window_of


class Hit(NamedTuple):
    """
    A moment that is like a query: what it is, its cosine similarity, and start and end of the part of the query that
    it is most like, in seconds.
    """

    moment: Moment
    similarity: float
    query_start: float
    query_end: float


class Searcher:
    """
    An index with its model, for queries.

    Args:
        index ([`Index`]):
            The index.
        device (`str`, defaults to `"auto"`):
            Name of a device, or `"auto"` for a GPU if there is one.
        model (`str`, *optional*):
            Name or directory of the model. Defaults to the place where it was when the index was made.
        exact (`bool`, defaults to `False`):
            Whether to compare a query with all vectors, also of an index of a million or more, where faiss, if it is
            installed, finds candidates.

    Raises:
        [`UsageError`]: if the model is not that of the index.
        [`BeatsError`]: if it cannot be loaded.

    Example:

    ```python
    >>> searcher = Searcher(Index(Path("index")))  # doctest: +SKIP
    >>> searcher.find("clip.wav", top=1)  # doctest: +SKIP
    [Hit(moment=Moment(file='/recordings/rain.flac', start=12.0, end=14.08), similarity=0.97, query_start=0.0, ...)]
    ```
    """

    def __init__(self, index: Index, device: str = "auto", model: str | None = None, exact: bool = False):
        self.index, self.exact = index, exact
        settings = index.settings
        loaded, extractor = load_again(
            index.directory, index.model, settings["model"], device, settings["dtype"], model
        )
        self.inference = WindowedInference(loaded, extractor, window_of(settings["segments"], extractor))
        self.sampling_rate = extractor.sampling_rate

    def current(self) -> "Searcher":
        """
        Returns a searcher of the index as it is now, with the same model: this one if the index was not changed. One
        that was changed may have lost the files that this one would read.

        Raises:
            [`UsageError`]: if it is an index of another model or other segments now, or gone.
        """
        if self.index.is_current():
            return self
        index = Index(self.index.directory)
        check_settings(self.index.settings, index.settings, index.directory)
        searcher = copy(self)
        searcher.index = index
        return searcher

    def find(self, audio: Any, top: int = 10) -> list[Hit]:
        """
        Finds the moments that are most like a recording, the most similar first.

        A query is embedded as the recordings of the index are: as a whole or, if the index is of segments, each
        segment of the query; a moment then counts with the one that it is most like.

        Args:
            audio (`Any`):
                The recording, see [`open_audio`].
            top (`int`, defaults to 10):
                Largest number of moments.

        Returns:
            `list[Hit]`

        Raises:
            [`AudioError`]: for a recording that cannot be used, or is digital silence.
        """
        return self.nearest(self.embed(audio), top)

    def embed(self, audio: Any) -> Iterator[Entry]:
        """Yields the vectors of a query, one after another, as they are known; see [`~Searcher.find`]."""
        return map(to_entry, next(stream_segments_many(self.inference, [audio], self.index.settings["segments"])))

    def nearest(self, query: Iterable[Entry], top: int = 10) -> list[Hit]:
        """Finds the moments that are most like the vectors of a query; see [`~Searcher.find`]."""
        entries = [entry for entry in query if entry.vector.any()]
        if not entries:
            raise AudioError("The query is digital silence, and nothing is like it.")
        try:
            return self._find(entries, top)
        except BeatsError:
            # The files of an index that was changed meanwhile may be gone.
            searcher = self.current()
            if searcher is self:
                raise
            return searcher._find(entries, top)

    def _find(self, entries: list[Entry], top: int) -> list[Hit]:
        queries = np.stack([entry.vector for entry in entries])
        candidates = None if self.exact else find_candidates(self.index, queries, top)
        matches = find_nearest(self.index, queries, top, candidates)
        moments = self.index.moments([match.row for match in matches])
        return [
            Hit(moment, match.similarity, entries[match.query].start, entries[match.query].end)
            for moment, match in zip(moments, matches)
        ]


__all__ = ["Hit", "Searcher"]
