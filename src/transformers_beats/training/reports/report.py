# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What is made of a classifier's predictions: metrics, tables on the console, and a directory with JSON, CSV, pictures
and a section for a model card.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from transformers_beats.metrics.accuracy import compute_accuracy
from transformers_beats.metrics.audioset_map import compute_audioset_map
from transformers_beats.metrics.macro_f1 import compute_macro_f1
from transformers_beats.utils.files import replace_directory, work_directory


METRICS_FILE, PREDICTIONS_FILE, MODEL_INDEX_FILE = "metrics.json", "predictions.csv", "model_index.md"
CONFUSION_PICTURE, CLASSES_PICTURE = "confusion_matrix.png", "per_class.png"
REPORT_FILES = frozenset((METRICS_FILE, PREDICTIONS_FILE, MODEL_INDEX_FILE, CONFUSION_PICTURE, CLASSES_PICTURE))
# A multi-label model says that a clip has a label from this probability on.
THRESHOLD = 0.5
# Means of probabilities in float32 may exceed 1 by so much.
ROUNDING = 1e-4
MAX_LISTED_CLASSES, MAX_LISTED_CONFUSIONS = 40, 10
# In a larger matrix nothing can be read.
MAX_MATRIX_CLASSES = 100
# How the Hub calls a metric, and how people do. Others keep their names.
HUB_METRICS = {
    "accuracy": ("accuracy", "Accuracy", None),
    "macro_f1": ("f1", "Macro F1", {"average": "macro"}),
    "mAP": ("mean_average_precision", "mAP", {"average": "macro"}),
    "auc": ("roc_auc", "AUC", {"average": "macro"}),
    "d_prime": ("d_prime", "d-prime", None),
}


@dataclass
class Predictions:
    """
    What a model says of clips, beside what is true. Not to be changed: what is computed of it is kept.

    Args:
        names (`list[str]` of length `num_clips`):
            File of each clip; several clips may come from one.
        scores (`np.ndarray` of shape `(num_clips, num_labels)`):
            Probabilities, kept as float32.
        labels (`np.ndarray` of shape `(num_clips,)` or `(num_clips, num_labels)`):
            Class indices, or for multi-label classification zeros and ones.
        label_names (`list[str]` of length `num_labels`):
            Names of the classes.

    Raises:
        `ValueError`: if there is no clip, shapes do not fit, a score is no probability, or a label no label.
    """

    names: list[str]
    scores: np.ndarray
    labels: np.ndarray
    label_names: list[str]

    def __post_init__(self):
        scores, labels = np.asarray(self.scores, dtype=np.float32), np.asarray(self.labels)
        shape = (len(self.names), len(self.label_names))
        if not all(shape) or scores.shape != shape:
            raise ValueError(
                f"Scores must have the shape (clips, classes), {shape} and not empty, got {scores.shape}."
            )
        if labels.shape not in (shape, shape[:1]):
            raise ValueError(f"Labels must have the shape {shape[:1]} or {shape}, got {labels.shape}.")
        # NaN compares false.
        is_score = (scores >= -ROUNDING) & (scores <= 1 + ROUNDING)
        if not is_score.all():
            clip, label = np.argwhere(~is_score)[0]
            where = f"{self.names[clip]}, {self.label_names[label]!r}"
            raise ValueError(f"Scores must be probabilities in [0, 1], got {scores[clip, label]} for {where}.")
        limit = shape[1] if labels.ndim == 1 else 2
        is_label = np.isin(labels, np.arange(limit))
        if not is_label.all():
            place = tuple(np.argwhere(~is_label)[0])
            raise ValueError(
                f"Labels must be whole numbers from 0 to {limit - 1}, got {labels[place]} for {self.names[place[0]]}."
            )
        self.scores, self.labels = scores.clip(0, 1), labels.astype(np.int64)

    @property
    def is_multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def predicted(self) -> np.ndarray:
        """The classes of the best scores, `(num_clips,)`; multi-label 0 or 1, `(num_clips, num_labels)`."""
        return (self.scores >= THRESHOLD).astype(np.int64) if self.is_multi_label else self.scores.argmax(axis=1)

    @cached_property
    def audioset(self) -> dict[str, Any]:
        """What [`compute_audioset_map`] gives for multi-label predictions, also by class."""
        return compute_audioset_map(self.scores, self.labels, per_class=True)

    @cached_property
    def confusions(self) -> np.ndarray:
        """Of single-label predictions the number of clips by true and predicted class, `(num_labels, num_labels)`."""
        return confusion_matrix(self.labels, self.predicted, labels=np.arange(len(self.label_names)))


def compute_metrics(predictions: Predictions) -> dict[str, float]:
    """
    The metrics that papers report.

    Args:
        predictions ([`Predictions`]):
            At least one clip.

    Returns:
        `dict[str, float]`: `accuracy` and `macro_f1`; for multi-label classification `mAP`, `auc` and `d_prime`. Those
        that are undefined are left out: AUC if no class has both positive and negative clips, d-prime if AUC is 1.

    Raises:
        `ValueError`: if no class of a multi-label classification has a positive clip.
    """
    if predictions.is_multi_label:
        values = {key: predictions.audioset[key] for key in ("mAP", "auc", "d_prime")}
        return {key: value for key, value in values.items() if value is not None}
    num_labels = len(predictions.label_names)
    return {
        **compute_accuracy(predictions.predicted, predictions.labels, num_labels),
        **compute_macro_f1(predictions.predicted, predictions.labels, num_labels),
    }


def per_class(predictions: Predictions) -> list[dict[str, Any]]:
    """
    What each class has, in the order of the classes.

    Returns:
        `list[dict[str, Any]]`: `label`, `support` (the number of clips that have it) and `precision`, `recall` and
        `f1`, or `ap` and `auc`; None where undefined, as the recall of a class without clips.
    """
    if predictions.is_multi_label:
        support = predictions.audioset["support"]
        columns = {"ap": predictions.audioset["per_class_ap"], "auc": predictions.audioset["per_class_auc"]}
    else:
        classes = np.arange(len(predictions.label_names))
        *values, support = precision_recall_fscore_support(
            predictions.labels, predictions.predicted, labels=classes, zero_division=np.nan
        )
        known = [[None if math.isnan(value) else float(value) for value in column] for column in values]
        columns = dict(zip(("precision", "recall", "f1"), known))
    return [
        {"label": name, "support": int(count), **{key: column[index] for key, column in columns.items()}}
        for index, (name, count) in enumerate(zip(predictions.label_names, support))
    ]


def rank_classes(predictions: Predictions) -> list[dict[str, Any]]:
    """[`per_class`] with the worst class first, by F1 or average precision; without those that have none."""
    key = class_metric(predictions)
    return sorted((entry for entry in per_class(predictions) if entry[key] is not None), key=lambda entry: entry[key])


def class_metric(predictions: Predictions) -> str:
    """By which key of [`per_class`] classes are compared."""
    return "ap" if predictions.is_multi_label else "f1"


def worst_confusions(
    predictions: Predictions, limit: int = MAX_LISTED_CONFUSIONS
) -> list[tuple[str, str, int, float]]:
    """
    The commonest mistakes of a single-label classifier: true class, predicted class, number of clips, and their share
    of the clips of the true class.
    """
    wrong = predictions.confusions - np.diag(np.diag(predictions.confusions))
    totals = predictions.confusions.sum(axis=1)
    shares = wrong / np.maximum(totals, 1)[:, None]
    pairs = [(int(true), int(predicted)) for true, predicted in np.argwhere(wrong)]
    pairs.sort(key=lambda pair: (-wrong[pair], -shares[pair], pair))
    names = predictions.label_names
    return [(names[pair[0]], names[pair[1]], int(wrong[pair]), float(shares[pair])) for pair in pairs[:limit]]


# The console


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _table(*headers: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for header in headers:
        is_name = header in ("metric", "class", "true class", "predicted")
        table.add_column(header, justify="left" if is_name else "right", overflow="fold")
    return table


def _print(console: Console, title: str, table: Table) -> None:
    # A title within a table would be wrapped to its width.
    console.print(Text(title, style="bold"))
    console.print(table)


def print_report(console: Console, predictions: Predictions, metrics: Mapping[str, float]) -> None:
    """
    Prints the metrics, the classes with the worst first, and for single-label classification the worst confusions.

    Args:
        console (`rich.console.Console`):
            Where to.
        predictions ([`Predictions`]):
            The predictions.
        metrics (`Mapping[str, float]`):
            From [`compute_metrics`]; more are welcome.
    """
    overall = _table("metric", "value")
    for name, value in metrics.items():
        overall.add_row(Text(name), _format(value))
    _print(console, f"{len(predictions.names)} clips, {len(predictions.label_names)} classes", overall)
    ranked = rank_classes(predictions)
    keys = ("ap", "auc") if predictions.is_multi_label else ("precision", "recall", "f1")
    title, half = "Classes, the worst first", MAX_LISTED_CLASSES // 2
    if len(ranked) > MAX_LISTED_CLASSES:
        title = f"The {half} worst and the {half} best of {len(ranked)} classes"
    by_class = _table("class", "clips", *keys)
    for rank, entry in enumerate(ranked):
        if len(ranked) <= MAX_LISTED_CLASSES or not half <= rank < len(ranked) - half:
            by_class.add_row(Text(entry["label"]), str(entry["support"]), *(_format(entry[key]) for key in keys))
            if len(ranked) > MAX_LISTED_CLASSES and rank == half - 1:
                by_class.add_section()
    _print(console, title, by_class)
    if num_left_out := len(predictions.label_names) - len(ranked):
        console.print(f"Left out, for want of clips: {num_left_out} of {len(predictions.label_names)} classes")
    if not predictions.is_multi_label and (confusions := worst_confusions(predictions)):
        table = _table("true class", "predicted", "clips", "share")
        for true, predicted, count, share in confusions:
            table.add_row(Text(true), Text(predicted), str(count), f"{share:.1%}")
        _print(console, "Worst confusions", table)


# The files


def check_drawing() -> None:
    """
    For the beginning of a training whose end is a report, whose pictures need what metrics do not.

    Raises:
        `ValueError`: if matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ValueError("Reports need matplotlib: in a checkout, pip install -e '.[training]'")


def write_report(
    directory: Path, predictions: Predictions, metrics: Mapping[str, float], description: Mapping[str, Any]
) -> None:
    """
    Writes a directory, whole or not at all; the same bytes for the same arguments:

    - `metrics.json`: `description`, `num_clips`, `metrics`, `per_class` (see [`per_class`]);
    - `predictions.csv`: file, true class, predicted class and the scores of each clip; of a multi-label model the
      classes are a JSON list, and predicted from a score of 0.5 on;
    - `model_index.md`: the metrics as metadata of a model card, in the Hub's `model-index` format, and as a table;
    - `per_class.png`, and for up to 100 single-label classes `confusion_matrix.png`.

    Args:
        directory (`Path`):
            Is replaced if it holds a report and nothing else. Its parents are made.
        predictions ([`Predictions`]):
            The predictions.
        metrics (`Mapping[str, float]`):
            From [`compute_metrics`]; more are welcome.
        description (`Mapping[str, Any]`):
            What was evaluated: `model`, `dataset`; if it applies `config`, `split` and `dataset_revision` of the data
            set; whatever else helps to do it again, such as versions.

    Raises:
        `ValueError`: if the directory holds something else, or a metric is not finite.
    """
    check_drawing()
    from .pictures import draw_classes, draw_confusions

    check_report_directory(directory)
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise ValueError(f"The metric {name!r} is {value}: a report holds finite numbers only.")
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with work_directory(directory.parent, ".writing-") as work:
        new = work / "new"
        new.mkdir()
        write_json(new / METRICS_FILE, predictions, metrics, description)
        write_predictions(new / PREDICTIONS_FILE, predictions)
        index = model_index(metrics, description, len(predictions.names))
        (new / MODEL_INDEX_FILE).write_text(index, encoding="utf-8")
        draw_classes(rank_classes(predictions), class_metric(predictions), new / CLASSES_PICTURE)
        if not predictions.is_multi_label and len(predictions.label_names) <= MAX_MATRIX_CLASSES:
            draw_confusions(predictions.confusions, predictions.label_names, new / CONFUSION_PICTURE)
        replace_directory(new, directory)


def check_report_directory(directory: Path) -> None:
    """
    Raises:
        `ValueError`: if `directory` exists, and is no directory or holds anything that is not of a report.
    """
    if directory.is_dir():
        foreign = sorted(path.name for path in directory.iterdir() if path.name not in REPORT_FILES)
        if foreign:
            raise ValueError(f"{directory}: holds {foreign[0]}, which is not of a report: choose another directory.")
    elif directory.exists():
        raise ValueError(f"{directory}: is no directory.")


def write_json(
    path: Path, predictions: Predictions, metrics: Mapping[str, float], description: Mapping[str, Any]
) -> None:
    """See [`write_report`]."""
    report = {
        "description": dict(description),
        "num_clips": len(predictions.names),
        "metrics": {name: float(value) for name, value in metrics.items()},
        "per_class": per_class(predictions),
    }
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")


def _label_cells(labels: np.ndarray, names: list[str]) -> Iterator[str]:
    for label in labels:
        if labels.ndim == 1:
            yield names[label]
        else:
            yield json.dumps([names[index] for index in np.flatnonzero(label)], ensure_ascii=False)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """See [`write_report`]."""
    names = predictions.label_names
    true, predicted = _label_cells(predictions.labels, names), _label_cells(predictions.predicted, names)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "true", "predicted", *(f"score {name}" for name in names)])
        for name, *cells, scores in zip(predictions.names, true, predicted, predictions.scores):
            # The fewest digits that give the same float32.
            writer.writerow([name, *cells, *scores.astype(str).tolist()])


def _hub_name(name: str) -> str:
    """A Hub id as it is, the last part of a local path."""
    path = Path(name)
    is_local = path.exists() or path.is_absolute() or name.startswith(".") or len(path.parts) > 2
    return (path.name or path.resolve().name) if is_local else name


def model_index(metrics: Mapping[str, float], description: Mapping[str, Any], num_clips: int) -> str:
    """
    Metadata for a model card in the Hub's `model-index` format between lines of dashes, then a table for its text.

    Args:
        metrics (`Mapping[str, float]`):
            Rounded to four decimals.
        description (`Mapping[str, Any]`):
            See [`write_report`]; of local paths the last part is given only.
        num_clips (`int`):
            How many clips were evaluated.
    """
    model = _hub_name(str(description.get("model", "BEATs"))).split("/")[-1]
    dataset = _hub_name(str(description.get("dataset", "unknown")))
    results, rows = [], []
    for key, value in metrics.items():
        kind, name, arguments = HUB_METRICS.get(key, (key, key, None))
        rows.append(f"| {name} | {value:.4f} |")
        result = EvalResult(
            task_type="audio-classification",
            task_name="Audio Classification",
            dataset_type=dataset,
            dataset_name=dataset.split("/")[-1],
            dataset_config=description.get("config"),
            dataset_split=description.get("split"),
            dataset_revision=description.get("dataset_revision"),
            metric_type=kind,
            metric_name=name,
            metric_args=arguments,
            metric_value=round(float(value), 4),
        )
        results.append(result)
    metadata = ModelCardData(model_name=model, eval_results=results).to_yaml()
    table = "\n".join([f"| {num_clips} clips of {dataset} | |", "| --- | --- |", *rows])
    return f"---\n{metadata}\n---\n\n{table}\n"


__all__ = [
    "REPORT_FILES",
    "Predictions",
    "check_report_directory",
    "compute_metrics",
    "per_class",
    "print_report",
    "worst_confusions",
    "write_report",
]
