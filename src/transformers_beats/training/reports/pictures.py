# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Pictures of an evaluation: the confusion matrix, a bar for each class, and the reliability of scores."""

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from transformers_beats.plotting.figures import make_figure, save_figure, shorten
from transformers_beats.utils.numbers import format_number

from .calibration import NUM_BINS, Calibration
from .report import METRIC_NAMES


# Blue and vermilion of Okabe and Ito's palette: safe for colour-blind readers.
BAR_COLOR, MEAN_COLOR = "#0072B2", "#D55E00"
MAX_BARS = 60
# Inches, of a figure within a page: its text is readable on a phone.
SVG_WIDTH, SVG_HEIGHT = 4.8, 3.2
# Colours of figures, and the variables of a page that they are replaced by.
SVG_COLORS = {"#000000": "currentColor", BAR_COLOR.lower(): "var(--blue)", MEAN_COLOR.lower(): "var(--red)"}
# Inches: of a cell of the matrix, in small and in large ones, and of a bar.
LARGE_CELL, SMALL_CELL, BAR_HEIGHT = 0.5, 0.24, 0.21
# A digit is about 0.6 times as wide as its font is high; 72 points are an inch.
DIGIT_WIDTH, POINTS = 0.62, 72


def draw_confusions(confusions: np.ndarray, label_names: list[str], path: Path) -> None:
    """
    Writes a PNG of a confusion matrix `(num_labels, num_labels)`: numbers of clips by true class (rows) and predicted
    class (columns), coloured by their share of the true class.
    """
    num_labels = len(label_names)
    totals = confusions.sum(axis=1)
    shares = confusions / np.maximum(totals, 1)[:, None]
    cell = float(np.interp(num_labels, [12, 30], [LARGE_CELL, SMALL_CELL]))
    size = num_labels * cell + 2.6
    # Unlike "constrained", it leaves no gaps around axes of a fixed shape.
    figure = make_figure(size + 0.8, size, layout="compressed")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    num_digits = max(2, len(str(confusions.max())))
    font_size = min(9.0, 0.85 * cell * POINTS / (DIGIT_WIDTH * num_digits))
    for true, predicted in np.argwhere(confusions):
        axes.text(
            predicted,
            true,
            str(confusions[true, predicted]),
            ha="center",
            va="center",
            fontsize=font_size,
            color="white" if shares[true, predicted] > 0.5 else "black",
        )
    # Class names may hold dollar signs, which are no mathematics.
    ticks: dict[str, Any] = {"fontsize": min(9.0, 0.7 * cell * POINTS), "parse_math": False}
    names = [shorten(name) for name in label_names]
    axes.set_xticks(np.arange(num_labels), labels=names, rotation=90, **ticks)
    axes.set_yticks(np.arange(num_labels), labels=names, **ticks)
    axes.set_xticks(np.arange(num_labels + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(num_labels + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    num_right = int(np.trace(confusions))
    axes.set_title(f"{num_right} of {totals.sum()} clips are right", loc="left", fontweight="bold")
    bar = figure.colorbar(
        image, ax=axes, label="Share of the clips of the true class", shrink=min(1, 4 / size), aspect=30
    )
    bar.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    bar.outline.set_visible(False)
    save_figure(figure, path)


def draw_classes(ranked: list[dict[str, Any]], key: str, path: Path) -> None:
    """
    Writes a PNG with a bar for each class, the best on top; of more than 60 classes the 30 worst and the 30 best.
    Classes, at least one, have `label`, `support` and `key`, which is `f1` or `ap`, the worst first.
    """
    mean = float(np.mean([entry[key] for entry in ranked]))
    name = METRIC_NAMES[key]
    title, shown, half = f"{name} of {len(ranked)} classes", ranked, MAX_BARS // 2
    positions = np.arange(len(ranked), dtype=float)
    if len(ranked) > MAX_BARS:
        title = f"{name}: the {half} best and the {half} worst of {len(ranked)} classes"
        shown = ranked[:half] + ranked[-half:]
        # A gap where classes are left out.
        positions = np.arange(MAX_BARS) + (np.arange(MAX_BARS) >= half)
    values = np.array([entry[key] for entry in shown])
    figure = make_figure(8, (positions[-1] + 1) * BAR_HEIGHT + 1.3)
    axes = figure.subplots()
    axes.barh(positions, values, color=BAR_COLOR, height=0.75)
    for position, value, entry in zip(positions, values, shown):
        text = f"{format_number(float(value))} ({entry['support']})"
        # The line of the mean would run through it.
        background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text(value + 0.01, position, text, va="center", fontsize=7, bbox=background)
    names = [shorten(entry["label"]) for entry in shown]
    axes.set_yticks(positions, labels=names, fontsize=8, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.axvline(mean, color=MEAN_COLOR, linestyle="--", linewidth=1, zorder=0)
    axes.set_ylim(-0.7, positions[-1] + 0.7)
    axes.set_xlim(0, 1.15)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(
        f"{name} (in brackets: clips that have the class; dashed: mean of all classes, {format_number(mean)})"
    )
    axes.set_title(title, loc="left", fontweight="bold")
    save_figure(figure, path)


def as_svg(figure: Figure, name: str) -> str:
    """
    Returns a figure as an SVG element for a page, which colours it by its own variables. Names within it begin with a
    hash of `name`, so that several figures fit into one page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    for color, variable in SVG_COLORS.items():
        text = text.replace(color, variable)
    title = f'<svg role="img" aria-label="{name}" '
    return title + text[text.index("<svg") + len("<svg ") :]


def draw_reliability(calibration: Calibration) -> Figure:
    """Draws the accuracy of the clips, or moments, in each bin of scores, with their number above."""
    figure = make_figure(SVG_WIDTH, SVG_HEIGHT)
    axes = figure.subplots()
    has_clips = calibration.counts > 0
    lefts = np.arange(NUM_BINS)[has_clips] / NUM_BINS
    heights = calibration.accuracies[has_clips]
    axes.bar(lefts, heights, 0.94 / NUM_BINS, align="edge", color=BAR_COLOR, alpha=0.8)
    for left, height, count in zip(lefts, heights, calibration.counts[has_clips]):
        axes.text(left + 0.5 / NUM_BINS, height + 0.01, str(count), ha="center", va="bottom", fontsize=8)
    axes.plot([0, 1], [0, 1], color=MEAN_COLOR, linestyle="--", linewidth=1.2)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.1)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.spines[["top", "right"]].set_visible(False)
    if calibration.of_moments:
        axes.set_xlabel("Score of a class at a moment (numbers: moments)")
        axes.set_ylabel("Share in which it sounds")
    else:
        axes.set_xlabel("Score of the predicted class (numbers: clips)")
        axes.set_ylabel("Accuracy")
    return figure
