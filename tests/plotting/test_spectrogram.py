# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
import tracemalloc

import numpy as np
import pytest

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.decoding import AudioError, AudioStream
from transformers_beats.plotting.spectrogram import (
    DYNAMIC_RANGE_DB,
    MAX_FRAMES,
    SpectrogramReader,
    mel_edges,
    read_spectrogram,
)
from transformers_beats.utils.errors import UsageError


RATE = 16000
EXTRACTOR = BeatsFeatureExtractor()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def fbank_decibels(waveform, num_frames: int | None = None) -> np.ndarray:
    fbank = EXTRACTOR(waveform, sampling_rate=RATE, return_tensors="np")["input_values"][0][:num_frames]
    decibels = (fbank * 2 * EXTRACTOR.fbank_std + EXTRACTOR.fbank_mean) * 10 / np.log(10)
    return decibels - decibels.max()


@pytest.mark.parametrize("seconds", [0.03, 0.16, 0.18, 1.0, 3.217])
def test_the_spectrogram_is_what_the_model_sees(seconds):
    waveform = noise(seconds)
    spectrogram = read_spectrogram(waveform, EXTRACTOR)
    num_frames = max(1, 1 + (len(waveform) - 400) // 160)
    assert spectrogram.frame_seconds == 0.01
    np.testing.assert_allclose(spectrogram.decibels, fbank_decibels(waveform, num_frames), atol=1e-2)


# Of 40.03 s, the frame that is left over is one too many.
@pytest.mark.parametrize("seconds", [19.9, 20.4, 40.03, 41.0, 60.03])
def test_long_recordings_are_shown_by_the_loudest_frames(seconds):
    waveform = noise(seconds)
    spectrogram = read_spectrogram(waveform, EXTRACTOR)
    factor = round(spectrogram.frame_seconds / 0.01)
    expected = fbank_decibels(waveform)
    assert len(spectrogram.decibels) <= MAX_FRAMES
    assert factor == 2 ** max(0, int(np.ceil(np.log2(len(expected) / MAX_FRAMES))))
    pooled = [expected[start : start + factor].max(axis=0) for start in range(0, len(expected), factor)]
    np.testing.assert_allclose(spectrogram.decibels, pooled, atol=1e-2)


@pytest.mark.parametrize("seconds", [0.01, 0.1, 2.0625, 2.5])
def test_the_mask_of_a_model_changes_no_picture(seconds):
    legacy = read_spectrogram(noise(seconds), BeatsFeatureExtractor(legacy_padding_mask=True))
    np.testing.assert_array_equal(legacy.decibels, read_spectrogram(noise(seconds), EXTRACTOR).decibels)


@pytest.mark.parametrize("rate", [22050, 11025, 32000])
def test_a_picture_is_as_long_as_its_recording_at_any_rate(rate):
    samples = (0.1 * np.random.default_rng(0).standard_normal(30 * rate)).astype(np.float32)
    spectrogram = read_spectrogram(samples, BeatsFeatureExtractor(sampling_rate=rate), rate)
    assert spectrogram.seconds == pytest.approx(30, abs=0.05)


def test_memory_does_not_grow_with_length():
    def peak(seconds: int) -> int:
        stream = AudioStream("noise", (noise(1, second) for second in range(seconds)), RATE)
        tracemalloc.start()
        spectrogram = read_spectrogram(stream, EXTRACTOR)
        assert spectrogram.seconds == pytest.approx(seconds, abs=spectrogram.frame_seconds + 0.02)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    assert peak(240) < 1.5 * peak(30)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        read_spectrogram(tmp_path / "missing.wav", EXTRACTOR)


@pytest.mark.parametrize("rate", [0, 0.0, -1])
def test_a_rate_of_nothing_is_an_error(rate):
    with pytest.raises(UsageError, match="needs its `sampling_rate` in hertz"):
        read_spectrogram(noise(1.0), EXTRACTOR, rate)


@pytest.mark.parametrize("frequency", [250.0, 1000.0, 4000.0])
def test_a_tone_is_drawn_at_its_frequency(frequency):
    tone = np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE).astype(np.float32)
    loudest = read_spectrogram(tone, EXTRACTOR).decibels.mean(axis=0).argmax()
    edges = mel_edges(128, RATE)
    assert edges.shape == (129,)
    assert edges[loudest - 1] < frequency < edges[loudest + 2]


def test_what_follows_a_stream_passes_it_on_and_decodes_nothing_itself():
    blocks = iter([noise(1), noise(0.5, 1), noise(0.01, 2)])
    reader = SpectrogramReader(EXTRACTOR)
    passed = np.concatenate(list(reader.follow(AudioStream("noise", blocks, RATE)).blocks))
    np.testing.assert_array_equal(passed, np.concatenate([noise(1), noise(0.5, 1), noise(0.01, 2)]))
    np.testing.assert_allclose(reader.spectrogram().decibels, read_spectrogram(passed, EXTRACTOR).decibels, atol=1e-2)


def test_silence_is_drawn_as_silence():
    silence = np.zeros(2 * RATE, dtype=np.float32)
    assert (read_spectrogram(silence, EXTRACTOR).decibels < -DYNAMIC_RANGE_DB).all()
    # The noise of the last of 16 bits is no silence, but nearly.
    faint = np.random.default_rng(0).integers(-1, 2, 2 * RATE).astype(np.int16)
    assert -30 < read_spectrogram(faint, EXTRACTOR).decibels.max() <= 0
    # However loud, the loudest point is at 0.
    for scale in (0.01, 1.0):
        assert read_spectrogram(scale * noise(2), EXTRACTOR).decibels.max() == 0
