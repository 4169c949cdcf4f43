# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Labels of clips: one class, several classes, or events in time."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

import datasets
import numpy as np

from transformers_beats.audio.audioset import AUDIOSET_LABELS
from transformers_beats.utils.arguments import argument
from transformers_beats.utils.errors import BeatsError, name_some


Task = Literal["single_label", "multi_label", "frames"]
# Columns that are looked for if none is named.
LABEL_COLUMNS = ("label", "labels", "category", "target")


@dataclass
class LabelArguments:
    """Classes of the clips."""

    label_column: str | None = argument(
        "Column of the class (text or number), of the classes (a list), or of the events (a list of "
        "{label, onset, offset}). Default: label, labels, category or target; without any, the folder of a file.",
        None,
    )
    label_separator: str | None = argument("Separator of several classes in one text, such as `,` or `;`.", None)
    label_set: Literal["audioset"] | None = argument(
        "audioset: AudioSet's 527 classes in their order, whether they appear or not.", None
    )
    task: Task | None = argument(
        "single_label, multi_label or frames (a prediction for every 160 ms). Default: the column's.", None
    )


@dataclass
class Labels:
    """
    Classes of every clip: the kind of labels (one class, any number of them, or events), the names of the classes, and
    for each clip the indices of its classes; for `"frames"` class, onset and offset in seconds of each event.
    """

    task: Task
    names: list[str]
    values: list[list]

    def __len__(self) -> int:
        return len(self.values)

    def select(self, indices: Sequence[int]) -> "Labels":
        """Returns the labels of some of the clips."""
        return Labels(self.task, self.names, [self.values[index] for index in indices])

    def classes_of(self, index: int) -> list[int]:
        """Returns the classes of a clip, each once."""
        values = self.values[index]
        return sorted({event[0] for event in values}) if self.task == "frames" else values

    def counts(self) -> np.ndarray:
        """Returns the number of clips of each class, `(num_labels,)`."""
        counts = Counter(label for index in range(len(self)) for label in self.classes_of(index))
        return np.array([counts[label] for label in range(len(self.names))])

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
    names = dataset.column_names
    if arguments.label_column is not None:
        if arguments.label_column not in names and "metadata" not in names:
            raise BeatsError(f"There is no column {arguments.label_column!r} of labels, only {', '.join(names)}.")
        return arguments.label_column
    beside = next((json.loads(text) for text in dataset["metadata"] if text), {}) if "metadata" in names else {}
    found = [name for name in LABEL_COLUMNS if name in names or name in beside]
    if len(found) > 1:
        raise BeatsError(f"Any of the columns {', '.join(found)} may hold the labels: set `label_column`.")
    if found:
        return found[0]
    if "file_name" in names and all(len(PurePath(name).parts) > 1 for name in dataset["file_name"]):
        return None
    raise BeatsError(
        f"No column of labels among {', '.join(names)}, and not all files lie in folders named after their class: "
        "set `label_column`."
    )


def read_column(dataset: datasets.Dataset, column: str | None) -> list:
    """Returns the values of a column, class indices replaced by their names."""
    if column is None:
        return [PurePath(name).parent.name for name in dataset["file_name"]]
    if column not in dataset.column_names:
        # Metadata beside the audio in a tar shard.
        return [json.loads(text).get(column) if text else None for text in dataset["metadata"]]
    values = list(dataset[column])
    feature = dataset.features[column]
    if isinstance(feature, datasets.ClassLabel):
        # Datasets write -1 for a clip without a class.
        return [None if value is None or value < 0 else feature.int2str(value) for value in values]
    inner = getattr(feature, "feature", None)
    if isinstance(inner, datasets.ClassLabel):
        return [[inner.int2str(value) for value in row or []] for row in values]
    if isinstance(inner, dict) and isinstance(inner.get("label"), datasets.ClassLabel):
        name_of = inner["label"].int2str
        return [[event | {"label": name_of(event["label"])} for event in row or []] for row in values]
    # A column of whole numbers with gaps is one of floats.
    return [None if is_nan(value) else int(value) if is_whole(value) else value for value in values]


def is_nan(value: Any) -> bool:
    """Returns whether a value is NaN, as tables have it for an empty cell."""
    return isinstance(value, float) and math.isnan(value)


def is_whole(value: Any) -> bool:
    """Returns whether a value is a float without a fraction."""
    return isinstance(value, float) and value.is_integer()


def is_event(value: Any) -> bool:
    """Returns whether a value is an event, `{label, onset, offset}`."""
    return isinstance(value, dict) and {"label", "onset", "offset"} <= value.keys()


def guess_task(values: list) -> Task:
    """Returns the kind of labels that the first value that is neither None nor empty stands for."""
    first = next((value for value in values if value not in (None, [])), None)
    if not isinstance(first, (list, tuple)):
        return "single_label"
    return "frames" if is_event(first[0]) else "multi_label"


def as_lists(values: list, separator: str | None) -> list[list]:
    """Returns the labels of each clip as a list: of a single label, of several in one text, of a list."""
    rows = []
    for value in values:
        if value is None or value == "":
            rows.append([])
        elif isinstance(value, (list, tuple)):
            rows.append(list(value))
        elif isinstance(value, str) and separator:
            rows.append([part.strip() for part in value.split(separator) if part.strip()])
        else:
            rows.append([value])
    return rows


def label_name(label: Any) -> str:
    """Returns the name of a class: 1, 1.0 and "1" are the same."""
    return str(int(label)) if is_whole(label) else str(label)


def sort_names(labels: set) -> list[str]:
    """Returns the names of classes, each once: in the order of the alphabet, numbers in theirs."""
    if all(isinstance(label, (int, np.integer)) for label in labels):
        return [str(label) for label in sorted(labels)]
    return sorted({label_name(label) for label in labels})


def read_labels(
    dataset: datasets.Dataset,
    arguments: LabelArguments,
    clip_names: Sequence[str],
    known: Sequence[str] | None = None,
) -> Labels:
    """
    Reads the labels of a dataset. `known` are the classes of a model or of a training set, in their order; by default
    those of `label_set`, or those that appear. Messages call the clips by `clip_names`.

    Raises:
        [`BeatsError`]: no clip, no column, a label that is not known, a clip without a class or with several where one
            is needed, an event that ends before it begins, or fewer than two classes.
    """
    if len(dataset) == 0:
        raise BeatsError("The dataset is empty: there is no clip to read labels of.")
    column = find_label_column(dataset, arguments)
    values = read_column(dataset, column)
    task = arguments.task or ("multi_label" if arguments.label_separator else guess_task(values))
    rows = as_lists(values, arguments.label_separator)
    described = "the folders" if column is None else f"column {column!r}"
    if task == "frames":
        check_events(rows, clip_names, described)
    elif task == "single_label":
        for row, name in zip(rows, clip_names):
            if len(row) != 1:
                raise BeatsError(f"{name}: {described} has {len(row)} labels ({name_some(row)}), one is needed.")
    # The classes of events, whatever is learned of them.
    of_rows = [[value["label"] if is_event(value) else value for value in row] for row in rows]
    found = {label for row in of_rows for label in row}
    if known is None and arguments.label_set == "audioset":
        known = list(AUDIOSET_LABELS.values())
    names = sort_names(found) if known is None else list(known)
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
        events = [
            [(index[label_name(event["label"])], event["onset"], event["offset"]) for event in row] for row in rows
        ]
        return Labels(task, names, events)
    return Labels(task, names, [sorted({index[label_name(label)] for label in row}) for row in of_rows])


def check_events(rows: list[list], clip_names: Sequence[str], described: str) -> None:
    """Raises a [`BeatsError`] for a value that is no event."""
    for row, name in zip(rows, clip_names):
        for event in row:
            if not is_event(event):
                raise BeatsError(f"{name}: {described} holds {event!r}, no event {{label, onset, offset}}.")
            if not 0 <= event["onset"] < event["offset"]:
                raise BeatsError(
                    f"{name}: an event {event['label']!r} from {event['onset']} to {event['offset']} s has no length."
                )


def frame_labels(
    events: Sequence[tuple[int, float, float]], num_labels: int, num_columns: int, column_seconds: float, start: float
) -> np.ndarray:
    """
    Returns the classes that sound in each time column, from events of class, onset and offset in seconds from the
    beginning of the recording; the first column begins `start` seconds after it. Float32 `(num_columns, num_labels)`,
    1 where an event covers at least half of the column, or lies within it by at least half of itself.
    """
    labels = np.zeros((num_columns, num_labels), dtype=np.float32)
    onsets = start + column_seconds * np.arange(num_columns)
    for label, onset, offset in events:
        overlap = np.minimum(onsets + column_seconds, offset) - np.maximum(onsets, onset)
        labels[overlap >= 0.5 * min(column_seconds, offset - onset), label] = 1.0
    return labels
