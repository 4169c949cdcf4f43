# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Events of recordings in the files that the field writes: tables of DESED and the DCASE challenges, AudioSet-Strong,
Audacity's label tracks, Raven's selection tables, and JSON lines.
"""

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from transformers.utils import logging

from transformers_beats.audio.audioset import AUDIOSET_LABELS, AUDIOSET_STRONG_LABELS
from transformers_beats.audio.event_rows import (
    Recordings,
    Row,
    as_time,
    check_times,
    fit_rows,
    is_time,
    keep_once,
    make_row,
)
from transformers_beats.audio.files import search_folder
from transformers_beats.utils.errors import BeatsError, did_you_mean, name_some

from .labels import LabelArguments, Labels, as_lists, sort_names
from .tables import JSON_LINES_SUFFIXES, label_name, read_delimited, read_table, read_text


logger = logging.get_logger(__name__)

FORMATS = ("desed", "audioset_strong", "audacity", "raven", "jsonl")
# Files beside recordings.
TRACK_SUFFIXES = (".txt", ".tsv", ".csv", *JSON_LINES_SUFFIXES)
# Names of the columns of each format, the first of each kind in its specification.
FILE_COLUMNS = ("filename", "file_name", "file", "audio_filename")
ONSETS, OFFSETS = ("onset", "start"), ("offset", "end")
EVENT_COLUMNS, WEAK_COLUMNS = ("event_label", "label"), ("event_labels",)
STRONG_COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
RAVEN_BEGIN, RAVEN_END, RAVEN_FILE, RAVEN_OFFSET = ("Begin Time (s)", "End Time (s)", "Begin File", "File Offset (s)")
RAVEN_SELECTION = "Selection"
# Columns in which users of Raven write the class, which has no name of its own.
ANNOTATIONS = ("annotation", "label", "class", "species", "tag", "type", "call type", "id")
# Of the name of a selection table, `NAME.Table.1.selections.txt`.
RAVEN_NAME = re.compile(r"(\.Table\.\d+)?\.selections$", re.IGNORECASE)


def find_column(names: Sequence[str], wanted: Iterable[str]) -> str | None:
    """Returns the first of some columns that a table has, whatever their case."""
    known = {name.strip().lower(): name for name in reversed(names)}
    return next((known[name.lower()] for name in wanted if name.lower() in known), None)


def recognise(path: Path, text: str) -> str:
    """
    Returns the format of a file by its first line.

    Raises:
        [`BeatsError`]: if it is none that is known.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    if first.lstrip().startswith("{"):
        return "jsonl"
    if not first or _is_track_line(first):
        return "audacity"
    cells = [cell.strip().strip('"') for cell in re.split(r"[\t,;]", first)]
    if find_column(cells, [RAVEN_BEGIN]):
        return "raven"
    if find_column(cells, ["segment_id"]):
        return "audioset_strong"
    if find_column(cells, FILE_COLUMNS) and find_column(cells, (*EVENT_COLUMNS, *WEAK_COLUMNS)):
        return "desed"
    raise BeatsError(
        f"{path}: is no file of events that is known by its first line {first[:60]!r}: name its format, one of "
        f"{', '.join(FORMATS)}, by `event_format`."
    )


def _is_track_line(line: str) -> bool:
    cells = line.split("\t")
    return len(cells) >= 2 and all(map(is_time, cells[:2]))


def read_rows(path: Path, arguments: LabelArguments | None = None, known: Collection[str] | None = None) -> list[Row]:
    """
    Reads a file of events. Files of one recording, which do not name it, have their own name without suffixes for it.

    Args:
        path (`Path`):
            File in UTF-8, or in UTF-16 with its mark; with any kind of line ends.
        arguments ([`LabelArguments`], *optional*):
            Format, by default the one that the first line shows; column of the class in a selection table of Raven;
            and separator of the classes in `event_labels`, by default a comma.
        known (`Collection[str]`, *optional*):
            Classes, by which a machine id of AudioSet with two names has one.

    Returns:
        `list[Row]`: in the order of the file. An empty label track is one row without an event.

    Raises:
        [`BeatsError`]: naming the file and the row: a file that cannot be read or is of no such format, a column that
            is missing, a time that is none, an event of no length.
    """
    arguments = arguments or LabelArguments()
    text = read_text(path, may_be_empty=True)
    format = arguments.event_format or recognise(path, text)
    if format == "audacity":
        return _read_track(path, text)
    if format == "jsonl":
        return list(_read_json_lines(path))
    if not text.strip():
        raise BeatsError(f"{path}: is empty, without the header of a table.")
    if format == "raven":
        return _read_raven(path, arguments.label_column)
    if format == "audioset_strong":
        return list(_read_strong(path, known or ()))
    return list(_read_desed(path, arguments.label_separator or ","))


def _read_track(path: Path, text: str) -> list[Row]:
    """Reads a label track: onset, offset and label of each event; lines after it that begin with `\\` have bands."""
    rows = []
    recording = name_of_track(path)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("\\"):
            continue
        place = f"{path}, line {number}"
        cells = line.split("\t")
        if not _is_track_line(line):
            raise BeatsError(f"{place}: is no `onset, offset, label` with tabs between them, but {line[:60]!r}.")
        if len(cells) < 3 or not (label := " ".join(cells[2:]).strip()):
            raise BeatsError(f"{place}: has no label.")
        onset, offset = (as_time(cell, place, name) for cell, name in zip(cells, ("onset", "offset")))
        if onset == offset:
            raise BeatsError(f"{place}: {label!r} is a point at {onset:g} s: stretch it to the length of its sound.")
        rows.append(check_times(Row(place, recording, label, onset, offset, named_by="track")))
    return rows or [Row(str(path), recording, named_by="track")]


def _read_json_lines(path: Path) -> Iterator[Row]:
    """
    Reads a line for each event, with a file, a label, onset and offset; or for each recording, with its `events`, as
    `tag --events` writes them. Of the latter, nothing is known of others than that of the status "ok".
    """
    table = read_table(path)
    names = table.dataset.column_names
    file = find_column(names, FILE_COLUMNS)
    if file is None:
        raise BeatsError(f"{path}: has no column of recordings ({', '.join(FILE_COLUMNS)}), only {', '.join(names)}.")
    is_by_event = all(find_column(names, kind) for kind in (EVENT_COLUMNS, ONSETS, OFFSETS))
    if "events" not in names and not is_by_event:
        raise BeatsError(f"{path}: needs label, onset and offset of an event, or `events`, has {', '.join(names)}.")
    for index, record in enumerate(table.dataset):
        place, recording, events = table.place(index), record[file], record.get("events")
        if events is None and is_by_event:
            yield make_row(place, recording, *_event_cells(record, EVENT_COLUMNS), is_typed=True)
        elif record.get("status") in (None, "ok"):
            if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
                raise BeatsError(f"{place}: `events` must be a list of {{label, onset, offset}}, got {events!r:.60}.")
            if not events:
                yield Row(place, str(recording))
            for event in events:
                cells = _event_cells(event, EVENT_COLUMNS)
                if any(cell is None for cell in cells):
                    raise BeatsError(f"{place}: an event has no label, onset or offset: {json.dumps(event):.80}.")
                yield make_row(place, recording, *cells, is_typed=True)


def _event_cells(record: dict[str, Any], labels: Sequence[str]) -> list[Any]:
    known = {name.strip().lower(): value for name, value in record.items() if value is not None}
    cells = [next((known[name] for name in kind if name in known), None) for kind in (labels, ONSETS, OFFSETS)]
    return [None if cells[0] is None else label_name(cells[0]), *cells[1:]]


def _read_desed(path: Path, separator: str) -> Iterator[Row]:
    """Reads strong labels, or weak ones: the classes of a recording, with a separator between, in `event_labels`."""
    table = read_delimited(path, "\t")
    names = table.dataset.column_names
    file, weak = find_column(names, FILE_COLUMNS), find_column(names, WEAK_COLUMNS)
    label, onset, offset = (find_column(names, kind) for kind in (EVENT_COLUMNS, ONSETS, OFFSETS))
    is_strong = label is not None and onset is not None and offset is not None
    if file is None or (weak is None and not is_strong):
        raise BeatsError(
            f"{path}: needs the columns filename, onset, offset and event_label (or event_labels), has "
            f"{', '.join(names)}."
        )
    columns: Any = table.dataset.to_dict()
    if is_strong:
        for index, cells in enumerate(zip(*(columns[name] for name in (file, label, onset, offset)))):
            yield make_row(table.place(index), *cells)
        return
    for index, (recording, text) in enumerate(zip(columns[file], columns[weak])):
        (classes,) = as_lists([text], separator)
        yield from (Row(table.place(index), recording, name, is_weak=True) for name in classes or [None])


def _read_strong(path: Path, known: Collection[str]) -> Iterator[Row]:
    """
    Reads AudioSet-Strong: the id of a segment is that of its video, and its start in milliseconds. A class has the
    name that is `known`, or else that of the strong labels.
    """
    table = read_delimited(path, "\t")
    if missing := [name for name in STRONG_COLUMNS if name not in table.dataset.column_names]:
        raise BeatsError(f"{path}: has no column {name_some(missing)}, only {', '.join(table.dataset.column_names)}.")
    names = AUDIOSET_LABELS | AUDIOSET_STRONG_LABELS
    names |= {key: name for key, name in AUDIOSET_LABELS.items() if name in known and names[key] not in known}
    # A row at a time, the million of its training set would take minutes.
    columns: Any = table.dataset.to_dict()
    for index, (segment, onset, offset, label) in enumerate(zip(*(columns[name] for name in STRONG_COLUMNS))):
        row = make_row(table.place(index), segment, names.get(label, label), onset, offset)
        yield row._replace(named_by="segment")


def _read_raven(path: Path, label_column: str | None) -> list[Row]:
    """Reads a selection table, in which a selection may have a row for each view and each channel."""
    table = read_delimited(path, "\t")
    names = table.dataset.column_names
    column = find_column(names, ANNOTATIONS if label_column is None else [label_column])
    if column is None:
        hint = "" if label_column is None else did_you_mean(label_column, names)
        asked = "annotations" if label_column is None else label_column
        raise BeatsError(
            f"{path}: has no column {asked!r} of classes, only {', '.join(names)}{hint or ': set `label_column`.'}"
        )
    begin, end, file, offset, selection = (
        find_column(names, [name]) for name in (RAVEN_BEGIN, RAVEN_END, RAVEN_FILE, RAVEN_OFFSET, RAVEN_SELECTION)
    )
    if begin is None or end is None:
        missing = [name for name, found in ((RAVEN_BEGIN, begin), (RAVEN_END, end)) if found is None]
        raise BeatsError(f"{path}: has no column {name_some(missing)}, only {', '.join(names)}.")
    rows: dict[tuple, Row] = {}
    for index, record in enumerate(table.dataset):
        place = table.place(index)
        row = make_row(place, name_of_track(path), record[column], record[begin], record[end])
        row = row._replace(named_by="track")
        if file and record[file]:
            row = row._replace(recording=record[file], named_by="path")
            if offset and record[offset] and row.onset is not None and row.offset is not None:
                # Times count from the beginning of several files that are open one after another.
                onset = as_time(record[offset], place, "file offset")
                row = row._replace(onset=onset, offset=onset + row.offset - row.onset)
        rows.setdefault(((selection and record[selection]) or place, *row[1:]), row)
    return list(rows.values())


def name_of_track(path: str | Path) -> str:
    """Returns the name of the recording that a file is about: its own, without suffixes."""
    track = PurePosixPath(Path(path).as_posix())
    return str(track.with_name(RAVEN_NAME.sub("", track.stem) or track.stem))


def collect_rows(
    source: str, recordings: Recordings, arguments: LabelArguments, known: Collection[str] | None
) -> list[Row]:
    """Reads a file of events, or in a folder those files that are named after a recording; see [`read_rows`]."""
    path = Path(source)
    if not path.exists():
        raise BeatsError(f"`event_files`: {source}: no such file or folder.")
    if not path.is_dir():
        return read_rows(path, arguments, known)
    rows, others = [], []
    for file in search_folder(path, TRACK_SUFFIXES):
        name = name_of_track(os.path.relpath(file, path))
        if recordings.find(Row(str(file), name)) is None:
            others.append(file.name)
        else:
            # Relative to the folder, as recordings are.
            rows += [
                row._replace(recording=name, named_by="path") if row.named_by == "track" else row
                for row in read_rows(file, arguments, known)
            ]
    if not rows:
        found = f", only {name_some(others, 3)}" if others else ""
        raise BeatsError(f"`event_files`: {source}: holds no file of events that is named after a recording{found}.")
    if others:
        logger.warning(f"{source}: {len(others)} files are named after no recording: {name_some(others, 3)}.")
    return rows


def read_event_files(
    arguments: LabelArguments,
    names: Sequence[str],
    seconds: Sequence[float],
    known: Sequence[str] | None = None,
) -> Labels:
    """
    Reads the events of recordings from `event_files`.

    Args:
        arguments ([`LabelArguments`]):
            Files, their format, and the set of classes.
        names (`Sequence[str]`):
            Names of the recordings, relative to their folder. Those of the same name have the same labels.
        seconds (`Sequence[float]`):
            Their lengths.
        known (`Sequence[str]`, *optional*):
            Classes in their order; by default those of `label_set`, or those that appear.

    Returns:
        [`Labels`] with `task="frames"`: what is known of each recording is its events, its classes, or nothing, if no
        file names it. Of one with both, the events count. With `event_classes="own"`, a recording was labelled for
        the classes of the files (or folders) that its events, or else its classes, are from.

    Raises:
        [`BeatsError`]: see [`read_rows`]; names of recordings none of which is there; a label that is no class; an
            event that ends more than a second after its recording; or a file without any class, if its own count. The
            message names the file and the row.
    """
    sources = [arguments.event_files] if isinstance(arguments.event_files, str) else arguments.event_files or []
    recordings = Recordings(names)
    if known is None and arguments.label_set is not None:
        strong = arguments.label_set == "audioset_strong"
        known = list((AUDIOSET_STRONG_LABELS if strong else AUDIOSET_LABELS).values())
    of_sources = [collect_rows(source, recordings, arguments, known) for source in sources]
    found: list[tuple[Row, int]] = []
    found_in: list[int] = []
    lost: list[str] = []
    for number, row in ((number, row) for number, rows in enumerate(of_sources) for row in rows):
        clip = recordings.find(row)
        if clip is None:
            lost.append(f"{row.place}: {row.recording}")
        else:
            found.append((row, clip))
            found_in.append(number)
    if not found:
        such = f", such as {name_some(lost, 1)}" if lost else ": there is no row"
        raise BeatsError(f"`event_files`: none of the recordings is there{such}.")
    if lost:
        logger.warning(f"{len(lost)} rows are of recordings that are not there, such as {lost[0]}.")
    clips = [clip for _, clip in found]
    fitted = fit_rows([row for row, _ in found], [names[clip] for clip in clips], [seconds[clip] for clip in clips])
    known, rows = choose_classes(arguments, known, fitted)
    index = {name: number for number, name in enumerate(known)}
    values: list[list] = [[] for _ in names]
    annotated: list[set[int]] = [set() for _ in names]
    own = own_classes(sources, of_sources, index) if arguments.event_classes == "own" else None
    knowledge = ["nothing"] * len(names)
    # Of recordings with both, classes come first, and are replaced.
    for row, clip, number in sorted(zip(rows, clips, found_in), key=lambda triple: not triple[0].is_weak):
        kind = "classes" if row.is_weak else "events"
        if knowledge[clip] != kind:
            knowledge[clip], values[clip], annotated[clip] = kind, [], set()
        if own is not None:
            annotated[clip] |= own[number]
        if row.label is None:
            continue
        has_times = row.onset is not None and row.offset is not None
        values[clip].append((index[row.label], *((row.onset, row.offset) if has_times else (0.0, math.inf))))
    values = keep_once(values, "rows of events")
    labels = Labels("frames", list(known), values, knowledge, None if own is None else list(map(sorted, annotated)))
    return labels.select(recordings.numbers)


def own_classes(sources: Sequence[str], of_sources: Sequence[list[Row]], index: Mapping[str, int]) -> list[set[int]]:
    """
    Returns the classes that occur in each file or folder of events, also in rows of recordings that are not there.

    Raises:
        [`BeatsError`]: for one without any: it would say nothing of its recordings.
    """
    own = [{index[row.label] for row in rows if row.label is not None and row.label in index} for rows in of_sources]
    for source, classes in zip(sources, own):
        if not classes:
            raise BeatsError(
                f"`event_classes: own`: {source} has none of the classes, so that it says nothing of its recordings: "
                "leave it out, or join it with the file of the classes that these were labelled for."
            )
    return own


def choose_classes(
    arguments: LabelArguments, known: Sequence[str] | None, rows: list[Row]
) -> tuple[list[str], list[Row]]:
    """Returns the classes, and the rows whose labels are among them; raises a [`BeatsError`] for any other label."""
    if known is None:
        known = sort_names({row.label for row in rows if row.label is not None})
        if not known:
            raise BeatsError("`event_files` has no label for any recording.")
        return list(known), rows
    names = {None, *known}
    unknown = [row for row in rows if row.label not in names]
    if arguments.label_set == "audioset_strong" and unknown:
        # Classes of its evaluation that its training events do not have.
        left_out = sort_names({row.label for row in unknown})
        logger.warning(f"{len(unknown)} events of {len(left_out)} other classes are left out: {name_some(left_out)}.")
        return list(known), [
            row if row.label in names else Row(row.place, row.recording, is_weak=row.is_weak) for row in rows
        ]
    if unknown:
        others = sort_names({row.label for row in unknown})
        raise BeatsError(
            f"{unknown[0].place}: {name_some(others)} is not among the classes: there are {name_some(list(known))}."
        )
    return list(known), rows


__all__ = ["FORMATS", "read_event_files", "read_rows"]
