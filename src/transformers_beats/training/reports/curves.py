# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Learning curves of fine-tuning, for its report, and of pre-trained models, from the `log_history.json` that each
training writes beside its weights:

    python -m transformers_beats.training.reports.curves RUN/iteration-*/model --output curves.png

Needs matplotlib.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from transformers_beats.plotting.figures import add_legend, make_figure, save_figure
from transformers_beats.utils.errors import BeatsError, errors_in_one_line

from . import LOG_HISTORY
from .pictures import BAR_COLOR, MEAN_COLOR, SVG_HEIGHT, SVG_WIDTH
from .report import METRIC_NAMES


# Keys in the log of masked acoustic modelling, not in that of a tokenizer.
CURVE_KEYS = frozenset({"step", "loss", "accuracy", "code_entropy"})
# Okabe and Ito's palette without yellow, which is hard to see on white: safe for colour-blind readers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# One more than colours, so that a pair of both returns only after 56 models.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
NUM_MARKERS = 8
WIDTH, HEIGHT = 11, 4.9
# Metrics of an evaluation during a training: the first one that was logged is drawn.
VALIDATION_METRICS = ("accuracy", "mAP")


def read_log_history(model_dir: Path) -> list[dict[str, Any]]:
    """
    Reads the log of a model that `pretrain` or `iterate` trained, step by step: at least one entry, each with `step`,
    `loss` and `code_entropy` (in nats) and `accuracy`, without evaluations and the summary at the end.

    Raises:
        [`BeatsError`]: if there is no log, or none of masked acoustic modelling.
    """
    path = model_dir / LOG_HISTORY
    try:
        history = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BeatsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BeatsError(f"{path}: is not JSON: {error}") from error
    if not isinstance(history, list):
        raise BeatsError(f"{path}: must hold a list, but holds {type(history).__name__}")
    entries = [entry for entry in history if isinstance(entry, dict) and entry.keys() >= CURVE_KEYS]
    if not entries:
        found = f"none of its {len(history)} entries has" if history else "it is empty: no entry has"
        raise BeatsError(f"{path}: {found} {', '.join(sorted(CURVE_KEYS))}, as pre-training logs them")
    return entries


def name_models(model_dirs: Sequence[Path]) -> list[str]:
    """
    Names models by the parts in which their paths differ: `iteration-1` and `iteration-2` of one run,
    `first/iteration-1` and `second/iteration-1` of two.
    """
    paths = [Path(os.path.abspath(path)).parts for path in model_dirs]
    if len(set(paths)) < 2:
        # `iterate` calls all its models so.
        return [path.parent.name if path.name == "model" else path.name for path in map(Path, model_dirs)]
    while len({path[-1:] for path in paths}) == 1:
        paths = [path[:-1] for path in paths]
    while len({path[:1] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
    return ["/".join(path) or "." for path in paths]


def _label_axes(axes: Axes, title: str, unit: str, time: str = "Step") -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(time)
    axes.set_ylabel(unit)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def draw_curves(histories: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """
    Writes a PNG with two panels over the steps of the training: the cross-entropy of the masked codes, with the
    unigram entropy of the codes dashed, and the share of masked codes predicted right.

    Every model has codes of its own, so its cross-entropy is to be compared with its own dashed line.
    `histories` are the entries of [`read_log_history`] by the name of their model in the legend.
    """
    figure = make_figure(WIDTH, HEIGHT)
    left, right = figure.subplots(1, 2)
    names, handles = [*histories, "unigram entropy of the same model's codes"], []
    for entries, color, marker in zip(histories.values(), cycle(COLORS), cycle(MARKERS)):
        loss, entropy, accuracy = ([entry[key] for entry in entries] for key in ("loss", "code_entropy", "accuracy"))
        steps = [entry["step"] for entry in entries]
        style = {"color": color, "marker": marker, "markersize": 4, "markevery": max(1, len(steps) // NUM_MARKERS)}
        left.plot(steps, loss, **style)
        # From the start on: of a log with one entry, a line has no length.
        left.plot([0, *steps], [entropy[0], *entropy], color=color, linestyle="--", linewidth=1.2)
        right.plot(steps, accuracy, **style)
        handles.append(Line2D([], [], color=color, marker=marker, markersize=4))
    handles.append(Line2D([], [], color="#606060", linestyle="--"))
    _label_axes(left, "Cross-entropy of masked codes", "nats per patch")
    _label_axes(right, "Masked codes predicted", "Share of masked patches")
    right.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    right.set_ylim(bottom=0)
    add_legend(figure, handles, names, loc="outside lower center", ncols=min(4, len(handles)))
    save_figure(figure, path)


# Of fine-tuning

Histories = Mapping[str, list[dict[str, Any]]]


def read_curve(history: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Returns the epochs at which a log has a value, and the values."""
    points = [(entry["epoch"], entry[key]) for entry in history if key in entry and "epoch" in entry]
    return [epoch for epoch, _ in points], [value for _, value in points]


def has_curves(histories: Histories) -> bool:
    """Returns whether any loss was logged twice, so that there is a line to draw."""
    return any(len(read_curve(history, key)[0]) > 1 for history in histories.values() for key in ("loss", "eval_loss"))


def validation_metric(histories: Histories) -> str | None:
    """Returns the name of the metric that was logged during the trainings, if any."""
    logged = {key for history in histories.values() for entry in history for key in entry}
    return next((name for name in VALIDATION_METRICS if f"eval_{name}" in logged), None)


def read_curves(histories: Histories, key: str) -> list[tuple[list[float], list[float]]]:
    """Returns [`read_curve`] of each log that has a value."""
    return [curve for history in histories.values() if (curve := read_curve(history, key))[0]]


def mean_curve(curves: Sequence[tuple[list[float], list[float]]]) -> tuple[np.ndarray, np.ndarray] | None:
    """
    Computes the mean of several curves, linear between their points, over the epochs from which and up to which all
    have values, `(num_epochs,)` each; None for less than two curves, or two epochs.
    """
    if len(curves) < 2:
        return None
    first, last = max(epochs[0] for epochs, _ in curves), min(epochs[-1] for epochs, _ in curves)
    # Trainings with batches of another size or number of clips are evaluated at other epochs.
    known = np.unique([epoch for epochs, _ in curves for epoch in epochs if first <= epoch <= last])
    if len(known) < 2:
        return None
    return known, np.mean([np.interp(known, *curve) for curve in curves], axis=0)


def has_means(histories: Histories) -> bool:
    """Returns whether [`draw_loss`] or [`draw_metric`] draws the mean of several trainings."""
    keys = ("loss", "eval_loss", f"eval_{validation_metric(histories)}")
    return any(mean_curve(read_curves(histories, key)) is not None for key in keys)


def _draw_lines(axes: Axes, histories: Histories, key: str, color: str, label: str) -> None:
    """Draws a line for each training, and the mean of several, by [`mean_curve`]."""
    curves = read_curves(histories, key)
    mean, is_single = mean_curve(curves), len(curves) == 1
    for number, (epochs, values) in enumerate(curves):
        marker = "o" if len(epochs) < 40 else None
        style: dict[str, Any] = {"marker": marker, "markersize": 3} if is_single else {"alpha": 0.35, "linewidth": 1}
        axes.plot(epochs, values, color=color, label=label if mean is None and number == 0 else None, **style)
    if mean is not None:
        axes.plot(*mean, color=color, linewidth=2.2, label=label)


def draw_loss_on(axes: Axes, histories: Histories) -> None:
    """Draws the loss on the training clips and on those of the evaluation, over the epochs."""
    _draw_lines(axes, histories, "loss", BAR_COLOR, "training")
    _draw_lines(axes, histories, "eval_loss", MEAN_COLOR, "validation")
    _label_axes(axes, "Loss", "Cross-entropy", "Epoch")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def draw_metric_on(axes: Axes, histories: Histories) -> None:
    """Draws the metric of the evaluations during the trainings, over the epochs."""
    metric = validation_metric(histories)
    _draw_lines(axes, histories, f"eval_{metric}", MEAN_COLOR, "validation")
    name = METRIC_NAMES.get(str(metric), str(metric))
    _label_axes(axes, f"{name} on validation clips", name, "Epoch")
    axes.set_ylim(0, 1.02)


def draw_loss(histories: Histories) -> Figure:
    """Draws [`draw_loss_on`] as a figure for a page."""
    figure = make_figure(SVG_WIDTH, SVG_HEIGHT)
    draw_loss_on(figure.subplots(), histories)
    return figure


def draw_metric(histories: Histories) -> Figure:
    """Draws [`draw_metric_on`] as a figure for a page."""
    figure = make_figure(SVG_WIDTH, SVG_HEIGHT)
    draw_metric_on(figure.subplots(), histories)
    return figure


def draw_learning_curves(histories: Histories, path: Path) -> None:
    """Writes a PNG of [`draw_loss_on`] and, if it was logged, of [`draw_metric_on`]."""
    draws = [draw_loss_on] + ([draw_metric_on] if validation_metric(histories) else [])
    figure = make_figure(4.5 * len(draws), SVG_HEIGHT)
    for draw, axes in zip(draws, figure.subplots(1, len(draws), squeeze=False)[0]):
        draw(axes, histories)
    save_figure(figure, path)


# The command


def main(argv: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m transformers_beats.training.reports.curves",
        description="Draws the learning curves of pre-trained models: masked-code cross-entropy and accuracy.",
    )
    parser.add_argument(
        "models", nargs="+", type=Path, metavar="MODEL_DIR", help=f"directory of a model, with its {LOG_HISTORY}"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("curves.png"), metavar="FILE", help="PNG to write (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    models = list(dict.fromkeys(args.models))
    histories = {name: read_log_history(model) for name, model in zip(name_models(models), models)}
    try:
        draw_curves(histories, args.output)
    except OSError as error:
        raise BeatsError(f"{args.output}: cannot be written: {error.strerror}") from error
    print(args.output)


if __name__ == "__main__":
    with errors_in_one_line():
        main()
