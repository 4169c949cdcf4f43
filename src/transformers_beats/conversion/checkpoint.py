# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Reading BEATs checkpoints: what they hold, in Microsoft's terms, and what that is called in transformers."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError

from transformers_beats import (
    BeatsConfig,
    BeatsForAudioClassification,
    BeatsModel,
    BeatsTokenizerConfig,
    BeatsTokenizerModel,
)
from transformers_beats.audio.audioset import AUDIOSET_LABELS

from .layouts import CheckpointError, Origin, read_source


# `cfg` keys that fix the network. A Microsoft file without one of them is refused: its class defaults describe another
# network, which loads strictly and computes garbage.
ARCHITECTURE = {
    "input_patch_size": "patch_size",
    "embed_dim": "embed_dim",
    "conv_bias": "conv_bias",
    "encoder_layers": "num_hidden_layers",
    "encoder_embed_dim": "hidden_size",
    "encoder_ffn_embed_dim": "intermediate_size",
    "encoder_attention_heads": "num_attention_heads",
    "activation_fn": "hidden_act",
    "layer_norm_first": "layer_norm_first",
    "deep_norm": "deep_norm",
    "conv_pos": "num_conv_pos_embeddings",
    "conv_pos_groups": "num_conv_pos_embedding_groups",
    "relative_position_embedding": "relative_position_embedding",
    "num_buckets": "num_buckets",
    "max_distance": "max_bucket_distance",
    "gru_rel_pos": "gru_rel_pos",
}
QUANTIZER = {"quant_n": "codebook_size", "quant_dim": "codebook_dim"}
REGULARIZATION = {
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "encoder_layerdrop": "layerdrop",
    "dropout_input": "feat_proj_dropout",
    "predictor_dropout": "classifier_dropout",
}
# Read elsewhere (the number of classes follows from the predictor) or of no use outside the original training.
IGNORED = {
    *("finetuned_model", "predictor_class", "layer_wise_gradient_decay_ratio", "embed_loss_beta"),
    *("decoder_embed_dim", "decoder_pos_trainable", "decoder_attention_heads", "decoder_mlp_ratio", "decoder_layers"),
    *("codebook_vocab_size", "mask_ratio", "use_flash_attn"),
    # The front end in avex's descriptions of models; its filter bank is compared with the one here.
    *("sample_frequency", "num_mel_bins", "frame_length", "frame_shift"),
}
# Statistics of the fbank, by default AudioSet's: OpenBEATs' package reads them from `cfg`, ESPnet's encoder does not.
FBANK = {"fbank_mean": 15.41663, "fbank_std": 6.55582}
# What ESPnet's configuration class assumes where its exports are silent.
ESPNET_DEFAULTS = {
    "input_patch_size": 16,
    "embed_dim": 512,
    "conv_bias": False,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": False,
    "num_buckets": 320,
    "max_distance": 1280,
    "gru_rel_pos": False,
    "quant_n": 1024,
    "quant_dim": 256,
}
# The reference's names; the last two both mean the tanh approximation there.
ACTIVATIONS = {
    "gelu": "gelu",
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
    "glu": "glu",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
}

KEY_RENAMINGS = [
    (r"patch_embedding\.", "beats.embeddings.patch_embeddings.projection."),
    (r"layer_norm\.", "beats.embeddings.layer_norm."),
    (r"post_extract_proj\.", "beats.embeddings.projection."),
    (r"encoder\.pos_conv\.0\.weight_g$", "beats.encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v$", "beats.encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.pos_conv\.0\.", "beats.encoder.pos_conv_embed.conv."),
    (r"encoder\.layer_norm\.", "beats.encoder.layer_norm."),
    (
        r"encoder\.layers\.\d+\.self_attn\.relative_attention_bias\.",
        "beats.encoder.relative_position.relative_attention_bias.",
    ),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_linear\.", r"beats.encoder.layers.\1.self_attn.gru_rel_pos_linear."),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_a$", r"beats.encoder.layers.\1.self_attn.gru_rel_pos_const"),
    (r"encoder\.layers\.(\d+)\.fc1\.(?:linear\.)?", r"beats.encoder.layers.\1.mlp.fc1."),
    (r"encoder\.layers\.(\d+)\.fc2\.", r"beats.encoder.layers.\1.mlp.fc2."),
    (r"encoder\.layers\.(\d+)\.", r"beats.encoder.layers.\1."),
    (r"predictor\.", "classifier."),
    (r"quantize_layer\.", "projection."),
    (r"quantize\.embedding\.weight$", "quantizer.codebook"),
    (r"quantize\.embedding\.initted$", "quantizer.is_initialized"),
    (r"quantize\.cluster_size$", "quantizer.cluster_size"),
]
DROPPED_KEYS = {
    "patch_embedding_pad.weight": "a constant that ESPnet's padding mask uses",
    "raw2fbank_pad.weight": "a constant that ESPnet's padding mask uses",
    "quantize.embedding.cluster_size": "counts of the k-means initialisation, not used afterwards",
    "quantize.embedding.embed_avg": "codebook at its initialisation, not used afterwards",
}


@dataclass
class BeatsCheckpoint:
    """
    A BEATs checkpoint in the terms of transformers.

    Attributes:
        kind: `"pretrained"`, `"finetuned"` or `"tokenizer"`.
        origin: Who wrote the file.
        config: Configuration, with labels if there are any.
        state_dict: Tensors under the names of the model class of `kind`; all checked for name, shape and finiteness.
        sha256: Hash of the source file.
        notes: What a person should know: filled-in defaults, unknown `cfg` keys, dropped tensors.
    """

    kind: Literal["pretrained", "finetuned", "tokenizer"]
    origin: Origin
    config: BeatsConfig
    state_dict: dict[str, torch.Tensor]
    sha256: str
    notes: list[str] = field(default_factory=list)

    def build_model(self) -> BeatsModel | BeatsForAudioClassification | BeatsTokenizerModel:
        """The model with the checkpoint's weights, which it shares with `state_dict`."""
        model = _empty_model(self.kind, self.config)
        model.load_state_dict(self.state_dict, assign=True)
        return model.eval()


def read_checkpoint(
    path: str | Path,
    origin: Literal["auto"] | Origin = "auto",
    cfg: Sequence[str | Path] = (),
) -> BeatsCheckpoint:
    """
    Reads and checks a checkpoint: `{"cfg": ..., "model": ..., "label_dict": ...}`, or one of [`other_layouts`].

    Args:
        path: The `.pt` or `.safetensors` file. Read with `weights_only=True`: nothing in it is executed.
        origin: Who wrote the file, which decides what a value missing in `cfg` means: an error (Microsoft), or
            ESPnet's class default; and what a head is. `"auto"` recognises what is in the file.
        cfg: For a file that does not state its architecture: files that do, or `"released"` to assume the one of
            Microsoft's released models.

    Raises:
        CheckpointError: if the file is damaged, of another format, contains code, or does not fit its own `cfg`.
    """
    path = Path(path)
    source = read_source(path, origin, cfg)
    notes = source.notes
    kind = _detect_kind(source.cfg, source.tensors, source.origin)
    state_dict = _rename(source.tensors, kind, notes)
    config = _build_config(source.cfg, kind, source.origin, notes)
    if kind == "finetuned":
        config.problem_type = source.problem_type
        _add_labels(config, source.label_dict, state_dict["classifier.weight"].shape[0], notes)
    config.dtype = state_dict[next(iter(state_dict))].dtype
    try:
        _check_tensors(state_dict, config, kind)
    except CheckpointError as error:
        if not source.is_cfg_assumed:
            raise
        raise CheckpointError(f"the architecture of Microsoft's released models does not fit: {error}") from error
    return BeatsCheckpoint(kind, source.origin, config, state_dict, sha256(path), notes)


def sha256(path: Path) -> str:
    """Hash of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _detect_kind(cfg: Mapping, source: Mapping, origin: str) -> Literal["pretrained", "finetuned", "tokenizer"]:
    if any(key.startswith("quantize.") for key in source):
        return "tokenizer"
    if "predictor.weight" in source:
        if source["predictor.weight"].ndim != 2:
            raise CheckpointError("`predictor.weight` is not a matrix.")
        return "finetuned"
    if cfg.get("finetuned_model") and origin == "microsoft":
        raise CheckpointError("`cfg` says that the model is fine-tuned, but the file has no `predictor.weight`.")
    return "pretrained"


def _rename(source: Mapping[str, torch.Tensor], kind: str, notes: list[str]) -> dict[str, torch.Tensor]:
    """Tensors under the names of our model; every key is renamed, dropped for a stated reason, or refused."""
    state_dict: dict[str, torch.Tensor] = {}
    unknown = []
    for key, tensor in source.items():
        # Newer torch writes weight norm as a parametrization.
        key = key.replace("parametrizations.weight.original0", "weight_g")
        key = key.replace("parametrizations.weight.original1", "weight_v")
        if key in DROPPED_KEYS:
            notes.append(f"dropped `{key}`: {DROPPED_KEYS[key]}")
            continue
        name = rename_key(key)
        if name is None:
            unknown.append(key)
            continue
        if kind == "pretrained":
            name = name.removeprefix("beats.")
        if name == "quantizer.is_initialized":
            if tensor.numel() != 1 or not tensor.item():
                raise CheckpointError(f"`{key}` says that the codebook was never learned.")
            tensor = tensor.reshape(())
        if name in state_dict and not torch.equal(state_dict[name], tensor):
            raise CheckpointError(f"`{key}` differs from the copies in other layers, which must share it.")
        state_dict.setdefault(name, tensor)
    if unknown:
        raise CheckpointError(f"tensors that no BEATs model has: {', '.join(unknown[:5])} ({len(unknown)} in all).")
    return state_dict


def rename_key(key: str) -> str | None:
    """Our name of a tensor of the reference, with the prefix of the encoder; None if there is none."""
    if ".mlp." in key:
        return None  # ours already: a rule below would take it for the reference's
    for pattern, replacement in KEY_RENAMINGS:
        name, matches = re.subn(rf"^{pattern}", replacement, key)
        if matches:
            return name
    return None


def _build_config(cfg: Mapping[str, Any], kind: str, origin: str, notes: list[str]) -> BeatsConfig:
    required = {**ARCHITECTURE, **(QUANTIZER if kind == "tokenizer" else {})}
    missing = [key for key in required if key not in cfg]
    if missing and origin != "espnet":
        raise CheckpointError(
            f"`cfg` lacks {', '.join(missing)}. Microsoft's files state the whole architecture; if ESPnet wrote this "
            "one, say so with --origin espnet."
        )
    if missing:
        filled = ", ".join(f"{key}={ESPNET_DEFAULTS[key]}" for key in missing)
        notes.append(f"not in `cfg`, ESPnet's defaults used: {filled}")
    values = {name: cfg.get(key, ESPNET_DEFAULTS[key]) for key, name in required.items()}
    if not isinstance(values["hidden_act"], str) or values["hidden_act"] not in ACTIVATIONS:
        raise CheckpointError(f"unknown activation {values['hidden_act']!r}; known are {', '.join(ACTIVATIONS)}.")
    values["hidden_act"] = ACTIVATIONS[values["hidden_act"]]
    values |= {name: cfg[key] for key, name in REGULARIZATION.items() if key in cfg}
    if statistics := {key: cfg[key] for key in FBANK if cfg.get(key, FBANK[key]) != FBANK[key]}:
        options = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in statistics.items())
        notes.append(f"`cfg` names fbank statistics, which not every trainer reads; to apply them, add {options}")
    known = {*ARCHITECTURE, *QUANTIZER, *REGULARIZATION, *IGNORED, *FBANK}
    if unknown := sorted(set(map(str, cfg)) - known):
        notes.append(f"`cfg` keys without a meaning here: {', '.join(unknown)}")
    try:
        return (BeatsTokenizerConfig if kind == "tokenizer" else BeatsConfig)(**values)
    except StrictDataclassError as error:
        # Strict dataclasses wrap the reason in a second exception.
        reason = str(error.__cause__ or error).replace("\n", " ").strip()
        raise CheckpointError(f"`cfg` is not a valid architecture: {reason}") from error


def _add_labels(config: BeatsConfig, label_dict: Any, num_labels: int, notes: list[str]) -> None:
    """
    Names the classes in the checkpoint's own order, which is not the order of AudioSet's class list: `label_dict` maps
    the checkpoint's indices to AudioSet machine ids.
    """
    config.num_labels = num_labels
    if label_dict is None:
        notes.append("no `label_dict`: the classes have no names")
        return
    try:
        ids = {int(index): str(machine_id) for index, machine_id in label_dict.items()}
        # Text that no file can hold is a ValueError.
        "".join(ids.values()).encode("utf-8")
    except (AttributeError, ValueError, TypeError, OverflowError):
        raise CheckpointError("`label_dict` must map class indices to labels.") from None
    if sorted(ids) != list(range(num_labels)):
        raise CheckpointError(f"`label_dict` must name the classes 0 to {num_labels - 1}, it has {len(ids)} entries.")
    unknown = [machine_id for machine_id in ids.values() if machine_id not in AUDIOSET_LABELS]
    if unknown:
        notes.append(f"labels that AudioSet does not have, kept as they are: {', '.join(unknown[:5])}")
    names = {index: AUDIOSET_LABELS.get(machine_id, machine_id) for index, machine_id in sorted(ids.items())}
    if len(set(names.values())) < num_labels:
        raise CheckpointError("`label_dict` gives several classes the same label.")
    config.id2label = names
    config.label2id = {name: index for index, name in names.items()}


def _empty_model(kind: str, config: BeatsConfig):
    model_class = {
        "pretrained": BeatsModel,
        "finetuned": BeatsForAudioClassification,
        "tokenizer": BeatsTokenizerModel,
    }[kind]
    with torch.device("meta"):
        return model_class(config)


def _check_tensors(state_dict: Mapping[str, torch.Tensor], config: BeatsConfig, kind: str) -> None:
    # Not found by building them: a damaged `cfg` may ask for millions.
    layers = {found[1] for name in state_dict if (found := re.search(r"\bencoder\.layers\.(\d+)\.", name))}
    if config.num_hidden_layers > len(layers):
        raise CheckpointError(
            f"tensors missing in the file: it has {len(layers)} layers, `cfg` {config.num_hidden_layers}."
        )
    try:
        expected = _empty_model(kind, config).state_dict()
    except (RuntimeError, TypeError) as error:
        raise CheckpointError("`cfg` is not a valid architecture: no tensor can be so large.") from error
    if missing := sorted(expected.keys() - state_dict.keys()):
        raise CheckpointError(f"tensors missing in the file: {', '.join(missing[:5])} ({len(missing)} in all).")
    if surplus := sorted(state_dict.keys() - expected.keys()):
        raise CheckpointError(
            f"tensors that `cfg` has no place for: {', '.join(surplus[:5])} ({len(surplus)} in all)."
        )
    for name, tensor in state_dict.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"`{name}` has shape {tuple(tensor.shape)} in the file, {tuple(expected[name].shape)} by its `cfg`."
            )
        # The extremes are not finite if any value is not, and need no memory of the tensor's size.
        if not torch.stack(torch.aminmax(tensor)).isfinite().all():
            raise CheckpointError(f"`{name}` contains NaN or infinite values.")
    if kind == "tokenizer" and not state_dict["quantizer.codebook"].any(dim=1).all():
        raise CheckpointError("the codebook contains codes that are all zero.")
