# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Time and memory of whole commands, with their start, on an hour of synthesised sounds and a model of base size with
random weights:

    python -m benchmarks.an_hour_of_audio WORK

`WORK` keeps recordings and model for the next run. Each command is a process of its own on a machine that should do
nothing else; its peak is that of the memory that was resident at once (`ru_maxrss`).
"""

import os
import shutil
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import soundfile
import typer
from rich.console import Console
from rich.table import Table

from transformers_beats.audio.synthesis import CLASSES, SAMPLING_RATE, synthesize
from transformers_beats.utils.files import work_directory


FILE_SECONDS, CLIP_SECONDS = 60, 3
NUM_LABELS = 527
# Words of the commands after `-m MODEL RECORDINGS`, without the output.
COMMANDS = {
    "index": ["index"],
    "index-segments": ["index", "--segments", "1"],
    "embed": ["embed"],
    "tag": ["tag"],
    "tag-events": ["tag", "--events"],
}
Command = Enum("Command", {name: name for name in COMMANDS}, type=str)
# The program has a process of its own, so that this one stays small: its memory would count as the commands'.
MAKE_MODEL = """
import sys, torch
from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification
torch.manual_seed(0)
labels = {number: f"class {number}" for number in range(int(sys.argv[3]))}
config = BeatsConfig(
    num_hidden_layers=int(sys.argv[2]), id2label=labels, label2id={name: number for number, name in labels.items()},
    problem_type="multi_label_classification",
)
BeatsForAudioClassification(config).save_pretrained(sys.argv[1])
BeatsFeatureExtractor().save_pretrained(sys.argv[1])
"""


class Cost(NamedTuple):
    """Seconds by the clock and of all cores, and bytes at the peak."""

    clock: float
    cpu: float
    peak: int


def write_recordings(folder: Path, seconds: int) -> None:
    """Writes files of a minute of synthesised sounds, 16-bit WAV at 16 kHz, unless they are there."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with work_directory(folder.parent, ".recordings-") as work:
        for number, start in enumerate(range(0, seconds, FILE_SECONDS)):
            generator = np.random.default_rng(number)
            num_clips = -(-min(FILE_SECONDS, seconds - start) // CLIP_SECONDS)
            clips = [synthesize(str(generator.choice(CLASSES)), generator, CLIP_SECONDS) for _ in range(num_clips)]
            samples = np.concatenate(clips)[: (seconds - start) * SAMPLING_RATE]
            soundfile.write(work / f"{number:03d}.wav", samples, SAMPLING_RATE)
        work.rename(folder)


def run(words: list[str], cores: int | None = None) -> Cost:
    """
    Runs a command of `transformers-beats` to its end, on all cores or some, and returns what it cost. What it prints
    is dropped, but for errors.
    """
    start = time.monotonic()
    command = [sys.executable, "-m", "transformers_beats", *words, "--quiet"]
    if cores is None:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    else:
        chosen = sorted(os.sched_getaffinity(0))[:cores]
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": str(cores)},
            preexec_fn=lambda: os.sched_setaffinity(0, chosen),
        )
    _, status, usage = os.wait4(process.pid, 0)
    # `Popen` has not waited itself.
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise typer.Exit(process.returncode)
    return Cost(time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def main(
    work: Annotated[Path, typer.Argument(help="Directory for recordings, model and outputs.")],
    command: Annotated[list[Command] | None, typer.Option(help="Repeat for more (index and index-segments)")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="Length of the recordings together")] = 3600,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the model; the released ones have 12")] = 12,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each command")] = 1,
) -> None:
    """Prints what commands cost on an hour of audio."""
    recordings, model = work / f"recordings-{seconds}", work / f"model-{layers}"
    write_recordings(recordings, seconds)
    if not model.exists():
        subprocess.run([sys.executable, "-c", MAKE_MODEL, str(model), str(layers), str(NUM_LABELS)], check=True)
    table = Table("command", "time", "time of all cores", "times real time", "peak memory")
    for choice in command or [Command.index, Command["index-segments"]]:
        for number in range(repeats):
            output = work / f"output-{choice.value}-{number}"
            # An index or a folder of an earlier run would be continued.
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir()
            words = [*COMMANDS[choice.value], "-m", str(model), str(recordings), "--output"]
            cost = run([*words, str(output / ("tags.csv" if words[0] == "tag" else "out"))])
            table.add_row(
                " ".join(COMMANDS[choice.value]),
                f"{cost.clock:.1f} s",
                f"{cost.cpu:.1f} s",
                f"{seconds / cost.clock:.1f}",
                f"{cost.peak / 1e6:,.0f} MB",
            )
    # Imports torch, which nothing has done before.
    from transformers_beats.utils.machine import describe_machine, in_a_line

    machine, console = describe_machine("cpu"), Console(width=140)
    console.print(f"{in_a_line(machine)}; load {machine['load']:.1f}", highlight=False)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
