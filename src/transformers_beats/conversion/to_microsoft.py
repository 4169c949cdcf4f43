# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Writes a model of ours as a checkpoint in Microsoft's layout (`.pt`), for tools that read that format."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import AutoConfig

from transformers_beats import BeatsConfig, BeatsForAudioClassification, BeatsModel, BeatsTokenizerModel
from transformers_beats.audio.audioset import AUDIOSET_LABELS
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.utils.files import replace_file

from .checkpoint import (
    ACTIVATIONS,
    ARCHITECTURE,
    KEY_RENAMINGS,
    QUANTIZER,
    REGULARIZATION,
    CheckpointError,
    rename_key,
)


# Of our activations the first name that the reference has for each.
REFERENCE_ACTIVATIONS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
RELATIVE_BIAS = "beats.encoder.relative_position.relative_attention_bias.weight"
# What Microsoft's code fixes, and what another value would make of the model there.
FIXED = {"layer_norm_eps": 1e-5, "use_weighted_layer_sum": False, "num_mel_bins": 128}
MACHINE_IDS = {name: machine_id for machine_id, name in AUDIOSET_LABELS.items()}


def export_state_dict(state_dict: dict[str, torch.Tensor], config: BeatsConfig) -> dict[str, torch.Tensor]:
    """
    Tensors under the reference's names.

    Args:
        state_dict (`dict[str, torch.Tensor]`):
            Of a `BeatsModel`, a `BeatsForAudioClassification` or a `BeatsTokenizerModel`.
        config ([`BeatsConfig`]):
            The model's.

    Raises:
        [`CheckpointError`]: a tensor that the reference has no place for.
    """
    exported: dict[str, torch.Tensor] = {}
    for name, tensor in state_dict.items():
        name = name if name.startswith(("beats.", "classifier.", "projection.", "quantizer.")) else f"beats.{name}"
        if name == RELATIVE_BIAS:
            # The reference's layers share one table, which its files hold once for each.
            for layer in range(config.num_hidden_layers):
                exported[f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight"] = tensor
            continue
        key = reference_key(name, is_gated=config.hidden_act == "glu")
        # The way back must end where it began.
        if rename_key(key) != name:
            raise CheckpointError(f"`{name}` has no place in Microsoft's layout.")
        exported[key] = tensor.reshape(1) if key == "quantize.embedding.initted" else tensor
    if "quantize.embedding.weight" in exported:
        # Left over from the initialisation of the codebook; the reference only wants them to be there.
        codebook = exported["quantize.embedding.weight"]
        exported["quantize.embedding.cluster_size"] = torch.zeros_like(codebook[:, 0])
        exported["quantize.embedding.embed_avg"] = codebook.clone()
    return exported


def reference_key(name: str, is_gated: bool) -> str:
    """The reference's name of a tensor of ours."""
    layer = re.fullmatch(r"beats\.encoder\.layers\.(\d+)\.(.*)", name)
    if layer:
        rest = layer[2].replace("self_attn.gru_rel_pos_linear.", "self_attn.grep_linear.")
        rest = rest.replace("self_attn.gru_rel_pos_const", "self_attn.grep_a")
        rest = rest.replace("mlp.fc1.", "fc1.linear." if is_gated else "fc1.").replace("mlp.fc2.", "fc2.")
        return f"encoder.layers.{layer[1]}.{rest}"
    for pattern, ours in KEY_RENAMINGS:
        if "\\d" not in pattern and name.startswith(ours):
            return pattern.replace("\\.", ".").rstrip("$") + name.removeprefix(ours)
    return name


def export_cfg(config: BeatsConfig, kind: str) -> dict[str, Any]:
    """
    The reference's `cfg` of a configuration.

    Raises:
        [`CheckpointError`]: a setting that the reference does not have.
    """
    for name, value in FIXED.items():
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


def export_labels(config: BeatsConfig) -> dict[int, str] | None:
    """AudioSet's machine ids, or names of other classes, by index; None if the classes have no names."""
    names = {index: config.id2label[index] for index in range(config.num_labels)}
    if all(name == f"LABEL_{index}" for index, name in names.items()):
        return None
    return {index: MACHINE_IDS.get(name, name) for index, name in names.items()}


def load_or_refuse(loaded_class: Any, source: str, **kwargs: Any) -> Any:
    """What the class loads; an `OSError` if it is not there, a [`CheckpointError`] if it is damaged."""
    try:
        return loaded_class.from_pretrained(source, **kwargs)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged directory makes of the libraries
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{source}: cannot be loaded: {reason}") from error


def load_model(source: str) -> tuple[str, BeatsModel | BeatsForAudioClassification | BeatsTokenizerModel]:
    """
    What kind of model a directory or Hub repository holds, and the model.

    Raises:
        [`CheckpointError`]: if the reference has no such model.
    """
    config = load_or_refuse(AutoConfig, source)
    architectures = config.architectures or []
    if config.model_type == "beats_tokenizer":
        kind, model_class = "tokenizer", BeatsTokenizerModel
    elif config.model_type != "beats" or "BeatsForAudioFrameClassification" in architectures:
        found = ", ".join(architectures) or config.model_type
        raise CheckpointError(f"{source}: holds {found}, which Microsoft's layout has no place for.")
    elif "BeatsForAudioClassification" in architectures:
        kind, model_class = "finetuned", BeatsForAudioClassification
    else:
        kind, model_class = "pretrained", BeatsModel
    model, loading = load_or_refuse(model_class, source, output_loading_info=True)
    if missing := sorted(loading["missing_keys"]):
        raise CheckpointError(f"{source}: lacks the tensors {', '.join(missing[:5])}.")
    return kind, model


def export(source: str, output: Path, overwrite: bool = False) -> list[str]:
    """
    Writes `{"cfg": ..., "model": ..., "label_dict": ...}` to `output`, whole or not at all.

    Args:
        source (`str`):
            Directory or Hub id of a `BeatsModel`, `BeatsForAudioClassification` or `BeatsTokenizerModel`, or of a
            pre-training checkpoint, of which the encoder or the tokenizer is taken.
        output (`Path`):
            The file.
        overwrite (`bool`, defaults to `False`):
            Whether an older file is replaced.

    Returns:
        `list[str]`: what users of the file should know.

    Raises:
        [`CheckpointError`]: an output that exists, or a model that the reference cannot be.
    """
    if output.exists() and not overwrite:
        raise CheckpointError(f"{output}: exists; pass --overwrite to replace it.")
    kind, model = load_model(source)
    contents: dict[str, Any] = {
        "cfg": export_cfg(model.config, kind),
        "model": export_state_dict(model.state_dict(), model.config),
    }
    notes = statistics_notes(source)
    if kind == "finetuned":
        labels = export_labels(model.config)
        contents |= {} if labels is None else {"label_dict": labels}
        if model.config.problem_type != "multi_label_classification":
            notes.append("the classes were learned with a softmax, but Microsoft's code takes a sigmoid of each logit")
    output.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(output) as temporary:
        torch.save(contents, temporary)
    return notes


def statistics_notes(source: str) -> list[str]:
    """What to tell of the fbank statistics, which the reference keeps in its code."""
    try:
        extractor, default = load_or_refuse(BeatsFeatureExtractor, source), BeatsFeatureExtractor()
    except OSError:
        return []
    if (extractor.fbank_mean, extractor.fbank_std) == (default.fbank_mean, default.fbank_std):
        return []
    return [f"call it with fbank_mean={extractor.fbank_mean}, fbank_std={extractor.fbank_std}: they are not its own"]


def main(
    source: Annotated[str, typer.Argument(help="Directory or Hub id of a model of transformers-beats.")],
    output: Annotated[Path, typer.Argument(help="File to write (.pt).")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
) -> None:
    """Export a BEATs model (pre-trained, fine-tuned or tokenizer) to Microsoft's layout."""
    try:
        notes = export(source, output, overwrite)
    except (CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(code=1) from None
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")
    for note in notes:
        print(f"  {note}")


if __name__ == "__main__":
    typer.run(main)
