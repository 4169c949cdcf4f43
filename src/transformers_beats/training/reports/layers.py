# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Report on the layers of a probe: metrics with their intervals by layer, of one training or of several folds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from transformers_beats.utils.files import replace_file
from transformers_beats.utils.numbers import format_interval

from .intervals import metric_intervals
from .report import METRIC_NAMES, Predictions, compute_metrics
from .tables import print_table


# Scores of all layers, beside a model.
SCORES_FILE = "layers.npz"
LAYERS_FILE, LAYERS_PICTURE = "layers.json", "layers.png"


class Scores(NamedTuple):
    """
    Predictions by each of the layers for the same clips; the layers, the log loss of each in the cross-validation by
    which one was chosen, and that one.
    """

    predictions: list[Predictions]
    layers: list[int]
    losses: list[float]
    chosen: int


def write_scores(directory: Path, scores: Scores) -> None:
    """Writes the scores of all layers to a directory, for [`report_layers`]."""
    first = scores.predictions[0]
    with replace_file(directory / SCORES_FILE) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            names=np.array(first.names),
            scores=np.stack([predictions.scores for predictions in scores.predictions]),
            labels=first.labels,
            label_names=np.array(first.label_names),
            layers=np.array(scores.layers),
            losses=np.array(scores.losses),
            chosen=np.array(scores.chosen),
        )


def read_scores(directory: Path) -> Scores:
    """Reads what [`write_scores`] has written."""
    with np.load(directory / SCORES_FILE) as file:
        names, label_names = file["names"].tolist(), file["label_names"].tolist()
        predictions = [Predictions(names, scores, file["labels"], label_names) for scores in file["scores"]]
        return Scores(predictions, file["layers"].tolist(), file["losses"].tolist(), int(file["chosen"]))


def report_layers(output_dir: Path, parts: Sequence[Scores]) -> dict[str, Any]:
    """
    Writes `layers.json` and `layers.png` to a directory: for each layer the first metric of [`compute_metrics`], of
    several parts (folds) their mean, with a bootstrap interval over clips, and the log losses.

    Returns:
        `dict[str, Any]`: the content of `layers.json`: `metric`, `layers` (`layer`, `value`, `interval`,
        `log_loss`), and `chosen`, that of each part.
    """
    layers = parts[0].layers
    entries, metric = [], ""
    for position, layer in enumerate(layers):
        of_layer = [part.predictions[position] for part in parts]
        each = [compute_metrics(predictions) for predictions in of_layer]
        metric = next(iter(each[0]))
        known = [value for metrics in each if (value := metrics[metric]) is not None]
        entries.append(
            {
                "layer": layer,
                "value": float(np.mean(known)) if known else None,
                "interval": metric_intervals(of_layer)[metric] if known else None,
                "log_loss": float(np.mean([part.losses[position] for part in parts])),
            }
        )
    report = {"metric": metric, "layers": entries, "chosen": [part.chosen for part in parts]}
    with replace_file(output_dir / LAYERS_FILE) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    with replace_file(output_dir / LAYERS_PICTURE) as temporary:
        draw_layers(report, temporary)
    return report


def draw_layers(report: dict[str, Any], path: Path) -> None:
    """Draws the metric of each layer with its interval; layers that were chosen are filled."""
    from matplotlib.figure import Figure

    known = [entry for entry in report["layers"] if entry["value"] is not None]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    numbers, values = [entry["layer"] for entry in known], [entry["value"] for entry in known]
    axes.plot(numbers, values, color="#0072B2", linewidth=1)
    for entry in known:
        is_chosen = entry["layer"] in report["chosen"]
        low, high = entry["interval"]
        axes.vlines(entry["layer"], low, high, color="#0072B2", linewidth=1)
        face = "#0072B2" if is_chosen else "white"
        axes.plot(entry["layer"], entry["value"], "o", color="#0072B2", markerfacecolor=face)
    axes.set_xticks(numbers)
    axes.set_xlabel("layer (0: input of the first); filled: chosen by the clips to learn from")
    axes.set_ylabel(f"{METRIC_NAMES.get(report['metric'], report['metric'])}, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", dpi=150)


def print_layers(console: Console, output_dir: Path) -> None:
    """Prints the report on layers in a directory, if there is one."""
    if not (path := output_dir / LAYERS_FILE).exists():
        return
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        [
            entry["layer"],
            entry["value"],
            format_interval(entry["interval"]),
            entry["log_loss"],
            report["chosen"].count(entry["layer"]) or "",
        ]
        for entry in report["layers"]
    ]
    headers = ("layer", report["metric"], "95% interval", "log loss, cross-validated", "times chosen")
    print_table(headers, rows, "By layer", console=console)
    console.print(f"Picture: {output_dir / LAYERS_PICTURE}", highlight=False, soft_wrap=True, markup=False)
