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
    `num_episodes` times for each number of `shots`. Neighbours are at most so many, too: of more, most are of other
    classes. Returns the accuracies on all clips of `unseen`.
    """
    generator = np.random.default_rng(settings.seed)
    targets = labels.as_array()
    episodes: Episodes = {number: [] for number in shots}
    for number in shots:
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
    """Writes `shots.json`: the accuracies of all episodes, of several parts (folds) together, and their means."""
    report: dict[str, Any] = {}
    for number in parts[0]:
        values = [value for part in parts for value in part[number]]
        report[str(number)] = {"mean": float(np.mean(values)), "interval": mean_interval(values), "accuracies": values}
    with replace_file(directory / SHOTS_FILE) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns the interval of 95 % of a mean, by Student's t distribution; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return mean - half, mean + half


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
    num_episodes = len(next(iter(report.values()))["accuracies"])
    title = f"With few clips of each class: {format_number(num_episodes)} episodes, interval of the mean"
    print_table(("clips of each class", "accuracy", f"{LEVEL:.0%} interval"), rows, title, console=console)
