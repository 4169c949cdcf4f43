# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Classifiers and labelled clips that benchmarks of accuracy read."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.options import build_classifier
from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.audio.decoding import decode_audio
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.inference.loading import load_extractor, load_model
from transformers_beats.utils.errors import BeatsError


class Clip(NamedTuple):
    """A waveform and the number of its label, where it is known."""

    waveform: np.ndarray
    label: int | None = None


def load_classifier(name: str | None, layers: int) -> tuple[BeatsForAudioClassification, BeatsFeatureExtractor]:
    """A checkpoint, or a model of base size with random weights and `layers` layers."""
    if name is None:
        return build_classifier(layers, "cpu"), BeatsFeatureExtractor()
    model = load_model(name, dtype="float32")
    if not isinstance(model, BeatsForAudioClassification) or problem_type_of(model.config) == "regression":
        raise BeatsError(f"{name}: holds a {type(model).__name__}, but the benchmark needs classes of clips.")
    return model, load_extractor(name)


def read_clips(folder: Path, fold: int | None, id2label: dict[int, str], sampling_rate: int) -> list[Clip]:
    """
    The clips that `metadata.csv` in a folder names in its column `file_name`, with the labels of its column `label`;
    of one `fold` or of all.

    Raises:
        [`BeatsError`]: if a column is missing, no clip is left, or the model has no such label.
    """
    path, label2id = folder / "metadata.csv", {label: index for index, label in id2label.items()}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    needed = ["file_name"] + ["fold"] * (fold is not None)
    if missing := [name for name in needed if not rows or name not in rows[0]]:
        raise BeatsError(f"{path}: has no rows or no column {missing[0]!r}.")
    if fold is not None:
        rows = [row for row in rows if row["fold"] == str(fold)]
    if not rows:
        raise BeatsError(f"{path}: has no rows of fold {fold}.")
    if unknown := {row["label"] for row in rows if "label" in row} - label2id.keys():
        raise BeatsError(f"{path}: the model has no label {min(unknown)!r}, only {', '.join(label2id)}.")
    return [
        Clip(
            decode_audio(folder / row["file_name"], sampling_rate), label2id[row["label"]] if "label" in row else None
        )
        for row in rows
    ]
