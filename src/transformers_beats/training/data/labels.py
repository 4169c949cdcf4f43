# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Labels of clips: one class, several classes, or events in time."""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePath
from typing import Any, Literal

import datasets
import numpy as np
from transformers.utils import logging

from transformers_beats.audio.audioset import AUDIOSET_LABELS, AUDIOSET_STRONG_LABELS
from transformers_beats.audio.event_rows import classes_of_events, is_event, is_missing, read_events
from transformers_beats.utils.arguments import argument
from transformers_beats.utils.errors import BeatsError, UsageError, name_some

from .manifest import read_arrow
from .tables import (
    CORPUS_COLUMN,
    FILE_COLUMN,
    OWN_COLUMNS,
    columns_of_parts,
    label_name,
    list_columns,
    metadata_names,
    name_files,
    read_column,
)


logger = logging.get_logger(__name__)

Task = Literal["single_label", "multi_label", "frames"]
# Columns that are looked for if none is named.
LABEL_COLUMNS = ("label", "labels", "category", "target")
# Elements of a multi-hot vector, as names: 0, and 1.
HOT = ("0", "False", "1", "True")
# What floats may lose of a time, in seconds.
TIME_ROUNDING = 1e-6
# Separators of several classes in one text that are looked for.
SEPARATORS = ("|", ";", ",", "/")
# Columns that say nothing but where the audio is from.
FILE_COLUMNS = (FILE_COLUMN, "audio", *OWN_COLUMNS)
QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
# Elements of a list as Python and numpy write them, with commas or spaces between them.
QUOTED_ELEMENTS = re.compile(rf"\s*(?:{QUOTED})(?:(?:\s*,\s*|\s+)(?:{QUOTED}))*[\s,]*", re.DOTALL)
NUMBERS = re.compile(r"[-+]?\.?\d[-+.\deE]*(?:[\s,]+[-+]?\.?\d[-+.\deE]*)*[\s,]*")
LIST_BEGIN, QUOTED_LIST_BEGIN = re.compile(r"(?:\w+\()?[\[{(]"), re.compile(r"(?:\w+\()?[\[{(]\s*[\['\"{]")
BRACKETS = {"[": "]", "{": "}", "(": ")"}
WHOLE_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)")


@dataclass
class LabelArguments:
    """Classes of the clips."""

    label_column: str | None = argument(
        "Column of the class (text or number), of the classes (a list), or of the events (a list of "
        "{label, onset, offset}). Default: label, labels, category or target; without any, the folder of a file.",
        None,
    )
    label_folder: Literal["first", "last"] | None = argument(
        "Folder of a file that is its class, where folders are nested: `first` is that below `dataset`, `last` that "
        "which holds the file. Default: the first, unless the folders can be read both ways.",
        None,
    )
    label_separator: str | None = argument("Separator of several classes in one text, such as `,` or `;`.", None)
    label_set: Literal["audioset", "audioset_strong"] | None = argument(
        "audioset: AudioSet's 527 classes in their order, whether they appear or not; audioset_strong: the 447 of its "
        "training events.",
        None,
    )
    event_files: str | list[str] | None = argument(
        "Files of events, in the place of a column: tables of DESED or AudioSet-Strong, label tracks of Audacity, "
        "selection tables of Raven, JSON lines; or a folder with a file for each recording, such as `dataset` itself.",
        None,
    )
    event_format: Literal["desed", "audioset_strong", "audacity", "raven", "jsonl"] | None = argument(
        "Format of all of them. Default: that which the first line of each shows.", None
    )
    event_classes: Literal["all", "own"] = argument(
        "Classes that the recordings of each of `event_files` were labelled for: all, or its own, which occur in it; "
        "others are then unknown there.",
        "all",
    )
    task: Task | None = argument(
        "single_label, multi_label or frames (a prediction for every 160 ms; for every 40 ms with `frame_pooling: "
        "sequence` in `model_config`). Default: the column's.",
        None,
    )

    def __post_init__(self):
        if self.label_separator == "":
            raise UsageError("`label_separator` is empty: in a recipe, it is written in quotes.")
        if self.label_folder is not None and self.label_column is not None:
            raise UsageError("`label_folder` and `label_column` exclude each other.")
        if self.event_files is None and self.event_format is not None:
            raise UsageError("`event_format` is that of `event_files`: name these as well.")
        if self.event_files is None and self.event_classes != "all":
            raise UsageError("`event_classes` are those of `event_files`: name these as well.")
        if self.event_files is not None and self.label_folder is not None:
            raise UsageError("`event_files` have the labels: leave `label_folder` out.")
        if self.event_files is not None and self.task not in (None, "frames"):
            raise UsageError(f"`event_files` have events, whose `task` is frames: leave `task: {self.task}` out.")


@dataclass
class Labels:
    """
    Classes of every clip: the kind of labels (one class, any number of them, or events), the names of the classes, and
    for each clip the indices of its classes; for `"frames"` class, onset and offset in seconds of each event. Of a
    clip whose `knowledge` is `"classes"`, these events have no times, and with `"nothing"` none is known; by default,
    it is `"events"` for all. `annotated` has the indices of the classes that each clip was labelled for, by default
    all of them: whether another one is in the clip is not known.
    """

    task: Task
    names: list[str]
    values: list[list]
    knowledge: list[str] | None = None
    annotated: list[list[int]] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def select(self, indices: Sequence[int]) -> "Labels":
        """Returns the labels of some of the clips."""
        knowledge = None if self.knowledge is None else [self.knowledge[index] for index in indices]
        annotated = None if self.annotated is None else [self.annotated[index] for index in indices]
        return Labels(self.task, self.names, [self.values[index] for index in indices], knowledge, annotated)

    def knows(self, index: int) -> str:
        """Returns what is known of a clip: `"events"`, which are labels of any task, `"classes"` or `"nothing"`."""
        return "events" if self.knowledge is None else self.knowledge[index]

    def is_known(self, index: int) -> np.ndarray:
        """Returns whether each class is known to be in a clip or not, boolean `(num_labels,)`."""
        known = np.zeros(len(self.names), dtype=bool)
        if self.knows(index) != "nothing":
            known[slice(None) if self.annotated is None else self.annotated[index]] = True
        return known

    def classes_of(self, index: int) -> list[int]:
        """Returns the classes of a clip, each once."""
        values = self.values[index]
        return sorted({event[0] for event in values}) if self.task == "frames" else values

    def counts(self) -> np.ndarray:
        """Returns the number of clips of each class, `(num_labels,)`."""
        counts = Counter(label for index in range(len(self)) for label in self.classes_of(index))
        return np.array([counts[label] for label in range(len(self.names))])

    def known_counts(self) -> np.ndarray:
        """Returns the number of clips that are known to have each class or not, `(num_labels,)`."""
        return np.sum([self.is_known(index) for index in range(len(self))], axis=0)

    def as_array(self) -> np.ndarray:
        """Returns indices `(num_clips,)`, int64, for `"single_label"`, else 0.0 or 1.0 `(num_clips, num_labels)`."""
        if self.task == "single_label":
            return np.array([values[0] for values in self.values], dtype=np.int64)
        array = np.zeros((len(self), len(self.names)), dtype=np.float32)
        for index, row in enumerate(array):
            row[self.classes_of(index)] = 1.0
        return array


def find_label_column(dataset: datasets.Dataset, arguments: LabelArguments) -> str | None:
    """
    Finds the column of the labels; None if the name of a file's folder is the label.

    Raises:
        [`BeatsError`]: if there is no such column, or none can be found.
    """
    names = list_columns(dataset)
    if arguments.label_column is not None:
        if arguments.label_column not in names:
            raise BeatsError(f"There is no column {arguments.label_column!r} of labels, only {', '.join(names)}.")
        return arguments.label_column
    if arguments.label_folder is None:
        found = [name for name in LABEL_COLUMNS if name in names]
        if len(found) > 1:
            raise BeatsError(f"Any of the columns {', '.join(found)} may hold the labels: set `label_column`.")
        if found:
            return found[0]
        # Any other column of a table may hold them.
        if others := [name for name in names if name not in FILE_COLUMNS]:
            raise BeatsError(
                f"No column of labels among {', '.join(others)}: set `label_column`, or `label_folder` if the folders "
                "of the files are their classes."
            )
    for number, name in enumerate(name_files(dataset), start=1):
        if name is None or len(PurePath(name).parts) < 2:
            raise BeatsError(
                f"{name or f'Clip {number}'}: lies in no folder named after its class, and there is no column of "
                "labels: set `label_column`."
            )
    return None


def classes_of_folders(names: Sequence[str], choice: str | None, known: Sequence[str] | None) -> list[str]:
    """
    Returns the class of each file by its folder. Of nested folders, `dog/session0`, it is the first or the last one,
    by `choice`; by default the one whose names are all `known` classes, otherwise the first.

    Raises:
        [`BeatsError`]: if that is a guess: the same last folders lie in several first ones, or there is one first.
    """
    paths = [PurePath(name) for name in names]
    first, last = [path.parts[0] for path in paths], [path.parent.name for path in paths]
    if choice is not None or first == last:
        return last if choice == "last" else first
    if known is not None and {*first} <= {*known}:
        return first
    if known is not None and {*last} <= {*known}:
        return last
    folders_of: dict[str, set[str]] = {}
    for path in paths:
        if len(path.parts) > 2:
            folders_of.setdefault(path.parent.name, set()).add(path.parts[0])
    if len({*first}) == 1 or any(len(above) > 1 for above in folders_of.values()):
        raise BeatsError(
            f"Files lie in nested folders, such as {paths[0].parent.as_posix()!r}: set `label_folder: first` if the "
            f"classes are {name_some(sorted({*first}), 3)}, or `label_folder: last` if they are "
            f"{name_some(sorted({*last}), 3)}."
        )
    return first


def parse_lists(values: list, described: str, clip_names: Sequence[str]) -> list:
    """
    Returns a column with the lists that are written in its texts, as pandas, numpy, JSON and PostgreSQL do; if none of
    the texts is a list, as it is.

    Raises:
        [`BeatsError`]: if some are lists, and another one begins like a list.
    """
    lists = [parse_list(value) if isinstance(value, str) else None for value in values]
    # `[noise]` and `(unknown)` are names of classes where nothing else is a list.
    is_list = any(isinstance(value, str) and QUOTED_LIST_BEGIN.match(value) for value in values)
    if not is_list and all(found is None for found in lists):
        return values
    parsed = []
    for value, found, name in zip(values, lists, clip_names):
        if found is None and isinstance(value, str) and LIST_BEGIN.match(value):
            inner = value[1:-1].strip()
            if BRACKETS.get(value[0]) != value[-1] or {*inner} & {*"\"'[]{}()"}:
                raise BeatsError(f"{name}: {described} holds {value!r}, which cannot be read as a list.")
            found = [inner] if inner not in ("None", "nan", "null") else []
        parsed.append(value if found is None else found)
    return parsed


def parse_list(text: str) -> list | None:
    """Returns the list that a text is the source of, such as `['cat', 'dog']`, `["cat"]`, `[0 1]`, `{cat,dog}`."""
    text = text.strip()
    if text == "set()":
        return []
    if len(text) < 2 or BRACKETS.get(text[0]) != text[-1]:
        return None
    inner = text[1:-1].strip()
    if not inner:
        return []
    with suppress(ValueError, RecursionError):
        if isinstance(content := json.loads(text, parse_int=str, parse_float=_without_zeros), list):
            return content
    if QUOTED_ELEMENTS.fullmatch(inner):
        # Python would join two texts without a comma between them.
        return [ast.literal_eval(part) for part in re.findall(QUOTED, inner, re.DOTALL)]
    # Numbers in parentheses may be anything.
    if text[0] != "(" and NUMBERS.fullmatch(inner):
        return [_without_zeros(part) for part in re.split(r"[\s,]+", inner) if part]
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        if "{" in inner and isinstance(content := ast.literal_eval(text), list):
            # Events.
            return content
    if "," in inner and text[0] != "(" and not {*inner} & {*"\"'[]{}()"}:
        return [part.strip() for part in inner.split(",") if part.strip()]
    return None


def _without_zeros(number: str) -> str:
    """Returns the text of a number, of a whole one without its point; `007` and `1e5` stay as they are."""
    return re.sub(r"(?<=\d)\.0*$", "", number)


def guess_task(values: list, separator: str | None = None) -> Task:
    """Returns the kind of labels of a column; with an event anywhere, whatever cells are empty, it is `"frames"`."""
    is_list = [isinstance(value, (list, tuple)) for value in values]
    if any(map(is_event, chain.from_iterable(value if listed else [value] for value, listed in zip(values, is_list)))):
        return "frames"
    return "multi_label" if separator or any(is_list) else "single_label"


def as_lists(values: list, separator: str | None) -> list[list]:
    """Returns the labels of each clip as a list: of a single label, of several in one text, of a list."""
    rows = []
    for value in values:
        if isinstance(value, (list, tuple)):
            rows.append([label for label in value if not is_missing(label)])
        elif is_missing(value):
            rows.append([])
        elif isinstance(value, str) and separator:
            # A space stands for any number of them.
            parts = value.split(separator if separator.strip() or separator == "\t" else None)
            rows.append([part.strip() for part in parts if part.strip()])
        else:
            rows.append([value])
    return rows


def check_sources(dataset: datasets.Dataset, column: str, clip_names: Sequence[str], described: str) -> None:
    """
    Raises a [`BeatsError`] for a dataset, of several that are joined, that lacks a column, which would say of all its
    clips that they are of no class. Cells that are empty do say this.
    """
    for source, columns in enumerate(columns_of_parts(dataset)):
        rows = np.flatnonzero(read_arrow(dataset, CORPUS_COLUMN).to_numpy() == source)
        is_beside = column not in dataset.column_names and column in metadata_names(dataset.select(rows))
        if len(rows) and column not in columns and not is_beside:
            raise BeatsError(
                f"{clip_names[rows[0]]}: {described} has no label for any clip of its dataset, {len(rows)} in all: "
                "add the column, or leave this dataset out."
            )


def check_multi_hot(values: list, clip_names: Sequence[str], described: str) -> None:
    """Raises a [`BeatsError`] for multi-hot vectors with gaps, which would pass for lists of the classes 0 and 1."""
    vectors = [value if isinstance(value, (list, tuple)) else [] for value in values]
    filled = ([0 if is_missing(label) else label for label in vector] for vector in vectors if vector)
    # Names of classes end the search at the first clip.
    if (num_classes := find_multi_hot(filled)) is None:
        return
    kept = [[label for label in vector if not is_missing(label)] for vector in vectors]
    is_list = [list(vector[: len(few)]) == few == list(dict.fromkeys(few)) for vector, few in zip(vectors, kept)]
    if all(is_list) and any(vector and len(few) < len(vector) for vector, few in zip(vectors, kept)):
        # Of two classes, which a table has made equally long.
        return
    for few, name in zip(kept, clip_names):
        if len(few) < num_classes:
            raise BeatsError(
                f"{name}: {described} has zeros and ones for {num_classes} classes, of which {num_classes - len(few)} "
                "are missing here: fill them in, or leave the clip out."
            )


def find_multi_hot(rows: Iterable[list]) -> int | None:
    """
    Returns the number of classes of labels that are multi-hot vectors: two or more numbers in every row, as many in
    all, and each 0 or 1. As lists of class indices, these would be the classes 0 and 1 of every clip.
    """
    length = None
    for row in rows:
        length = len(row) if length is None else length
        if len(row) != length or any(is_event(value) or label_name(value) not in HOT for value in row):
            return None
    return length if length is not None and length > 1 else None


def warn_of_joined(names: Sequence[str], described: str) -> None:
    """Warns of classes that look like several in one text."""
    for separator in SEPARATORS:
        parts = Counter(part.strip() for name in names for part in {*name.split(separator)} if part.strip())
        joined = [name for name in names if separator in name]
        if any(parts[part.strip()] > 1 for name in joined for part in name.split(separator)):
            logger.warning(
                f"{described} has classes such as {joined[0]!r}, whose parts are in others too: if they are several "
                f"classes, set `label_separator: {separator!r}`."
            )
            return


def sort_names(labels: set) -> list[str]:
    """Returns the names of classes, each once: in the order of the alphabet, whole numbers in theirs."""
    names = {label_name(label) for label in labels}
    return sorted(names, key=int if all(map(WHOLE_NUMBER.fullmatch, names)) else None)


def read_labels(
    dataset: datasets.Dataset,
    arguments: LabelArguments,
    clip_names: Sequence[str],
    known: Sequence[str] | None = None,
    seconds: Sequence[float] | None = None,
) -> Labels:
    """
    Reads the labels of a dataset. `known` are the classes of a model or of a training set, in their order; by default
    those of `label_set`, or those that appear. Messages call the clips by `clip_names`. Events end with their clips,
    if `seconds`, the lengths of these, are given.

    Raises:
        [`BeatsError`]: no clip, no column, a label that is not known, a clip without a class or with several where one
            is needed, a dataset without the column among several, an event without a label or length or that ends more
            than a second after its clip, or fewer than two classes.
        [`UsageError`]: for `event_files`, which are read elsewhere.
    """
    if arguments.event_files is not None:
        raise UsageError("`event_files` are for fine-tuning and evaluations of events: leave them out.")
    if len(dataset) == 0:
        raise BeatsError("The dataset is empty: there is no clip to read labels of.")
    if known is None and arguments.label_set is not None:
        known = list((AUDIOSET_LABELS if arguments.label_set == "audioset" else AUDIOSET_STRONG_LABELS).values())
    column = find_label_column(dataset, arguments)
    described = "the folders" if column is None else f"column {column!r}"
    if column is None:
        values: list = classes_of_folders(list(map(str, name_files(dataset))), arguments.label_folder, known)
    else:
        values = read_column(dataset, column)
        check_sources(dataset, column, clip_names, described)
        values = parse_lists(values, described, clip_names)
    task = arguments.task or guess_task(values, arguments.label_separator)
    check_multi_hot(values, clip_names, described)
    rows: list[list[Any]] = as_lists(values, arguments.label_separator)
    if num_columns := find_multi_hot(rows):
        task = "multi_label" if arguments.task is None else task
        if known is not None and len(known) != num_columns:
            raise BeatsError(f"{described} has {num_columns} zeros and ones, but there are {len(known)} classes.")
        known = list(map(str, range(num_columns))) if known is None else known
        rows = [[known[index] for index, value in enumerate(row) if label_name(value) in HOT[2:]] for row in rows]
    # The classes of events, whatever is learned of them.
    if task == "frames":
        events = read_events(rows, clip_names, seconds, described, label_name)
        rows = [[event.label for event in row] for row in events]
    else:
        rows = [
            classes_of_events(row, f"{name}, {described}", label_name) if any(map(is_event, row)) else row
            for row, name in zip(rows, clip_names)
        ]
    if task == "single_label":
        for row, name in zip(rows, clip_names):
            if len(row) != 1:
                raise BeatsError(f"{name}: {described} has {len(row)} labels ({name_some(row)}), one is needed.")
    for row, name in zip(rows, clip_names):
        if unusable := [value for value in row if isinstance(value, (dict, list))]:
            raise BeatsError(f"{name}: {described} holds {unusable[0]!r}, which is no name of a class and no event.")
    found = {label for row in rows for label in row}
    names = sort_names(found) if known is None else list(known)
    if known is None:
        warn_of_joined(names, described)
    index = {name: number for number, name in enumerate(names)}
    if unknown := sort_names({label for label in found if label_name(label) not in index}):
        raise BeatsError(
            f"{described} has labels that are not among the classes: {name_some(unknown)}. There are "
            f"{name_some(names)}."
        )
    if len(names) < 2 and task == "single_label":
        raise BeatsError(f"{described} has one class only ({name_some(names)}): there is nothing to tell apart.")
    if not names:
        raise BeatsError(f"{described} has no label for any clip.")
    if task == "frames":
        timed = [[(index[str(event.label)], event.onset, event.offset) for event in row] for row in events]
        return Labels(task, names, timed)
    return Labels(task, names, [sorted({index[label_name(label)] for label in row}) for row in rows])


def frame_labels(
    events: Sequence[tuple], num_labels: int, num_columns: int, column_seconds: float, start: float
) -> np.ndarray:
    """
    Returns the classes that sound in each time column, from events of class, onset and offset in seconds from the
    beginning of the recording, and the length of the whole event if this is a part of one; the first column begins
    `start` seconds after it. Float32 `(num_columns, num_labels)`, 1 where an event covers at least half of the column,
    or lies within it by at least half of itself.
    """
    labels = np.zeros((num_columns, num_labels), dtype=np.float32)
    onsets = start + column_seconds * np.arange(num_columns)
    for label, onset, offset, *whole in events:
        overlap = np.minimum(onsets + column_seconds, offset) - np.maximum(onsets, onset)
        seconds = whole[0] if whole else offset - onset
        # Times of decimals are rounded, and an event in the middle between two columns would be in none of them.
        labels[overlap >= 0.5 * min(column_seconds, seconds) - TIME_ROUNDING, label] = 1.0
    return labels
