# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Settings of small models and short trainings, and a few sounds for them."""

import io
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile


# A model of two layers that learns within seconds, in float32.
ENCODER = {
    "embed_dim": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}
TRAINING = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_steps": 2,
    "disable_tqdm": True,
}


def make_sounds(folder: Path) -> Path:
    """Makes a folder of twelve clips, each of another length from 0.45 to 1 s."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index, length in enumerate(np.linspace(7200, 16000, 12).astype(int)):
        tone = np.sin(np.arange(length) * 2 * np.pi * 100 * (index + 1) / 16000)
        noise = generator.standard_normal(length)
        soundfile.write(folder / f"{index:02d}.wav", 0.1 * (tone + 0.3 * noise), 16000, subtype="FLOAT")
    return folder


def make_recipe(sounds: Path, output_dir: Path) -> dict:
    """What `iterate` needs for two iterations of six steps; with labels for everything in its dataclass."""
    return {
        "output_dir": str(output_dir),
        "data": {"dataset": str(sounds), "crop_seconds": 1.0},
        "random_projection": {"codebook_size": 32},
        "model": {"model_config": ENCODER | {"label_predictor_num_hidden_layers": 1}, **TRAINING},
        "tokenizer": {
            "model_config": ENCODER | {"codebook_size": 16, "codebook_dim": 8, "estimator_num_hidden_layers": 1},
            "min_perplexity": 1.0,
            **TRAINING,
        },
        "tokenize": {"batch_size": 4, "shard_size": 5},
        # Pictures take longer than the rest.
        "diagnosis_clips": 0,
    }


@contextmanager
def empty_pictures() -> Generator[None, None, None]:
    """Leaves the pictures of reports empty: to draw them takes longer than to train such a model."""
    from transformers_beats.training.reports import curves, page, pictures

    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_classes", "draw_confusions"):
            patch.setattr(pictures, name, lambda *args: args[-1].touch())
        patch.setattr(curves, "draw_learning_curves", lambda *args: args[-1].touch())
        patch.setattr(page, "render_page", lambda *args: "")
        yield


def write_pitches(folder: Path, num_clips: int, lengths: tuple[int, ...] = (6400,)) -> Path:
    """Writes clips of each of three classes, whose spectra differ, of these lengths in turns, in samples."""
    generator = np.random.default_rng(0)
    for label, frequency in (("high", 5000), ("low", 300), ("noise", None)):
        (folder / label).mkdir(parents=True)
        for number in range(num_clips):
            samples = 0.05 * generator.standard_normal(lengths[number % len(lengths)])
            if frequency:
                samples += 0.5 * np.sin(np.arange(len(samples)) * 2 * np.pi * frequency / 16000)
            soundfile.write(folder / label / f"{number}.wav", samples, 16000)
    return folder


def write_shards(folder: Path, contents: dict[str, bytes], kind: str, num_shards: int = 4, column: str = "audio"):
    """Writes files of these names and contents to the tar or Parquet shards of a folder."""
    folder.mkdir()
    items = list(contents.items())
    for number in range(num_shards):
        part = items[number::num_shards]
        if kind == "tar":
            with tarfile.open(folder / f"{number}.tar", "w") as archive:
                for name, data in part:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        else:
            struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
            rows = {column: [{"bytes": data, "path": name} for name, data in part]}
            dataset = datasets.Dataset.from_dict(rows, features=datasets.Features({column: struct}))
            dataset.to_parquet(folder / f"{number}.parquet")
