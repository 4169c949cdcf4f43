# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Clips of the demo, and their classification."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from transformers_beats import BeatsFeatureExtractor, WindowedInference
from transformers_beats.audio.synthesis import SAMPLING_RATE, make_dataset
from transformers_beats.inference.loading import labels_of, load
from transformers_beats.utils.errors import BeatsError


@dataclass
class Clip:
    """
    A clip (float32, mono, 16 kHz), its true class, if it is known, and the classes that a model finds in it, the best
    first, with their scores.
    """

    name: str
    waveform: np.ndarray
    label: str | None = None
    predictions: list[tuple[str, float]] = field(default_factory=list)


def synthesised_clips(seed: int, known_labels: Collection[str]) -> list[Clip]:
    """
    Makes one synthesised clip of each class. A class outside `known_labels`, those of the model, becomes part of the
    clip's name: a model that has other classes is not wrong about it.
    """
    dataset = make_dataset(1, seed)
    clips = []
    for index, row in enumerate(dataset.with_format("numpy"), start=1):
        label = dataset.features["label"].int2str(int(row["label"]))
        is_known = label in known_labels
        name = f"sound {index}" if is_known else f"synthesised {label}"
        clips.append(Clip(name, row["audio"], label if is_known else None))
    return clips


def load_classifier(model_dir: Path) -> tuple[PreTrainedModel, BeatsFeatureExtractor]:
    """Loads a classifier whole, with its feature extractor; raises a [`BeatsError`] if there is none."""
    model, extractor = load(model_dir)
    if not labels_of(model):
        raise BeatsError(f"{model_dir}: holds a {type(model).__name__}, but the demo needs a classifier.")
    return model, extractor


def classify(model: Any, extractor: BeatsFeatureExtractor, clips: list[Clip], top_k: int) -> None:
    """Fills in the `predictions` of each clip with up to `top_k` classes."""
    labels = labels_of(model)
    waveforms = [clip.waveform for clip in clips]
    for clip, found in zip(clips, WindowedInference(model, extractor).classify_many(waveforms, SAMPLING_RATE)):
        best = np.argsort(-found.scores, kind="stable")[:top_k]
        clip.predictions = [(labels[int(index)], float(found.scores[index])) for index in best]
