# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The way back: writes a model of this package as a checkpoint in Microsoft's layout."""

from pathlib import Path
from typing import Any

import torch

from transformers_beats.audio.audioset import AUDIOSET_LABELS
from transformers_beats.configuration_beats import BeatsConfig, problem_type_of
from transformers_beats.conversion.checkpoint import MODEL_CLASSES
from transformers_beats.conversion.names import (
    ACTIVATIONS,
    ARCHITECTURE,
    QUANTIZER,
    REGULARIZATION,
    RELATIVE_BIAS,
    RELATIVE_BIAS_COPY,
    Kind,
    reference_key,
    rename_key,
)
from transformers_beats.conversion.reading import CheckpointError
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.inference.loading import load_extractor, load_model
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import check_absent, replace_file


# Of our activations the first name that Microsoft's code has for each.
REFERENCE_ACTIVATIONS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
# Settings that Microsoft's code fixes.
FIXED = {"layer_norm_eps": 1e-5, "num_mel_bins": 128}
FIXED_OF_CLASSIFIERS = {"use_weighted_layer_sum": False, "classifier_pooling": "mean"}
MACHINE_IDS = {name: machine_id for machine_id, name in AUDIOSET_LABELS.items()}


def export_state_dict(state_dict: dict[str, torch.Tensor], config: BeatsConfig) -> dict[str, torch.Tensor]:
    """
    Returns the tensors of a model, one of `MODEL_CLASSES`, under Microsoft's names.

    Raises:
        [`CheckpointError`]: if a tensor has no place in Microsoft's layout.
    """
    exported: dict[str, torch.Tensor] = {}
    for name, tensor in state_dict.items():
        name = name if name.startswith(("beats.", "classifier.", "projection.", "quantizer.")) else f"beats.{name}"
        if name.startswith(RELATIVE_BIAS):
            for layer in range(config.num_hidden_layers):
                exported[f"encoder.layers.{layer}.{RELATIVE_BIAS_COPY}weight"] = tensor
            continue
        key = reference_key(name, is_gated=config.hidden_act == "glu")
        # The way back must end where it began.
        if rename_key(key) != name:
            raise CheckpointError(f"`{name}` has no place in Microsoft's layout.")
        exported[key] = tensor.reshape(1) if key == "quantize.embedding.initted" else tensor
    if "quantize.embedding.weight" in exported:
        # Left over from the initialisation of the codebook; Microsoft's code only wants them to be there.
        codebook = exported["quantize.embedding.weight"]
        exported["quantize.embedding.cluster_size"] = torch.zeros_like(codebook[:, 0])
        exported["quantize.embedding.embed_avg"] = codebook.clone()
    return exported


def export_cfg(config: BeatsConfig, kind: Kind) -> dict[str, Any]:
    """
    Returns a configuration as Microsoft's `cfg`.

    Raises:
        [`CheckpointError`]: if Microsoft's code does not have a setting.
    """
    for name, value in (FIXED | (FIXED_OF_CLASSIFIERS if kind == "finetuned" else {})).items():
        found = getattr(config, name, value)
        if found != value:
            raise CheckpointError(f"`{name}` is {found!r}, but Microsoft's code has {value!r} and no choice.")
    if config.hidden_act not in REFERENCE_ACTIVATIONS:
        raise CheckpointError(f"`hidden_act` is {config.hidden_act!r}, which Microsoft's code does not have.")
    names = ARCHITECTURE | REGULARIZATION | (QUANTIZER if kind == "tokenizer" else {})
    cfg = {key: getattr(config, name) for key, name in names.items()}
    cfg["activation_fn"] = REFERENCE_ACTIVATIONS[config.hidden_act]
    # Used in training only, and the same for every layer.
    cfg["layer_wise_gradient_decay_ratio"] = 1.0
    if kind != "tokenizer":
        cfg["finetuned_model"] = kind == "finetuned"
        cfg["predictor_class"] = config.num_labels if kind == "finetuned" else len(AUDIOSET_LABELS)
    return cfg


def export_labels(config: Any) -> dict[int, str] | None:
    """Returns AudioSet's machine ids, or names of other classes, by index; None if the classes have no names."""
    names = {index: config.id2label[index] for index in range(config.num_labels)}
    if all(name == f"LABEL_{index}" for index, name in names.items()):
        return None
    return {index: MACHINE_IDS.get(name, name) for index, name in names.items()}


def export(source: str, output: Path, overwrite: bool = False) -> list[str]:
    """
    Writes `{"cfg": ..., "model": ..., "label_dict": ...}` to a file, whole or not at all. Returns the settings that
    the file cannot state, in sentences.

    The source is the directory or Hub id of a `BeatsModel`, `BeatsForAudioClassification` or `BeatsTokenizerModel`, or
    of a pre-training checkpoint, of which the encoder or the tokenizer is taken.

    Raises:
        [`UsageError`]: if the output exists, or there is no such model.
        [`BeatsError`]: if the model cannot be loaded, or Microsoft's layout has no place for it.
    """
    check_absent(output, overwrite)
    model: Any = load_model(source)
    kind = next((kind for kind, model_class in MODEL_CLASSES.items() if type(model) is model_class), None)
    if kind is None or kind == "event-classifier":
        raise CheckpointError(f"{source}: holds {type(model).__name__}, which Microsoft's layout has no place for.")
    contents: dict[str, Any] = {
        "cfg": export_cfg(model.config, kind),
        "model": export_state_dict(model.state_dict(), model.config),
    }
    notes = statistics_notes(source)
    if kind == "finetuned":
        labels = export_labels(model.config)
        contents |= {} if labels is None else {"label_dict": labels}
        if problem_type_of(model.config) == "single_label_classification":
            notes.append("the classes were learned with a softmax, but Microsoft's code takes a sigmoid of each logit")
        elif problem_type_of(model.config) == "regression":
            notes.append("a regression predicts the logits, but Microsoft's code takes a sigmoid of each")
    output.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(output) as temporary:
        torch.save(contents, temporary)
    return notes


def statistics_notes(source: str) -> list[str]:
    """Returns notes on what Microsoft's code keeps of the fbank, its statistics and rate, where the model differs."""
    try:
        extractor, default = load_extractor(source), BeatsFeatureExtractor()
    except BeatsError as error:
        # One that is damaged is an error; a model may have none.
        if not isinstance(error, UsageError) and not isinstance(error.__cause__, OSError):
            raise
        return []
    notes, statistics = [], {name: getattr(extractor, name) for name in ("fbank_mean", "fbank_std")}
    if any(value != getattr(default, name) for name, value in statistics.items()):
        given = ", ".join(f"{name}={value}" for name, value in statistics.items())
        notes.append(f"call it with {given}: they are not its own")
    if extractor.sampling_rate != default.sampling_rate:
        notes.append(
            f"the model reads audio at {extractor.sampling_rate} Hz, but Microsoft's code computes the fbank of "
            f"{default.sampling_rate} Hz"
        )
    return notes
