# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Picture of clips, as the model sees them, and of its predictions."""

import math
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.synthesis import SAMPLING_RATE
from transformers_beats.plotting.figures import make_figure, save_figure, set_time_axis, shorten
from transformers_beats.plotting.spectrogram import draw_spectrogram, read_spectrogram

from .inference import Clip


# More would make a picture too tall to look at.
MAX_PICTURED = 10
# Okabe and Ito's blue, and a grey: told apart with any colour vision.
MARKED_COLOR, OTHER_COLOR = "#0072B2", "#B0B0B0"
TITLE_LENGTH, LABEL_WIDTH = 45, 24


def _draw_predictions(axes: Axes, clip: Clip) -> None:
    """Draws horizontal bars, the best class on top; the true class stands out, or all do if it is unknown."""
    labels, scores = zip(*clip.predictions)
    colors = [MARKED_COLOR if clip.label in (None, label) else OTHER_COLOR for label in labels]
    positions = np.arange(len(labels))
    bars = axes.barh(positions, scores, color=colors, height=0.7)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize="small")
    lines = [textwrap.fill(label, LABEL_WIDTH, max_lines=2, placeholder="…") for label in labels]
    axes.set_yticks(positions, labels=lines, fontsize="small", parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, 1.25)
    axes.set_xticks([0, 0.5, 1])
    axes.spines[["top", "right"]].set_visible(False)


def draw_predictions(clips: list[Clip], extractor: BeatsFeatureExtractor, path: Path) -> None:
    """
    Writes a PNG with the log-mel spectrogram and the best classes of the first ten clips, which are classified. Clips
    with a true class are titled by it, others by their names.
    """
    clips = clips[:MAX_PICTURED]
    num_columns = 1 if len(clips) <= 3 else 2
    num_rows = math.ceil(len(clips) / num_columns)
    figure = make_figure(7.5 * num_columns, 2.2 * num_rows + 0.8)
    grid = figure.subplots(num_rows, 2 * num_columns, squeeze=False, width_ratios=[2.2, 1] * num_columns)
    cells = grid.reshape(num_rows * num_columns, 2)
    for clip, (left, right) in zip(clips, cells):
        spectrogram = read_spectrogram(clip.waveform, extractor, SAMPLING_RATE)
        image = draw_spectrogram(left, spectrogram)
        set_time_axis(left, spectrogram.seconds)
        title = shorten(clip.label or clip.name, TITLE_LENGTH)
        left.set_title(title, loc="left", fontweight="bold", parse_math=False)
        _draw_predictions(right, clip)
    for cell in cells[len(clips) :].flat:
        cell.set_axis_off()
    # All but the last cell of every column.
    for left, _ in cells[: max(0, len(clips) - num_columns)]:
        left.set_xlabel("")
    for _, right in cells[max(0, len(clips) - num_columns) : len(clips)]:
        right.set_xlabel("Score")
    figure.colorbar(image, ax=grid, label="Level (dB)", shrink=min(1, 2 / num_rows), aspect=30)
    if any(clip.label is not None for clip in clips):
        legend = [Patch(color=MARKED_COLOR, label="true class"), Patch(color=OTHER_COLOR, label="other class")]
        figure.legend(handles=legend, loc="outside upper right", ncols=2, frameon=False)
    save_figure(figure, path)
