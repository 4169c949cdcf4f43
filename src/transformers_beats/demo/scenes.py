# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Synthesised scenes, in which several sounds may be heard at once, and a small classifier that learns from them."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from sklearn.metrics import average_precision_score
from transformers import PrinterCallback, Trainer, TrainingArguments

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.audio.synthesis import SAMPLING_RATE, synthesize

from .training import SMALL_ENCODER


# Few classes of different kinds, which are learned in half a minute.
CLASSES = ("bell", "dog", "engine", "footsteps", "rain", "siren")
SCENE_SECONDS, STREET_SECONDS = 2.0, 15.0
STREET_RATE = 44100
# Class, onset and length in seconds, and seed of the sounds of the street.
STREET = (
    ("engine", 0.5, 4.5, 5),
    ("dog", 3.5, 3.0, 4),
    ("bell", 7.0, 2.5, 5),
    ("siren", 9.0, 2.5, 2),
    ("rain", 11.0, 3.5, 4),
)
BACKGROUND = 0.002


def write_street(path: Path) -> Path:
    """Writes a stereo recording at 44.1 kHz with the sounds of `STREET`, each louder on one side, and returns it."""
    shape = (round(STREET_SECONDS * SAMPLING_RATE), 2)
    scene = BACKGROUND * np.random.default_rng(0).standard_normal(shape)
    for number, (name, onset, seconds, seed) in enumerate(STREET):
        sound = synthesize(name, np.random.default_rng(seed), duration=seconds)
        start = round(onset * SAMPLING_RATE)
        sides = (0.5, 0.3) if number % 2 else (0.3, 0.5)
        scene[start : start + len(sound)] += np.outer(sound / np.abs(sound).max(), sides)
    soundfile.write(path, soxr.resample(scene, SAMPLING_RATE, STREET_RATE), STREET_RATE)
    return path


def make_scene(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """
    Makes two seconds with up to two sounds in faint noise.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: samples `(32000,)` at 16 kHz, and `(6,)`, 1 for the classes that are heard.
    """
    scene = BACKGROUND * generator.standard_normal(round(SCENE_SECONDS * SAMPLING_RATE))
    present = generator.choice(len(CLASSES), size=generator.choice([0, 1, 2], p=[0.1, 0.5, 0.4]), replace=False)
    for label in present:
        sound = synthesize(CLASSES[label], generator, duration=generator.uniform(1.0, SCENE_SECONDS))
        start = generator.integers(len(scene) - len(sound) + 1)
        scene[start : start + len(sound)] += generator.uniform(0.2, 0.8) * sound / np.abs(sound).max()
    # As if recorded at 44.1 kHz: resampling takes away what is just below 8 kHz.
    scene = soxr.resample(soxr.resample(scene, SAMPLING_RATE, STREET_RATE), STREET_RATE, SAMPLING_RATE)
    return scene, np.isin(np.arange(len(CLASSES)), present).astype(np.float32)


def make_rows(num_scenes: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Makes scenes as rows for [`Trainer`]: the fbank of each as `input_values`, and its `labels`."""
    scenes, labels = zip(*(make_scene(np.random.default_rng([seed, index])) for index in range(num_scenes)))
    fbanks = BeatsFeatureExtractor()(list(scenes), sampling_rate=SAMPLING_RATE)["input_values"]
    return [{"input_values": fbank, "labels": label} for fbank, label in zip(fbanks, labels)]


def train_tagger(model_dir: Path, num_scenes: int = 600, num_epochs: int = 6, num_held_out: int = 100) -> np.ndarray:
    """
    Trains a classifier that gives each of the six classes a score of its own, from random weights, and saves it with
    its feature extractor.

    Returns:
        `np.ndarray` of shape `(6,)`: the average precision of each class in held-out scenes.
    """
    config = BeatsConfig(
        **SMALL_ENCODER,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: number for number, name in enumerate(CLASSES)},
        problem_type="multi_label_classification",
    )
    arguments = TrainingArguments(
        output_dir=str(model_dir),
        num_train_epochs=num_epochs,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    # Any sequence is a dataset, unlike the annotations of `Trainer`.
    rows: Any = make_rows(num_scenes, seed=0)
    held_out_rows: Any = make_rows(num_held_out, seed=1)
    model, extractor = BeatsForAudioClassification(config), BeatsFeatureExtractor()
    trainer = Trainer(model, arguments, train_dataset=rows, processing_class=extractor)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()
    held_out = trainer.predict(held_out_rows)
    return average_precision_score(held_out.label_ids, held_out.predictions, average=None)
