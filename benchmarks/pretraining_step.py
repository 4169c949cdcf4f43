# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Cost of a training step of masked acoustic modelling, base size: only the kept patches in the encoder, against all of
them with the masked ones hidden from attention, which computes the same loss.

    python benchmarks/pretraining_step.py
"""

import json
import platform
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from transformers_beats import BeatsConfig, BeatsForPreTraining
from transformers_beats.modeling_beats import BeatsEncoder, gather_patches


# For the package that this is a part of, when it is run as a script.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measuring import count_operations, in_fresh_process, peak_memory


class EncodeAllPatches(BeatsEncoder):
    """The peer: every patch goes through the layers, and the kept ones are picked out afterwards."""

    def forward(self, hidden_states, patch_attention_mask=None, kept_positions=None, **kwargs):
        hidden_states = super().forward(hidden_states, patch_attention_mask, **kwargs)
        return hidden_states if kept_positions is None else gather_patches(hidden_states, kept_positions)


def build_model(encodes_all: bool, device: str, **config) -> BeatsForPreTraining:
    torch.manual_seed(0)
    # Without dropout, so that both compute the same.
    names = ("hidden_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop")
    model = BeatsForPreTraining(BeatsConfig(**dict.fromkeys(names, 0.0) | config))
    if encodes_all:
        model.beats.encoder.__class__ = EncodeAllPatches
    return model.to(device).train()


def make_batch(batch_size: int, seconds: float, device: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    num_frames = int(seconds * 100) - 2
    num_columns = num_frames // 16
    batch = {
        "input_values": torch.randn(batch_size, num_frames, 128, generator=generator),
        "labels": torch.randint(1024, (batch_size, num_columns, 8), generator=generator),
        "noise": torch.rand(batch_size, num_columns * 8, generator=generator),
    }
    return {name: value.to(device) for name, value in batch.items()}


def step(model: BeatsForPreTraining, batch: dict[str, torch.Tensor], bf16: bool) -> float:
    device = batch["input_values"].device.type
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return loss.item()


def measure_memory(encodes_all: bool, device: str, batch_size: int, seconds: float, bf16: bool, config: dict) -> int:
    """In a fresh process: bytes at the peak of one step above what the model and the batch take."""
    model, batch = build_model(encodes_all, device, **config), make_batch(batch_size, seconds, device)
    return peak_memory(partial(step, model, batch, bf16), device)


def main(
    batch_size: Annotated[int, typer.Option(help="Clips in a batch")] = 4,
    seconds: Annotated[float, typer.Option(help="Length of a clip")] = 10.0,
    repeats: Annotated[int, typer.Option(help="Timed steps of each")] = 5,
    bf16: Annotated[bool, typer.Option(help="Autocast to bfloat16")] = False,
    kept_positions: Annotated[str, typer.Option(help="original or compacted")] = "original",
    layers: Annotated[int, typer.Option(help="Layers of the encoder")] = 12,
) -> None:
    """Time and memory of a step, and their ratios."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = {"kept_positions": kept_positions, "num_hidden_layers": layers}
    batch = make_batch(batch_size, seconds, device)
    names = {False: "kept patches only", True: "all patches"}
    models = {encodes_all: build_model(encodes_all, device, **config) for encodes_all in names}
    losses = {encodes_all: step(model, batch, bf16) for encodes_all, model in models.items()}
    operations = {
        encodes_all: count_operations(partial(step, model, batch, bf16=False)) for encodes_all, model in models.items()
    }
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for encodes_all, model in models.items():
            start = time.perf_counter()
            step(model, batch, bf16)
            times[encodes_all].append(time.perf_counter() - start)

    memory = {
        encodes_all: in_fresh_process(measure_memory, encodes_all, device, batch_size, seconds, bf16, config)
        for encodes_all in names
    }

    title = f"{torch.cuda.get_device_name() if device == 'cuda' else platform.processor() or platform.machine()}, "
    title += f"{torch.get_num_threads()} threads, {'bfloat16' if bf16 else 'float32'}, {batch_size} x {seconds:g} s"
    table = Table(title=title)
    for header in (
        "encoder sees",
        "loss",
        "operations",
        "step, median",
        "patches per second",
        "peak memory of a step",
    ):
        table.add_column(header)
    medians = {encodes_all: statistics.median(values) for encodes_all, values in times.items()}
    for encodes_all, name in names.items():
        seconds_text, mebibytes = f"{medians[encodes_all]:.2f} s", f"{memory[encodes_all] / 2**20:.0f} MiB"
        loss, tera = f"{losses[encodes_all]:.5f}", f"{operations[encodes_all] / 1e12:.2f} TFLOP"
        speed = f"{batch['noise'].numel() / medians[encodes_all]:,.0f}"
        table.add_row(name, loss, tera, seconds_text, speed, mebibytes)
    ratios = {"operations": operations[True] / operations[False]}
    ratios |= {"time": medians[True] / medians[False], "memory": memory[True] / memory[False]}
    operations_text, time_text, memory_text = (f"{ratio:.2f}" for ratio in ratios.values())
    table.add_row("ratio", "", operations_text, time_text, "", memory_text)
    Console(width=100).print(table)
    print(json.dumps({"seconds": medians, "bytes": memory, "operations": operations, "ratios": ratios}))


if __name__ == "__main__":
    typer.run(main)
