# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Cost of a step of fine-tuning, base size with the 527 labels of AudioSet: forward, backward and AdamW, with and without
gradient checkpointing and bf16 autocast, at several lengths of clips.

    python benchmarks/finetuning_step.py
"""

import json
import math
import platform
import statistics
import sys
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import PreTrainedModel

from transformers_beats import BeatsConfig, BeatsForAudioClassification


# For the package that this is a part of, when it is run as a script.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measuring import in_fresh_process, peak_memory


NUM_LABELS = 527
# The new names of the methods for gradient checkpointing are younger than the oldest transformers that will do.
warnings.filterwarnings("ignore", "`gradient_checkpointing", FutureWarning)


class Setting(NamedTuple):
    """What a row of the table is about."""

    seconds: float
    bf16: bool
    checkpointing: bool

    @property
    def plain(self) -> "Setting":
        """What it is compared with."""
        return Setting(self.seconds, bf16=False, checkpointing=False)

    @property
    def precision(self) -> str:
        return "bf16 autocast" if self.bf16 else "float32"


class Training:
    """A classifier and its optimizer, which can do a step in any setting."""

    def __init__(self, model: PreTrainedModel):
        self.model = model.train()
        # As `Trainer` does by default.
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)

    def step(self, batch: dict[str, torch.Tensor], setting: Setting) -> float:
        """Seconds that a step takes."""
        device = batch["input_values"].device.type
        if setting.checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            self.model.gradient_checkpointing_disable()
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=setting.bf16):
            loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        # Waits for the device.
        if not math.isfinite(loss.item()):
            raise ValueError(f"The loss is {loss.item()} in {setting}.")
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def build_model(device: str, layers: int) -> BeatsForAudioClassification:
    torch.manual_seed(0)
    config = BeatsConfig(num_hidden_layers=layers, num_labels=NUM_LABELS, problem_type="multi_label_classification")
    return BeatsForAudioClassification(config).to(device)


def make_batch(batch_size: int, seconds: float, device: str) -> dict[str, torch.Tensor]:
    """Noise in the shape of filter banks without padding, and two labels or so for each clip."""
    generator = torch.Generator().manual_seed(0)
    num_frames = int(seconds * 100) - 2
    batch = {
        "input_values": torch.randn(batch_size, num_frames, 128, generator=generator),
        "attention_mask": torch.ones(batch_size, num_frames, dtype=torch.int32),
        "labels": (torch.rand(batch_size, NUM_LABELS, generator=generator) < 2 / NUM_LABELS).float(),
    }
    return {name: value.to(device) for name, value in batch.items()}


def peak_of_training(setting: Setting, device: str, batch_size: int, layers: int) -> int:
    """
    In a fresh process: bytes at the peak of a training, that is, of weights, gradients, AdamW's averages and
    activations. The second step is the first that has all of them at once.
    """

    def train() -> None:
        training, batch = Training(build_model(device, layers)), make_batch(batch_size, setting.seconds, device)
        for _ in range(2):
            training.step(batch, setting)

    return peak_memory(train, device)


def measure_times(
    settings: list[Setting], device: str, batch_size: int, layers: int, repeats: int, progress: Progress
) -> dict[Setting, float]:
    """Median seconds of a step of each setting. They take turns, so that a machine that slows down slows all."""
    training = Training(build_model(device, layers))
    batches = {setting.seconds: make_batch(batch_size, setting.seconds, device) for setting in settings}
    times: dict[Setting, list[float]] = {setting: [] for setting in settings}
    task = progress.add_task("Timing", total=len(settings) * (repeats + 1))
    for repeat in range(repeats + 1):
        for setting in settings:
            duration = training.step(batches[setting.seconds], setting)
            if repeat > 0:
                times[setting].append(duration)
            progress.advance(task)
    return {setting: statistics.median(values) for setting, values in times.items()}


def measure_memory(
    settings: list[Setting], device: str, batch_size: int, layers: int, progress: Progress
) -> dict[Setting, int]:
    """Peak bytes of each setting."""
    return {
        setting: in_fresh_process(peak_of_training, setting, device, batch_size, layers)
        for setting in progress.track(settings, description="Memory")
    }


def main(
    batch_size: Annotated[int, typer.Option(help="Clips in a batch")] = 4,
    seconds: Annotated[list[float] | None, typer.Option(help="Length of a clip; repeat for more [5 and 10]")] = None,
    repeats: Annotated[int, typer.Option(help="Timed steps of each, after one for warming up")] = 5,
    layers: Annotated[int, typer.Option(help="Layers of the encoder")] = 12,
) -> None:
    """Time and memory of a step, and their ratios to the plain float32 step on the same clips."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = [Setting(*values) for values in product(seconds or [5.0, 10.0], (False, True), (False, True))]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        times = measure_times(settings, device, batch_size, layers, repeats, progress)
        if device == "cuda":
            torch.cuda.empty_cache()
        memory = measure_memory(settings, device, batch_size, layers, progress)

    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    table = Table(title=f"{name}, {torch.get_num_threads()} threads, {layers} layers, {batch_size} clips in a batch")
    for header in ("clips", "precision", "checkpointing", "step, median", "ratio", "clips per second"):
        table.add_column(header)
    for header in ("peak memory", "ratio"):
        table.add_column(header)
    rows = []
    for setting in settings:
        row = {
            **setting._asdict(),
            "step_seconds": times[setting],
            "time_ratio": times[setting] / times[setting.plain],
            "bytes": memory[setting],
            "memory_ratio": memory[setting] / memory[setting.plain],
        }
        rows.append(row)
        table.add_row(
            f"{setting.seconds:g} s",
            setting.precision,
            "yes" if setting.checkpointing else "no",
            f"{row['step_seconds']:.3f} s",
            f"{row['time_ratio']:.2f}",
            f"{batch_size / row['step_seconds']:.1f}",
            f"{row['bytes'] / 2**20:,.0f} MiB",
            f"{row['memory_ratio']:.2f}",
            end_section=setting == Setting(setting.seconds, bf16=True, checkpointing=True),
        )
    Console(width=110).print(table)
    print(json.dumps({"device": name, "threads": torch.get_num_threads(), "batch_size": batch_size, "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
