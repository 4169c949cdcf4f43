# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Reads audio files and classifies them with transformers' `pipeline`, with errors that say what to do."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from transformers import AutoConfig, Pipeline, pipeline
from transformers.audio_utils import load_audio

from transformers_beats import BeatsFeatureExtractor
from transformers_beats.audio.synthesis import SAMPLING_RATE, make_dataset


# Attention compares all pairs of patches: in half a minute, of 1,500 patches, 2 million pairs for each head.
MAX_SECONDS = 30


class DemoError(Exception):
    """Something the user can put right. The message is one line."""


@dataclass
class Clip:
    """
    A clip and what a model says about it.

    Args:
        name (`str`):
            How the clip is called: the name of its file.
        waveform (`np.ndarray` of shape `(num_samples,)`):
            float32, mono, 16 kHz.
        label (`str`, *optional*):
            The true class, if it is known.
        predictions (`list[tuple[str, float]]`, *optional*):
            Classes and scores, the best first.
    """

    name: str
    waveform: np.ndarray
    label: str | None = None
    predictions: list[tuple[str, float]] = field(default_factory=list)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def read_clip(path: Path) -> Clip:
    """
    Reads an audio file of any sampling rate, number of channels and format that the installed decoders know.

    Raises:
        `DemoError`: if the file is missing, is no audio, or holds no finite samples.
    """
    if not path.is_file():
        raise DemoError(f"{path}: no such file")
    try:
        waveform = load_audio(str(path), sampling_rate=SAMPLING_RATE)
    except (OSError, RuntimeError, ValueError) as error:
        raise DemoError(f"{path}: cannot be read as audio: {_first_line(error)}") from error
    if waveform.size == 0:
        raise DemoError(f"{path}: holds no audio")
    if not np.isfinite(waveform).all():
        raise DemoError(f"{path}: contains NaN or infinite samples")
    return Clip(path.name, waveform)


def synthesised_clips(seed: int, known_labels: Collection[str]) -> list[Clip]:
    """
    One synthesised clip of each class: the first ten of the data set with that seed.

    A class outside `known_labels`, the classes of the model, becomes part of the clip's name: a model that has other
    classes is not wrong about it.
    """
    dataset = make_dataset(1, seed)
    clips = []
    for index, row in enumerate(dataset.with_format("torch"), start=1):
        label = dataset.features["label"].int2str(int(row["label"]))
        is_known = label in known_labels
        name = f"sound {index}" if is_known else f"synthesised {label}"
        clips.append(Clip(name, row["audio"].numpy(), label if is_known else None))
    return clips


def load_classifier(model_dir: Path) -> tuple[Pipeline, BeatsFeatureExtractor]:
    """
    Loads a saved `BeatsForAudioClassification`.

    Returns:
        The [`AudioClassificationPipeline`], and the feature extractor in it.

    Raises:
        `DemoError`: if the directory does not hold model and feature extractor, whole, or holds another kind of model.
    """
    if not (model_dir / "config.json").is_file():
        raise DemoError(f"{model_dir}: not a model directory, it has no config.json")
    try:
        architectures = AutoConfig.from_pretrained(model_dir).architectures or []
        # Any BEATs model would load, with a classifier of random weights.
        if "BeatsForAudioClassification" not in architectures:
            found = ", ".join(architectures) or "a model of unknown architecture"
            raise DemoError(f"{model_dir}: holds {found}, but the demo needs BeatsForAudioClassification")
        classifier = pipeline("audio-classification", model=str(model_dir))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise DemoError(f"{model_dir}: cannot be loaded: {_first_line(error)}") from error
    extractor = classifier.feature_extractor
    if not isinstance(extractor, BeatsFeatureExtractor) or extractor.sampling_rate != SAMPLING_RATE:
        raise DemoError(f"{model_dir}: its feature extractor is not a BeatsFeatureExtractor for {SAMPLING_RATE} Hz")
    return classifier, extractor


def classify(classifier: Pipeline, clips: list[Clip], top_k: int) -> None:
    """Fills in the `predictions` of each clip, from its first 30 s, with up to `top_k` classes."""
    waveforms = [clip.waveform[: MAX_SECONDS * SAMPLING_RATE] for clip in clips]
    for clip, outputs in zip(clips, classifier(waveforms, top_k=top_k)):
        clip.predictions = [(output["label"], output["score"]) for output in outputs]


__all__ = ["MAX_SECONDS", "Clip", "DemoError", "classify", "load_classifier", "read_clip", "synthesised_clips"]
