# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
What this package costs, against other implementations on the same machine, from a checkout:

    python -m benchmarks [--full] [--output DIR] [fbank encoder inference ...]

Every figure is a ratio to a named peer that was measured in turns with ours in the same run: above 1, the peer costs
more. `parts.py` says what the parts are, `peers.py` what the peers are. Without a GPU, the default takes twenty
minutes on two cores, `--full` more than an hour. On a GPU `--full` measures all sizes.
"""

import json
import math
from dataclasses import asdict
from enum import Enum
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.measuring import choose_device
from benchmarks.options import ATTENTION, DTYPES, SIZES, Options
from benchmarks.parts import PARTS
from benchmarks.report import Row, check_machine, compare, make_tables, write
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.machine import describe_machine, in_a_line, is_emulated


Part = Enum("Part", {name: name for name in PARTS}, type=str)
Precision = Enum("Precision", {name: name for name in DTYPES}, type=str)
Size = Enum("Size", {name: name for name in SIZES}, type=str)
BASE = Size("base")
Implementation = Enum("Implementation", {name: name for name in ATTENTION}, type=str)

# Clips in a batch and their seconds, where no option says otherwise.
INFERENCE_SIZES, TRAINING_SIZES = ((4, 10.0),), ((1, 10.0),)
# What two cores do in an hour or two of all batch sizes and lengths.
FULL_SIZES = ((1, 1.0), (1, 10.0), (1, 30.0), (4, 10.0), (8, 5.0), (32, 1.0))
FULL_TRAINING_SIZES = ((1, 5.0), (1, 10.0), (4, 10.0))
FULL_BATCH_SIZES, FULL_SECONDS = (1, 8, 32), (1.0, 5.0, 10.0, 30.0)
TABLE_WIDTH = 120


def choose_sizes(batch_sizes: list[int], seconds: list[float], full: bool, device: str) -> tuple[tuple, tuple]:
    """Sizes for inference and for training: what was asked for, or what `full` and the device make reasonable."""
    if batch_sizes or seconds:
        sizes = tuple(product(batch_sizes or [4], seconds or [10.0]))
        return sizes, sizes
    if full and device == "cuda":
        # The smallest first: what does not fit into memory ends a part.
        sizes = tuple(sorted(product(FULL_BATCH_SIZES, FULL_SECONDS), key=math.prod))
        return sizes, sizes
    return (FULL_SIZES, FULL_TRAINING_SIZES) if full else (INFERENCE_SIZES, TRAINING_SIZES)


def main(
    parts: Annotated[list[Part] | None, typer.Argument(help="Parts to run (all)", show_default=False)] = None,
    full: Annotated[bool, typer.Option("--full", help="More sizes, all precisions and implementations")] = False,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Clips in a batch; repeat for more (4; training 1)")
    ] = None,
    seconds: Annotated[
        list[float] | None, typer.Option(min=0.5, help="Length of a clip; repeat for more (10)")
    ] = None,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="Repeat for more (fp32 and bf16; all with --full; none that the CPU emulates)"),
    ] = None,
    implementation: Annotated[
        list[Implementation] | None,
        typer.Option(help="Repeat for more (eager and sdpa; compiled with --full; flex on a GPU)"),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed turns of each call")] = 3,
    layers: Annotated[int, typer.Option(min=1, help="Layers of all models")] = 12,
    size: Annotated[Size, typer.Option(help="Width of models in pre-training")] = BASE,
    output: Annotated[Path | None, typer.Option(help="Folder for benchmark.json and benchmark.png")] = None,
    against: Annotated[
        Path | None,
        typer.Option(exists=True, help="benchmark.json of an earlier run on this machine, to compare with"),
    ] = None,
) -> None:
    """Measures parts of this package against their peers, on the GPU if there is one."""
    device = choose_device()
    sizes, training_sizes = choose_sizes(batch_size or [], seconds or [], full, device)
    default_precisions = [
        name for name in (DTYPES if full else ("fp32", "bf16")) if not is_emulated(DTYPES[name], device)
    ]
    default_implementations = ["eager", "sdpa"] + ["flex"] * (device == "cuda") + ["compiled"] * full
    if device == "cpu" and Implementation.flex in (implementation or []) and len(sizes) > 1:
        raise typer.BadParameter(
            "On a CPU, PyTorch's flex attention compiles for one size only: give one --batch-size and one --seconds."
        )
    options = Options(
        sizes=sizes,
        training_sizes=training_sizes,
        precisions=tuple(choice.value for choice in precision or []) or tuple(default_precisions),
        implementations=tuple(choice.value for choice in implementation or []) or tuple(default_implementations),
        repeats=repeats,
        layers=layers,
        device=device,
        size=size.value,
    )
    machine, console = describe_machine(device), Console()
    # A table that is cut tells nothing: where the terminal is narrower, or there is none, lines are long.
    console.width = max(console.width, TABLE_WIDTH)
    console.print(f"{in_a_line(machine)}; load {machine['load']:.1f}", highlight=False)
    earlier = json.loads(against.read_text()) if against else None
    if earlier:
        try:
            check_machine(machine, earlier["machine"], against)
        except BeatsError as error:
            raise typer.BadParameter(str(error)) from None
    rows: list[Row] = []
    for name in dict.fromkeys(choice.value for choice in parts or Part):
        found: list[Row] = []
        with console.status(f"Measuring {name}"):
            try:
                for row in PARTS[name](options):
                    found.append(row)
                    if output is not None:
                        # After every row: a run that is stopped leaves what it has found.
                        write(output, rows + found, machine, asdict(options))
            except torch.OutOfMemoryError as error:
                # What was measured before it stays: smaller sizes come first.
                console.print(f"{name}: {str(error).splitlines()[0]}", style="red", highlight=False)
        console.print(*make_tables(name, found))
        rows += found
    if earlier:
        console.print(compare(rows, earlier["rows"]))


if __name__ == "__main__":
    typer.run(main)
