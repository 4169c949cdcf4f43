# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
from tiny import ENCODER, TRAINING


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def sounds(tmp_path) -> Path:
    """A folder of twelve clips, each of another length from 0.45 to 1 s."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index, length in enumerate(np.linspace(7200, 16000, 12).astype(int)):
        tone = np.sin(np.arange(length) * 2 * np.pi * 100 * (index + 1) / 16000)
        noise = generator.standard_normal(length)
        soundfile.write(folder / f"{index:02d}.wav", 0.1 * (tone + 0.3 * noise), 16000, subtype="FLOAT")
    return folder


@pytest.fixture
def recipe(sounds, tmp_path) -> dict:
    """What `iterate` needs for two iterations of six steps; with labels for everything in its dataclass."""
    return {
        "output_dir": str(tmp_path / "run"),
        "data": {"dataset": str(sounds), "crop_seconds": 1.0},
        "random_projection": {"codebook_size": 32},
        "model": {"model_config": ENCODER | {"label_predictor_num_hidden_layers": 1}, **TRAINING},
        "tokenizer": {
            "model_config": ENCODER | {"codebook_size": 16, "codebook_dim": 8, "estimator_num_hidden_layers": 1},
            "min_perplexity": 1.0,
            **TRAINING,
        },
        "tokenize": {"batch_size": 4, "shard_size": 5},
    }
