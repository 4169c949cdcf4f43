# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Names of the backends, and the table by which `auto` chooses one; without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from transformers_beats.utils.errors import UsageError


# `onnx` is onnxruntime in float32. `auto` never chooses int8, whose results are others.
Backend: TypeAlias = Literal["auto", "torch", "onnx", "onnx-int8"]
# Choices of an option, as typer takes them.
BackendName = Enum("BackendName", {name: name for name in get_args(Backend)}, type=str)
# Windows that were measured. The graph has attention as matrices of all pairs of patches, where PyTorch computes it in
# blocks: longer windows take much more memory in onnxruntime, by the square of their length.
LONGEST_SECONDS = 10.0


def settings_of_backend(backend: str | None) -> dict[str, str]:
    """Returns the settings of an output by which a backend changes its results, beyond rounding."""
    return {"precision": "int8"} if backend == "onnx-int8" else {}


@dataclass(frozen=True)
class Circumstances:
    """
    Properties of model and machine that `auto` looks at.

    Args:
        device (`str`):
            Kind of the model's device, such as `"cpu"`.
        dtype (`str`):
            Name of its precision.
        is_wrapped (`bool`):
            Whether it is in a wrapper or has adapters.
        has_encoder (`bool`):
            Whether it has an encoder.
        needs_layers (`bool`):
            Whether it reads other hidden states than the last one.
        is_installed (`bool`):
            Whether the packages of the extra `onnx` are installed.
        instruction_sets (`tuple[str, ...]`):
            Those of the CPU, see [`machine.instruction_sets`].
        window_seconds (`float`, *optional*):
            Length of the windows; none if it is not known yet.
    """

    device: str
    dtype: str
    is_wrapped: bool
    has_encoder: bool
    needs_layers: bool
    is_installed: bool
    instruction_sets: tuple[str, ...]
    window_seconds: float | None = None

    @property
    def is_long(self) -> bool:
        """Returns whether windows are longer than those that were measured."""
        return self.window_seconds is not None and self.window_seconds > LONGEST_SECONDS


class Rule(NamedTuple):
    """A row of the table: a condition in words and as a function, and the backend that it leads to."""

    condition: str
    holds: Callable[[Circumstances], bool]
    backend: Backend


# The first rule that holds decides. Measured by `benchmarks.backends`, see docs/performance.md.
RULES = (
    Rule("the model has no encoder", lambda now: not now.has_encoder, "torch"),
    Rule("the model is in a wrapper or has adapters", lambda now: now.is_wrapped, "torch"),
    Rule("the model is not on the CPU", lambda now: now.device != "cpu", "torch"),
    Rule("the model is not in float32", lambda now: now.dtype != "float32", "torch"),
    Rule("hidden states of other layers than the last are needed", lambda now: now.needs_layers, "torch"),
    Rule("the extra onnx is not installed", lambda now: not now.is_installed, "torch"),
    Rule(f"windows are longer than {LONGEST_SECONDS:g} s: not measured", lambda now: now.is_long, "torch"),
    Rule("AVX2 is not known of the CPU: not measured", lambda now: "avx2" not in now.instruction_sets, "torch"),
    Rule("float32 on a CPU with AMX: no gain", lambda now: "amx_bf16" in now.instruction_sets, "torch"),
    Rule("float32 on a CPU with AVX2", lambda now: True, "onnx"),
)


def choose(now: Circumstances) -> Rule:
    """Returns the row of `RULES` that decides."""
    return next(rule for rule in RULES if rule.holds(now))


def check_backend(backend: Any) -> None:
    """Raises a [`UsageError`] for a name that is no backend."""
    known = get_args(Backend)
    if backend not in known:
        raise UsageError(f"`backend` is {backend!r}: choose {', '.join(known[:-1])} or {known[-1]}.")


__all__ = ["LONGEST_SECONDS", "RULES", "Backend", "BackendName", "Circumstances", "Rule", "check_backend", "choose"]
