# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Report on the layers and kinds of probes: metrics with their intervals, of one training or of several folds, and the
differences from the best.
"""

import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from transformers_beats.utils.files import replace_file
from transformers_beats.utils.numbers import format_interval

from .intervals import LEVEL, percentiles, resampled_means
from .report import METRIC_NAMES, Predictions, compute_metrics
from .tables import print_table


# Scores of all layers, beside a model.
SCORES_FILE = "layers.npz"
LAYERS_FILE, LAYERS_PICTURE = "layers.json", "layers.png"
# In the file, in the place of the layer of a probe that reads all of them, or of a position.
ALL = -1
# Of probes, in the order of their names: those of Okabe and Ito, which the colour-blind can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


class Scores(NamedTuple):
    """
    Predictions of several probes for the same clips; the kind of each and its layer, None for all of them; the log
    loss of each in the cross-validation by which one was chosen, and the position of that one, None if none was.
    """

    predictions: list[Predictions]
    probes: list[str]
    layers: list[int | None]
    losses: list[float]
    chosen: int | None


def write_scores(directory: Path, scores: Scores) -> None:
    """Writes the scores of all probes to a directory, for [`report_layers`]."""
    first = scores.predictions[0]
    with replace_file(directory / SCORES_FILE) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            names=np.array(first.names),
            scores=np.stack([predictions.scores for predictions in scores.predictions]),
            labels=first.labels,
            label_names=np.array(first.label_names),
            probes=np.array(scores.probes),
            layers=np.array([ALL if layer is None else layer for layer in scores.layers]),
            losses=np.array(scores.losses),
            chosen=np.array(ALL if scores.chosen is None else scores.chosen),
        )


def read_scores(directory: Path) -> Scores:
    """Reads what [`write_scores`] has written."""
    with np.load(directory / SCORES_FILE) as file:
        names, label_names = file["names"].tolist(), file["label_names"].tolist()
        predictions = [Predictions(names, scores, file["labels"], label_names) for scores in file["scores"]]
        layers = [None if layer == ALL else layer for layer in file["layers"].tolist()]
        chosen = None if file["chosen"] == ALL else int(file["chosen"])
        return Scores(predictions, file["probes"].tolist(), layers, file["losses"].tolist(), chosen)


def report_layers(output_dir: Path, parts: Sequence[Scores]) -> dict[str, Any]:
    """
    Writes `layers.json` and `layers.png` to a directory: for each probe and layer the first metric of
    [`compute_metrics`], of several parts (folds) their mean, with a bootstrap interval over clips, its difference from
    that of the best with an interval on the same draws of clips, and the log losses.

    Returns:
        `dict[str, Any]`: the content of `layers.json`: `metric`, `layers` (`probe`, `layer`, `value`, `interval`,
        `behind_best`, `log_loss`), `best`, the position of the highest value among these, and `chosen`, the position
        of that of each part.
    """
    entries, draws, metric = [], [], ""
    for position, (probe, layer) in enumerate(zip(parts[0].probes, parts[0].layers)):
        of_layer = [part.predictions[position] for part in parts]
        each = [compute_metrics(predictions) for predictions in of_layer]
        metric = next(iter(each[0]))
        known = [value for metrics in each if (value := metrics[metric]) is not None]
        draws.append(resampled_means(of_layer)[metric])
        entries.append(
            {
                "probe": probe,
                "layer": layer,
                "value": float(np.mean(known)) if known else None,
                "interval": percentiles(draws[-1]) if known else None,
                "log_loss": float(np.mean([part.losses[position] for part in parts])),
            }
        )
    values = [-np.inf if entry["value"] is None else entry["value"] for entry in entries]
    best = int(np.argmax(values))
    for entry, of_entry in zip(entries, draws):
        is_known = entry["value"] is not None and entry is not entries[best]
        entry["behind_best"] = percentiles(draws[best] - of_entry, of_differences=True) if is_known else None
    report = {"metric": metric, "layers": entries, "best": best, "chosen": [part.chosen for part in parts]}
    with replace_file(output_dir / LAYERS_FILE) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    with replace_file(output_dir / LAYERS_PICTURE) as temporary:
        draw_layers(report, temporary)
    return report


def draw_layers(report: dict[str, Any], path: Path) -> None:
    """
    Draws the metric of each probe by layer, with its interval; what was chosen is filled. What reads all layers stands
    to the right of them.
    """
    from matplotlib.figure import Figure

    known = [(number, entry) for number, entry in enumerate(report["layers"]) if entry["value"] is not None]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    numbers = sorted({entry["layer"] for _, entry in known if entry["layer"] is not None})
    probes = list(dict.fromkeys(entry["probe"] for _, entry in known))
    behind = max(numbers, default=-1) + 1
    for order, (probe, color) in enumerate(zip(probes, cycle(COLORS))):
        entries = [(number, entry) for number, entry in known if entry["probe"] == probe]
        # Side by side, so that intervals do not hide each other.
        shift = 0.12 * (order - (len(probes) - 1) / 2)
        places = [(behind if entry["layer"] is None else entry["layer"]) + shift for _, entry in entries]
        axes.plot(places, [entry["value"] for _, entry in entries], color=color, linewidth=1, label=probe)
        for place, (number, entry) in zip(places, entries):
            if entry["interval"] is not None:
                axes.vlines(place, *entry["interval"], color=color, linewidth=1)
            face = color if number in report["chosen"] else "white"
            axes.plot(place, entry["value"], "o", color=color, markerfacecolor=face)
    has_all = any(entry["layer"] is None for _, entry in known)
    axes.set_xticks([*numbers, *([behind] * has_all)], [*map(str, numbers), *(["all"] * has_all)])
    axes.set_xlabel("layer (0: input of the first); filled: chosen by the clips to learn from")
    axes.set_ylabel(f"{METRIC_NAMES.get(report['metric'], report['metric'])}, {LEVEL:.0%} interval")
    axes.spines[["top", "right"]].set_visible(False)
    if len(probes) > 1:
        figure.legend(loc="outside upper center", ncols=min(5, len(probes)), frameon=False)
    figure.savefig(path, format="png", dpi=150)


def print_layers(console: Console, output_dir: Path) -> None:
    """Prints the report on probes and layers in a directory, if there is one."""
    if not (path := output_dir / LAYERS_FILE).exists():
        return
    report = json.loads(path.read_text(encoding="utf-8"))
    entries, best = report["layers"], report["layers"][report["best"]]
    has_kinds = len({entry["probe"] for entry in entries}) > 1
    rows = [
        [
            _name(entry) if has_kinds else str(entry["layer"]),
            entry["value"],
            format_interval(entry["interval"]),
            format_interval(entry["behind_best"]),
            entry["log_loss"],
            report["chosen"].count(number) or "",
        ]
        for number, entry in enumerate(entries)
    ]
    # Within the 80 columns of a terminal.
    headers = ("probe" if has_kinds else "layer", report["metric"], f"{LEVEL:.0%} interval", "behind best")
    title = "By probe and layer" if has_kinds else "By layer"
    print_table(
        (*headers, "loss", "kept"),
        rows,
        f"{title}; kept: that of the least log loss, cross-validated",
        console=console,
    )
    similar = [entry for entry in entries if entry["behind_best"] is not None and entry["behind_best"][0] <= 0]
    others = f"No difference from it was shown for {len(similar)} of {len(entries) - 1} others, by the intervals."
    console.print(f"Best on these clips: {_name(best)}. {others}", highlight=False)
    # It may be missing where it could not be drawn.
    if (output_dir / LAYERS_PICTURE).exists():
        console.print(f"Picture: {output_dir / LAYERS_PICTURE}", highlight=False, soft_wrap=True, markup=False)


def _name(entry: dict[str, Any]) -> str:
    """Returns the name of a probe with its layer, if it reads one."""
    return entry["probe"] if entry["layer"] is None else f"{entry['probe']} {entry['layer']}"
