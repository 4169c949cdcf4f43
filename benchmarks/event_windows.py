# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
How good the events of a frame-level model are with windows of each length, as `listen` has them, on soundscapes of
ESC-10:

    python -m benchmarks.event_windows MODEL --dataset ESC10 --output runs/windows --threads 1

The protocol, fixed before the first run:

- MODEL is one that `benchmarks.events_esc10` has trained on soundscapes of 5 s with events of folds 1 to 3.
- Soundscapes of 20 s, of the same kind: 4 to 16 events of 0.25 to 3 s, at most two at a time, 5 to 20 dB over coloured
  noise; `--scenes` 40 of fold 4 to tune on, and 40 of fold 5 to test on.
- Windows of 0.64, 1.28, 2.56, 5 and 10 s, from each to the next a quarter of one, whose scores are averaged, as
  `listen` has them. 0.32 and 0.48 s were added after a first run, in which nothing was worse with shorter windows.
- Thresholds, temperatures and median filters are tuned twice: with windows of 5 s, as long as the model has learned
  from, and used with all; and for each length with its own windows.
- Reported: collar F1 (200 ms; 20 %) and segment F1 (1 s), means over the classes, with intervals of 95 % by a
  bootstrap over the soundscapes to test on; and intervals of the difference from 5 s, of the same draws.

A length that is done is a file in OUTPUT/rows, and is not computed again.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from transformers_beats.inference.events import EventSettings
from transformers_beats.inference.pipeline import EVENT_OVERLAP
from transformers_beats.training.reports.events import tune_settings
from transformers_beats.training.reports.intervals import percentiles
from transformers_beats.utils.resume import begin_or_resume

from .events_esc10 import F1, SETTINGS, describe, score_scenes, write_scenes
from .resuming import read_or_compute


LONG = replace(SETTINGS, seconds=20.0, num_events=(4, 16))
# The first is the one that others are compared with, and tuned with.
WINDOWS = (5.0, 0.64, 1.28, 2.56, 10.0, 0.32, 0.48)


def compute_row(model: Path, output: Path, window: float, fixed: dict[str, Any] | None) -> dict[str, Any]:
    """Tests windows of a length with `fixed` settings, by default its own, and with its own."""
    validation, test = (
        score_scenes(model, output / part, LONG.seconds, window, window / EVENT_OVERLAP)
        for part in ("validation", "test")
    )
    own = tune_settings(validation, "median")
    kept = own if fixed is None else {label: EventSettings(**values) for label, values in fixed.items()}
    return {"window": window, "own": describe(test, own), "fixed": describe(test, kept)}


def print_rows(rows: dict[float, dict[str, Any]]) -> None:
    """Prints a table of rows, the shortest window first."""
    names = ("window", "settings of", "collar F1", "95 %", "beyond 5 s", "segment F1", "95 %", "beyond 5 s", "PSDS1")
    table = Table(*names, title="Events of soundscapes of 20 s by the length of windows")
    for window, row in sorted(rows.items()):
        for kind, of in (("fixed", f"{WINDOWS[0]:g} s"), ("own", "this length")):
            cells = [f"{window:g} s", of]
            for metric in F1:
                draws = np.array(row[kind]["draws"][metric]) - np.array(rows[WINDOWS[0]][kind]["draws"][metric])
                difference = percentiles(draws, of_differences=True) if window != WINDOWS[0] else None
                cells.append(f"{100 * row[kind]['metrics'][metric]:.1f}")
                cells.append(" to ".join(f"{100 * value:.1f}" for value in row[kind]["intervals"][metric] or ()))
                cells.append("" if difference is None else " to ".join(f"{100 * value:+.1f}" for value in difference))
            table.add_row(*cells, f"{100 * row[kind]['metrics']['psds1']:.1f}")
    Console(width=150).print(table)


def main(
    model: Annotated[Path, typer.Argument(help="Frame-level model of benchmarks.events_esc10")],
    dataset: Annotated[Path, typer.Option(help="Folder of ESC-10, with metadata.csv")] = Path("esc10"),
    output: Annotated[Path, typer.Option(help="Where soundscapes and rows go")] = Path("runs/windows"),
    scenes: Annotated[int, typer.Option(help="Soundscapes to tune on, and as many to test on")] = 40,
    threads: Annotated[int, typer.Option(help="Threads; 0 for all")] = 0,
) -> None:
    """Measures how good events are with windows of each length."""
    if threads:
        torch.set_num_threads(threads)
    begin_or_resume(output / "settings.json", {"model": str(model), "scenes": scenes, **asdict(LONG)}, output)
    write_scenes(dataset, output, {"validation": scenes, "test": scenes}, LONG)
    (output / "rows").mkdir(exist_ok=True)
    rows: dict[float, dict[str, Any]] = {}
    for window in WINDOWS:

        def compute(window: float = window) -> dict[str, Any]:
            return compute_row(model, output, window, rows[WINDOWS[0]]["own"]["settings"] if rows else None)

        rows[window] = read_or_compute(output / "rows" / f"{window:g}.json", compute)
    print_rows(rows)


if __name__ == "__main__":
    typer.run(main)
