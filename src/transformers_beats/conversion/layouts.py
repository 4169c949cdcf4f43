# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Search for a BEATs model in a file of any project: containers, wrappers around the encoder, settings in other files,
classification heads.

Sources of the layouts (each a public repository and a path in it):
    Microsoft: `microsoft/unilm`, `beats/BEATs.py` and `beats/Tokenizers.py`.
    ESPnet: `espnet/espnet`, `espnet2/beats/{encoder,tokenizer,espnet_model,generate_beats_checkpoint}.py`,
        `espnet2/tasks/cls.py`, `espnet2/cls/decoder/linear_decoder.py`. OpenBEATs has the same layout: the package
        `openbeats` on PyPI, `openbeats/utils.py`.
    avex: `earthspecies/avex`, `avex/models/beats_model.py`, `avex/models/beats/beats.py`,
        `avex/api/configs/official_models/*beats*.yml`.
    PretrainedSED: `fschmid56/PretrainedSED`, `models/prediction_wrapper.py`, `models/beats/BEATs{,_wrapper}.py`; its
        heads in `pretrained_sed.py`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from transformers_beats.audio.audioset import AUDIOSET_LABELS

from . import pretrained_sed
from .locations import MAX_BYTES, path_in_cache
from .names import ARCHITECTURE, QUANTIZER, Head, Kind, Origin
from .reading import CheckpointError, load
from .settings import RELEASED, Settings, check_values, is_of_classifier, read_settings, section


ProblemType: TypeAlias = Literal["multi_label_classification", "single_label_classification"]

NUM_MEL_BINS = 128
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# A BEATs encoder is where these two are; what stands before them is the wrapper's.
MARK, SECOND_MARK = "patch_embedding.weight", "encoder.layers.0.fc2.weight"

# No tensor and no shape depends on these: a wrong one loads strictly and computes something else.
INVISIBLE = ("activation_fn", "deep_norm", "layer_norm_first", "max_distance")
# Projects whose models all have the released architecture, and the evidence.
RELEASED_IS_DOCUMENTED = {
    Origin.AVEX: "avex's published BEATs models have it",
    Origin.PRETRAINED_SED: "PretrainedSED's BEATs has no other",
}

# Parts of ESPnet's encoder after the BEATs layers, with the reason why they cannot be converted.
ESPNET_PARTS = {
    "layer_weights": "a learned average of the states of all layers but the last, unlike `use_weighted_layer_sum`",
    "downsample_conv": "a convolution over the flattened patches that shortens their sequence",
    "conformer_adapter": "a Conformer on top of the encoder",
    "cross_embed_positions": "positions added to the output for a decoder's cross-attention",
}
# The head of ESPnet's classifiers.
ESPNET_HEAD = "decoder.linear_out."
# What scores the classes, by ESPnet's names of the types of classification.
ESPNET_SCORES: dict[str, tuple[ProblemType, str]] = {
    "multi-class": ("single_label_classification", "a softmax"),
    "multi-label": ("multi_label_classification", "a sigmoid"),
}
# Tokens that ESPnet appends to the classes.
SPECIAL_TOKENS = (["<blank>", "<unk>"], ["<unk>", "<blank>"])
# Shapes of avex's filter bank at 16 kHz, 25 and 10 ms, 128 mel bins: the one that this package computes.
AVEX_FBANK = {"fbank.window": (400,), "fbank.mel_fb": (257, 128)}


@dataclass
class Source:
    """
    Contents of a checkpoint, in Microsoft's terms: settings, tensors (mapped from the file and not copied), labels by
    class index and their names, the kind of a head that is not Microsoft's, its settings and its tensors beside the
    classifier (in our terms), the loss of the classes, the statistics of the fbank that its trainer applied, as far as
    they are stated, and notes on what was left out or assumed.
    """

    origin: Origin
    cfg: Mapping[str, Any]
    tensors: dict[str, torch.Tensor]
    label_dict: Any = None
    label_names: Mapping[str, str] = field(default_factory=lambda: AUDIOSET_LABELS)
    head_kind: Kind | None = None
    head_settings: dict[str, Any] = field(default_factory=dict)
    head_tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    problem_type: ProblemType = "multi_label_classification"
    statistics: dict[str, float] = field(default_factory=dict)
    # Taken for the released architecture, because nothing says otherwise.
    is_cfg_assumed: bool = False
    notes: list[str] = field(default_factory=list)


def read_source(
    path: Path,
    origin: Origin,
    cfg: Sequence[str | Path],
    label_dict: Any = None,
    max_bytes: float = MAX_BYTES,
    head: Head = Head.AUTO,
) -> Source:
    """
    Reads a file and finds the BEATs model in it. The arguments are those of [`read_checkpoint`].

    Raises:
        [`CheckpointError`]: a file without a BEATs model, with several, or with one whose architecture nothing states,
            or without the head that is wanted.
    """
    contents = load(path, max_bytes)
    state_dict = _find_state_dict(contents, path)
    prefix = _find_prefix(state_dict, contents, path)
    tensors = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    others = [key for key in state_dict if not key.startswith(prefix)]
    _check_dtypes(tensors)
    check_matrix(tensors, SECOND_MARK)
    is_known = origin is not Origin.AUTO
    if not is_known:
        origin = _detect_origin(prefix, state_dict, has_cfg="cfg" in contents)
    if head is not Head.AUTO and origin is not Origin.PRETRAINED_SED:
        raise CheckpointError(
            f"{path}: --head {head.value} is for files of PretrainedSED, and this one is of {origin.value}."
        )
    source = Source(origin, {}, tensors, contents.get("label_dict"))
    settings = _find_cfg(source, contents, cfg, path, max_bytes, prefix)
    if source.origin is Origin.OTHER and settings.training and not is_known:
        # Its older encoders have no constants by which they are recognised.
        source.origin = Origin.ESPNET
    has_head = source.origin is Origin.ESPNET and f"{_espnet_head(prefix)}weight" in state_dict
    if has_head and not is_of_classifier(settings.training):
        if settings.training:
            source.notes.append(_note_on_base(settings))
        settings.training, settings.statistics = {}, {}
    source.statistics = settings.statistics
    _drop_wrapper_parts(source)
    _take_head(source, prefix, state_dict, others, settings.training, head)
    source.label_dict = source.label_dict if label_dict is None else label_dict
    return source


def _find_state_dict(contents: Mapping[str, Any], path: Path) -> Mapping[str, torch.Tensor]:
    """Returns `model` if there is one, else the file itself or the one entry (`state_dict`, ...) with an encoder."""
    if isinstance(contents.get("model"), Mapping):
        state_dict = contents["model"]
        are_tensors = (isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state_dict.items())
        if not state_dict or not all(are_tensors):
            raise CheckpointError(f"{path}: not a BEATs checkpoint: `model` is not a dictionary of tensors.")
        return state_dict
    entries = {"": contents, **{key: value for key, value in contents.items() if isinstance(value, Mapping)}}
    found = {name: entry for name, entry in entries.items() if any(str(key).endswith(MARK) for key in entry)}
    if len(found) > 1:
        names = ", ".join(f"`{name}`" for name in found)
        raise CheckpointError(f"{path}: has BEATs models in {names}; save the one that you want alone.")
    if not found:
        raise CheckpointError(
            f"{path}: not a BEATs checkpoint: expected `cfg` and `model`, found {sorted(map(str, contents))[:5]}."
        )
    entry = next(iter(found.values()))
    return {key: value for key, value in entry.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}


def _find_prefix(state_dict: Mapping[str, torch.Tensor], contents: Mapping[str, Any], path: Path) -> str:
    prefixes = [key.removesuffix(MARK) for key in state_dict if re.search(rf"(^|\.){re.escape(MARK)}$", key)]
    prefixes = [prefix for prefix in prefixes if prefix + SECOND_MARK in state_dict]
    # ESPnet trains a tokenizer beside its teacher; only the former is the result.
    if sorted(prefixes) == ["encoder.", "teacher."]:
        return "encoder."
    if len(prefixes) > 1:
        names = ", ".join(f"`{prefix}`" for prefix in sorted(prefixes))
        raise CheckpointError(f"{path}: has BEATs encoders under {names}; save the one that you want alone.")
    if not prefixes and "cfg" not in contents:
        raise CheckpointError(
            f"{path}: not a BEATs checkpoint: no encoder (`...{MARK}`) among {len(state_dict)} tensors, the first of "
            f"them {sorted(state_dict)[:3]}."
        )
    return prefixes[0] if prefixes else ""


def _check_dtypes(tensors: Mapping[str, torch.Tensor]) -> None:
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in DTYPES:
            raise CheckpointError(
                f"`{key}` is not a tensor of floating-point numbers: {tensor.dtype}, {tensor.layout}."
            )


def check_matrix(tensors: Mapping[str, torch.Tensor], key: str) -> None:
    """Raises a [`CheckpointError`] unless a tensor, if it is there, has rows and columns."""
    if key in tensors and tensors[key].ndim != 2:
        raise CheckpointError(f"`{key}` is not a matrix, but has shape {tuple(tensors[key].shape)}.")


def _detect_origin(prefix: str, state_dict: Mapping[str, torch.Tensor], has_cfg: bool) -> Origin:
    if any(f"{prefix}{key}" in state_dict for key in ("patch_embedding_pad.weight", "raw2fbank_pad.weight")):
        return Origin.ESPNET
    if f"{prefix}fbank.mel_fb" in state_dict:
        return Origin.AVEX
    root = pretrained_sed.root_of(prefix)
    if root is not None and any(f"{root}{head}weight" in state_dict for head in pretrained_sed.HEADS):
        return Origin.PRETRAINED_SED
    is_alone = all(key.startswith(prefix) for key in state_dict)
    return Origin.MICROSOFT if has_cfg and is_alone else Origin.OTHER


def _find_cfg(
    source: Source, contents: Mapping[str, Any], cfg: Sequence[str | Path], path: Path, max_bytes: float, prefix: str
) -> Settings:
    """Sets the settings of the model, the file's own and those that were given; returns the latter."""
    own = contents.get("cfg", {})
    if not isinstance(own, Mapping):
        found = type(own).__name__
        raise CheckpointError(f"{path}: not a BEATs checkpoint: expected `cfg` to be a dictionary, found {found}.")
    if tensors := [key for key, value in own.items() if isinstance(value, torch.Tensor)]:
        raise CheckpointError(f"{path}: not a BEATs checkpoint: `cfg` has a tensor for {tensors[0]!r}.")
    check_values(own, path)
    is_released = "released" in map(str, cfg)
    settings = read_settings(cfg, has_cfg="cfg" in contents, max_bytes=max_bytes)
    files = ", ".join(display_name(Path(name)) for name in cfg if str(name) != "released")
    if "cfg" in contents:
        architecture = [key for key in (*ARCHITECTURE, *QUANTIZER) if key in settings.cfg]
        for key in architecture:
            # Whoever asks for the released architecture wants what is missing only.
            if not is_released and own.get(key, settings.cfg[key]) != settings.cfg[key]:
                raise CheckpointError(
                    f"{path}: its own `cfg` says {key}={own[key]!r}, --cfg {settings.cfg[key]!r}: another model."
                )
        if taken := ", ".join(f"{key}={settings.cfg[key]}" for key in architecture if key not in own):
            origin = "Microsoft's released models" if is_released else files
            source.notes.append(f"not in the file's own `cfg`, taken from {origin}: {taken}")
        source.cfg = settings.cfg | own
        return settings
    if not cfg and source.origin not in RELEASED_IS_DOCUMENTED:
        is_named_so = pretrained_sed.root_of(prefix) is not None
        hint = " If PretrainedSED wrote it, say so with --origin pretrained-sed." if is_named_so else ""
        raise CheckpointError(
            f"{path}: expected `cfg` and `model`, found a BEATs model without `cfg`: nothing states its "
            f"{', '.join(INVISIBLE)}. Name a file that does with --cfg (ESPnet's or avex's .yaml, or the .pt that its "
            f"training began from), or assume what Microsoft's models have with --cfg released.{hint}"
        )
    source.cfg = settings.cfg
    if files:
        source.notes.append(f"no `cfg` in the file: taken from {files}")
    if is_released or not cfg:
        source.cfg, source.is_cfg_assumed = RELEASED | settings.cfg, True
        reason = "as asked for" if cfg else RELEASED_IS_DOCUMENTED[source.origin]
        invisible = ", ".join(f"{key}={source.cfg[key]}" for key in INVISIBLE)
        source.notes.append(
            f"no `cfg` in the file: the architecture of Microsoft's released models was assumed ({reason}); all "
            f"shapes agree with it, but none can show that {invisible}"
        )
    return settings


def display_name(path: Path) -> str:
    """Returns the name of a file as users know it: in the cache of the Hub, with its repository."""
    inside = path_in_cache(path)
    if inside is None:
        return path.name
    repository, _, _, *names = inside.parts
    return "/".join([repository.partition("--")[2].replace("--", "/"), *names])


def _drop_wrapper_parts(source: Source) -> None:
    """Removes tensors that a project adds inside the encoder; refuses those that change the encoder's output."""
    for part, meaning in ESPNET_PARTS.items():
        if source.origin is Origin.ESPNET and any(key.split(".")[0] == part for key in source.tensors):
            raise CheckpointError(f"`{part}` has no counterpart here: {meaning}.")
    if source.origin is not Origin.AVEX:
        return
    for key, shape in AVEX_FBANK.items():
        tensor = source.tensors.pop(key, None)
        if tensor is not None and tensor.shape != shape:
            raise CheckpointError(f"`{key}` has shape {tuple(tensor.shape)}, {shape} at 16 kHz with 128 mel bins.")
        if tensor is not None:
            source.notes.append(f"dropped `{key}`: a constant of avex's filter bank")
    source.notes.append("avex states the sampling rate of each model in its `audio_config`: this one must have 16 kHz")


def _take_head(
    source: Source,
    prefix: str,
    state_dict: Mapping[str, torch.Tensor],
    others: list[str],
    settings: Mapping[str, Any],
    choice: Head,
) -> None:
    """Makes the wrapper's head the `predictor` if it is like ours, and notes the tensors that are left out."""
    sed_head: pretrained_sed.SedHead | str = ""
    if source.origin is Origin.PRETRAINED_SED:
        sed_head = pretrained_sed.find_head(pretrained_sed.root_of(prefix) or "", state_dict, choice)
    if isinstance(sed_head, pretrained_sed.SedHead):
        head, reason = sed_head.prefix, ""
        source.head_kind, source.head_settings = sed_head.kind, sed_head.settings
        source.head_tensors = {ours: state_dict[theirs] for theirs, ours in sed_head.names.items()}
        _check_dtypes(source.head_tensors)
    else:
        head, reason = _find_head(source.origin, prefix, state_dict, settings)
        reason = f"; no head, because {sed_head}" if sed_head else reason
        if not head and (head := _find_column_head(source.tensors, state_dict, others)):
            source.head_kind, source.head_settings = "event-classifier", {"frame_pooling": "concat"}
    # Beside another layer, or in avex, a `predictor` comes from the checkpoint that training began from.
    is_stale = source.origin is Origin.AVEX or any(state_dict[key].ndim > 1 for key in others)
    left_out = [prefix + key for key in source.tensors if is_stale and key.startswith("predictor.")]
    for key in left_out:
        del source.tensors[key.removeprefix(prefix)]
    taken = [key for key in (f"{head}weight", f"{head}bias") if head and key in state_dict]
    further = sed_head.names if isinstance(sed_head, pretrained_sed.SedHead) else {}
    left_out = [*(key for key in others if key not in taken and key not in further), *left_out]
    if left_out:
        counts = Counter(_part(key, prefix) for key in left_out)
        parts = ", ".join(f"`{part}` ({count})" for part, count in counts.items())
        source.notes.append(f"left out {len(left_out)} tensors that are no part of the encoder: {parts}{reason}")
    if not taken:
        return
    source.tensors |= {key.replace(head, "predictor."): state_dict[key] for key in taken}
    _check_dtypes({key: state_dict[key] for key in taken})
    check_matrix(source.tensors, "predictor.weight")
    source.notes.append(f"the classification head is `{head}`")
    if source.head_settings.get("frame_pooling") == "concat":
        source.notes.append(
            "it reads the patches of a time column one after the other: an event is scored every 160 ms; that they go "
            "from low to high frequencies, as everywhere in BEATs, is assumed"
        )
    if source.origin is Origin.ESPNET:
        _read_espnet_labels(source, settings)
    elif isinstance(sed_head, pretrained_sed.SedHead):
        notes, names = pretrained_sed.describe_head(sed_head, source.tensors["predictor.weight"].shape[0])
        source.notes += notes
        if names is not None:
            source.label_names, source.label_dict = names, dict(enumerate(names))
    else:
        source.notes.append("how its classes were trained is not in the file: a sigmoid, as in avex's recipes")


def _find_head(
    origin: Origin, prefix: str, state_dict: Mapping[str, torch.Tensor], settings: Mapping[str, Any]
) -> tuple[str, str]:
    """
    Returns the name before `weight` of a head like ours, a linear layer on each patch and the mean over the patches;
    or an empty string, and the reason why there is none. A linear layer on the mean (avex, ESPnet) is the same.
    """
    if origin is Origin.AVEX and f"{prefix.removesuffix('backbone.')}classifier.weight" in state_dict:
        return prefix.removesuffix("backbone.") + "classifier.", ""
    if origin is Origin.ESPNET and f"{_espnet_head(prefix)}weight" in state_dict:
        if obstacle := _espnet_obstacle(settings):
            return "", f"; no head, because {obstacle}"
        return _espnet_head(prefix), ""
    return "", ""


def _espnet_head(prefix: str) -> str:
    return prefix.removesuffix("encoder.") + ESPNET_HEAD


def _note_on_base(settings: Settings) -> str:
    """Returns a note on settings that are not those of the training of a classifier, but of another model."""
    stated = ", ".join(f"{key}={value}" for key, value in settings.statistics.items())
    unused = f"; its {stated} were not applied" if stated else ""
    return f"`encoder_conf` is of a model without a classifier, the base: the architecture was taken from it{unused}"


def _find_column_head(
    tensors: Mapping[str, torch.Tensor], state_dict: Mapping[str, torch.Tensor], others: Sequence[str]
) -> str:
    """
    Returns the name before `weight` of the one linear layer on the concatenated patches of a time column, such as
    avex's head for events, `Linear(8 * 768, classes)`; an empty string if there is not one.
    """
    patch, inner = tensors.get(MARK), tensors.get(SECOND_MARK)
    if patch is None or inner is None or patch.ndim != 4 or inner.ndim != 2 or not patch.shape[-1]:
        return ""
    num_inputs = NUM_MEL_BINS // patch.shape[-1] * inner.shape[0]
    layers = [key.removesuffix("weight") for key in others if key.endswith(".weight") and state_dict[key].ndim > 1]
    # With other layers, or a convolution, it is part of something else.
    if len(layers) != 1 or f"{layers[0]}bias" not in others or inner.shape[0] == num_inputs:
        return ""
    return layers[0] if state_dict[f"{layers[0]}weight"].shape[1:] == (num_inputs,) else ""


def _part(key: str, prefix: str) -> str:
    """Returns the module that a tensor belongs to: its name up to the first part that differs from the encoder's."""
    parts, others = key.split("."), prefix.split(".")
    shared = next((index for index, (one, other) in enumerate(zip(parts, others)) if one != other), 0)
    return ".".join(parts[: shared + 1])


def _espnet_obstacle(settings: Mapping[str, Any]) -> str:
    """Returns the reason why a head of ESPnet cannot be ours, or an empty string."""
    if not settings:
        return "only the config.yaml of its training, which --cfg can name, tells how it works"
    decoder = section(settings, "decoder_conf")
    if settings.get("decoder", "linear") != "linear" or decoder.get("pooling", "mean") != "mean":
        return "it is no linear layer on the mean over the patches"
    changed = [name for name in ("frontend", "normalize", "preencoder") if settings.get(name) is not None]
    return f"the audio goes through {changed[0]} first" if changed else ""


def _read_espnet_labels(source: Source, settings: Mapping[str, Any]) -> None:
    """Reads the loss, and the classes: the first tokens of `token_list`, before `<blank>` and `<unk>`."""
    stated = section(settings, "model_conf").get("classification_type")
    if stated is not None and str(stated) not in ESPNET_SCORES:
        known = " or ".join(ESPNET_SCORES)
        raise CheckpointError(f"ESPnet's settings: expected `classification_type` to be {known}, found {stated!r}.")
    source.problem_type, scores = ESPNET_SCORES[str(stated or "multi-class")]
    scores += (
        " as `classification_type` says" if stated else " by ESPnet's default: no `classification_type` is stated"
    )
    num_labels, tokens = source.tensors["predictor.weight"].shape[0], settings.get("token_list")
    if isinstance(tokens, list) and tokens[num_labels:] in SPECIAL_TOKENS:
        source.label_dict = dict(enumerate(tokens[:num_labels]))
        source.notes.append(f"{num_labels} classes by `token_list`, scored by {scores}")
    else:
        source.notes.append(f"{num_labels} classes, scored by {scores}")
