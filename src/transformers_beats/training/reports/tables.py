# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Tables of metrics on the console: of one evaluation, and of all folds of a cross-validation."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers.utils import logging

from transformers_beats.utils.files import replace_file

from .report import METRICS_FILE, Metrics, Predictions, rank_classes, worst_confusions


logger = logging.get_logger(__name__)

FOLDS = "folds.json"
MAX_LISTED_CLASSES = 40
# Columns of text, to the left; numbers are to the right.
NAMES = ("metric", "class", "true class", "predicted")


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str = "",
    gap: int | None = None,
    console: Console | None = None,
) -> None:
    """
    Prints a table with a title above it; floats have four decimals, None is a dash. After `gap` rows, a line stands
    for rows that are left out.
    """
    table = Table(box=SIMPLE_HEAD)
    for header in headers:
        table.add_column(header, justify="left" if header in NAMES else "right", overflow="fold")
    for number, row in enumerate(rows, start=1):
        # As `Text`, brackets in names are no markup.
        table.add_row(*(Text(format_value(value)) for value in row), end_section=number == gap)
    console = console or Console()
    if title:
        # A title within a table would be wrapped to its width.
        console.print(Text(title, style="bold"))
    console.print(table)


def format_value(value: object) -> str:
    """Returns a cell of a table as text."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def print_report(console: Console, predictions: Predictions, metrics: Metrics) -> None:
    """
    Prints the metrics, from [`compute_metrics`] and others, the classes with the worst first, and for single-label
    classification the worst confusions.
    """
    num_classes = len(predictions.label_names)
    title = f"{len(predictions.names)} clips, {num_classes} classes"
    print_table(("metric", "value"), metrics.items(), title, console=console)
    ranked, half = rank_classes(predictions), MAX_LISTED_CLASSES // 2
    keys = ("ap", "auc") if predictions.is_multi_label else ("precision", "recall", "f1")
    title, gap, listed = "Classes, the worst first", None, ranked
    if len(ranked) > MAX_LISTED_CLASSES:
        title, gap = f"The {half} worst and the {half} best of {len(ranked)} classes", half
        listed = ranked[:half] + ranked[-half:]
    rows = [[entry[key] for key in ("label", "support", *keys)] for entry in listed]
    print_table(("class", "clips", *keys), rows, title, gap, console)
    if num_left_out := num_classes - len(ranked):
        console.print(f"Left out, for want of clips: {num_left_out} of {num_classes} classes")
    if not predictions.is_multi_label and (confusions := worst_confusions(predictions)):
        rows = [[*others, f"{share:.1%}"] for *others, share in confusions]
        print_table(("true class", "predicted", "clips", "share"), rows, "Worst confusions", console=console)


def report_folds(output_dir: Path, names: Sequence[str], evaluation: str) -> dict[str, Any]:
    """
    Prints the metrics of each fold with mean and standard deviation, and writes them to `output_dir/folds.json`. Means
    leave out folds in which a metric is undefined. The report of a fold is in `output_dir/fold-NAME/EVALUATION`.

    Returns:
        `dict[str, Any]`: `folds`, `mean` and `std`; the standard deviation is that of a sample. None if undefined.
    """
    each = {name: _read_metrics(output_dir / f"fold-{name}" / evaluation) for name in names}
    mean: dict[str, float | None] = {}
    std: dict[str, float | None] = {}
    for metric in dict.fromkeys(metric for metrics in each.values() for metric in metrics):
        lacking = [name for name, metrics in each.items() if metrics.get(metric) is None]
        if lacking:
            logger.warning(f"{metric} is undefined in {len(lacking)} fold(s), which its mean leaves out: {lacking}.")
        known = np.array([metrics[metric] for name, metrics in each.items() if name not in lacking], dtype=float)
        mean[metric] = float(known.mean()) if len(known) else None
        std[metric] = float(known.std(ddof=1)) if len(known) > 1 else None
    result = {"folds": each, "mean": mean, "std": std}
    headers = ("metric", *(f"fold {name}" for name in each), "mean", "standard deviation")
    rows = [[metric, *(fold.get(metric) for fold in each.values()), mean[metric], std[metric]] for metric in mean]
    print_table(headers, rows, f"{len(each)} folds")
    with replace_file(output_dir / FOLDS) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def _read_metrics(report: Path) -> Mapping[str, float | None]:
    """Reads the metrics of a report; none, with a warning, if it was not written."""
    path = report / METRICS_FILE
    if not path.exists():
        logger.warning(f"{report}: is missing: `evaluate` of the fold's model on its clips writes it.")
        return {}
    return json.loads(path.read_text(encoding="utf-8"))["metrics"]
