# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Models as the command line and the web page load them: found, checked and described."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from transformers_beats.cli.writers import OutputError


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


# What a directory of a model has, one file of each.
MODEL_FILES = {
    "config.json": ("config.json",),
    "preprocessor_config.json": ("preprocessor_config.json", "processor_config.json"),
    "model.safetensors": ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json"),
}


class Dtype(str, Enum):
    """Precision of the model."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def check_model(model: str) -> None:
    """Raises an [`OutputError`] for a path that is none of a model: a file, or a directory that lacks one."""
    path = Path(model)
    # An id on the Hub has one slash at most.
    if not path.exists() and (model.startswith((".", "/", "~")) or model.count("/") > 1):
        raise OutputError(f"{model}: no such directory.")
    if path.is_file():
        raise OutputError(
            f"{model}: is a file, and a model is a directory. ./run convert {model} DIRECTORY makes one of "
            "Microsoft's .pt files."
        )
    for name, patterns in MODEL_FILES.items():
        if path.is_dir() and not any(file for pattern in patterns for file in path.glob(pattern)):
            raise OutputError(f"{model}: is no directory of a model, it has no {name}.")


def choose_device(device: str) -> "torch.device":
    """A device that can be used; an [`OutputError`] for any other."""
    import torch

    if device == "auto":
        return (torch.accelerator.is_available() and torch.accelerator.current_accelerator()) or torch.device("cpu")
    try:
        torch.zeros(1, device=device)
    # A torch without CUDA fails with an AssertionError.
    except (RuntimeError, AssertionError) as error:
        raise OutputError(f"--device {device}: {first_line(error)}") from error
    return torch.device(device)


def load_model(model: str, device: str, dtype: Dtype) -> tuple["PreTrainedModel", "BeatsFeatureExtractor"]:
    """A model of the kind that was saved, on its device, and its feature extractor."""
    from transformers import AutoFeatureExtractor
    from transformers.utils import logging

    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor

    from .pipeline import BeatsModelForTask

    logging.disable_progress_bar()
    check_model(model)
    target = choose_device(device)
    try:
        extractor = AutoFeatureExtractor.from_pretrained(model)
        if not isinstance(extractor, BeatsFeatureExtractor):
            raise OutputError(f"{model}: its feature extractor is a {type(extractor).__name__}, it is no BEATs model.")
        return BeatsModelForTask.from_pretrained(model, dtype=dtype.value).to(target), extractor
    except Exception as error:  # files of a model may hold anything
        message = first_line(error)
        raise OutputError(message if model in message else f"{model}: cannot be loaded: {message}") from error


def labels_of(model: "PreTrainedModel") -> dict[int, str]:
    """The labels of a classifier by index; none of other models, whose configurations have made-up ones."""
    id2label = model.config.id2label if "Classification" in type(model).__name__ else None
    return {int(index): label for index, label in (id2label or {}).items()}


def describe(model: "PreTrainedModel", extractor: "BeatsFeatureExtractor") -> dict[str, str]:
    """What `info` prints."""
    from .windows import column_samples

    config = model.config
    kind, saved = type(model).__name__, next(iter(config.architectures or []), None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    description = {
        "kind": kind if saved in (None, kind) else f"{kind}, of a {saved}",
        "parameters": f"{parameters:,} ({str(model.dtype).removeprefix('torch.')})",
        "encoder": f"{config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} heads"
        if hasattr(config, "num_hidden_layers")
        else "none",
        "audio": f"{extractor.sampling_rate} Hz mono, a column every "
        f"{1000 * column_samples(extractor) // extractor.sampling_rate} ms",
        "fbank": f"{extractor.feature_size} filters, mean {extractor.fbank_mean}, standard deviation "
        f"{extractor.fbank_std}",
    }
    if hasattr(config, "codebook_dim"):
        description["codebook"] = f"{config.codebook_size} codes of {config.codebook_dim}"
    if labels := labels_of(model):
        names = list(labels.values())
        shown = "; ".join(names[:10]) + ("; ... (all with --labels)" if len(names) > 10 else "")
        description["labels"] = f"{len(names)}, {config.problem_type or 'single-label'}: {shown}"
    return description


def first_line(error: BaseException) -> str:
    """The first line of what an exception says that is not empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


__all__ = ["Dtype", "check_model", "choose_device", "describe", "first_line", "labels_of", "load_model"]
