# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Models whose encoder another engine computes; head, filter bank and windows stay those of PyTorch."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from weakref import WeakSet

from transformers_beats.backends.choice import LONGEST_SECONDS, Backend, Circumstances, check_backend, choose
from transformers_beats.backends.encoder import (
    OUTPUTS,
    Precision,
    in_torch,
    made_of,
    open_encoder,
    shallow_copy,
    with_encoder,
)
from transformers_beats.utils.errors import BeatsError, UsageError, install_command, one_line
from transformers_beats.utils.machine import instruction_sets, name_of
from transformers_beats.utils.messages import note, warn

from .models import has_adapters, kind_of, unwrap


# Packages of the extra `onnx`.
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# Choices of `auto`, and warnings, that were printed.
_told: set[str] = set()
# Models that `auto` left to PyTorch as their export failed, which is not tried for each recording again.
_failed: WeakSet[Any] = WeakSet()


def in_backend(model: Any, backend: Backend, window_seconds: float | None = None) -> Any:
    """
    Returns a model whose encoder is computed by a backend. It shares all weights with `model`, which is not changed
    but for its mode (evaluation): later changes of the weights do not reach the backend.

    Args:
        model (`PreTrainedModel`):
            A model of this package, with an encoder. One that another backend computes is opened anew from the model
            that it was made of, unless it is in the same precision.
        backend (`str`):
            `"torch"` returns the model as it is, in whatever backend. `"onnx"` is onnxruntime, `"onnx-int8"`
            onnxruntime with int8 products, which changes the results a little; see [`open_encoder`]. `"auto"` follows
            the table `RULES` of `backends.choice`, which measures nothing, and prints what it has chosen, once; if the
            export fails, it takes PyTorch with a warning.
        window_seconds (`float`, *optional*):
            Length of the windows that the model will get. `"auto"` takes PyTorch for long ones, of which another
            backend warns once: they take more memory there, by the square of their length.

    Raises:
        [`UsageError`]: for an unknown name, and for a model that a backend which was named cannot compute.
        [`ExportError`]: if the export does not compute what the encoder computes.
        `ImportError`: if the backend was named, and a package of it is missing.
    """
    check_backend(backend)
    if backend == "torch":
        return model
    given, model = model, in_torch(model)
    now = circumstances_of(model, window_seconds)
    if backend == "auto":
        rule = choose(now)
        _tell(note, f"Backend {rule.backend}: {rule.condition}.")
        if rule.backend == "torch" or model in _failed:
            return model
    elif reason := why_not(model, now):
        raise UsageError(f"The backend {backend} {reason}")
    if now.is_long:
        _tell(
            warn,
            f"Backend {backend}: windows of {window_seconds:g} s take far more memory than in PyTorch: choose windows "
            f"of at most {LONGEST_SECONDS:g} s, or the backend torch.",
        )
    precision: Precision = "int8" if backend == "onnx-int8" else "float32"
    if given is not model and given.base_model.encoder.precision == precision:
        return given
    try:
        return _replace_encoder(unwrap(model), precision)
    except (BeatsError, ImportError) as error:
        if backend != "auto":
            raise
        _failed.add(model)
        warn(f"Backend torch: {one_line(error)}")
        return model


def _tell(print_line: Callable[[str], None], line: str) -> None:
    if line not in _told:
        _told.add(line)
        print_line(line)


def _replace_encoder(model: Any, precision: Precision) -> Any:
    encoder = model.base_model
    replaced = with_encoder(encoder, open_encoder(encoder, precision))
    if model is encoder:
        return replaced
    copied = shallow_copy(model)
    setattr(copied, model.base_model_prefix, replaced)
    return made_of(model, copied)


def circumstances_of(model: Any, window_seconds: float | None = None) -> Circumstances:
    """Returns what the choice of a backend depends on."""
    plain = unwrap(model)
    has_encoder = kind_of(getattr(plain, "base_model", None)) == "encoder"
    return Circumstances(
        device=plain.device.type,
        dtype=name_of(plain.dtype),
        is_wrapped=has_adapters(model),
        has_encoder=has_encoder,
        needs_layers=has_encoder and _needs_layers(plain),
        is_installed=all(map(_is_installed, PACKAGES)),
        instruction_sets=instruction_sets(),
        window_seconds=window_seconds,
    )


def _needs_layers(model: Any) -> bool:
    averages = model is not model.base_model and model.config.use_weighted_layer_sum
    return averages or any(getattr(model.base_model.config, name, False) for name in OUTPUTS)


def why_not(model: Any, now: Circumstances) -> str | None:
    """Returns the reason why no other backend than PyTorch computes a model, as the end of a sentence; or None."""
    name = type(unwrap(model)).__name__
    if not now.has_encoder:
        return f"computes encoders, and a {name} has none: use the backend torch."
    if now.is_wrapped:
        return "takes no wrapper and no adapters: add these to the weights of the model (`merge_and_unload`)."
    if now.device != "cpu":
        return f"computes on the CPU, and the model is on {now.device}: choose the device cpu, or the backend torch."
    if now.dtype != "float32":
        return f"computes in float32, and the model is in {now.dtype}: choose the dtype float32."
    if now.needs_layers:
        return f"gives the last layer alone, and this {name} averages all or returns them: use the backend torch."
    if not _is_installed("onnxruntime"):
        return f"needs onnxruntime: {install_command('onnx')}"
    return None


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:
        # Hidden by a test, or not a module that was imported in the usual way.
        return False


__all__ = ["circumstances_of", "in_backend", "why_not"]
