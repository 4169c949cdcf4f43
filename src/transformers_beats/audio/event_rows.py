# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Rows of files and columns of events, and the recordings that they are about, by their names."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple, TypeVar

from transformers.utils import logging

from transformers_beats.utils.errors import BeatsError, name_some

from .audioset import CLIP_NAME, is_start
from .files import AUDIO_SUFFIXES, has_suffix


logger = logging.get_logger(__name__)

T = TypeVar("T")

NUMBER, COMMA_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"), re.compile(r"[-+]?\d+,\d+")
MISSING = ("", "nan", "none", "null")
# An event may end so much later than its recording, in seconds: lengths in tables are rounded ones.
END_TOLERANCE = 1.0
# Of the names of clips whose paths are the same, by [`name_row`].
ROW_FOLDER = re.compile(r"row \d+( of dataset \d+)?")


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


def has_no_text(value: Any) -> bool:
    """Returns whether the text of a value stands for none."""
    return math.isnan(value) if isinstance(value, float) else str(value).strip().lower() in MISSING


def is_time(text: str) -> bool:
    """Returns whether a text is a number of seconds; `1,5` is one, too, as some programs write it."""
    return bool(NUMBER.fullmatch(text.strip()) or COMMA_NUMBER.fullmatch(text.strip()))


def as_time(value: Any, place: str, name: str) -> float:
    """Returns a time in seconds; raises a [`BeatsError`] for what is none, by [`is_time`]."""
    if isinstance(value, float) and math.isfinite(value):
        return value
    text = str(value).strip()
    if isinstance(value, bool) or not is_time(text):
        raise BeatsError(f"{place}: the {name} {value!r} is no time in seconds.")
    return float(text.replace(",", "."))


def check_times(row: Row) -> Row:
    """Returns a row; raises a [`BeatsError`] for times of no length."""
    if row.onset is not None and row.offset is not None and not 0 <= row.onset < row.offset < math.inf:
        reason = "the onset is negative" if row.onset < 0 else "the offset must be after the onset"
        raise BeatsError(f"{row.place}: {row.label!r} from {row.onset:g} to {row.offset:g} s: {reason}.")
    return row


def make_row(place: str, recording: Any, label: Any, onset: Any, offset: Any, is_typed: bool = False) -> Row:
    """
    Makes a row of cells; an event needs all three, and a row with none of them is a recording without events. Cells of
    delimited text are all texts, of which some stand for no value; if they are typed, as in JSON and Parquet, any text
    but an empty one is a label.
    """
    cells = {"label": label, "onset": onset, "offset": offset}
    missing = [name for name, value in cells.items() if has_no_text(value)]
    if is_typed and not is_missing(label):
        missing = [name for name in missing if name != "label"]
    if len(missing) == len(cells):
        return Row(place, str(recording))
    if missing:
        raise BeatsError(f"{place}: the event has no {' and no '.join(missing)}.")
    times = as_time(onset, place, "onset"), as_time(offset, place, "offset")
    return check_times(Row(place, str(recording), str(label).strip(), *times))


def fit_times(row: Row, name: str, seconds: float) -> Row:
    """
    Returns a row whose event ends with its recording, at the latest; without the event if it begins there.

    Raises:
        [`BeatsError`]: if it ends more than a second later.
    """
    if row.onset is None or row.offset is None:
        return row
    if row.offset > seconds + END_TOLERANCE:
        raise BeatsError(
            f"{row.place}: {row.label!r} from {row.onset:g} to {row.offset:g} s is not within {name}, which lasts "
            f"{seconds:g} s."
        )
    if row.onset >= seconds:
        return row._replace(label=None, onset=None, offset=None)
    return row if row.offset <= seconds else row._replace(offset=seconds)


def fit_rows(rows: Sequence[Row], names: Sequence[str], seconds: Sequence[float]) -> list[Row]:
    """Returns what [`fit_times`] does of each row, by the name and the length of its recording; warns of late ones."""
    fitted = [fit_times(row, name, float(length)) for row, name, length in zip(rows, names, seconds)]
    if num_late := sum(new.label != old.label for new, old in zip(fitted, rows)):
        logger.warning(f"{num_late} events begin where their recording has ended, and are left out.")
    return fitted


def is_event(value: Any) -> bool:
    """Returns whether a value is an event, `{label, onset, offset}`."""
    return isinstance(value, dict) and {"label", "onset", "offset"} <= value.keys()


def is_missing(value: Any) -> bool:
    """Returns whether a value, or an element of a list, stands for none: it is None, NaN, or a text of blanks."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def read_events(
    cells: Sequence[Sequence[Any]],
    names: Sequence[str],
    seconds: Sequence[float] | None,
    column: str,
    name_label: Callable[[Any], str],
) -> list[list[Row]]:
    """
    Returns the events in the cells of each recording, by the rules of files of events: they end with their recordings,
    if `seconds`, the lengths of these, are given, and one that is there twice counts once.

    Raises:
        [`BeatsError`]: for a cell that is no event; see also [`make_row`] and [`fit_times`]. The message names the
            recording and the column.
    """
    rows: list[Row] = []
    clips: list[int] = []
    for number, (of_recording, name) in enumerate(zip(cells, names)):
        place = f"{name}, {column}"
        for cell in of_recording:
            if not is_event(cell):
                raise BeatsError(f"{name}: {column} holds {cell!r}, no event {{label, onset, offset}}.")
            label = None if is_missing(cell["label"]) else name_label(cell["label"])
            rows.append(make_row(place, name, label, cell["onset"], cell["offset"], is_typed=True))
            clips.append(number)
    if seconds is not None:
        rows = fit_rows(rows, [row.recording for row in rows], [seconds[clip] for clip in clips])
    found: list[list[Row]] = [[] for _ in cells]
    for row, clip in zip(rows, clips):
        if row.label is not None:
            found[clip].append(row)
    return keep_once(found, f"events of {column}")


def keep_once(events: Sequence[list[T]], described: str) -> list[list[T]]:
    """Returns the events of each recording in their order, each of them once; warns of others."""
    found = [list(dict.fromkeys(of_recording)) for of_recording in events]
    if num_twice := sum(map(len, events)) - sum(map(len, found)):
        logger.warning(f"{num_twice} {described} appear twice, and count once.")
    return found


def classes_of_events(cells: Sequence[Any], place: str, name_label: Callable[[Any], str]) -> list[Any]:
    """
    Returns the cells of a recording with the classes of its events, each once, in the place of these, whatever their
    times.

    Raises:
        [`BeatsError`]: for times without a label; the message begins with `place`.
    """
    found: list[Any] = []
    classes: set[str] = set()
    for cell in cells:
        if not is_event(cell):
            found.append(cell)
        elif not is_missing(cell["label"]):
            if (label := name_label(cell["label"]).strip()) not in classes:
                found.append(label)
            classes.add(label)
        elif not (has_no_text(cell["onset"]) and has_no_text(cell["offset"])):
            raise BeatsError(f"{place}: the event has no label.")
    return found


def parts_of(name: str) -> tuple[str, ...]:
    """Returns the folders and the name of a recording, without the suffix of an audio file."""
    path = PurePosixPath(name.replace("\\", "/"))
    path = path.with_suffix("") if has_suffix(path.name, AUDIO_SUFFIXES) else path
    return tuple(part for part in path.parts if part not in ("/", ".."))


def is_end(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Returns whether one of two names is the end of the other, so that both may be of one recording."""
    count = min(len(first), len(second))
    return first[len(first) - count :] == second[len(second) - count :]


def name_row(row: int, dataset: int | None = None) -> str:
    """Returns the folder before the path of a clip that others share: its row and, among several, its dataset."""
    return f"row {row + 1}" if dataset is None else f"row {row + 1} of dataset {dataset + 1}"


def first_rows(names: Sequence[str]) -> dict[str, int]:
    """Returns the number of the first row of each name."""
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        found.setdefault(name, index)
    return found


class Recordings:
    """
    Recordings by their names: `train/1.wav` is found by `train/1.wav`, `1.wav`, `1`, and `audio/train/1.wav`, as long
    as no other has the same end of its name, and not by `test/1.wav`. Two names of which none is the end of the other
    cannot both find one. Rows of one name are one recording, whose number is that of the first of them; `numbers` has
    it for each row. An id of AudioSet-Strong finds the clip of its video. A name by [`name_row`] is found by its row:
    what has its path alone may be another clip.
    """

    def __init__(self, names: Sequence[str]):
        self.names = names
        first = first_rows(names)
        self.numbers = [first[name] for name in names]
        self.by_end: dict[tuple[str, ...], list[int]] = {}
        self.by_name: dict[tuple[str, ...], list[int]] = {}
        self.by_video: dict[str, list[int]] = {}
        self.found_by: dict[tuple[int, str], tuple[str, ...]] = {}
        # A recording has many rows.
        self.known: dict[tuple[str, str], int | None] = {}
        for name, index in first.items():
            parts = parts_of(name)
            self.by_name.setdefault(parts, []).append(index)
            for first in range(len(parts)):
                self.by_end.setdefault(parts[first:], []).append(index)
            if match := CLIP_NAME.fullmatch(parts[-1]):
                self.by_video.setdefault(match["ytid"], []).append(index)

    def find(self, row: Row) -> int | None:
        """
        Returns the number of a row's recording; None if there is none.

        Raises:
            [`BeatsError`]: if several fit, or a row of another recording had found it.
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
        # Without the first folder of [`name_row`], another clip of the same path would be found.
        is_of_row = len(parts) > 1 and ROW_FOLDER.fullmatch(parts[0]) is not None
        if is_of_row:
            ends = ends[:1]
        found = next((table[end] for table, end in zip(tables, ends) if end in table), [])
        if not found and not is_of_row and parts and kind == "segment" and (segment := CLIP_NAME.fullmatch(parts[-1])):
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


__all__ = [
    "Recordings",
    "Row",
    "as_time",
    "check_times",
    "classes_of_events",
    "first_rows",
    "fit_rows",
    "fit_times",
    "is_event",
    "is_missing",
    "is_time",
    "keep_once",
    "make_row",
    "name_row",
    "read_events",
]
