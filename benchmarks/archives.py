# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Whole archives: the start with a million files, memory over ten hours of audio, and what a second core gains:

    python -m benchmarks.archives WORK

`WORK` keeps names, recordings and models for the next run. Names are hard links to a few real files, in folders of
1,000. Commands are processes of their own; their peak is that of the memory that was resident at once. The machine
should do nothing else for the times; memory does not depend on that.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer
from rich.console import Console
from rich.table import Table

from transformers_beats.audio.synthesis import SAMPLING_RATE

from .an_hour_of_audio import MAKE_MODEL, NUM_LABELS, run, write_recordings
from .corpus_at_scale import make_corpus


# In a fresh process: what listing takes, and what a list holds and held at most, in bytes.
LIST = """
import json, re, sys, time
from pathlib import Path
from transformers_beats.audio.files import find_audio
def memory(field):
    return int(re.search(rf"{field}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
# The peak counts from here on.
Path("/proc/self/clear_refs").write_text("5")
before, begin = memory("VmRSS"), time.perf_counter()
files = find_audio([Path(sys.argv[1])])
seconds = time.perf_counter() - begin
print(json.dumps([len(files), seconds, memory("VmRSS") - before, memory("VmHWM") - before]))
"""
SHORT_MINUTES = 10


def list_names(folder: Path, table: Table) -> None:
    """Adds a row: files of a folder, seconds to list them, and memory."""
    result = subprocess.run([sys.executable, "-c", LIST, str(folder)], capture_output=True, text=True, check=True)
    number, seconds, held, peak = json.loads(result.stdout)
    table.add_row(f"{number:,}", f"{seconds:.1f} s", f"{held / number:.0f} B", f"{peak / number:.0f} B")


def write_long(path: Path, minutes: float) -> None:
    """Writes one recording of noise whose loudness changes, 16-bit FLAC at 16 kHz, unless it is there."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    generator, partial = np.random.default_rng(0), path.with_name(f"{path.stem}.partial.flac")
    with soundfile.SoundFile(partial, "w", SAMPLING_RATE, 1, subtype="PCM_16") as file:
        left = round(minutes * 60 * SAMPLING_RATE)
        while left > 0:
            size = min(left, 60 * SAMPLING_RATE)
            file.write(generator.uniform(0.01, 0.1) * generator.standard_normal(size))
            left -= size
    partial.rename(path)


def make_model(path: Path, layers: int) -> Path:
    """Makes a model of base size with random weights, unless it is there."""
    if not path.exists():
        subprocess.run([sys.executable, "-c", MAKE_MODEL, str(path), str(layers), str(NUM_LABELS)], check=True)
    return path


def main(
    work: Annotated[Path, typer.Argument(help="Directory for names, recordings, models and outputs.")],
    names: Annotated[int, typer.Option(min=1, help="Files to list")] = 1_000_000,
    hours: Annotated[float, typer.Option(min=0.01, help="Length of the long recording")] = 10.0,
    seconds: Annotated[int, typer.Option(min=1, help="Length of all clips for the cores")] = 600,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the model for the cores")] = 12,
) -> None:
    """Prints start, memory and scaling of commands on whole archives."""
    console = Console(width=140)
    table = Table("files", "time of listing", "memory a file", "peak a file")
    for number in sorted({max(1, names // 10), names}):
        folder = work / f"names-{number}"
        make_corpus(folder, number, min(number, 1000))
        list_names(folder, table)
    console.print(table)

    table = Table("recording", "command", "workers", "time", "times real time", "peak memory")
    small = make_model(work / "model-1", 1)
    for minutes in (min(SHORT_MINUTES, hours * 60), hours * 60):
        path = work / f"recording-{minutes:g}.flac"
        write_long(path, minutes)
        for words, workers in ((["tag"], 0), (["tag"], 1), (["index", "--segments", "10"], 1)):
            output = work / "output"
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir()
            place = output / ("tags.jsonl" if words[0] == "tag" else "index")
            cost = run([*words, "-m", str(small), str(path), "-o", str(place), "--workers", str(workers)])
            speed = f"{minutes * 60 / cost.clock:.0f}"
            peak = f"{cost.peak / 1e6:,.0f} MB"
            table.add_row(f"{minutes:g} min", " ".join(words), str(workers), f"{cost.clock:.1f} s", speed, peak)
    console.print(table)

    table = Table("cores", "workers", "time", "of one core without workers")
    clips, model = work / f"recordings-{seconds}", make_model(work / f"model-{layers}", layers)
    write_recordings(clips, seconds)
    first = None
    for cores, workers in ((1, 0), (1, 1), (2, 0), (2, 1)):
        output = work / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        words = ["tag", "-m", str(model), str(clips), "-o", str(output / "tags.csv"), "--workers", str(workers)]
        cost = run(words, cores)
        first = first or cost.clock
        table.add_row(str(cores), str(workers), f"{cost.clock:.1f} s", f"{first / cost.clock:.2f} times as fast")
    console.print(table)
    # Imports torch, which nothing has done before.
    from transformers_beats.utils.machine import describe_machine, in_a_line

    machine = describe_machine("cpu")
    console.print(f"{in_a_line(machine)}; load {machine['load']:.1f}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
