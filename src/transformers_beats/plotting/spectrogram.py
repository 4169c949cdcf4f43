# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Spectrograms of recordings of any length: the fbank that the model sees, in constant memory."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transformers_beats.audio.decoding import AudioStream, open_audio
from transformers_beats.fbank_beats import (
    LOW_FREQUENCY,
    frame_shift,
    loudness_was_reported,
    num_fbank_frames,
    num_fbank_samples,
)
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


# About as many frames as a picture has pixels.
MAX_FRAMES = 1000
# Points that are quieter than this, relative to the loudest point, are drawn black.
DYNAMIC_RANGE_DB = 70
# Level in the fbank of a sine at full scale, whose samples it takes as 16-bit numbers. A recording that stays 90 dB
# below it is silent, and its noise is not scaled up.
FULL_SCALE_DB, SILENCE_DB = 131, -90
FREQUENCY_TICKS_KHZ = (0.2, 0.5, 1, 2, 4)


@dataclass
class Spectrogram:
    """
    Fbank of a recording, in less detail for a long one.

    Args:
        decibels (`np.ndarray` of shape `(num_frames, num_mel_bins)`):
            Float32, 0 at the loudest point; in a recording that is all but silent, below 0 throughout.
        frame_seconds (`float`):
            Time from one frame to the next: 0.01, or a power of two as much.
        sampling_rate (`int`):
            Sampling rate of the model in hertz, twice the highest frequency.
    """

    decibels: np.ndarray
    frame_seconds: float
    sampling_rate: int

    @property
    def seconds(self) -> float:
        """Length of the frames together, in seconds."""
        return len(self.decibels) * self.frame_seconds


class SpectrogramReader:
    """
    Computes the spectrogram of a recording while something else reads it, so that it is decoded once.

    Args:
        extractor ([`BeatsFeatureExtractor`]):
            The model's.

    Example:

    ```python
    >>> reader = SpectrogramReader(tagger.feature_extractor)  # doctest: +SKIP
    >>> labels = tagger(reader.follow(open_audio("hours.flac", 16000)))  # doctest: +SKIP
    >>> reader.spectrogram().seconds  # doctest: +SKIP
    7200.0
    ```
    """

    def __init__(self, extractor: BeatsFeatureExtractor):
        self.extractor = extractor
        # Samples from the next frame on, maxima of `factor` frames each, and frames that are fewer than `factor`.
        self._samples = np.zeros(0, dtype=np.float32)
        self._pooled = self._rest = np.zeros((0, extractor.feature_size), dtype=np.float32)
        self._factor = 1

    def follow(self, stream: AudioStream) -> AudioStream:
        """Returns the stream of a recording at the extractor's rate, whose blocks are added as they are read."""
        stream = open_audio(stream, self.extractor.sampling_rate)
        return replace(stream, blocks=self._pass_on(stream.blocks))

    def _pass_on(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self.add(block)
            yield block

    def add(self, block: np.ndarray) -> None:
        """Adds the next part `(num_samples,)` of the recording."""
        rate = self.extractor.sampling_rate
        self._samples = np.concatenate([self._samples, block])
        num_frames = num_fbank_frames(len(self._samples), rate)
        # The extractor is not run for every small block.
        if num_frames >= self.extractor.patch_size:
            self._pool(self._fbank()[:num_frames])
            self._samples = self._samples[num_frames * frame_shift(rate) :]

    def spectrogram(self) -> Spectrogram:
        """
        Returns the spectrogram of the recording, which has been read to its end.

        Returns:
            [`Spectrogram`] with at most 1,000 frames, each the loudest, filter by filter, of those that it stands for.
        """
        extractor = self.extractor
        num_frames = num_fbank_frames(len(self._samples), extractor.sampling_rate)
        if num_frames > 0 or len(self._pooled) + len(self._rest) == 0:
            self._pool(self._fbank()[: max(1, num_frames)])
        self._samples = self._samples[:0]
        frames, factor = self._pooled, self._factor
        if len(self._rest) > 0:
            frames = np.concatenate([frames, self._rest.max(axis=0, keepdims=True)])
        if len(frames) > MAX_FRAMES:
            frames, factor = np.maximum.reduceat(frames, np.arange(0, len(frames), 2)), 2 * factor
        # Undo the normalisation; the fbank is the natural logarithm of a power.
        decibels = frames * (2 * extractor.fbank_std) * (10 / math.log(10))
        # They lack the mean of the fbank, which does not matter between two of them.
        mean = extractor.fbank_mean * (10 / math.log(10))
        reference = max(decibels.max(), FULL_SCALE_DB + SILENCE_DB - mean)
        seconds = factor * frame_shift(extractor.sampling_rate) / extractor.sampling_rate
        return Spectrogram((decibels - reference).astype(np.float32), seconds, extractor.sampling_rate)

    @loudness_was_reported()
    def _fbank(self) -> np.ndarray:
        rate = self.extractor.sampling_rate
        # The extractor pads, or refuses, what is less than a column of patches. The samples of no frame change.
        missing = max(0, num_fbank_samples(self.extractor.patch_size, rate) - len(self._samples))
        samples = np.pad(self._samples, (0, missing))
        return self.extractor(samples, sampling_rate=rate, return_tensors="np")["input_values"][0]

    def _pool(self, frames: np.ndarray) -> None:
        """Adds frames; `factor` doubles whenever the maxima are more than a picture can show."""
        frames = np.concatenate([self._rest, frames])
        num_whole = len(frames) // self._factor * self._factor
        maxima = frames[:num_whole].reshape(-1, self._factor, frames.shape[1]).max(axis=1)
        self._pooled, self._rest = np.concatenate([self._pooled, maxima]), frames[num_whole:]
        while len(self._pooled) > MAX_FRAMES:
            if len(self._pooled) % 2:
                # The last one has no partner yet: its maximum stands for its frames.
                self._rest = np.concatenate([np.repeat(self._pooled[-1:], self._factor, axis=0), self._rest])
                self._pooled = self._pooled[:-1]
            self._pooled = np.maximum(self._pooled[::2], self._pooled[1::2])
            self._factor *= 2


def read_spectrogram(audio: Any, extractor: BeatsFeatureExtractor, sampling_rate: int | None = None) -> Spectrogram:
    """
    Computes the spectrogram of a recording of any length, in constant memory.

    Args:
        audio (`str`, `Path`, `bytes`, `np.ndarray` or `dict`):
            Recording, see [`open_audio`].
        extractor ([`BeatsFeatureExtractor`]):
            The model's.
        sampling_rate (`int`, *optional*):
            Sampling rate of an array, in hertz; the extractor's by default.

    Returns:
        [`Spectrogram`], see [`SpectrogramReader.spectrogram`].

    Raises:
        [`AudioError`]: for a file that cannot be used.
    """
    reader, rate = SpectrogramReader(extractor), extractor.sampling_rate
    for block in open_audio(audio, rate, rate if sampling_rate is None else sampling_rate).blocks:
        reader.add(block)
    return reader.spectrogram()


def mel_edges(num_mel_bins: int, sampling_rate: int) -> np.ndarray:
    """
    Returns the frequencies half-way in mel between the centres of the fbank's filters, `(num_mel_bins + 1,)`, in
    hertz: filter `i` is drawn from edge `i` to edge `i + 1`.
    """
    from librosa import mel_frequencies

    return mel_frequencies(2 * num_mel_bins + 3, fmin=LOW_FREQUENCY, fmax=sampling_rate / 2, htk=True)[1::2]


def band_edges(num_bands: int, num_mel_bins: int, sampling_rate: int) -> np.ndarray:
    """Returns the frequencies between bands of equally many filters and at both ends, `(num_bands + 1,)`, in hertz."""
    return mel_edges(num_mel_bins, sampling_rate)[:: num_mel_bins // num_bands]


def draw_over_mel(
    axes: Any, cells: np.ndarray, cell_seconds: float, num_mel_bins: int, sampling_rate: int, **options: Any
) -> Any:
    """
    Draws cells over time and mel frequency with `librosa.display.specshow`, which gets the `options`: levels
    `(num_rows, num_columns)` or colours `(num_rows, num_columns, 3)`, from low to high frequencies, each row for the
    same number of the fbank's filters. Returns the `QuadMesh`, for a colour bar.
    """
    from librosa.display import specshow

    num_rows, num_columns = cells.shape[:2]
    mesh = specshow(
        cells,
        x_coords=np.arange(num_columns + 1) * cell_seconds,
        y_coords=band_edges(num_rows, num_mel_bins, sampling_rate),
        x_axis="time",
        y_axis="mel",
        ax=axes,
        **options,
    )
    ticks = [khz for khz in FREQUENCY_TICKS_KHZ if 2000 * khz < sampling_rate]
    axes.set_yticks([1000 * khz for khz in ticks], labels=[f"{khz:g}" for khz in ticks])
    axes.minorticks_off()
    axes.set_ylabel("Frequency (kHz)")
    return mesh


def draw_spectrogram(axes: Any, spectrogram: Spectrogram, dynamic_range_db: float = DYNAMIC_RANGE_DB) -> Any:
    """
    Draws a spectrogram over time and mel frequency, black below the dynamic range, and returns the `QuadMesh`, for a
    colour bar. The time axis still needs its label, see [`set_time_axis`].
    """
    cells, rate = spectrogram.decibels.T, spectrogram.sampling_rate
    options = {"cmap": "magma", "vmin": -dynamic_range_db, "vmax": 0}
    return draw_over_mel(axes, cells, spectrogram.frame_seconds, len(cells), rate, **options)
