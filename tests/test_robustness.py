# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of shorter and compressed clips: what it makes of clips, and what it counts."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from benchmarks import robustness
from benchmarks.robustness import describe, loudest, make_versions

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification


TINY = {
    "embed_dim": 16,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def test_the_loudest_part_holds_the_most_energy():
    waveform = np.concatenate([np.zeros(100), np.ones(50), np.zeros(30)])
    np.testing.assert_array_equal(loudest(waveform, 50), np.ones(50))
    np.testing.assert_array_equal(loudest(waveform, 180), waveform)
    np.testing.assert_array_equal(loudest(waveform, 500), waveform)


def test_clips_are_counted_and_compared_with_those_as_they_are():
    reference = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    scores = np.array([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9], [0.3, 0.7]])
    row = describe(scores, reference, np.array([0, 0, 1, 0]))
    assert row["accuracy"] == 0.5
    assert row["same_class"] == 0.75
    assert row["change"] == pytest.approx((-0.2 - 0.4 + 0.2 + 0.1) / 4)
    # Wilson, E. B., 1927: (2 of 4), z = 1.96.
    assert (row["low"], row["high"]) == (pytest.approx(0.1500, abs=1e-3), pytest.approx(0.8500, abs=1e-3))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg writes the versions")
def test_versions_keep_the_length_and_the_sound():
    tone = 0.3 * np.sin(2 * np.pi * 440 / 16000 * np.arange(16000))
    versions = make_versions(16000)
    for name in ("MP3, 64 kbit/s", "AAC, 64 kbit/s", "Vorbis, 48 kbit/s", "Opus, 64 kbit/s", "sampled at 8,000 Hz"):
        coded = versions[name](tone)
        assert len(coded) >= len(tone), name
        assert np.corrcoef(coded[4000:12000], tone[4000:12000])[0, 1] > 0.9, name


def test_the_command_writes_a_row_for_each_version(tmp_path, monkeypatch):
    config = BeatsConfig(num_labels=2, label2id={"low": 0, "high": 1}, id2label={0: "low", 1: "high"}, **TINY)
    BeatsForAudioClassification(config).save_pretrained(tmp_path / "model")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "model")
    generator = np.random.default_rng(0)
    for name in ("low", "high"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * generator.standard_normal(16000), 16000)
    (tmp_path / "metadata.csv").write_text("file_name,label\nlow.wav,low\nhigh.wav,high\n")
    versions = {"as it is": lambda waveform: waveform, "half": lambda waveform: waveform[: len(waveform) // 2]}
    monkeypatch.setattr(robustness, "make_versions", lambda rate: versions)

    robustness.main(str(tmp_path / "model"), tmp_path, output=tmp_path / "rows.json")

    whole, half = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert (whole["same_class"], whole["change"], whole["fbank"]) == (1.0, 0.0, 0.0)
    assert half["fbank"] is None
    assert 0 <= whole["low"] < whole["high"] <= 1
