# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Settings of a model that stand in other files than its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from transformers_beats.configuration_beats import BeatsTokenizerConfig
from transformers_beats.utils.files import read_yaml

from .locations import MAX_BYTES
from .names import ARCHITECTURE, FBANK, QUANTIZER, REGULARIZATION
from .reading import CheckpointError, load


# The architecture of all models that Microsoft released, in the terms of their `cfg`: our defaults.
RELEASED = {key: getattr(BeatsTokenizerConfig(), name) for key, name in {**ARCHITECTURE, **QUANTIZER}.items()}


@dataclass
class Settings:
    """
    Settings of a model that other files than its weights state.

    Attributes:
        cfg: The architecture, in the terms of Microsoft's `cfg`.
        training: ESPnet's `config.yaml` of the training, a classifier's if one was given; empty without such a file.
        statistics: `fbank_mean` and `fbank_std` of its `encoder_conf`, as far as stated there.
    """

    cfg: dict[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    statistics: dict[str, float] = field(default_factory=dict)


def read_settings(names: Sequence[str | Path], has_cfg: bool = False, max_bytes: float = MAX_BYTES) -> Settings:
    """
    Reads what other files state about a model: checkpoints with a `cfg`, or YAML or JSON files (ESPnet's
    `config.yaml`, avex's description of a model, or the settings themselves). `"released"` stands for the architecture
    of Microsoft's models. A later file overrides an earlier one, as in ESPnet. With `has_cfg`, the checkpoint itself
    states its architecture, and ESPnet's `config.yaml` may leave it out.

    Raises:
        [`UsageError`]: if there is no such file.
        [`CheckpointError`]: if a file has no settings, or refers to another.
    """
    settings = Settings()
    for name in names:
        if str(name) == "released":
            settings.cfg |= RELEASED
            continue
        path = Path(name)
        contents = read_yaml(path) if path.suffix in (".yaml", ".yml", ".json") else load(path, max_bytes)
        encoder = contents.get("encoder_conf")
        if isinstance(encoder, Mapping):
            # Of the base of a classifier that was named after it, only the architecture counts.
            if is_of_classifier(contents) or not is_of_classifier(settings.training):
                settings.training, settings.statistics = dict(contents), _read_statistics(encoder, path)
            if encoder.get("beats_ckpt_path") and not settings.cfg and not has_cfg:
                raise CheckpointError(
                    f"{path}: the encoder was built from {encoder['beats_ckpt_path']}, whose `cfg` states the rest: "
                    f"name that file before this one, --cfg BASE --cfg {path.name}."
                )
            if encoder.get("max_layer") is not None:
                raise CheckpointError(f"{path}: the encoder stops early (`max_layer` {encoder['max_layer']}).")
        found = find_cfg(contents)
        if found is None and not isinstance(encoder, Mapping):
            raise CheckpointError(f"{path}: has no settings of a BEATs model, found {sorted(map(str, contents))[:5]}.")
        check_values(found or {}, path)
        settings.cfg |= found or {}
    # The kind of model follows from its tensors, not from the file that the settings come from.
    settings.cfg.pop("finetuned_model", None)
    return settings


def is_of_classifier(settings: Mapping[str, Any]) -> bool:
    """
    Returns whether ESPnet's settings are those of a classifier. Those of a pre-training have a `token_list` and a
    `model_conf` as well, but no decoder and no type of classification.
    """
    if settings.get("decoder") is not None or settings.get("decoder_conf"):
        return True
    return section(settings, "model_conf").get("classification_type") is not None


def find_cfg(contents: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the architecture that the contents of a file state, None if they state none."""
    encoder, spec = contents.get("encoder_conf"), contents.get("model_spec")
    places = [contents.get("cfg"), contents.get("beats_cfg"), contents.get("beats_config")]
    places += [spec.get("init_config")] if isinstance(spec, Mapping) else []
    places += [encoder.get("beats_config"), encoder.get("tokenizer_config")] if isinstance(encoder, Mapping) else []
    places += [contents] if "encoder_layers" in contents or "deep_norm" in contents else []
    return next((place for place in places if isinstance(place, Mapping)), None)


def check_values(cfg: Mapping[str, Any], path: Path) -> None:
    """Checks that settings which have a meaning here are single values; raises a [`CheckpointError`] naming one."""
    for key in (*ARCHITECTURE, *QUANTIZER, *REGULARIZATION, *FBANK):
        if not isinstance(cfg.get(key), (bool, int, float, str, NoneType)):
            raise CheckpointError(f"{path}: expected a single value for `{key}`, found {type(cfg[key]).__name__}.")


def _read_statistics(encoder: Mapping[str, Any], path: Path) -> dict[str, float]:
    """
    Returns the statistics of the fbank that ESPnet's encoder applies: arguments of its constructor. Those in
    `beats_config` it does not read.
    """
    try:
        return {key: float(encoder[key]) for key in FBANK if encoder.get(key) is not None}
    except (TypeError, ValueError):
        raise CheckpointError(f"{path}: `fbank_mean` and `fbank_std` of `encoder_conf` must be numbers.") from None


def section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns a section of ESPnet's settings, empty if absent; raises a [`CheckpointError`] if it is no mapping."""
    found = settings.get(name) or {}
    if not isinstance(found, Mapping):
        raise CheckpointError(f"ESPnet's settings: expected `{name}` to be a mapping, found {type(found).__name__}.")
    return found


def read_labels(path: Path) -> dict[int, str]:
    """
    Reads the names of classes by index from avex's `label_map.json`: an index for each name.

    Raises:
        [`UsageError`]: if there is no such file.
        [`CheckpointError`]: if it is not of that form.
    """
    indices = read_yaml(path)
    if not all(isinstance(index, int) and not isinstance(index, bool) for index in indices.values()):
        raise CheckpointError(f"{path}: expected names of classes with their indices.")
    labels = {index: str(name) for name, index in indices.items()}
    if len(labels) < len(indices):
        raise CheckpointError(f"{path}: gives several classes the same index.")
    return labels
