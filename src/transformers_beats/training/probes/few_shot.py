# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Few-shot episodes: probes that learn from a few clips of each class, drawn again and again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from scipy.stats import t

from transformers_beats.training.data.labels import Labels
from transformers_beats.training.reports.intervals import LEVEL
from transformers_beats.training.reports.report import compute_metrics
from transformers_beats.training.reports.tables import print_table
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.files import replace_file
from transformers_beats.utils.numbers import format_interval, format_number

from .embeddings import View
from .neighbours import NearestNeighbour
from .selection import Probe, predict
from .settings import Settings


SHOTS_FILE = "shots.json"
# Accuracies of the episodes, by the number of clips of each class.
Episodes = dict[int, list[float]]


def check_shots(labels: Labels, shots: Sequence[int]) -> None:
    """Raises a [`BeatsError`] if clips have several classes, or a class fewer clips than the largest number."""
    if labels.task != "single_label":
        raise BeatsError("`probe_shots` draws clips of each class: it needs clips of one class each.")
    counts = labels.counts()
    scarce = int(counts.argmin())
    if counts[scarce] < max(shots):
        raise BeatsError(
            f"`probe_shots` has {max(shots)}, but of {labels.names[scarce]!r} there are {counts[scarce]} clips to "
            "learn from: choose fewer."
        )


def draw_episodes(
    probe: Probe,
    train: View,
    unseen: View,
    labels: Labels,
    unseen_labels: Labels,
    shots: Sequence[int],
    num_episodes: int,
    settings: Settings,
    value: Any = None,
) -> Episodes:
    """
    Fits a probe, with the `value` that was chosen for it, to so many clips of each class, drawn without replacement,
    `num_episodes` times for each number of `shots`, the same draws whatever the other numbers are. Neighbours are at
    most so many, too: of more, most are of other classes. Returns the accuracies on all clips of `unseen`.
    """
    targets = labels.as_array()
    episodes: Episodes = {number: [] for number in shots}
    for number in shots:
        generator = np.random.default_rng([settings.seed, number])
        of_shots = min(value, number) if isinstance(probe, NearestNeighbour) else value
        for _ in range(num_episodes):
            drawn = [
                generator.choice(np.flatnonzero(targets == label), number, replace=False)
                for label in range(len(labels.names))
            ]
            clips = np.sort(np.concatenate(drawn))
            (fitted,) = probe.fit(train.select(clips), labels.select(clips.tolist()), settings, [of_shots])
            predictions = predict(fitted, unseen, unseen_labels)
            episodes[number].append(float(compute_metrics(predictions)["accuracy"] or 0.0))
    return episodes


def write_shots(directory: Path, parts: Sequence[Episodes]) -> None:
    """
    Writes `shots.json`: for each number of clips the accuracies of all episodes, of several parts (folds) together,
    their mean, its interval, and over what it is. That is over folds, as episodes of one fold have the same clips to
    learn from and to evaluate on; of a single one, over the episodes.
    """
    report: dict[str, Any] = {}
    for number in parts[0]:
        values = [value for part in parts for value in part[number]]
        units = [float(np.mean(part[number])) for part in parts] if len(parts) > 1 else values
        report[str(number)] = {
            "mean": float(np.mean(units)),
            "interval": mean_interval(units),
            "interval_over": "folds" if len(parts) > 1 else "episodes",
            "accuracies": values,
        }
    with replace_file(directory / SHOTS_FILE) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """
    Returns the interval of 95 % of a mean accuracy, by Student's t distribution, within 0 and 1; None for fewer than
    two different values, which do not say how much they vary.
    """
    if len({*values}) < 2:
        return None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return max(mean - half, 0.0), min(mean + half, 1.0)


def read_shots(directory: Path) -> Episodes:
    """Reads the accuracies that [`write_shots`] has written."""
    report = json.loads((directory / SHOTS_FILE).read_text(encoding="utf-8"))
    return {int(number): entry["accuracies"] for number, entry in report.items()}


def print_shots(console: Console, output_dir: Path) -> None:
    """Prints the report on few-shot episodes in a directory, if there is one."""
    if not (path := output_dir / SHOTS_FILE).exists():
        return
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = [[number, entry["mean"], format_interval(entry["interval"])] for number, entry in report.items()]
    first = next(iter(report.values()))
    num_episodes = format_number(len(first["accuracies"]))
    title = (
        f"With few clips of each class: {num_episodes} episodes, interval of the mean over {first['interval_over']}"
    )
    print_table(("clips of each class", "accuracy", f"{LEVEL:.0%} interval"), rows, title, console=console)
