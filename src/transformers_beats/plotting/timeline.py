# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Pictures of a recording: its spectrogram with the events under it on the same time axis, and its acoustic tokens.

```python
>>> from transformers_beats.plotting.spectrogram import read_spectrogram
>>> from transformers_beats.plotting.timeline import draw_timeline

>>> spectrogram = read_spectrogram("hours.flac", tagger.feature_extractor)  # doctest: +SKIP
>>> draw_timeline(spectrogram, events, Path("hours.png"), title="hours.flac")  # doctest: +SKIP
```
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.utils.errors import BeatsError

from .figures import make_figure, save_figure, set_time_axis, shorten
from .spectrogram import Spectrogram, draw_over_mel, draw_spectrogram


if TYPE_CHECKING:
    from transformers_beats.inference.events import Event
    from transformers_beats.inference.results import Columns


# More rows of events would make the picture too tall.
MAX_LABELS = 12
TITLE_LENGTH = 90


def choose_labels(events: Sequence["Event"]) -> list[str]:
    """Chooses the labels that get a row: those with the highest scores, in the order of their first events."""
    best: dict[str, float] = {}
    for event in events:
        best[event.label] = max(event.score, best.get(event.label, -math.inf))
    chosen = sorted(best, key=lambda label: -best[label])[:MAX_LABELS]
    return [label for label in best if label in chosen]


def draw_timeline(
    spectrogram: Spectrogram,
    events: Sequence["Event"],
    path: Path,
    title: str = "",
    frame_seconds: float | None = None,
) -> None:
    """
    Writes a PNG of a spectrogram with the events under it, one row for each label, at most twelve.

    Args:
        spectrogram ([`Spectrogram`]):
            From [`read_spectrogram`].
        events (`Sequence[Event]`):
            Events in order of their starts. The darker, the higher the score.
        path (`Path`):
            The file to write or replace, in a directory that exists. It is never seen half-written.
        title (`str`, *optional*):
            Title, such as the name of the file. Only the end of a long one is shown.
        frame_seconds (`float`, *optional*):
            Time from one score of a frame-level model to the next, in seconds, which the axis then names.

    Raises:
        `ImportError`: if matplotlib is not installed.
    """
    labels = choose_labels(events)
    height = 0.3 * max(1, len(labels)) + 0.15
    figure = make_figure(12, 3.2 + height)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, height])
    mesh = draw_spectrogram(above, spectrogram)
    above.set_xlabel("")
    above.tick_params(axis="x", labelbottom=False)
    figure.colorbar(mesh, ax=above, label="Level (dB)", pad=0.01, aspect=12)
    _draw_events(figure, below, events, labels)
    # The only column of a very short clip is longer than the clip.
    seconds = max([spectrogram.seconds, *(event.end for event in events)])
    set_time_axis(below, seconds)
    if frame_seconds is not None:
        below.set_xlabel(f"{below.get_xlabel()}, a score every {1000 * frame_seconds:g} ms")
    # The name of a file is at the end of its path.
    title = shorten(title, TITLE_LENGTH, keep_end=True)
    above.set_title(title, loc="left", fontweight="bold", parse_math=False)
    num_left_out = len({event.label for event in events}) - len(labels)
    if num_left_out:
        below.set_title(f"{num_left_out} labels with lower scores are not shown", loc="right", fontsize="small")
    save_figure(figure, path)


def _draw_events(figure: Any, axes: Any, events: Sequence["Event"], labels: list[str]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    # The lower end of the colour map is almost white.
    scores = ScalarMappable(Normalize(-0.4, 1), "Blues")
    for row, label in enumerate(labels):
        own = [event for event in events if event.label == label]
        spans = [(event.start, event.end - event.start) for event in own]
        colors = scores.to_rgba(np.array([event.score for event in own]))
        axes.broken_barh(spans, (row - 0.38, 0.76), facecolors=colors, edgecolor=colors)
    axes.set_yticks(range(len(labels)), labels=[shorten(label) for label in labels], parse_math=False)
    axes.set_ylim(max(1, len(labels)) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if not events:
        axes.text(0.5, 0.5, "no events", transform=axes.transAxes, ha="center", va="center", color="0.4")
    bar = figure.colorbar(scores, ax=axes, label="Score", pad=0.01, aspect=12, boundaries=np.linspace(0, 1, 101))
    bar.set_ticks([0, 0.5, 1] if len(labels) > 2 else [0, 1])


def code_colors(codebook: np.ndarray) -> np.ndarray:
    """
    Chooses colours in which similar codes are similar: red, green and blue are the ranks of the codes along the
    codebook's three principal components, or 0.5 where there are fewer.

    Args:
        codebook (`np.ndarray` of shape `(codebook_size, codebook_dim)`):
            Vectors of the codes.

    Returns:
        `np.ndarray` of shape `(codebook_size, 3)`: in [0, 1].
    """
    centred = codebook - codebook.mean(axis=0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    ranks = (centred @ components[:3].T).argsort(axis=0).argsort(axis=0)
    colors = np.full((len(codebook), 3), 0.5)
    colors[:, : ranks.shape[1]] = ranks / max(1, len(codebook) - 1)
    return colors


def token_colors(codes: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """
    Returns the colours of a picture of codes `(num_columns, num_freq_patches)`: `(num_freq_patches, num_columns, 3)`,
    see [`code_colors`].

    Raises:
        [`BeatsError`]: for a tokenizer with several codebooks, whose patches have several codes each.
    """
    if codes.ndim > 2:
        raise BeatsError(f"Tokens of {codes.shape[-1]} codebooks cannot be drawn, only those of one.")
    return code_colors(codebook)[codes.T]


def draw_tokens(codes: "Columns", codebook: np.ndarray, extractor: BeatsFeatureExtractor, path: Path) -> None:
    """
    Writes a PNG of the acoustic tokens of a recording: a coloured cell for each 160 ms and frequency band.

    Args:
        codes ([`Columns`] with values `(num_columns, num_freq_patches)`):
            From [`WindowedInference.codes`].
        codebook (`np.ndarray` of shape `(codebook_size, codebook_dim)`):
            Vectors of the codes, for [`code_colors`].
        extractor ([`BeatsFeatureExtractor`]):
            The tokenizer's.
        path (`Path`):
            The file to write or replace, in a directory that exists. It is never seen half-written.

    Raises:
        `ImportError`: if matplotlib is not installed.
        [`BeatsError`]: for a tokenizer with several codebooks.
    """
    figure = make_figure(11, 2.9)
    axes = figure.add_subplot()
    colors = token_colors(codes.values, codebook)
    draw_over_mel(axes, colors, codes.column_seconds, extractor.feature_size, extractor.sampling_rate)
    set_time_axis(axes, codes.ends[-1])
    found = len(np.unique(codes.values))
    axes.set_title(
        f"{codes.values.size} tokens, {found} different ones of {len(codebook)}; similar codes have similar colours",
        loc="left",
        fontsize="medium",
    )
    save_figure(figure, path)
