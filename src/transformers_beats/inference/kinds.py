# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Kinds of models by the names of their classes, and what each can be used for; without torch."""

from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from transformers_beats.utils.errors import UsageError


# A classifier of clips or of time columns, an encoder alone, a tokenizer.
Kind: TypeAlias = Literal["clips", "frames", "encoder", "tokens"]
KINDS: dict[str, Kind] = {
    "BeatsForAudioClassification": "clips",
    "BeatsForAudioFrameClassification": "frames",
    "BeatsModel": "encoder",
    "BeatsTokenizerModel": "tokens",
    "BeatsRandomProjectionTokenizer": "tokens",
}
# Classes of the kinds in a manifest.
CLASS_OF: dict[str, str] = {
    "pretrained": "BeatsModel",
    "finetuned": "BeatsForAudioClassification",
    "event-classifier": "BeatsForAudioFrameClassification",
    "tokenizer": "BeatsTokenizerModel",
}
Use: TypeAlias = Literal["labels", "embeddings", "tokens"]


class Refusal(NamedTuple):
    """Kinds of models that cannot be used for something, and the reason."""

    kinds: tuple[Kind, ...]
    reason: str


REFUSED: dict[Use, Refusal] = {
    "labels": Refusal(
        ("encoder", "tokens"), "knows no labels: audio-tagging needs a model fine-tuned to classify sounds."
    ),
    "embeddings": Refusal(("tokens",), "has no encoder: load a model that has one."),
    "tokens": Refusal(("clips", "frames", "encoder"), "gives no audio_codes: load a model that does."),
}


def check_use(name: str | Path, class_name: str | None, use: Use) -> None:
    """Raises a [`UsageError`] for a model of a class that has not what `use` needs; none for a class not listed."""
    if class_name is not None and KINDS.get(class_name) in REFUSED[use].kinds:
        raise UsageError(f"{name}: a {class_name} {REFUSED[use].reason}")
