# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Rows of files of events, and the recordings that they are about, by their names."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from transformers_beats.utils.errors import BeatsError, name_some

from .audioset import CLIP_NAME, is_start
from .files import AUDIO_SUFFIXES, has_suffix


class Row(NamedTuple):
    """
    Row of a file of events: its place for messages, the recording, and an event. Without a label, the recording has
    none; with a label without times, it has the class at some moment. The name of the recording is its path; that of a
    file of events (`"track"`), whose folders say nothing; or the id of a segment of AudioSet (`"segment"`).
    """

    place: str
    recording: str
    label: str | None = None
    onset: float | None = None
    offset: float | None = None
    is_weak: bool = False
    named_by: Literal["path", "track", "segment"] = "path"


def parts_of(name: str) -> tuple[str, ...]:
    """Returns the folders and the name of a recording, without the suffix of an audio file."""
    path = PurePosixPath(name.replace("\\", "/"))
    path = path.with_suffix("") if has_suffix(path.name, AUDIO_SUFFIXES) else path
    return tuple(part for part in path.parts if part not in ("/", ".."))


def is_end(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Returns whether one of two names is the end of the other, so that both may be of one recording."""
    count = min(len(first), len(second))
    return first[len(first) - count :] == second[len(second) - count :]


class Recordings:
    """
    Recordings by their names: `train/1.wav` is found by `train/1.wav`, `1.wav`, `1`, and `audio/train/1.wav`, as long
    as no other has the same end of its name, and not by `test/1.wav`. Two names of which none is the end of the other
    cannot both find one. An id of AudioSet-Strong finds the clip of its video.
    """

    def __init__(self, names: Sequence[str]):
        self.names = names
        self.by_end: dict[tuple[str, ...], list[int]] = {}
        self.by_name: dict[tuple[str, ...], list[int]] = {}
        self.by_video: dict[str, list[int]] = {}
        self.found_by: dict[tuple[int, str], tuple[str, ...]] = {}
        # A recording has many rows.
        self.known: dict[tuple[str, str], int | None] = {}
        for index, name in enumerate(names):
            parts = parts_of(name)
            self.by_name.setdefault(parts, []).append(index)
            for first in range(len(parts)):
                self.by_end.setdefault(parts[first:], []).append(index)
            if match := CLIP_NAME.fullmatch(parts[-1]):
                self.by_video.setdefault(match["ytid"], []).append(index)

    def find(self, row: Row) -> int | None:
        """
        Returns the number of a row's recording, None if there is none; raises a [`BeatsError`] if several fit, or a
        row of another recording had found it.
        """
        key = row.recording, row.named_by
        if key not in self.known:
            self.known[key] = self._find(row)
        return self.known[key]

    def _find(self, row: Row) -> int | None:
        parts, kind = parts_of(row.recording), row.named_by
        # An end of the row's path must be all of the recording's, unless the row's folders are not those of it.
        tables = [self.by_end, *[self.by_end if kind == "track" else self.by_name] * len(parts)]
        ends = [parts[first:] for first in range(len(parts))]
        found = next((table[end] for table, end in zip(tables, ends) if end in table), [])
        if not found and parts and kind == "segment" and (segment := CLIP_NAME.fullmatch(parts[-1])):
            start, kind = segment["start"], "video"
            of_video = self.by_video.get(segment["ytid"], [])
            found = [index for index in of_video if start is None or self._has_start(index, float(start) / 1000)]
        if not found:
            return None
        if len(found) > 1:
            several = name_some([self.names[index] for index in found], 3)
            raise BeatsError(f"{row.place}: {row.recording!r} may be any of {several}: name its folder as well.")
        known = self.found_by.setdefault((found[0], kind), parts)
        if not is_end(parts, known):
            raise BeatsError(
                f"{row.place}: {row.recording!r} would be {self.names[found[0]]}, and so would {'/'.join(known)!r}: "
                "leave out the rows of other recordings, or load these with their folders."
            )
        self.found_by[found[0], kind] = max(parts, known, key=len)
        return found[0]

    def _has_start(self, index: int, start: float) -> bool:
        match = CLIP_NAME.fullmatch(parts_of(self.names[index])[-1])
        return match is not None and (match["start"] is None or is_start(float(match["start"]), start))


__all__ = ["Recordings", "Row"]
