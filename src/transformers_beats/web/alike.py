# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Tabs of the page ([`page`]) that compare the clip with another one, and with the recordings of an index."""

import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import soundfile

from transformers_beats.audio.decoding import AudioError, AudioStream, decode_audio
from transformers_beats.search.comparison import compare_recordings
from transformers_beats.search.index import Entry, Index, Moment
from transformers_beats.search.queries import Hit, Searcher
from transformers_beats.utils.errors import FOREIGN_ERRORS, BeatsError
from transformers_beats.utils.messages import warn

from .analysis import Checkpoint, has_moved, load, open_limited
from .views import Found, as_alert, as_html, show_comparison, show_found, show_progress


CHOOSE_ANOTHER = "Choose another sound to compare this one with."
TOP = 10
# Searches of an index that is changed meanwhile.
ATTEMPTS = 3
# Longest part of a found moment that is sent to the page, in seconds.
PLAYED_SECONDS = 10.0


class Alike(NamedTuple):
    """
    Components of the tab that compares: tab, the other clip, result and what is shown, and those of the tab of similar
    recordings, which is there with an index.
    """

    compare_tab: Any
    other: Any
    comparison: Any
    compared: Any
    similar_tab: Any
    similar: Any
    searched: Any


class Library:
    """
    An index that visitors search. Nothing but moments of its recordings is ever read from the disk for them.

    Args:
        directory (`Path`):
            The index.
        device (`str`):
            Name of a device, or `"auto"`.

    Raises:
        [`BeatsError`]: if the index or its model cannot be used.
    """

    def __init__(self, directory: Path, device: str):
        self.searcher = Searcher(Index(directory), device)

    def open(self, path: Path, max_seconds: float) -> AudioStream:
        """Opens a clip for [`~Library.find`]."""
        return open_limited(path, self.searcher.sampling_rate, max_seconds)

    def find(self, stream: AudioStream) -> Iterator[float | list[Found] | None]:
        """
        Yields the share of the work that is done, see [`Analysis`], and at the end what was found for a clip.

        Raises:
            [`BeatsError`]: if the index cannot be searched; the message names no path.
        """
        entries: list[Entry] = []
        shown: float | None = 0.0
        for entry in self.searcher.embed(stream):
            entries.append(entry)
            share = min(1.0, entry.end / stream.seconds) if stream.seconds else None
            if has_moved(shown, share):
                shown = share
                yield share
        index, hits = self._search(entries)
        yield [self._show(hit, index.folder) for hit in hits]

    def _search(self, entries: list[Entry], attempts: int = ATTEMPTS) -> tuple[Index, list[Hit]]:
        """Searches the index as it is now; again if it is changed meanwhile, which removes files of it."""
        try:
            self.searcher = searcher = self.searcher.current()
            return searcher.index, searcher.nearest(entries, TOP)
        except AudioError:
            raise
        except BeatsError as error:
            if attempts > 1 and not self.searcher.index.is_current():
                return self._search(entries, attempts - 1)
            # Whoever serves the page reads the reason; visitors can do nothing about it.
            warn(str(error))
            raise BeatsError("The recordings cannot be searched now: try again later.") from error

    def _show(self, hit: Hit, folder: str) -> Found:
        # Visitors are not told where the recordings are.
        name = os.path.relpath(hit.moment.file, folder)
        return Found(name, hit.moment.start, hit.moment.end, hit.similarity, self._read(hit.moment))

    def _read(self, moment: Moment) -> bytes | None:
        """Returns the beginning of a moment as FLAC; None if its file is gone or cannot be read any more."""
        rate, audio = self.searcher.sampling_rate, io.BytesIO()
        seconds = min(PLAYED_SECONDS, moment.end - moment.start)
        try:
            samples = decode_audio(moment.file, rate, round(moment.start * rate), round(seconds * rate))
        except FOREIGN_ERRORS:
            return None
        soundfile.write(audio, samples, rate, format="FLAC", subtype="PCM_16")
        return audio.getvalue()


def respond_with_comparison(
    clip: str | None,
    other: str | None,
    model: str,
    shown: tuple[str, str, str] | None,
    classifiers: dict[str, Checkpoint],
    max_seconds: float,
    device: str,
) -> Iterator[tuple[Any, Any]]:
    """
    Compares two clips by a model, unless these are `shown`. Yields their HTML, and what is shown.
    """
    import gradio as gr

    if clip is None or other is None:
        yield as_html(CHOOSE_ANOTHER), None
        return
    if (clip, other, model) == shown:
        yield gr.skip(), gr.skip()
        return
    yield show_progress(f"Loading {model}", None), None
    paths = [Path(clip), Path(other)]
    try:
        loaded, extractor = load(classifiers[model].path, device, classifiers[model].backend)
        streams = [open_limited(path, extractor.sampling_rate, max_seconds) for path in paths]
        lengths = [stream.seconds for stream in streams]
        total = None if None in lengths else sum(seconds for seconds in lengths if seconds is not None)
        steps = compare_recordings(streams, loaded, extractor)
        share_shown: float | None = 0.0
        while True:
            try:
                seconds = next(steps)
            except StopIteration as end:
                comparison = end.value
                break
            share = min(1.0, seconds / total) if total else None
            if has_moved(share_shown, share):
                share_shown = share
                yield show_progress("Comparing", share), None
        warnings = [
            f"{path.name}: {warning}" for path, stream in zip(paths, streams) for warning in stream.report.warnings
        ]
        yield show_comparison([path.name for path in paths], comparison, warnings), (clip, other, model)
    except FOREIGN_ERRORS as error:
        yield as_alert(error, *paths), None


def respond_with_similar(
    clip: str | None, shown: Any, library: Library, max_seconds: float
) -> Iterator[tuple[Any, Any]]:
    """
    Finds the moments of an index that are like a clip, unless they are `shown`. Yields HTML and what is shown, which
    is a clip and a state of the index.
    """
    import gradio as gr

    if clip is None:
        yield "", None
        return
    if shown == (clip, library.searcher.index.state) and library.searcher.index.is_current():
        yield gr.skip(), gr.skip()
        return
    yield show_progress("Searching", None), None
    path = Path(clip)
    try:
        stream = library.open(path, max_seconds)
        for found in library.find(stream):
            if isinstance(found, list):
                shown = clip, library.searcher.index.state
                yield show_found(path.name, found, stream.report.warnings), shown
            else:
                yield show_progress("Searching", found), None
    except FOREIGN_ERRORS as error:
        yield as_alert(error, path), None


def add_alike(has_library: bool) -> Alike:
    """Adds the tabs, inside those of the results."""
    import gradio as gr

    with gr.Tab("Compare", id="compare") as compare_tab:
        other = gr.Audio(
            sources=["upload"],
            type="filepath",
            label="Another sound",
            buttons=[],
            editable=False,
            waveform_options=gr.WaveformOptions(show_recording_waveform=False),
            elem_id="other",
        )
        comparison, compared = gr.HTML(as_html(CHOOSE_ANOTHER), elem_classes="message", padding=False), gr.State()
    with gr.Tab("Similar", id="similar", visible=has_library) as similar_tab:
        similar, searched = gr.HTML("", padding=False), gr.State()
    return Alike(compare_tab, other, comparison, compared, similar_tab, similar, searched)


def connect_alike(
    alike: Alike,
    clip: Any,
    model: Any,
    compare: Callable[..., Any],
    find_similar: Callable[..., Any] | None,
    job: dict[str, Any],
) -> list[Any]:
    """Connects the tabs with the functions, and returns the jobs, which can be cancelled."""
    import gradio as gr

    private = partial(gr.on, api_visibility="private", **job)
    jobs = [
        private(
            [alike.compare_tab.select, alike.other.change],
            compare,
            [clip, alike.other, model, alike.compared],
            [alike.comparison, alike.compared],
            show_progress_on=alike.comparison,
            trigger_mode="multiple",
        )
    ]
    if find_similar is not None:
        jobs.append(
            private(
                alike.similar_tab.select,
                find_similar,
                [clip, alike.searched],
                [alike.similar, alike.searched],
                show_progress_on=alike.similar,
            )
        )
    return jobs
