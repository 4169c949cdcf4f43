# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Kinds of models, and models inside wrappers. Classes are known by their names, since a model that was loaded by
`trust_remote_code` has classes of its own.
"""

import copy
import math
from pathlib import Path
from typing import Any
from weakref import WeakSet

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from transformers_beats.fbank_beats import silence_value
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.modeling_beats import OTHER_NORMALISATIONS
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.machine import is_emulated, name_of

from .kinds import KINDS, Kind


logger = logging.get_logger(__name__)

# Models of which was said that their precision is emulated.
_TOLD: WeakSet[Any] = WeakSet()
# Modules of classifiers that an encoder does not have.
HEAD_MODULES = ("classifier", "layer_average", "pooling", "recurrent")
# Attributes in which wrappers keep the model: `torch.compile`, and PyTorch's `DataParallel` and others.
INNER = ("_orig_mod", "module")


def unwrap(model: Any) -> Any:
    """Returns the model inside wrappers of PEFT, `torch.compile` and PyTorch's parallelism, adapters in its layers."""
    return _wrappers(model)[-1]


def _wrappers(model: Any) -> list[Any]:
    """Returns a model and what it wraps, the innermost last."""
    wrappers = [model]
    while not isinstance(model, PreTrainedModel):
        if callable(getattr(model, "get_base_model", None)):
            model = model.get_base_model()
        else:
            children = dict(model.named_children()) if isinstance(model, nn.Module) else {}
            model = next((children[name] for name in INNER if name in children), None)
        if model is None:
            break
        wrappers.append(model)
    return wrappers


def is_like_another(extractor: BeatsFeatureExtractor) -> bool:
    """
    Returns whether a feature extractor normalises as others do whose filter banks models refuse unless they come with
    a mask.
    """
    floor = silence_value(extractor.fbank_mean, extractor.fbank_std)
    floors = [silence_value(mean, divisor / 2) for mean, divisor in OTHER_NORMALISATIONS.values()]
    # As rounded as half precision is.
    return any(math.isclose(floor, other, rel_tol=0.02) for other in floors)


def kind_of(model: Any) -> Kind | None:
    """Returns the kind of a model, which may be wrapped; None for a model of another kind."""
    names = [parent.__name__ for parent in type(unwrap(model)).__mro__]
    return next((KINDS[name] for name in names if name in KINDS), None)


def reads_frames(model: Any) -> bool:
    """Returns whether the head of a model reads frames: of events, or of clips that pool frames."""
    kind = kind_of(model)
    return kind == "frames" or (kind == "clips" and model.config.pools_frames)


def merge_adapters(model: Any) -> PreTrainedModel:
    """Returns the model inside wrappers; of one of PEFT, a copy with the adapters added to its weights."""
    for wrapper in _wrappers(model):
        if hasattr(wrapper, "merge_and_unload"):
            return copy.deepcopy(wrapper).merge_and_unload()
    return unwrap(model)


def has_adapters(model: Any) -> bool:
    """Returns whether a model is in a wrapper, or has adapters in its layers."""
    wrappers = _wrappers(model)
    # Each layer of PEFT holds the one that it adapts.
    is_adapted = wrappers[-1] is not None and any(
        name.endswith(".base_layer") for name, _ in wrappers[-1].named_modules()
    )
    return len(wrappers) > 1 or is_adapted


def is_beats_extractor(feature_extractor: Any) -> bool:
    """Returns whether this is the feature extractor of a BEATs model."""
    return "BeatsFeatureExtractor" in (parent.__name__ for parent in type(feature_extractor).__mro__)


def check_extractor(feature_extractor: Any, model: PreTrainedModel) -> None:
    """Raises a [`UsageError`] for a feature extractor of another kind of model, or of other patches or filters."""
    if not is_beats_extractor(feature_extractor):
        raise UsageError(
            f"A {type(feature_extractor).__name__} is no feature extractor of a BEATs model: pass the "
            "`BeatsFeatureExtractor` that was saved with the model."
        )
    for name, needed in {"patch_size": "patch_size", "feature_size": "num_mel_bins"}.items():
        has, needs = getattr(feature_extractor, name), getattr(model.config, needed)
        if has != needs:
            raise UsageError(f"The feature extractor has `{name}` {has}, the model needs {needs}.")


def warn_if_emulated(model: Any, output: str | Path | None = None) -> None:
    """
    Warns once of a model, which may be wrapped, if this CPU emulates its precision. For the model of an `output`,
    whose precision it has to keep, the advice is to make that again.
    """
    plain = unwrap(model)
    if plain in _TOLD or not is_emulated(plain.dtype, plain.device):
        return
    _TOLD.add(plain)
    name = name_of(plain.dtype)
    if output is None:
        logger.warning_once(
            f"This CPU has no instructions for {name}, which takes 7 to 8 times as long as float32: load the model "
            'with `dtype="float32"`.'
        )
    else:
        logger.warning_once(
            f"{output}: was made in {name}, which this CPU emulates, 7 to 8 times as slow as float32: use another "
            "device, or make it again with --dtype float32."
        )


__all__ = [
    "check_extractor",
    "has_adapters",
    "is_beats_extractor",
    "kind_of",
    "merge_adapters",
    "unwrap",
    "warn_if_emulated",
]
