# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Tables of metrics on the console, and the screen that a training ends with."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transformers_beats.utils.numbers import format_interval, format_number

from .intervals import LEVEL
from .report import PAGE, Metrics, Predictions, describe_size, rank_classes, worst_confusions


MAX_LISTED_CLASSES = 40
# Of the worst and of the best classes, on the last screen.
MAX_EXTREME_CLASSES = 5
# Columns of text, to the left; numbers are to the right.
NAMES = ("metric", "probe", "class", "true class", "predicted", "worst classes", "best classes")


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str = "",
    gap: int | None = None,
    console: Console | None = None,
) -> None:
    """
    Prints a table with a title above it; numbers are those of [`format_number`]. After `gap` rows, a line stands
    for rows that are left out.
    """
    table = Table(box=SIMPLE_HEAD)
    for header in headers:
        table.add_column(header, justify="left" if header in NAMES else "right", overflow="fold")
    for number, row in enumerate(rows, start=1):
        # As `Text`, brackets in names are no markup.
        table.add_row(*(Text(format_number(value)) for value in row), end_section=number == gap)
    console = console or Console()
    if title:
        # A title within a table would be wrapped to its width.
        console.print(Text(title, style="bold"))
    console.print(table)


def print_metrics(console: Console, report: Mapping[str, Any], spread: Metrics | None = None) -> None:
    """
    Prints the metrics of a report with their intervals, and what these are; those of a cross-validation with
    `spread`, the standard deviations between folds.
    """
    title = f"{describe_size(report)}, {format_number(len(report['per_class']))} classes"
    headers, rows = ["metric", "value", f"{LEVEL:.0%} interval"], []
    if spread:
        headers[1:2], headers[3:] = ["mean of folds"], ["standard deviation"]
    for name, value in report["metrics"].items():
        row = [name, value, format_interval(report["intervals"].get(name))]
        rows.append([*row, spread.get(name)] if spread else row)
    print_table(headers, rows, title, console=console)
    console.print(report["intervals_by"], highlight=False)


def print_report(console: Console, predictions: Predictions, report: Mapping[str, Any]) -> None:
    """
    Prints the metrics of a report, as [`write_report`] returns it, the classes with the worst first, and for
    single-label classification the worst confusions.
    """
    num_classes = len(predictions.label_names)
    print_metrics(console, report)
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
    if events := sorted(report.get("events", []), key=lambda entry: (entry["collar_f1"] is None, entry["collar_f1"])):
        keys = ("label", "events", "collar_f1", "segment_f1", "psds1", "threshold", "median_seconds", "box_seconds")
        # Thresholds of rare classes have no three decimals.
        texts = [entry | {"threshold": f"{entry['threshold']:.3g}"} for entry in events[:MAX_LISTED_CLASSES]]
        rows = [[entry.get(key) for key in keys] for entry in texts]
        headers = ("class", "events", "collar F1", "segment F1", "PSDS1", "threshold", "median", "boxes")
        print_table(headers, rows, "Events, the worst first", console=console)
    if not predictions.is_multi_label and (confusions := worst_confusions(predictions)):
        rows = [[*others, share] for *others, share in confusions]
        print_table(("true class", "predicted", "clips", "share"), rows, "Worst confusions", console=console)


def print_extremes(console: Console, classes: Sequence[Mapping[str, Any]]) -> None:
    """Prints the worst and the best classes of a report, by F1 or average precision."""
    key = "f1" if "f1" in classes[0] else "ap"
    ranked = sorted((entry for entry in classes if entry[key] is not None), key=lambda entry: entry[key])
    if limit := min(MAX_EXTREME_CLASSES, len(ranked) // 2):
        pairs = zip(ranked[:limit], reversed(ranked[-limit:]))
        rows = [[worst["label"], worst[key], best["label"], best[key]] for worst, best in pairs]
        name = {"f1": "F1", "ap": "AP"}[key]
        print_table(("worst classes", name, "best classes", name), rows, console=console)


def print_closing(
    console: Console,
    report: Mapping[str, Any] | None,
    report_dir: Path,
    models: Sequence[tuple[str, str]],
    advice: str,
    commands: Sequence[Sequence[str]],
    spread: Metrics | None = None,
) -> None:
    """
    Prints the screen that a training ends with: metrics, worst and best classes, where the report and the models are
    (each with a remark), which model to use, and commands to go on with.
    """
    if report is not None:
        print_metrics(console, report, spread)
        print_extremes(console, report["per_class"])
        console.print(f"Report: {report_dir / PAGE}", highlight=False, soft_wrap=True, markup=False)
    for place, remark in models:
        console.print(f"Model:  {place} ({remark})", highlight=False, soft_wrap=True, markup=False)
    console.print(advice, highlight=False, markup=False)
    for command in commands:
        # Not wrapped: it is to be copied.
        console.print(f"    {shlex.join(command)}", highlight=False, soft_wrap=True, markup=False)
