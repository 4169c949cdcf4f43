# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Digital silence: equal samples, of any value, rate and encoding, and nothing else."""

import numpy as np
import pytest
import soundfile
import torch

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.decoding import open_audio, read_samples
from transformers_beats.inference.windows import find_silence


RATE = 16000
EXTRACTOR = BeatsFeatureExtractor()


def silent_columns(waveform: np.ndarray) -> np.ndarray:
    values = EXTRACTOR([waveform], sampling_rate=RATE, return_tensors="pt")["input_values"]
    return find_silence(torch.as_tensor(values), EXTRACTOR)[0].numpy()


@pytest.mark.parametrize("rate", [8000, 16000, 16000.5, 44100, 48000])
@pytest.mark.parametrize("value", [0.0, 0.5, 3 / 32768, 0.01, 0.3, -0.77, 0.9999, -1.0])
def test_equal_samples_are_silence_at_any_rate(rate, value):
    stream = open_audio(np.full(round(2 * rate), value, np.float32), RATE, rate)
    assert silent_columns(read_samples(stream)).all()
    # What is warned of is what has no events.
    assert any("is digital silence" in warning for warning in stream.report.warnings)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_a_pause_of_equal_samples_between_sounds_is_silence(tmp_path, subtype):
    noise = 0.3 * np.random.default_rng(0).standard_normal(44100).clip(-3, 3)
    samples = np.concatenate([noise, np.full(2 * 44100, -1 / 128), noise])
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype)
    silent = silent_columns(read_samples(open_audio(tmp_path / "a.wav", RATE)))
    # Those of 160 ms that lie within 1 to 3 s.
    assert np.flatnonzero(silent).tolist() == list(range(7, 18))


def test_the_quietest_sounds_are_no_silence():
    generator = np.random.default_rng(0)
    impulses = np.zeros(RATE)
    impulses[::400] = 2**-15
    for sound in (
        impulses,
        # The last of 24 bits, as noise.
        generator.choice([-1, 1], RATE) * 2.0**-24,
        1e-6 * np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE),
        0.5 + 1e-6 * generator.standard_normal(RATE),
    ):
        assert not silent_columns(sound.astype(np.float32)).any()
