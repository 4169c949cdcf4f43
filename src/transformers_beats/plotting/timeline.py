# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Pictures of a recording: its spectrogram, as the model sees it, and under it the events on the same time axis; and its
acoustic tokens.

```python
>>> from transformers_beats.plotting.timeline import draw_timeline, read_spectrogram

>>> spectrogram = read_spectrogram("hours.flac", tagger.feature_extractor)  # doctest: +SKIP
>>> draw_timeline(spectrogram, events, Path("hours.png"), title="hours.flac")  # doctest: +SKIP
```
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transformers_beats.audio.decoding import open_audio
from transformers_beats.feature_extraction_beats import (
    FRAME_SHIFT_MS,
    LOW_FREQUENCY,
    BeatsFeatureExtractor,
    num_fbank_frames,
)
from transformers_beats.inference.events import Event
from transformers_beats.inference.windowed import Columns
from transformers_beats.utils.files import replace_file


if TYPE_CHECKING:
    from matplotlib.figure import Figure


# A picture has no more pixels to show more.
MAX_FRAMES = 2000
# Quieter than this, relative to the loudest point, is drawn black.
DYNAMIC_RANGE_DB = 70
# The fbank of a sine at full scale, whose samples it takes as 16-bit numbers, in decibels. A recording that never
# comes within 90 dB of it is silent, whose noise is not to be drawn as if it were loud.
FULL_SCALE_DB, SILENCE_DB = 131, -90
FREQUENCY_TICKS_KHZ = (0.2, 0.5, 1, 2, 4)
# More rows of events would make a picture too tall to look at.
MAX_LABELS = 12
LABEL_LENGTH, TITLE_LENGTH = 28, 90


@dataclass
class Spectrogram:
    """
    The fbank of a recording, in less detail where that is long.

    Args:
        decibels (`np.ndarray` of shape `(num_frames, num_mel_bins)`):
            Float32, 0 at the loudest point; in a recording that is all but silent, below 0 throughout.
        frame_seconds (`float`):
            From one frame to the next: 0.01, or a power of two as much.
        sampling_rate (`int`):
            Of the model, in hertz: twice the highest frequency.
    """

    decibels: np.ndarray
    frame_seconds: float
    sampling_rate: int

    @property
    def seconds(self) -> float:
        """What the frames cover."""
        return len(self.decibels) * self.frame_seconds


def read_spectrogram(audio: Any, extractor: BeatsFeatureExtractor, sampling_rate: int | None = None) -> Spectrogram:
    """
    The spectrogram of a recording of any length, in constant memory.

    Args:
        audio (`str`, `Path`, `bytes`, `np.ndarray` or `dict`):
            See [`open_audio`].
        extractor ([`BeatsFeatureExtractor`]):
            The model's own.
        sampling_rate (`int`, *optional*):
            Of an array, in hertz; the extractor's by default.

    Returns:
        [`Spectrogram`] with at most 2,000 frames; each is the loudest, filter by filter, of those that it stands for.

    Raises:
        [`AudioError`]: for a file that cannot be used.
    """
    rate = extractor.sampling_rate
    stream = open_audio(audio, rate, sampling_rate or rate)
    frames, factor = _pool_frames(_fbank_blocks(stream.blocks, extractor))
    # Undo the normalisation; the fbank is the natural logarithm of a power.
    decibels = frames * (2 * extractor.fbank_std) * (10 / math.log(10))
    # They lack the mean of the fbank, which does not matter between two of them.
    mean = extractor.fbank_mean * (10 / math.log(10))
    reference = max(decibels.max(), FULL_SCALE_DB + SILENCE_DB - mean)
    return Spectrogram((decibels - reference).astype(np.float32), factor * FRAME_SHIFT_MS / 1000, rate)


def _fbank_blocks(blocks: Iterable[np.ndarray], extractor: BeatsFeatureExtractor) -> Iterator[np.ndarray]:
    """Consecutive fbank frames `(num_frames, num_mel_bins)` of the recording, those of the whole."""
    rate = extractor.sampling_rate
    shift = rate * FRAME_SHIFT_MS // 1000
    held, is_first = np.zeros(0, dtype=np.float32), True
    for block in blocks:
        held = np.concatenate([held, block])
        num_frames = num_fbank_frames(len(held), rate)
        # The extractor would pad less than a column of patches.
        if num_frames < extractor.patch_size:
            continue
        yield _fbank(held, extractor)[:num_frames]
        held, is_first = held[num_frames * shift :], False
    rest = num_fbank_frames(len(held), rate)
    if is_first or rest > 0:
        yield _fbank(held, extractor)[: max(1, rest)]


def _fbank(waveform: np.ndarray, extractor: BeatsFeatureExtractor) -> np.ndarray:
    return extractor(waveform, sampling_rate=extractor.sampling_rate, return_tensors="np")["input_values"][0]


def _pool_frames(blocks: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """Frames, the maxima of so many each; that number doubles whenever they are more than a picture can show."""
    pooled, rest, factor = np.zeros((0, 0), dtype=np.float32), None, 1
    for block in blocks:
        frames = block if rest is None else np.concatenate([rest, block])
        num_whole = len(frames) // factor * factor
        new = frames[:num_whole].reshape(-1, factor, frames.shape[1]).max(axis=1)
        pooled = np.concatenate([pooled, new]) if pooled.size else new
        rest = frames[num_whole:]
        while len(pooled) > MAX_FRAMES:
            if len(pooled) % 2:
                # Not to be repeated: what has no partner yet stands for so many frames by itself.
                rest = np.concatenate([np.repeat(pooled[-1:], factor, axis=0), rest])
                pooled = pooled[:-1]
            pooled = pooled.reshape(-1, 2, pooled.shape[1]).max(axis=1)
            factor *= 2
    if rest is not None and len(rest):
        pooled = np.concatenate([pooled, rest.max(axis=0, keepdims=True)]) if pooled.size else rest
    if len(pooled) > MAX_FRAMES:
        # One too many: what is left over.
        starts = range(0, len(pooled), 2)
        pooled, factor = np.stack([pooled[start : start + 2].max(axis=0) for start in starts]), 2 * factor
    return pooled, factor


def mel_position(frequency: float, num_mel_bins: int, sampling_rate: int) -> float:
    """Number of the fbank's filter, fractional, that is centred at `frequency` in hertz."""
    low, nyquist, mel = (
        1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (LOW_FREQUENCY, sampling_rate / 2, frequency)
    )
    return (mel - low) / (nyquist - low) * (num_mel_bins + 1) - 1


def format_time(seconds: float, unit_seconds: float) -> str:
    """A time for an axis whose ticks are so far apart: 0.05, 0.5, 1:30 or 2:00:00."""
    if unit_seconds < 1:
        return f"{seconds:.1f}" if unit_seconds >= 0.1 else f"{seconds:.2f}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def choose_labels(events: Sequence[Event]) -> list[str]:
    """The labels that get a row: those with the highest scores, in the order in which they are first heard."""
    best = {}
    for event in events:
        best[event.label] = max(event.score, best.get(event.label, -math.inf))
    chosen = sorted(best, key=lambda label: -best[label])[:MAX_LABELS]
    return [label for label in best if label in chosen]


def draw_timeline(spectrogram: Spectrogram, events: Sequence[Event], path: Path, title: str = "") -> None:
    """
    Writes a PNG of a spectrogram with the events under it, one row for each label, at most twelve.

    Args:
        spectrogram ([`Spectrogram`]):
            From [`read_spectrogram`].
        events (`Sequence[Event]`):
            By their starts. The darker, the higher the score.
        path (`Path`):
            The file to write or replace, in a directory that exists. It is never seen half-written.
        title (`str`, *optional*):
            For example the name of the file. Of a long one, the end is shown.

    Raises:
        `ImportError`: if matplotlib is not installed.
    """
    labels = choose_labels(events)
    height = 0.3 * max(1, len(labels)) + 0.15
    figure = _make_figure(12, 3.2 + height)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, height])
    image = _draw_spectrogram(above, spectrogram)
    figure.colorbar(image, ax=above, label="Level (dB)", pad=0.01, aspect=12)
    _draw_events(figure, below, events, labels)
    # The only column of a very short clip is longer than the clip.
    seconds = max([spectrogram.seconds, *(event.end for event in events)])
    below.set_xlim(0, seconds)
    _set_time_axis(below, seconds)
    title = _printable(title)
    # The name of a file is at the end of its path. It may hold dollar signs, which are no mathematics.
    shown = title if len(title) <= TITLE_LENGTH else "…" + title[1 - TITLE_LENGTH :]
    above.set_title(shown, loc="left", fontweight="bold", parse_math=False)
    num_left_out = len({event.label for event in events}) - len(labels)
    if num_left_out:
        below.set_title(f"{num_left_out} labels with lower scores are not shown", loc="right", fontsize="small")
    _save(figure, path)


def _draw_spectrogram(axes, spectrogram: Spectrogram):
    num_mel_bins = spectrogram.decibels.shape[1]
    image = axes.imshow(
        spectrogram.decibels.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-DYNAMIC_RANGE_DB,
        vmax=0,
        extent=(0, spectrogram.seconds, -0.5, num_mel_bins - 0.5),
    )
    _set_frequency_axis(axes, num_mel_bins, spectrogram.sampling_rate)
    axes.tick_params(axis="x", labelbottom=False)
    return image


def _draw_events(figure, axes, events: Sequence[Event], labels: list[str]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    # The lower end of the map is as pale as the paper.
    scores = ScalarMappable(Normalize(-0.4, 1), "Blues")
    for row, label in enumerate(labels):
        own = [event for event in events if event.label == label]
        spans = [(event.start, event.end - event.start) for event in own]
        colors = scores.to_rgba(np.array([event.score for event in own]))
        axes.broken_barh(spans, (row - 0.38, 0.76), facecolors=colors, edgecolor=colors)
    names = [_shorten(_printable(label), LABEL_LENGTH) for label in labels]
    axes.set_yticks(range(len(labels)), labels=names, parse_math=False)
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
    Colours in which similar codes are similar: red, green and blue are the ranks of the codes along the codebook's
    three principal components.

    Args:
        codebook (`np.ndarray` of shape `(codebook_size, codebook_dim)`):
            The vectors of the codes.

    Returns:
        `np.ndarray` of shape `(codebook_size, 3)`: in [0, 1].
    """
    centred = codebook - codebook.mean(axis=0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    ranks = (centred @ components[:3].T).argsort(axis=0).argsort(axis=0)
    return ranks / max(1, len(codebook) - 1)


def draw_tokens(codes: Columns, codebook: np.ndarray, extractor: BeatsFeatureExtractor, path: Path) -> None:
    """
    Writes a PNG of the acoustic tokens of a recording: a coloured cell for each 160 ms and frequency band.

    Args:
        codes ([`Columns`] with values `(num_columns, num_freq_patches)`):
            From [`WindowedInference.codes`].
        codebook (`np.ndarray` of shape `(codebook_size, codebook_dim)`):
            For the colours, see [`code_colors`].
        extractor ([`BeatsFeatureExtractor`]):
            The tokenizer's.
        path (`Path`):
            The file to write or replace, in a directory that exists. It is never seen half-written.

    Raises:
        `ImportError`: if matplotlib is not installed.
    """
    seconds, num_bands = codes.ends[-1], codes.values.shape[1]
    figure = _make_figure(11, 2.9)
    axes = figure.add_subplot()
    axes.imshow(
        code_colors(codebook)[codes.values.T],
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, seconds, -0.5, num_bands - 0.5),
    )
    _set_frequency_axis(axes, extractor.feature_size, extractor.sampling_rate, extractor.patch_size)
    _set_time_axis(axes, seconds)
    found = len(np.unique(codes.values))
    axes.set_title(
        f"{codes.values.size} tokens, {found} different ones of {len(codebook)}; similar codes have similar colours",
        loc="left",
        fontsize="medium",
    )
    _save(figure, path)


def check_matplotlib() -> None:
    """Raises an `ImportError` if there can be no pictures."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError("Pictures need matplotlib, which cannot be imported: pip install matplotlib") from error


def _make_figure(width: float, height: float) -> "Figure":
    check_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    with replace_file(path) as temporary, warnings.catch_warnings():
        # Of scripts that the font lacks, boxes are drawn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(temporary, format="png", dpi=110)


def _set_frequency_axis(axes, num_mel_bins: int, sampling_rate: int, filters_per_row: int = 1) -> None:
    ticks = [khz for khz in FREQUENCY_TICKS_KHZ if 2000 * khz < sampling_rate]
    filters = [mel_position(1000 * khz, num_mel_bins, sampling_rate) for khz in ticks]
    # A row is centred at its number.
    positions = [(position + 0.5) / filters_per_row - 0.5 for position in filters]
    axes.set_yticks(positions, labels=[f"{khz:g}" for khz in ticks])
    axes.set_ylabel("Frequency (kHz)")


def _set_time_axis(axes, seconds: float) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    units = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
    unit = next((unit for unit in units if seconds / unit <= 14), math.ceil(seconds / 14 / 3600) * 3600)
    axes.xaxis.set_major_locator(MultipleLocator(unit))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda time, _: format_time(time, unit)))
    axes.set_xlabel("Time (s)" if unit < 1 else "Time (min:s)" if seconds < 3600 else "Time (h:min:s)")


def _printable(text: str) -> str:
    """A text that can be drawn: without line ends, control characters and bytes of names that are no text."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


__all__ = ["Spectrogram", "check_matplotlib", "draw_timeline", "draw_tokens", "read_spectrogram"]
