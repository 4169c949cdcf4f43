# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Reading of BEATs checkpoints: settings, tensors and labels, checked and renamed for transformers."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsModel,
    BeatsTokenizerConfig,
    BeatsTokenizerModel,
)
from transformers_beats.utils.files import sha256
from transformers_beats.utils.machine import name_of

from .layouts import SECOND_MARK, Source, check_matrix, read_source
from .locations import MAX_BYTES
from .names import ACTIVATIONS, ARCHITECTURE, FBANK, QUANTIZER, REGULARIZATION, Head, Kind, Origin, rename_key
from .reading import CheckpointError
from .settings import RELEASED, read_labels


# `cfg` keys read elsewhere (the number of classes follows from the predictor) or of no use after the training.
IGNORED = {
    *("finetuned_model", "predictor_class", "layer_wise_gradient_decay_ratio", "embed_loss_beta"),
    *("decoder_embed_dim", "decoder_pos_trainable", "decoder_attention_heads", "decoder_mlp_ratio", "decoder_layers"),
    *("codebook_vocab_size", "mask_ratio", "use_flash_attn"),
    # The front end in avex's descriptions of models; its filter bank is compared with the one here.
    *("sample_frequency", "num_mel_bins", "frame_length", "frame_shift"),
}
DROPPED_KEYS = {
    "patch_embedding_pad.weight": "a constant that ESPnet's padding mask uses",
    "raw2fbank_pad.weight": "a constant that ESPnet's padding mask uses",
    "quantize.embedding.cluster_size": "counts of the k-means initialisation, not used afterwards",
    "quantize.embedding.embed_avg": "codebook at its initialisation, not used afterwards",
}
MODEL_CLASSES: dict[Kind, type[PreTrainedModel]] = {
    "pretrained": BeatsModel,
    "finetuned": BeatsForAudioClassification,
    "tokenizer": BeatsTokenizerModel,
    "event-classifier": BeatsForAudioFrameClassification,
}


@dataclass
class BeatsCheckpoint:
    """
    BEATs checkpoint in the terms of transformers.

    Attributes:
        kind: Kind of model, one of `MODEL_CLASSES`.
        origin: Project that wrote the file.
        config: Configuration, with labels if there are any.
        state_dict: Tensors under the names of the model class of `kind`; all checked for name, shape and finiteness.
        sha256: Hash of the source file.
        statistics: `fbank_mean` and `fbank_std`, as far as they were given or are stated; AudioSet's otherwise.
        notes: Defaults filled in, unknown `cfg` keys and tensors left out, in sentences.
    """

    kind: Kind
    origin: Origin
    config: BeatsConfig
    state_dict: dict[str, torch.Tensor]
    sha256: str
    statistics: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def build_model(self) -> PreTrainedModel:
        """Returns a model, in evaluation mode, that shares its weights with `state_dict`."""
        model = _empty_model(self.kind, self.config)
        model.load_state_dict(self.state_dict, assign=True)
        return model.eval()


def read_checkpoint(
    path: str | Path,
    origin: str = "auto",
    cfg: Sequence[str | Path] = (),
    labels: str | Path | None = None,
    fbank_mean: float | None = None,
    fbank_std: float | None = None,
    max_bytes: float = MAX_BYTES,
    head: str = "auto",
) -> BeatsCheckpoint:
    """
    Reads and checks a checkpoint: `{"cfg": ..., "model": ..., "label_dict": ...}`, or another layout that
    [`read_source`] knows.

    Args:
        path (`str` or `Path`):
            `.safetensors`, or a file that `torch.load` reads with `weights_only=True`: nothing in it is executed.
        origin (`str` or [`Origin`], defaults to `"auto"`):
            Project that wrote the file, by default recognised by the tensors. ESPnet's may leave out settings that
            have one value in all known models, and those that tensors show.
        cfg (`Sequence[str | Path]`, *optional*):
            For a file that does not state its architecture, or not all of it: files that do ([`read_settings`]), or
            `"released"` for the architecture of Microsoft's models.
        labels (`str` or `Path`, *optional*):
            Names of the classes, as avex's `label_map.json` has them.
        fbank_mean, fbank_std (`float`, *optional*):
            Statistics of the fbank, if the training had others than the file or `cfg` state.
        max_bytes (`int`, *optional*):
            A larger file is refused before it is read.
        head (`str` or [`Head`], defaults to `"auto"`):
            Head of a file of PretrainedSED, which does not say which was trained: `"strong"` for events, `"weak"` for
            clips, `"attention"` for both. By default the first if nothing speaks against it.

    Raises:
        [`UsageError`]: if there is no such file, or it is larger than `max_bytes`.
        [`CheckpointError`]: if the file is damaged, of another format, contains code, or does not fit its own `cfg`.
    """
    path = Path(path)
    label_dict = None if labels is None else read_labels(Path(labels))
    source = read_source(path, Origin(origin), cfg, label_dict, max_bytes, Head(head))
    notes = source.notes
    kind = _detect_kind(source)
    state_dict = _rename(source.tensors, kind, notes) | source.head_tensors
    _check_not_empty(state_dict)
    source.cfg = _complete(source.cfg, kind, source.origin, state_dict, notes)
    config = _build_config(source.cfg, kind, notes, source.head_settings)
    statistics = _choose_statistics(source, {"fbank_mean": fbank_mean, "fbank_std": fbank_std}, notes)
    if "classifier.weight" in state_dict:
        config.problem_type = source.problem_type
        _add_labels(config, source, state_dict["classifier.weight"].shape[0], notes)
    config.dtype = _join_dtypes(state_dict, notes)
    try:
        _check_tensors(state_dict, config, kind)
    except CheckpointError as error:
        if not source.is_cfg_assumed:
            raise
        raise CheckpointError(f"the architecture of Microsoft's released models does not fit: {error}") from error
    return BeatsCheckpoint(kind, source.origin, config, state_dict, sha256(path), statistics, notes)


def _join_dtypes(state_dict: dict[str, torch.Tensor], notes: list[str]) -> torch.dtype:
    """Converts tensors to the widest of their precisions, in which they keep their values, and returns it."""
    dtypes = {tensor.dtype for tensor in state_dict.values()}
    widest = functools.reduce(torch.promote_types, dtypes)
    if len(dtypes) > 1:
        names = ", ".join(sorted(name_of(dtype) for dtype in dtypes))
        notes.append(f"The tensors are of several precisions ({names}): all are stored as {name_of(widest)}.")
        state_dict.update({name: tensor.to(widest) for name, tensor in state_dict.items()})
    return widest


def _detect_kind(source: Source) -> Kind:
    tensors = source.tensors
    if any(key.startswith("quantize.") for key in tensors):
        return "tokenizer"
    if "predictor.weight" in tensors:
        check_matrix(tensors, "predictor.weight")
        if source.head_kind is not None:
            return source.head_kind
        # Wider than a patch: of the patches of a time column.
        width = tensors[SECOND_MARK].shape[0] if SECOND_MARK in tensors else None
        is_wider = width is not None and tensors["predictor.weight"].shape[1] > width
        return "event-classifier" if is_wider else "finetuned"
    if source.cfg.get("finetuned_model") and source.origin is Origin.MICROSOFT:
        raise CheckpointError("`cfg` says that the model is fine-tuned, but the file has no `predictor.weight`.")
    return "pretrained"


def _rename(source: Mapping[str, torch.Tensor], kind: Kind, notes: list[str]) -> dict[str, torch.Tensor]:
    """Returns the tensors under our names; every key is renamed, dropped for a stated reason, or refused."""
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
        raise CheckpointError(f"tensors that no BEATs model has: {_shorten(unknown)}.")
    return state_dict


def _check_not_empty(state_dict: Mapping[str, torch.Tensor]) -> None:
    if not state_dict:
        raise CheckpointError("not a BEATs checkpoint: it has none of the tensors of a model.")
    if empty := sorted(name for name, tensor in state_dict.items() if not tensor.numel()):
        raise CheckpointError(f"tensors without any value: {_shorten(empty)}.")


def _shorten(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])} ({len(names)} in all)"


def _complete(
    cfg: Mapping[str, Any], kind: Kind, origin: Origin, state_dict: Mapping[str, torch.Tensor], notes: list[str]
) -> Mapping[str, Any]:
    """
    Returns `cfg` with what ESPnet's exporter leaves out: it writes what a recipe states, and not what that overrides.
    """
    missing = [key for key in _required(kind) if key not in cfg]
    if not missing:
        return cfg
    if origin is not Origin.ESPNET:
        raise CheckpointError(
            f"`cfg` lacks {', '.join(missing)}. Microsoft's files state the whole architecture: name a file that "
            "states the rest with --cfg; if ESPnet wrote this one, say so with --origin espnet."
        )
    names = " ".join(state_dict)
    has_bias = "relative_attention_bias" in names
    shown = {"relative_position_embedding": has_bias, "gru_rel_pos": "gru_rel_pos_linear" in names}
    # The defaults of ESPnet's class, which an export without a base means, are not those of any released model.
    hidden = [key for key in ("deep_norm", *(["max_distance"] if has_bias else [])) if key in missing]
    if hidden:
        raise CheckpointError(
            f"`cfg` lacks {' and '.join(hidden)}, which no tensor shows; ESPnet writes only what a recipe states. "
            "With --cfg, name the checkpoint, Hub id or config.yaml that the training began from, or say `released` "
            "if it began from Microsoft's models."
        )
    added = {key: shown.get(key, RELEASED[key]) for key in missing}
    if seen := {key: value for key, value in added.items() if key in shown}:
        notes.append(f"not in `cfg`, but shown by the tensors: {_listed(seen)}")
    if usual := {key: value for key, value in added.items() if key not in shown}:
        notes.append(f"not in `cfg`; ESPnet's defaults, which all released models share: {_listed(usual)}")
    return {**cfg, **added}


def _choose_statistics(source: Source, given: Mapping[str, float | None], notes: list[str]) -> dict[str, float]:
    """Returns the statistics of the fbank, those that were given first, and notes where they come from."""
    chosen = source.statistics | {key: value for key, value in given.items() if value is not None}
    defaults = {key: getattr(BeatsFeatureExtractor(), key) for key in FBANK}
    if stated := {key: value for key, value in source.statistics.items() if given[key] is None}:
        notes.append(f"applied from `encoder_conf`, as ESPnet's encoder does: {_listed(stated)}")
    unknown = {key: value for key, value in defaults.items() if key not in chosen}
    if unknown and source.origin is Origin.ESPNET:
        notes.append(
            f"nothing states the fbank statistics that the training applied: AudioSet's were written, "
            f"{_listed(unknown)}. ESPnet's present code has 15.2913 and 5.90532 by default, and recipes may set "
            f"others: give them with {' and '.join(map(_option, unknown))}"
        )
    applied = defaults | chosen
    ignored = {key: source.cfg[key] for key in FBANK if key in source.cfg and given[key] is None}
    if ignored := {key: value for key, value in ignored.items() if value != applied[key]}:
        options = " ".join(f"{_option(key)} {value}" for key, value in ignored.items())
        notes.append(
            "`cfg` names fbank statistics, which were not applied: the package openbeats does so, ESPnet's encoder "
            f"does not. To apply them, add {options}"
        )
    return chosen


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _required(kind: Kind) -> dict[str, str]:
    return {**ARCHITECTURE, **(QUANTIZER if kind == "tokenizer" else {})}


def _build_config(
    cfg: Mapping[str, Any], kind: Kind, notes: list[str], head_settings: Mapping[str, Any]
) -> BeatsConfig:
    values = {name: cfg[key] for key, name in _required(kind).items()}
    if not isinstance(values["hidden_act"], str) or values["hidden_act"] not in ACTIVATIONS:
        raise CheckpointError(f"unknown activation {values['hidden_act']!r}; known are {', '.join(ACTIVATIONS)}.")
    values["hidden_act"] = ACTIVATIONS[values["hidden_act"]]
    if kind == "event-classifier":
        values["frame_pooling"] = "concat"
    values |= head_settings
    values |= {name: cfg[key] for key, name in REGULARIZATION.items() if key in cfg}
    if (decay := cfg.get("layer_wise_gradient_decay_ratio", 1.0)) != 1.0:
        notes.append(f"not kept, as it is of its training only: layer_wise_gradient_decay_ratio={decay}")
    known = {*ARCHITECTURE, *QUANTIZER, *REGULARIZATION, *IGNORED, *FBANK}
    if unknown := sorted(set(map(str, cfg)) - known):
        notes.append(f"`cfg` keys without a meaning here: {', '.join(unknown)}")
    try:
        return (BeatsTokenizerConfig if kind == "tokenizer" else BeatsConfig)(**values)
    except StrictDataclassError as error:
        # Strict dataclasses wrap the reason in a second exception.
        raise CheckpointError(f"`cfg` is not a valid architecture: {error.__cause__ or error}") from error


def _add_labels(config: BeatsConfig, source: Source, num_labels: int, notes: list[str]) -> None:
    """Names the classes in the order of `label_dict`, from index to machine id; AudioSet's class list has another."""
    label_dict, label_names = source.label_dict, source.label_names
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
    unknown = [machine_id for machine_id in ids.values() if machine_id not in label_names]
    if unknown:
        notes.append(f"labels that AudioSet does not have, kept as they are: {', '.join(unknown[:5])}")
    names = {index: label_names.get(machine_id, machine_id) for index, machine_id in sorted(ids.items())}
    if len(set(names.values())) < num_labels:
        raise CheckpointError("`label_dict` gives several classes the same label.")
    config.id2label = names
    config.label2id = {name: index for index, name in names.items()}


def _empty_model(kind: Kind, config: BeatsConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return MODEL_CLASSES[kind](config)


def _check_tensors(state_dict: Mapping[str, torch.Tensor], config: BeatsConfig, kind: Kind) -> None:
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
        raise CheckpointError(f"tensors missing in the file: {_shorten(missing)}.")
    if surplus := sorted(state_dict.keys() - expected.keys()):
        raise CheckpointError(f"tensors that `cfg` has no place for: {_shorten(surplus)}.")
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
