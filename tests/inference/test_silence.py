# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Digital silence: equal samples, of any value, rate and encoding, and nothing else."""

import numpy as np
import pytest
import soundfile
import torch

from transformers_beats import BeatsFeatureExtractor, BeatsForAudioFrameClassification
from transformers_beats.audio.decoding import open_audio, read_samples
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.inference.windows import find_silence


RATE = 16000
EXTRACTOR = BeatsFeatureExtractor()


def silent_columns(waveform: np.ndarray) -> np.ndarray:
    values = EXTRACTOR([waveform], sampling_rate=RATE, return_tensors="pt")["input_values"]
    return find_silence(torch.as_tensor(values), [waveform], EXTRACTOR)[0].numpy()


@pytest.mark.parametrize("rate", [8000, 16000, 16000.5, 44100, 48000])
@pytest.mark.parametrize("value", [0.0, 0.5, 3 / 32768, 0.01, 0.3, -0.77, 0.9686935, 0.9999, -1.0])
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


# Up to the length of a column, 2,800 samples at 16 kHz, and just above it.
@pytest.mark.parametrize("milliseconds", [0.0625, 6, 25, 100, 174.9, 175.5])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("value", [0.0, 0.5, -1.0])
def test_equal_samples_shorter_than_a_column_are_silence(value, rate, milliseconds):
    stream = open_audio(np.full(max(1, round(milliseconds * rate / 1000)), value, np.float32), RATE, rate)
    assert silent_columns(read_samples(stream)).tolist() == [True]
    assert any("is digital silence" in warning for warning in stream.report.warnings)


def test_sounds_shorter_than_a_column_are_no_silence():
    step = np.full(2000, 0.5, np.float32)
    step[1500:] = 0
    click = np.zeros(2799, np.float32)
    click[5] = 1e-3
    for sound in (step, click, np.float32([0.1, 0.2]), 1e-5 * np.random.default_rng(0).standard_normal(500)):
        assert silent_columns(sound.astype(np.float32)).tolist() == [False]


@pytest.mark.parametrize("pooling", ["mean", "sequence"])
def test_short_recordings_keep_their_silence_in_a_batch_with_others(tiny_config, pooling):
    tiny_config.frame_pooling, tiny_config.problem_type = pooling, "multi_label_classification"
    inference = WindowedInference(BeatsForAudioFrameClassification(tiny_config).eval(), EXTRACTOR)
    noise = 0.1 * np.random.default_rng(0).standard_normal(3200).astype(np.float32)
    # Those of one column have from 4 to 5 steps of 40 ms.
    clips = [noise[:2000], np.full(2000, 0.5, np.float32), noise, np.full(3200, 0.5, np.float32), np.full(9, 0.5)]
    found = [next(blocks).silent for blocks in inference.stream_frames_many(clips, RATE)]
    assert [silent.all() for silent in found] == [False, True, False, True, True]
    assert [silent.any() for silent in found] == [False, True, False, True, True]
    for clip, silent in zip(clips, found):
        assert silent.tolist() == inference.frames(clip, RATE).silent.tolist()
