# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Draws clips as the model sees them, with its predictions."""

import math
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.fbank_beats import LOW_FREQUENCY
from transformers_beats.feature_extraction_beats import FRAME_SHIFT_MS
from transformers_beats.utils.files import replace_file

from .inference import MAX_SECONDS, Clip


# More would make a picture too tall to look at.
MAX_PICTURED = 10
# Quieter than this, relative to the loudest point of a clip, is drawn black.
DYNAMIC_RANGE_DB = 60
FREQUENCY_TICKS_KHZ = (0.2, 0.5, 1, 2, 4)
# Okabe and Ito's blue, and a grey: told apart with any colour vision.
MARKED_COLOR, OTHER_COLOR = "#0072B2", "#B0B0B0"
TITLE_LENGTH, LABEL_WIDTH = 45, 24


def _mel_position(frequency: float, extractor: BeatsFeatureExtractor) -> float:
    """Row of the fbank, fractional, whose filter is centred at `frequency` in hertz."""
    low, nyquist, mel = (
        1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (LOW_FREQUENCY, extractor.sampling_rate / 2, frequency)
    )
    return (mel - low) / (nyquist - low) * (extractor.feature_size + 1) - 1


def _draw_spectrogram(axes: Axes, clip: Clip, extractor: BeatsFeatureExtractor) -> AxesImage:
    """The clip's fbank in decibels below its maximum, over seconds and kilohertz."""
    waveform = clip.waveform[: MAX_SECONDS * extractor.sampling_rate]
    fbank = extractor(waveform, sampling_rate=extractor.sampling_rate)["input_values"][0]
    # Undo the normalisation; the fbank is the natural logarithm of a power.
    decibels = fbank.T * (2 * extractor.fbank_std) * (10 / math.log(10))
    num_mel_bins, num_frames = decibels.shape
    image = axes.imshow(
        decibels - decibels.max(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-DYNAMIC_RANGE_DB,
        vmax=0,
        extent=(0, num_frames * FRAME_SHIFT_MS / 1000, -0.5, num_mel_bins - 0.5),
    )
    axes.set_yticks(
        [_mel_position(1000 * khz, extractor) for khz in FREQUENCY_TICKS_KHZ],
        labels=[f"{khz:g}" for khz in FREQUENCY_TICKS_KHZ],
    )
    axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10])
    axes.set_ylim(-0.5, num_mel_bins - 0.5)
    axes.set_ylabel("Frequency (kHz)")
    title = clip.name if clip.label is None else clip.label
    # File names may hold dollar signs, which are no mathematics.
    title = title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1] + "…"
    axes.set_title(title, loc="left", fontweight="bold", parse_math=False)
    return image


def _draw_predictions(axes: Axes, clip: Clip) -> None:
    """Horizontal bars, the best class on top; the true class stands out, or all do if it is unknown."""
    labels, scores = zip(*clip.predictions)
    colors = [MARKED_COLOR if clip.label in (None, label) else OTHER_COLOR for label in labels]
    positions = np.arange(len(labels))
    axes.barh(positions, scores, color=colors, height=0.7)
    for position, score in zip(positions, scores):
        axes.text(max(score, 0) + 0.03, position, f"{score:.2f}", va="center", fontsize="small")
    lines = [textwrap.fill(label, LABEL_WIDTH, max_lines=2, placeholder="…") for label in labels]
    axes.set_yticks(positions, labels=lines, fontsize="small", parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, 1.25)
    axes.set_xticks([0, 0.5, 1])
    axes.spines[["top", "right"]].set_visible(False)


def draw_predictions(clips: list[Clip], extractor: BeatsFeatureExtractor, path: Path) -> None:
    """
    Writes a PNG with the log-mel spectrogram and the best classes of each clip, for at most ten clips.

    Args:
        clips (`list[Clip]`):
            At least one clip, classified. Clips with a true class are titled by it, others by their names.
        extractor ([`BeatsFeatureExtractor`]):
            The model's own.
        path (`Path`):
            The file to write or replace, in a directory that exists. It is never seen half-written.
    """
    clips = clips[:MAX_PICTURED]
    num_columns = 1 if len(clips) <= 3 else 2
    num_rows = math.ceil(len(clips) / num_columns)
    figure = Figure(figsize=(7.5 * num_columns, 2.2 * num_rows + 0.8), layout="constrained")
    grid = figure.subplots(num_rows, 2 * num_columns, squeeze=False, width_ratios=[2.2, 1] * num_columns)
    cells = grid.reshape(num_rows * num_columns, 2)
    for clip, (left, right) in zip(clips, cells):
        image = _draw_spectrogram(left, clip, extractor)
        _draw_predictions(right, clip)
    for left, right in cells[len(clips) :]:
        left.set_axis_off()
        right.set_axis_off()
    # The last cell of every column.
    for left, right in cells[max(0, len(clips) - num_columns) : len(clips)]:
        left.set_xlabel("Time (s)")
        right.set_xlabel("Score")
    figure.colorbar(image, ax=grid, label="Relative level (dB)", shrink=min(1, 2 / num_rows), aspect=30)
    if any(clip.label is not None for clip in clips):
        legend = [Patch(color=MARKED_COLOR, label="true class"), Patch(color=OTHER_COLOR, label="other class")]
        figure.legend(handles=legend, loc="outside upper right", ncols=2, frameon=False)

    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


__all__ = ["MAX_PICTURED", "draw_predictions"]
