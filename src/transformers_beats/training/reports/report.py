# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Report on a classifier's predictions: a directory with metrics, predictions, pictures and a model card's section."""

import csv
import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import EvalResult, ModelCardData
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from transformers.utils import logging

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.metrics.accuracy import compute_accuracy
from transformers_beats.metrics.audioset_map import compute_audioset_map
from transformers_beats.metrics.macro_f1 import compute_macro_f1
from transformers_beats.utils.errors import BeatsError, install_command
from transformers_beats.utils.files import new_directory
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.table import to_csv

from .intervals import SEVERAL_LABELS, Interval, Resamples, describe_intervals, metric_intervals, resample


if TYPE_CHECKING:
    from .calibration import Calibration


logger = logging.get_logger(__name__)

METRICS_FILE, PREDICTIONS_FILE, MODEL_INDEX_FILE = "metrics.json", "predictions.csv", "model_index.md"
PAGE = "report.html"
CONFUSION_PICTURE, CLASSES_PICTURE, CURVE_PICTURE = "confusion_matrix.png", "per_class.png", "learning_curve.png"
REPORT_FILES = frozenset(
    (METRICS_FILE, PREDICTIONS_FILE, MODEL_INDEX_FILE, PAGE, CONFUSION_PICTURE, CLASSES_PICTURE, CURVE_PICTURE)
)
# A clip has a label of a multi-label model from this probability on, which counts.
THRESHOLD = 0.5
# Means of probabilities in float32 may exceed 1 by so much.
ROUNDING = 1e-4
MAX_LISTED_CONFUSIONS = 10
# Column of the classes that a clip was not labelled for.
UNKNOWN = "unknown"
# In a larger matrix nothing can be read.
MAX_MATRIX_CLASSES = 100
# Names of metrics on the Hub and in text. Others keep theirs.
HUB_METRICS = {
    "accuracy": ("accuracy", "Accuracy", None),
    "macro_f1": ("f1", "Macro F1", {"average": "macro"}),
    "mAP": ("mean_average_precision", "mAP", {"average": "macro"}),
    "auc": ("roc_auc", "AUC", {"average": "macro"}),
    "d_prime": ("d_prime", "d-prime", None),
    "lwlrap": ("lwlrap", "lwlrap", None),
}
# Names of metrics for readers. Others keep theirs.
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "auc": "AUC",
    "d_prime": "d-prime",
    "f1": "F1",
    "ap": "Average precision",
    "collar_f1": "Collar-based F1",
    "segment_f1": "Segment-based F1",
    "psds1": "PSDS1",
    "psds2": "PSDS2",
}
# None if a metric is undefined for the clips.
Metrics = Mapping[str, float | None]


@dataclass
class Predictions:
    """
    Scores of clips, beside their labels. Not to be changed: results are kept.

    Args:
        names (`list[str]` of length `num_clips`):
            File name of each clip; several rows may come from one.
        scores (`np.ndarray` of shape `(num_clips, num_labels)`):
            Probabilities, kept as float32.
        labels (`np.ndarray` of shape `(num_clips,)` or `(num_clips, num_labels)`):
            Class indices, or for multi-label classification zeros and ones; `label_names` are their names.
        known (`np.ndarray` of shape `(num_clips, num_labels)`, *optional*):
            Whether a clip was labelled for a class, boolean; elsewhere its label is 0 and does not count.
        of_moments (`bool`, defaults to `False`):
            Whether rows are moments of clips, as those of a frame-level model. A clip is then a file.

    Raises:
        [`BeatsError`]: if there is no clip, shapes do not fit, a score is no probability, or a label no label.
    """

    names: list[str]
    scores: np.ndarray
    labels: np.ndarray
    label_names: list[str]
    known: np.ndarray | None = None
    of_moments: bool = False

    def __post_init__(self):
        scores, labels = np.asarray(self.scores, dtype=np.float32), np.asarray(self.labels)
        shape = (len(self.names), len(self.label_names))
        if not all(shape) or scores.shape != shape:
            raise BeatsError(
                f"Scores must have the shape (clips, classes), {shape} and not empty, got {scores.shape}."
            )
        if labels.shape not in (shape, shape[:1]):
            raise BeatsError(f"Labels must have the shape {shape[:1]} or {shape}, got {labels.shape}.")
        # NaN compares false.
        is_score = (scores >= -ROUNDING) & (scores <= 1 + ROUNDING)
        if not is_score.all():
            clip, label = np.argwhere(~is_score)[0]
            where = f"{self.names[clip]}, {self.label_names[label]!r}"
            raise BeatsError(f"Scores must be probabilities in [0, 1], got {scores[clip, label]} for {where}.")
        limit = shape[1] if labels.ndim == 1 else 2
        is_label = np.isin(labels, np.arange(limit))
        if not is_label.all():
            place = tuple(np.argwhere(~is_label)[0])
            raise BeatsError(
                f"Labels must be whole numbers from 0 to {limit - 1}, got {labels[place]} for {self.names[place[0]]}."
            )
        self.scores, self.labels = scores.clip(0, 1), labels.astype(np.int64)

    @classmethod
    def join(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Returns the predictions of several parts, whose classes are the same, together."""
        names = [name for part in parts for name in part.names]
        scores, labels = (np.concatenate([getattr(part, key) for part in parts]) for key in ("scores", "labels"))
        all_known = all(part.known is None for part in parts)
        known = None if all_known else np.concatenate([part.is_known for part in parts])
        return cls(names, scores, labels, parts[0].label_names, known, any(part.of_moments for part in parts))

    @cached_property
    def files(self) -> list[str]:
        """File names, each once, in the order of the alphabet."""
        return sorted(set(self.names))

    @cached_property
    def file_of(self) -> np.ndarray:
        """Position of the file of each row in `files`, int64 `(num_clips,)`."""
        number_of = {name: number for number, name in enumerate(self.files)}
        return np.fromiter((number_of[name] for name in self.names), np.int64, len(self.names))

    @property
    def num_clips(self) -> int:
        """Number of clips: of files if rows are moments, otherwise of rows."""
        return len(self.files if self.of_moments else self.names)

    @property
    def is_known(self) -> np.ndarray:
        """Clips that were labelled for each class, boolean `(num_clips, num_labels)`."""
        return np.ones(self.scores.shape, dtype=bool) if self.known is None else self.known

    @property
    def is_multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def predicted(self) -> np.ndarray:
        """Classes of the best scores, `(num_clips,)`; multi-label 0 or 1, `(num_clips, num_labels)`."""
        return (self.scores >= THRESHOLD).astype(np.int64) if self.is_multi_label else self.scores.argmax(axis=1)

    @cached_property
    def resamples(self) -> Resamples:
        """Metrics of draws of the clips, by [`resample`] with its default seed."""
        return resample(self)

    @cached_property
    def audioset(self) -> dict[str, Any]:
        """Result of [`compute_audioset_map`] for multi-label predictions, also by class."""
        return compute_audioset_map(self.scores, self.labels, per_class=True, known=self.known)

    @cached_property
    def confusions(self) -> np.ndarray:
        """Numbers of clips by true and predicted class of single-label predictions, `(num_labels, num_labels)`."""
        return confusion_matrix(self.labels, self.predicted, labels=np.arange(len(self.label_names)))


@dataclass
class Evidence:
    """
    Material of a report beside predictions. All of it is optional.

    Args:
        histories (`Mapping[str, list]`):
            Logs of the trainings, by their names.
        folds (`Mapping[str, Predictions]`), fold_metrics (`Mapping[str, Metrics]`), spread (`Metrics`):
            Of a cross-validation: predictions and metrics of each fold, and the standard deviations between folds.
        read_audio (`Callable[[str, int], np.ndarray]`), extractor ([`BeatsFeatureExtractor`]):
            Reads the first samples of the clip of a name; and the model's feature extractor, for spectrograms.
        notes (`list[str]`):
            Sentences above the metrics.
        intervals (`Mapping[str, Interval]`), events (`list[dict]`), calibration ([`Calibration`]):
            Of the events of a frame-level model: intervals of their measures, these by class, and whether the scores
            of moments are as often right as they say.
    """

    histories: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    folds: Mapping[str, Predictions] = field(default_factory=dict)
    fold_metrics: Mapping[str, Metrics] = field(default_factory=dict)
    spread: Metrics = field(default_factory=dict)
    read_audio: Callable[[str, int], np.ndarray] | None = None
    extractor: BeatsFeatureExtractor | None = None
    notes: list[str] = field(default_factory=list)
    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    calibration: "Calibration | None" = None


def compute_metrics(predictions: Predictions) -> dict[str, float | None]:
    """
    Computes the metrics that papers report.

    Returns:
        `dict[str, float | None]`: `accuracy` and `macro_f1`; for multi-label classification `mAP`, `auc`,
        `d_prime` and `lwlrap`, which are None, with a warning, where undefined: mAP and lwlrap if no class has a
        positive clip, AUC if none has both positive and negative clips, d-prime if AUC is 0 or 1.
    """
    if predictions.is_multi_label:
        values = {key: predictions.audioset[key] for key in SEVERAL_LABELS}
        if undefined := [key for key, value in values.items() if value is None]:
            logger.warning(f"Undefined for these {predictions.num_clips} clips: {', '.join(undefined)}.")
        return values
    num_labels = len(predictions.label_names)
    return {
        **compute_accuracy(predictions.predicted, predictions.labels, num_labels),
        **compute_macro_f1(predictions.predicted, predictions.labels, num_labels),
    }


def per_class(predictions: Predictions) -> list[dict[str, Any]]:
    """
    Computes `label`, `support` (the number of clips that have it) and `precision`, `recall` and `f1`, or `ap` and
    `auc` of each class, in their order; None where undefined, as the recall of a class without clips.
    """
    if predictions.is_multi_label:
        support = predictions.audioset["support"]
        if predictions.of_moments:
            support = [len(np.unique(predictions.file_of[has_label > 0])) for has_label in predictions.labels.T]
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
    """Returns [`per_class`] with the worst class first, by F1 or average precision; without undefined ones."""
    key = class_metric(predictions)
    return sorted((entry for entry in per_class(predictions) if entry[key] is not None), key=lambda entry: entry[key])


def class_metric(predictions: Predictions) -> str:
    """Returns the key of [`per_class`] by which classes are compared."""
    return "ap" if predictions.is_multi_label else "f1"


def worst_confusions(
    predictions: Predictions, limit: int = MAX_LISTED_CONFUSIONS
) -> list[tuple[str, str, int, float]]:
    """
    Lists the commonest mistakes of a single-label classifier: true class, predicted class, number of clips, and their
    share of the clips of the true class.
    """
    wrong = predictions.confusions - np.diag(np.diag(predictions.confusions))
    totals = predictions.confusions.sum(axis=1)
    shares = wrong / np.maximum(totals, 1)[:, None]
    pairs = [(int(true), int(predicted)) for true, predicted in np.argwhere(wrong)]
    pairs.sort(key=lambda pair: (-wrong[pair], -shares[pair], pair))
    names = predictions.label_names
    return [(names[pair[0]], names[pair[1]], int(wrong[pair]), float(shares[pair])) for pair in pairs[:limit]]


# The files


def check_drawing() -> None:
    """
    Checks, before a training that ends with a report, that its pictures can be drawn.

    Raises:
        [`BeatsError`]: if matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise BeatsError(f"Reports need matplotlib: {install_command('training')}")


def write_report(
    directory: Path,
    predictions: Predictions,
    metrics: Metrics,
    description: Mapping[str, Any],
    evidence: Evidence | None = None,
) -> dict[str, Any]:
    """
    Writes a directory, whole or not at all; the same bytes for the same arguments:

    - `report.html`: all of it, and what `evidence` adds, in one page that needs no other file;
    - `metrics.json`: `description`, `num_clips`, of moments also `num_moments`, `metrics`, `intervals` of these (see
      [`metric_intervals`]), `per_class` (see [`per_class`]), `notes`, and of events those of `evidence`;
    - `predictions.csv`: file, true class, predicted class and the scores of each clip, or moment; of a multi-label
      model the classes are a JSON list, and predicted from a score of 0.5 on; if some are not known of a clip,
      `unknown` lists these;
    - `model_index.md`: the metrics as metadata of a model card, in the Hub's `model-index` format, and as a table;
    - `per_class.png`, if a class has clips, for up to 100 single-label classes `confusion_matrix.png`, and
      `learning_curve.png`, if there are logs.

    A directory that holds a report and nothing else is replaced. The description has `model` and `dataset`; if it
    applies `config`, `split` and `dataset_revision` of the dataset; and whatever else helps to do it again.

    Returns:
        `dict[str, Any]`: the content of `metrics.json`.

    Raises:
        [`BeatsError`]: if the directory holds something else, or a metric is not finite.
    """
    check_drawing()
    from .curves import draw_learning_curves, has_curves
    from .page import render_page
    from .pictures import draw_classes, draw_confusions

    check_report_directory(directory)
    evidence = evidence or Evidence()
    for name, value in metrics.items():
        if value is not None and not math.isfinite(value):
            raise BeatsError(f"The metric {name!r} is {value}: a report holds finite numbers only.")
    with new_directory(directory) as new:
        report = write_json(new / METRICS_FILE, predictions, metrics, description, evidence)
        write_predictions(new / PREDICTIONS_FILE, predictions)
        index = model_index(metrics, description, describe_size(report))
        (new / MODEL_INDEX_FILE).write_text(index, encoding="utf-8")
        if ranked := rank_classes(predictions):
            draw_classes(ranked, class_metric(predictions), new / CLASSES_PICTURE)
        if not predictions.is_multi_label and len(predictions.label_names) <= MAX_MATRIX_CLASSES:
            draw_confusions(predictions.confusions, predictions.label_names, new / CONFUSION_PICTURE)
        if has_curves(evidence.histories):
            draw_learning_curves(evidence.histories, new / CURVE_PICTURE)
        (new / PAGE).write_text(render_page(report, predictions, evidence), encoding="utf-8")
    return report


@contextmanager
def keep_model() -> Generator[None, None, None]:
    """Logs errors of the metrics and the report of a new model instead of raising them, so that the model is kept."""
    try:
        yield
    except Exception as error:
        logger.error(f"The model is written without a report: {error}. `evaluate` writes one.", exc_info=True)


def check_report_directory(directory: Path) -> None:
    """Raises a [`BeatsError`] if `directory` exists, and is no directory or holds anything but a report."""
    if directory.is_dir():
        foreign = sorted(path.name for path in directory.iterdir() if path.name not in REPORT_FILES)
        if foreign:
            raise BeatsError(f"{directory}: holds {foreign[0]}, which is not of a report: choose another directory.")
    elif directory.exists():
        raise BeatsError(f"{directory}: is no directory.")


def write_json(
    path: Path, predictions: Predictions, metrics: Metrics, description: Mapping[str, Any], evidence: Evidence
) -> dict[str, Any]:
    """Writes `metrics.json`, and returns its content; see [`write_report`]."""
    parts = list(evidence.folds.values()) or [predictions]
    intervals = {**metric_intervals(parts), **evidence.intervals}
    report = {
        "description": dict(description),
        "num_clips": predictions.num_clips,
        **({"num_moments": len(predictions.names)} if predictions.of_moments else {}),
        "metrics": {name: None if value is None else float(value) for name, value in metrics.items()},
        "intervals": {name: intervals.get(name) for name in metrics},
        "intervals_by": describe_intervals(parts, metrics, intervals),
        "per_class": per_class(predictions),
        "notes": evidence.notes,
    }
    if evidence.events:
        report["events"] = evidence.events
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")
    return report


def describe_size(report: Mapping[str, Any]) -> str:
    """Returns the numbers of clips and, if there are any, of moments of a report."""
    moments = f" ({format_number(report['num_moments'])} moments)" if "num_moments" in report else ""
    return f"{format_number(report['num_clips'])} clips{moments}"


def _label_cells(labels: np.ndarray, names: list[str]) -> Iterator[str]:
    for label in labels:
        if labels.ndim == 1:
            yield names[label]
        else:
            yield json.dumps([names[index] for index in np.flatnonzero(label)], ensure_ascii=False)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes `predictions.csv`; see [`write_report`]."""
    names = predictions.label_names
    true, predicted = _label_cells(predictions.labels, names), _label_cells(predictions.predicted, names)
    with path.open("w", encoding="utf-8", newline="") as file:
        header = ["file", "true", "predicted", *(f"score {name}" for name in names)]
        further: list[list[str]] = [[]] * len(predictions.names)
        if predictions.known is not None:
            header.append(UNKNOWN)
            further = [[cell] for cell in _label_cells((~predictions.known).astype(np.int64), names)]
        file.write(to_csv([header]))
        for name, *cells, scores, others in zip(predictions.names, true, predicted, predictions.scores, further):
            # The fewest digits that give the same float32.
            file.write(to_csv([[name, *cells, *scores.astype(str).tolist(), *others]]))


def read_predictions(directory: Path) -> Predictions:
    """Reads the predictions of a report that [`write_report`] has written."""
    report = json.loads((directory / METRICS_FILE).read_text(encoding="utf-8"))
    classes = report["per_class"]
    names = [entry["label"] for entry in classes]
    index = {name: number for number, name in enumerate(names)}
    with (directory / PREDICTIONS_FILE).open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    labels: Any = [index[row[1]] for row in rows] if "f1" in classes[0] else np.zeros((len(rows), len(names)))
    for number, row in enumerate(rows if "ap" in classes[0] else ()):
        labels[number, [index[name] for name in json.loads(row[1])]] = 1
    scores, known = np.array([row[3 : 3 + len(names)] for row in rows]), None
    if header[-1] == UNKNOWN:
        known = np.ones(scores.shape, dtype=bool)
        for number, row in enumerate(rows):
            known[number, [index[name] for name in json.loads(row[-1])]] = False
    return Predictions([row[0] for row in rows], scores, np.array(labels), names, known, "num_moments" in report)


def hub_name(name: str | Sequence[str]) -> str:
    """Returns a Hub id as it is, the last part of a local path; of several, each so."""
    if isinstance(name, (list, tuple)):
        return ", ".join(map(hub_name, name))
    name = str(name)
    path = Path(name)
    is_local = path.exists() or path.is_absolute() or name.startswith(".") or len(path.parts) > 2
    return (path.name or path.resolve().name) if is_local else name


def eval_results(metrics: Metrics, description: Mapping[str, Any]) -> list[EvalResult]:
    """
    Returns metrics as metadata of a model card, rounded to four decimals, without undefined ones; of local paths their
    last part.
    """
    names = description.get("dataset", "unknown")
    datasets = [hub_name(name) for name in (names if isinstance(names, (list, tuple)) else [names])]
    results = []
    for key, value in metrics.items():
        kind, name, arguments = HUB_METRICS.get(key, (key, key, None))
        if value is None:
            continue
        result = EvalResult(
            task_type="audio-classification",
            task_name="Audio Classification",
            dataset_type=", ".join(datasets),
            dataset_name=", ".join(name.split("/")[-1] for name in datasets),
            dataset_config=description.get("config"),
            dataset_split=description.get("split"),
            dataset_revision=description.get("dataset_revision"),
            metric_type=kind,
            metric_name=name,
            metric_args=arguments,
            metric_value=round(float(value), 4),
        )
        results.append(result)
    return results


def model_index(metrics: Metrics, description: Mapping[str, Any], size: str) -> str:
    """
    Returns metadata for a model card in the Hub's `model-index` format between lines of dashes, then a table, of which
    `size` is said; see [`describe_size`].
    """
    model = hub_name(str(description.get("model", "BEATs"))).split("/")[-1]
    dataset = hub_name(description.get("dataset", "unknown"))
    rows = [
        f"| {HUB_METRICS.get(key, (key, key))[1]} | {'undefined' if value is None else format_number(value)} |"
        for key, value in metrics.items()
    ]
    metadata = ModelCardData(model_name=model, eval_results=eval_results(metrics, description)).to_yaml()
    table = "\n".join([f"| {size} of {dataset} | |", "| --- | --- |", *rows])
    return f"---\n{metadata}\n---\n\n{table}\n"
