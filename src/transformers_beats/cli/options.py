# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Options that several commands share."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

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


Inputs = Annotated[list[Path], typer.Argument(metavar="FILE_OR_FOLDER", help="Audio files, and folders of them.")]
Model = Annotated[
    str, typer.Option("--model", "-m", metavar="MODEL", help="Directory of a model, or its id on the Hub.")
]
Directory = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIRECTORY", help="Directory for one .npy for each file.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an output; leave out files that are done.")]
Window = Annotated[float, rare("SECONDS", "Windows of long recordings (default: 10).")]
Hop = Annotated[float | None, rare("SECONDS", "From one window to the next (default: --window).")]
BatchSize = Annotated[int, rare("N", "Windows in a batch (default: 8).", min=1)]
Device = Annotated[str, rare("DEVICE", "cpu, cuda, cuda:1, mps ...; a GPU if there is one by default.")]
DtypeOption = Annotated[Dtype, rare("DTYPE", "float32, bfloat16, float16 or auto, as saved (default).")]
