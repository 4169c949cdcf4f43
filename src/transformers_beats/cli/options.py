# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Options that several commands share."""

import functools
import inspect
import sys
from collections.abc import Callable, Collection
from enum import Enum
from typing import Annotated, Any, NamedTuple

import typer

from transformers_beats.backends.choice import BackendName
from transformers_beats.utils.arguments import find_problem
from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.stages import take_times
from transformers_beats.utils.table import terminal_width

from .notes import decoder_notes


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


def released_names(incomplete: str) -> list[str]:
    """Returns the names of released models that begin so, for shells."""
    from transformers_beats.conversion.released import read_manifest

    return [name for name in read_manifest() if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Name (see `models`), directory, or Hub id.",
        autocompletion=released_names,
    ),
]
MovedModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Where the model is, if it was moved.",
        autocompletion=released_names,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON lines, an object a line; everything else goes to stderr."),
]


def check_seconds(option: typer.CallbackParam, seconds: float | None) -> float | None:
    """Returns a length in seconds, if there is one; raises a [`UsageError`] if it is not positive and finite."""
    if seconds is not None and (problem := find_problem(seconds, True, {"positive": True})):
        raise UsageError(f"{option.opts[0]} must {problem}, got {seconds:g}.")
    return seconds


Segments = Annotated[
    float | None,
    typer.Option(
        "--segments",
        metavar="SECONDS",
        callback=check_seconds,
        help="Embed each part of so many seconds, heard alone, instead of the whole recording.",
        show_default=False,
    ),
]
Device = Annotated[str, rare("DEVICE", "cpu, cuda, cuda:1, mps ...; a GPU if there is one by default.")]


BackendOption = Annotated[BackendName, rare("BACKEND", "Of the encoder: torch (default), onnx, onnx-int8, auto.")]


class Shared(NamedTuple):
    """Options of the commands that read audio."""

    inputs: Annotated[
        list[str],
        typer.Argument(metavar="FILE_OR_FOLDER", help="Audio files and folders of them; - for standard input."),
    ]
    model: Model
    resume: Annotated[bool, typer.Option("--resume", help="Continue an output; leave out files that are done.")] = (
        False
    )
    window: Annotated[float, rare("SECONDS", "Windows of long recordings (default: 10).")] = 10.0
    hop: Annotated[float | None, rare("SECONDS", "From one window to the next (default: --window).")] = None
    batch_size: Annotated[int, rare("N", "Windows in a batch (default: 8).", min=1)] = 8
    device: Device = "auto"
    dtype: Annotated[Dtype, rare("DTYPE", "float32, bfloat16, float16 or auto, as saved (default).")] = Dtype.auto
    workers: Annotated[int | None, rare("N", "Processes that decode (default: by files and CPUs).", min=0)] = None
    profile: Annotated[
        bool, typer.Option("--profile", help="Print the seconds of each stage.", rich_help_panel="Windows and device")
    ] = False
    backend: BackendOption = BackendName["torch"]


def with_shared_options(function: Callable[..., None], left_out: Collection[str] = ()) -> Callable[..., None]:
    """
    Makes a function for typer of one that takes [`Shared`], [`DecoderNotes`], and then its own options. Shared options
    that are `left_out` keep their defaults.
    """

    @functools.wraps(function)
    def command(**values: Any) -> None:
        # Before anything is imported that writes to stderr.
        with decoder_notes() as notes:
            options = Shared(**{name: values.pop(name) for name in shared})
            if not options.profile:
                function(options, notes, **values)
                return
            with take_times() as times:
                try:
                    function(options, notes, **values)
                finally:
                    # Also if files failed, or after Ctrl-C; not of arguments that cannot be used.
                    if any(times.seconds.values()):
                        print(times.describe(terminal_width()), file=sys.stderr)

    shared = {name: entry for name, entry in inspect.signature(Shared).parameters.items() if name not in left_out}
    inputs, model, *others = shared.values()
    _, _, *own = inspect.signature(function).parameters.values()
    parameters = [entry.replace(kind=entry.KEYWORD_ONLY) for entry in (inputs, model, *own, *others)]
    command.__signature__ = inspect.Signature(parameters)  # ty: ignore[missing-attribute]
    return command
