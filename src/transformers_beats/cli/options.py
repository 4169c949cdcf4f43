# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Options that several commands share."""

import functools
import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer


class Dtype(str, Enum):
    """Precision of the model."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def rare(metavar: str, help: str, **options: Any) -> Any:
    """Returns an option under a heading of its own, whose help says its default."""
    panel = "Windows and device"
    return typer.Option(metavar=metavar, help=help, rich_help_panel=panel, show_default=False, **options)


class Shared(NamedTuple):
    """Options of the commands that read audio."""

    inputs: Annotated[list[Path], typer.Argument(metavar="FILE_OR_FOLDER", help="Audio files, and folders of them.")]
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="MODEL", help="Name (see `models`), directory, or Hub id."),
    ]
    resume: Annotated[bool, typer.Option("--resume", help="Continue an output; leave out files that are done.")] = (
        False
    )
    window: Annotated[float, rare("SECONDS", "Windows of long recordings (default: 10).")] = 10.0
    hop: Annotated[float | None, rare("SECONDS", "From one window to the next (default: --window).")] = None
    batch_size: Annotated[int, rare("N", "Windows in a batch (default: 8).", min=1)] = 8
    device: Annotated[str, rare("DEVICE", "cpu, cuda, cuda:1, mps ...; a GPU if there is one by default.")] = "auto"
    dtype: Annotated[Dtype, rare("DTYPE", "float32, bfloat16, float16 or auto, as saved (default).")] = Dtype.auto


def with_shared_options(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a function for typer of one that takes [`Shared`] first, and then its own options."""

    @functools.wraps(function)
    def command(**values: Any) -> None:
        function(Shared(**{name: values.pop(name) for name in shared}), **values)

    shared = inspect.signature(Shared).parameters
    inputs, model, *others = shared.values()
    _, *own = inspect.signature(function).parameters.values()
    parameters = [entry.replace(kind=entry.KEYWORD_ONLY) for entry in (inputs, model, *own, *others)]
    command.__signature__ = inspect.Signature(parameters)  # ty: ignore[missing-attribute]
    return command
