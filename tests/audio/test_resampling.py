# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Resampling: soxr's result for the whole, but equal samples stay equal."""

import numpy as np
import pytest
import soundfile
import soxr

from transformers_beats.audio.decoding import decode_audio
from transformers_beats.audio.resampling import REACH, resample


RATES = [8000, 11025, 16000.5, 22050, 44100, 48000, 96000, 1000, 12345]


def cut(waveform: np.ndarray, seed: int) -> list[np.ndarray]:
    """Cuts a waveform into blocks of random lengths, some of them empty."""
    return np.split(waveform, np.sort(np.random.default_rng(seed).integers(0, len(waveform), 12)))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("value", [0.5, -1 / 128, 3 / 32768, 0.3])
def test_equal_samples_stay_equal_from_the_first_to_the_last(rate, value):
    # Shorter and longer than what the filter reaches.
    for num_samples in (50, round(2.3 * rate)):
        waveform = np.full(num_samples, value, np.float32)
        found = np.concatenate(list(resample(cut(waveform, 0), rate, 16000)))
        assert len(found) == pytest.approx(num_samples / rate * 16000, abs=1)
        np.testing.assert_array_equal(found, np.float32(value))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("value", [0.0, 0.25])
def test_equal_samples_between_sounds_are_equal_and_the_sounds_are_those_of_soxr(rate, value):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(rate)).astype(np.float32)
    waveform = np.concatenate([noise, np.full(round(2 * rate), value, np.float32), noise])
    whole = soxr.resample(waveform, rate, 16000)
    first, *others = (np.concatenate(list(resample(cut(waveform, seed), rate, 16000))) for seed in range(3))
    np.testing.assert_allclose(first, whole, atol=2e-6)
    reach = REACH * 16000 / min(rate, 16000) + 1
    edges = np.array([len(noise), 3 * len(noise)]) / rate * 16000
    between = first[int(edges[0] + reach) : int(edges[1] - reach)]
    assert len(between) > 8000
    np.testing.assert_array_equal(between, np.float32(value))
    # However it is cut into blocks.
    for found in others:
        np.testing.assert_allclose(found, first, atol=1e-6)


@pytest.mark.parametrize("start", [0, 5000, 20000, 33000])
def test_a_part_has_the_equal_samples_of_the_whole(tmp_path, start):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 44100)
    soundfile.write(tmp_path / "a.wav", np.concatenate([np.full(44100, 0.25), noise, np.full(44100, 0.25)]), 44100)
    whole = decode_audio(tmp_path / "a.wav")
    assert set(whole[:15000]) == set(whole[-15000:]) == {0.25}
    np.testing.assert_allclose(decode_audio(tmp_path / "a.wav", start=start), whole[start:], rtol=0, atol=1e-6)


def test_samples_that_are_not_finite_are_not_hidden():
    for value in (np.nan, np.inf):
        waveform = np.full(44100, value, np.float32)
        assert not np.isfinite(np.concatenate(list(resample([waveform], 44100, 16000)))).any()
