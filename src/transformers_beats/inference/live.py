# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Sound events of a stream while it is heard: each is told once when it begins and once when it ends, and together they
are those that [`find_events`] finds in the whole recording.
"""

import math
import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from transformers_beats.audio.decoding import AudioStream, open_audio
from transformers_beats.fbank_beats import num_fbank_samples
from transformers_beats.utils.errors import UsageError, name_some

from .events import NO_SCORE, TOLERANCE, Event, EventSettings, calibrate, find_events, in_order, median_columns
from .results import Columns
from .windowed import WindowedInference


# Of half of a median filter: more than a day.
MAX_COLUMNS = 2**20
# Scores of a recording that are held, in bytes: twenty minutes of AudioSet's 527 labels every 160 ms. Of so many,
# the events are found faster at once.
MOST_HELD = 2**24


class Begin(NamedTuple):
    """Beginning of an event: its number, from 0, label and start in seconds."""

    id: int
    label: str
    start: float


class End(NamedTuple):
    """End of an event: its number, and what [`find_events`] would say of it."""

    id: int
    event: Event


class Dropped(NamedTuple):
    """Audio that was not looked at, since the model is slower than it came: start and end in seconds."""

    start: float
    end: float


@dataclass
class _Span:
    """Columns from `start` to before `end`, the highest score, float32, and the number of the event, if it has one."""

    start: int
    end: int
    score: Any
    id: int | None = None


@dataclass
class _Run:
    """Columns from `start` on that reach the low threshold, their highest score, and whether one reaches the other."""

    start: int
    score: Any
    is_event: bool


class EventFinder:
    """
    Finds the events of columns that come block by block, with the steps and results of [`find_events`].

    Args:
        id2label (`dict[int, str]`):
            Names of the labels.
        settings ([`EventSettings`]):
            Thresholds and lengths.
        column_seconds (`float`):
            Time from one column to the next.
        offset (`float`, defaults to 0.0):
            Time of the first column, in seconds.
        first_id (`int`, defaults to 0):
            Number of the first event.
        of_labels (`Mapping[str, EventSettings]`, *optional*):
            Settings of some labels, by their names, as in [`find_events`].

    Raises:
        [`UsageError`]: for settings with `box_seconds`: whether a score is the largest change is known at the end.
    """

    def __init__(
        self,
        id2label: Mapping[int, str],
        settings: EventSettings,
        column_seconds: float,
        offset: float = 0.0,
        first_id: int = 0,
        of_labels: Mapping[str, EventSettings] | None = None,
    ):
        self.id2label, self.seconds, self.offset, self.next_id = id2label, column_seconds, offset, first_id
        self.of_labels = [(of_labels or {}).get(id2label[label], settings) for label in sorted(id2label)]
        if boxed := [id2label[label] for label, own in enumerate(self.of_labels) if own.box_seconds]:
            raise UsageError(
                f"`box_seconds` of {name_some(boxed)} needs the whole recording: it is for `tag --events`, not for a "
                "stream."
            )
        # Compared in the precision of the scores.
        self.thresholds = np.array([own.threshold for own in self.of_labels], np.float32)
        self.low_thresholds = np.array([own.low_threshold for own in self.of_labels], np.float32)
        self.sizes = np.array([median_columns(own, column_seconds, MAX_COLUMNS) for own in self.of_labels])
        self.half = int(self.sizes.max(initial=1)) // 2
        # Before the median filter, from column `first` on, with half a filter of those that were passed on already.
        self.raw, self.silent = np.zeros((0, 0), np.float32), np.zeros(0, bool)
        self.first = self.next_column = 0
        self.spans: dict[int, _Span] = {}
        self.runs: dict[int, _Run] = {}

    def add(self, columns: Columns) -> Iterator[Begin | End]:
        """Yields the beginnings and ends that are known with a further block."""
        silent = np.zeros(len(columns.values), bool) if columns.silent is None else columns.silent
        values = np.where(silent[:, None], NO_SCORE, columns.values)
        self.raw = values if len(self.raw) == 0 else np.concatenate([self.raw, values])
        self.silent = np.concatenate([self.silent, silent])
        yield from self._filter(self.first + len(self.raw) - self.half)

    def finish(self) -> Iterator[Begin | End]:
        """Yields what is known at the end of the stream."""
        yield from self._filter(self.first + len(self.raw))
        for label in sorted(self.spans):
            yield from self._close(label)

    def _filter(self, end: int) -> Iterator[Begin | End]:
        """Applies temperatures and median filters to the columns before `end`, and follows their scores."""
        if end <= self.next_column:
            return
        scores = self.raw.copy()
        for label, own in enumerate(self.of_labels):
            if own.temperature != 1:
                scores[:, label] = calibrate(scores[:, label], own.temperature)
        for size in np.unique(self.sizes[self.sizes > 1]):
            labels = np.flatnonzero(self.sizes == size)
            scores[:, labels] = ndimage.median_filter(scores[:, labels], size=(size, 1), mode="nearest")
        scores[self.silent] = NO_SCORE
        for column in range(self.next_column, end):
            yield from self._follow(column, scores[column - self.first])
        self.next_column = end
        # A filter at the next column reads half of its length before it.
        num_left = max(0, end - self.half - self.first)
        self.raw, self.silent, self.first = self.raw[num_left:], self.silent[num_left:], self.first + num_left

    def _follow(self, column: int, scores: np.ndarray) -> Iterator[Begin | End]:
        is_above = scores >= self.low_thresholds
        for label in sorted({*np.flatnonzero(is_above).tolist(), *self.spans, *self.runs}):
            own = self.of_labels[label]
            if is_above[label]:
                score = scores[label]
                run = self.runs.setdefault(label, _Run(column, score, False))
                run.score = max(run.score, score)
                run.is_event = run.is_event or score >= self.thresholds[label]
                if run.is_event:
                    # One that ended long ago was closed before this run began.
                    span = self.spans.setdefault(label, _Span(run.start, column, run.score))
                    span.end, span.score = column + 1, max(span.score, run.score)
                    if span.id is None and span.end - span.start >= own.min_seconds / self.seconds - TOLERANCE:
                        span.id, self.next_id = self.next_id, self.next_id + 1
                        yield Begin(span.id, self.id2label[label], self._time(span.start))
            else:
                self.runs.pop(label, None)
                # A run that begins with the next column is too late.
                max_gap = own.gap_seconds / self.seconds + TOLERANCE
                if label in self.spans and column + 1 - self.spans[label].end > max_gap:
                    yield from self._close(label)

    def _close(self, label: int) -> Iterator[End]:
        span = self.spans.pop(label)
        if span.id is not None:
            times = self._time(span.start), self._time(span.end)
            yield End(span.id, Event(self.id2label[label], float(span.score), *times))

    def _time(self, column: int) -> float:
        return round(self.offset + float(column) * self.seconds, 6)


class EventCollector:
    """
    Events of a recording whose columns come block by block, those of [`find_events`]. Of a long recording, they are
    found while its columns come, so that memory does not grow with its length; `box_seconds` needs all columns.

    Args:
        id2label (`dict[int, str]`):
            Names of the labels.
        settings ([`EventSettings`]):
            Thresholds and lengths.
        of_labels (`Mapping[str, EventSettings]`, *optional*):
            Settings of some labels, by their names.
    """

    def __init__(
        self,
        id2label: Mapping[int, str],
        settings: EventSettings,
        of_labels: Mapping[str, EventSettings] | None = None,
    ):
        self.id2label, self.settings, self.of_labels = id2label, settings, of_labels
        self.needs_all = any(own.box_seconds for own in [settings, *(of_labels or {}).values()])
        self.blocks: list[Columns] = []
        self.finder: EventFinder | None = None
        self.found: list[Event] = []

    def add(self, columns: Columns) -> None:
        """Takes the columns that follow."""
        self.blocks.append(columns)
        while len(self.blocks) > 1 and 2 * len(self.blocks[-1].values) >= len(self.blocks[-2].values):
            # Few large arrays: many small ones that stay between those of the model would keep the memory of these.
            self.blocks[-2:] = [Columns.join(self.blocks[-2:])]
        is_long = sum(block.values.nbytes for block in self.blocks) > MOST_HELD
        if self.finder is None and is_long and not self.needs_all:
            self.finder = EventFinder(self.id2label, self.settings, columns.column_seconds, of_labels=self.of_labels)
        if self.finder is not None:
            for block in self.blocks:
                self._keep(self.finder.add(block))
            self.blocks = []

    def finish(self) -> list[Event]:
        """Returns the events, in order of their starts; called once."""
        if self.finder is None:
            return find_events(Columns.join(self.blocks), self.id2label, self.settings, self.of_labels)
        self._keep(self.finder.finish())
        return in_order(self.found)

    def _keep(self, told: Iterable[Begin | End]) -> None:
        self.found += [item.event for item in told if isinstance(item, End)]


class Feed:
    """
    Audio that is read in a thread while the model computes, so that what comes meanwhile waits here. The thread ends
    with the audio, or soon after [`~Feed.stop`].

    Args:
        stream ([`AudioStream`]):
            The audio, at the model's rate.
        buffer_seconds (`float`, defaults to 10.0):
            Longest audio that waits.
        drops (`bool`, defaults to `False`):
            Whether further audio is dropped and counted, as that of a microphone, which does not wait. Otherwise
            reading waits.

    Raises:
        [`UsageError`]: if `buffer_seconds` is not positive.
    """

    def __init__(self, stream: AudioStream, buffer_seconds: float = 10.0, drops: bool = False):
        if not 0 < buffer_seconds < math.inf:
            raise UsageError(f"`buffer_seconds` must be positive, got {buffer_seconds!r}.")
        checked = open_audio(stream, stream.sampling_rate)
        self.rate, self.drops = stream.sampling_rate, drops
        self.most_waiting = round(buffer_seconds * self.rate)
        # Samples that have come, and those of them that were dropped.
        self.num_samples = self.num_dropped = 0
        # Seconds that reading has waited for the model, and that the model has waited for audio.
        self.blocked_seconds = self.idle_seconds = 0.0
        self._items: queue.SimpleQueue[tuple[int, np.ndarray] | Exception | None] = queue.SimpleQueue()
        self._waiting, self._is_stopped, self._is_dropping = 0, False, False
        self._is_started, self._changed = False, threading.Condition()
        # The first item of the next part, once a part has ended.
        self._next: tuple[int, np.ndarray] | None = None
        self._thread = threading.Thread(target=self._read, args=(checked.blocks, stream.blocks), daemon=True)

    def start(self) -> None:
        """Begins to read, as [`~Feed.parts`] does otherwise."""
        if not self._is_started:
            self._is_started = True
            self._thread.start()

    def stop(self) -> None:
        """Ends the audio after what has come."""
        self._is_stopped = True
        self._items.put(None)
        with self._changed:
            self._changed.notify_all()

    def _read(self, checked: Iterable[np.ndarray], source: Iterable[np.ndarray]) -> None:
        try:
            try:
                for block in checked:
                    if self._is_stopped:
                        return
                    self._take(block)
            finally:
                # The file or microphone, also while somebody has the stream.
                for blocks in (checked, source):
                    if isinstance(blocks, Generator):
                        blocks.close()
        except Exception as error:  # raised where the audio is used
            self._items.put(error)
        finally:
            self._items.put(None)

    def _take(self, block: np.ndarray) -> None:
        begin, self.num_samples = self.num_samples, self.num_samples + len(block)
        with self._changed:
            is_full = self._waiting > 0 and self._waiting + len(block) > self.most_waiting
            # Until half of it is free: what comes then is not cut into pieces of a moment each.
            self._is_dropping = self.drops and (
                is_full or (self._is_dropping and 2 * self._waiting > self.most_waiting)
            )
            if self._is_dropping:
                self.num_dropped += len(block)
                return
            if is_full:
                start = time.monotonic()
                self._changed.wait_for(
                    lambda: self._is_stopped or self._waiting == 0 or self._waiting + len(block) <= self.most_waiting
                )
                self.blocked_seconds += time.monotonic() - start
            self._waiting += len(block)
        self._items.put((begin, block))

    def parts(self) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
        """
        Yields the parts between which audio was dropped: the number of their first sample, and their blocks, to be
        read before the next part.
        """
        self.start()
        self._next = self._get()
        while self._next is not None:
            yield self._next[0], self._blocks()

    def _blocks(self) -> Iterator[np.ndarray]:
        expected = self._next[0] if self._next is not None else 0
        while self._next is not None and self._next[0] == expected:
            block = self._next[1]
            expected += len(block)
            yield block
            self._next = self._get()

    def _get(self) -> tuple[int, np.ndarray] | None:
        start = time.monotonic()
        item = self._items.get()
        self.idle_seconds += time.monotonic() - start
        if isinstance(item, Exception):
            raise item
        if item is not None:
            with self._changed:
                self._waiting -= len(item[1])
                self._changed.notify_all()
        return item


class Listener:
    """
    Tells the events of a stream as they begin and end.

    Args:
        inference ([`WindowedInference`]):
            Windows of a classifier or frame-level model, one in a batch.
        settings ([`EventSettings`]):
            Thresholds and lengths.
        of_labels (`Mapping[str, EventSettings]`, *optional*):
            Settings of some labels, by their names, as in [`find_events`].

    Raises:
        [`UsageError`]: if several windows are in a batch, which would be computed late, and for `box_seconds`.
    """

    def __init__(
        self,
        inference: WindowedInference,
        settings: EventSettings,
        of_labels: Mapping[str, EventSettings] | None = None,
    ):
        if inference.batch_size != 1:
            raise UsageError(f"`batch_size` must be 1, so that a window does not wait, got {inference.batch_size}.")
        self.inference, self.settings, self.of_labels = inference, settings, of_labels
        self.id2label = {int(index): name for index, name in (inference.plain_model.config.id2label or {}).items()}
        # Before a stream is opened.
        self._make_finder(0.0, 0)
        # Seconds of audio that were looked at, and by the clock, without waiting for audio.
        self.audio_seconds = self.busy_seconds = 0.0

    @property
    def latency(self) -> float:
        """
        Longest time in seconds from the beginning of an event that reaches the threshold at once until the audio is
        there from which it is known: a column is final once a window that begins after it is complete, so that it may
        wait for a hop and a window; half a median filter and the shortest event are added.
        """
        extractor = self.inference.feature_extractor
        frames = self.inference.window_columns * extractor.patch_size
        window = self.inference.window_samples or num_fbank_samples(frames, extractor.sampling_rate)
        frame = self.inference.frame_seconds
        finder = self._make_finder(0.0, 0)
        shortest = max(
            math.ceil(max(0.0, own.min_seconds / frame - TOLERANCE)) for own in [self.settings, *finder.of_labels]
        )
        columns = self.inference.hop_columns * self.inference.column_seconds
        return columns + window / extractor.sampling_rate + (finder.half + shortest) * frame

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing for a second of audio; more than 1 is too slow for a live stream."""
        return self.busy_seconds / self.audio_seconds if self.audio_seconds else 0.0

    def listen(self, feed: Feed) -> Iterator[Begin | End | Dropped]:
        """
        Yields what happens, as it is known. Where audio was dropped, events end, and what follows is looked at like
        another recording: times are those of the stream all the same. However it ends, the feed is stopped.

        Raises:
            [`AudioError`]: if the stream is damaged; what was heard before has been told, and events have ended.
        """
        start, idle, next_id, end = time.monotonic(), feed.idle_seconds, 0, 0
        try:
            for first, blocks in feed.parts():
                if first > end:
                    yield Dropped(end / feed.rate, first / feed.rate)
                finder = self._make_finder(first / feed.rate, next_id)
                counted = _Counted(blocks)
                stream = AudioStream("the stream", counted, feed.rate, is_checked=True)
                try:
                    for columns in self.inference.stream_frames(stream):
                        yield from finder.add(columns)
                    yield from finder.finish()
                finally:
                    self.audio_seconds += counted.num_samples / feed.rate
                next_id, end = finder.next_id, first + counted.num_samples
                if counted.error is not None:
                    raise counted.error
        finally:
            feed.stop()
            self.busy_seconds += max(0.0, time.monotonic() - start - (feed.idle_seconds - idle))
        if feed.num_samples > end and feed.num_dropped:
            yield Dropped(end / feed.rate, feed.num_samples / feed.rate)

    def _make_finder(self, offset: float, first_id: int) -> EventFinder:
        frame_seconds = self.inference.frame_seconds
        return EventFinder(self.id2label, self.settings, frame_seconds, offset, first_id, self.of_labels)


class _Counted:
    """Blocks whose samples are counted, and which an error ends, so that all before it is looked at."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self.blocks, self.num_samples = blocks, 0
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            for block in self.blocks:
                self.num_samples += len(block)
                yield block
        except Exception as error:  # raised once what came before is told
            self.error = error


__all__ = ["Begin", "Dropped", "End", "EventCollector", "EventFinder", "Feed", "Listener"]
