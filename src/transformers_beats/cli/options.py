# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Options that several commands share."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Dtype(str, Enum):
    """Precision of the model."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


# Heading of the options that are rarely needed.
COMPUTATION = "Windows and device"

Inputs = Annotated[list[Path], typer.Argument(metavar="FILE_OR_FOLDER", help="Audio files, and folders of them.")]
Model = Annotated[
    str, typer.Option("--model", "-m", metavar="MODEL", help="Directory of a model, or its id on the Hub.")
]
Directory = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIRECTORY", help="Directory for one .npy for each file.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an output; leave out files that are done.")]
Window = Annotated[
    float,
    typer.Option(
        "--window",
        metavar="SECONDS",
        help="Windows of long recordings (default: 10).",
        rich_help_panel=COMPUTATION,
        show_default=False,
    ),
]
Hop = Annotated[
    float | None,
    typer.Option(
        "--hop",
        metavar="SECONDS",
        help="From one window to the next (default: --window).",
        rich_help_panel=COMPUTATION,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Windows in a batch (default: 8).", rich_help_panel=COMPUTATION, show_default=False
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        help="cpu, cuda, cuda:1, mps ...; a GPU if there is one by default.",
        rich_help_panel=COMPUTATION,
        show_default=False,
    ),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        metavar="DTYPE",
        help="float32, bfloat16, float16 or auto, as saved (default).",
        rich_help_panel=COMPUTATION,
        show_default=False,
    ),
]
