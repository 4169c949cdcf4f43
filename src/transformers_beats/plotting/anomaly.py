# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Picture of an anomalous sound: its spectrogram, and which band and which moment make its score."""

from pathlib import Path

import numpy as np

from .figures import make_figure, save_figure, set_time_axis, shorten
from .spectrogram import Spectrogram, band_edges, draw_over_mel, draw_spectrogram


TITLE_LENGTH = 90


def draw_anomaly(
    spectrogram: Spectrogram,
    bands: np.ndarray,
    moments: np.ndarray,
    moment_seconds: float,
    path: Path,
    title: str = "",
) -> None:
    """
    Writes a PNG of a spectrogram; under it, by how much each moment raises the score of each band; beside that, the
    scores of the bands.

    Args:
        spectrogram ([`Spectrogram`]):
            From [`read_spectrogram`].
        bands (`np.ndarray` of shape `(num_bands,)`):
            Score of each band, from low to high frequencies.
        moments (`np.ndarray` of shape `(num_moments, num_bands)`):
            By how much the score of the band is higher with the moment than without it.
        moment_seconds (`float`):
            Time from one moment to the next.
        path (`Path`):
            The file to write or replace, in a directory that exists. It is never seen half-written.
        title (`str`, *optional*):
            Title, such as the name of the file and its score. Only the end of a long one is shown.

    Raises:
        `ImportError`: if matplotlib is not installed.
    """
    figure = make_figure(12, 5.4)
    axes = figure.subplots(2, 2, sharex="col", sharey="row", width_ratios=[6, 1], height_ratios=[1.1, 1])
    (above, empty), (below, beside) = axes
    empty.set_axis_off()
    num_mel_bins = spectrogram.decibels.shape[1]
    mesh = draw_spectrogram(above, spectrogram)
    figure.colorbar(mesh, ax=above, label="Level (dB)", pad=0.01, aspect=12)
    above.set_xlabel("")
    limit = float(np.abs(moments).max()) or 1.0
    options = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    cells = draw_over_mel(below, moments.T, moment_seconds, num_mel_bins, spectrogram.sampling_rate, **options)
    figure.colorbar(cells, ax=below, label="Raises the score by", pad=0.01, aspect=12)
    set_time_axis(below, max(spectrogram.seconds, moment_seconds))
    above.tick_params(axis="x", labelbottom=False)
    edges = band_edges(len(bands), num_mel_bins, spectrogram.sampling_rate)
    colors = ["tab:red" if band == bands.argmax() else "0.6" for band in range(len(bands))]
    beside.barh(edges[:-1], bands, np.diff(edges), align="edge", color=colors, edgecolor="white")
    beside.tick_params(axis="y", length=0)
    beside.axvline(0, color="0.3", linewidth=0.8)
    beside.set_xlabel("Score of the band")
    beside.spines[["top", "right", "left"]].set_visible(False)
    above.set_title(
        shorten(title, TITLE_LENGTH, keep_end=True), loc="left", fontweight="bold", fontsize=11, parse_math=False
    )
    save_figure(figure, path)
