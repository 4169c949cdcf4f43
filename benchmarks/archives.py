# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Whole archives: the start with a million files, memory over ten hours of audio, and what a second core gains:

    python -m benchmarks.archives WORK --prepare
    python -m benchmarks.archives WORK

`WORK` keeps names, recordings and models for the next run; `--prepare` makes them and measures nothing. Names are hard
links to a few real files, in folders of 1,000. Commands are processes of their own; their peak is that of the memory
that was resident at once. Models are so small that reading the audio takes most of the time, but for the cores, which
have the released size. The machine should do nothing else for the times; memory does not depend on that. `--part`
chooses parts.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from enum import Enum
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
# A classifier and a tokenizer with random weights, two layers of width 32, in a process of its own.
MAKE_TINY = """
import sys, torch
from pathlib import Path
from transformers_beats import (
    BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsTokenizerConfig, BeatsTokenizerModel
)
torch.manual_seed(0)
sizes = {"embed_dim": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
sizes |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
config = BeatsConfig(**sizes, num_labels=10, problem_type="multi_label_classification")
classifier = BeatsForAudioClassification(config)
tokenizer = BeatsTokenizerModel(BeatsTokenizerConfig(**sizes, codebook_size=64, codebook_dim=16))
# Codes mean nothing here, and take the same memory.
tokenizer.quantizer.is_initialized.fill_(1)
for name, model in {"classifier": classifier, "tokenizer": tokenizer}.items():
    model.save_pretrained(Path(sys.argv[1], name))
    BeatsFeatureExtractor().save_pretrained(Path(sys.argv[1], name))
"""
# Events of ten seconds, as their usual windows of two would take most of the time.
WINDOWS = ["--event-window", "10", "--event-hop", "5"]
DETECTOR = "detector.safetensors"
# Commands on one long recording: words after the name, name of the model, and of the output.
LONG = {
    "tag": (["tag"], "classifier", "tags.jsonl"),
    "tag --events": (["tag", "--events", *WINDOWS], "classifier", "events.jsonl"),
    "embed": (["embed"], "classifier", "embeddings"),
    "tokenize": (["tokenize"], "tokenizer", "tokens"),
    "index": (["index"], "classifier", "index"),
    "index --segments 10": (["index", "--segments", "10"], "classifier", "index"),
    "listen": (["listen", *WINDOWS], "classifier", None),
    "anomalies score": (["anomalies", "score", "--false-alarm-rate", "0.5", DETECTOR], "classifier", "scores.csv"),
}
# Commands on many short files, and what they write first.
MANY = {"tag": "tags.jsonl", "embed": "embeddings/*/*.npy", "tokenize": "tokens/*/*.npy", "index": "index/*.parquet"}
Part = Enum("Part", {name: name for name in ("names", "start", "memory", "cores")}, type=str)
POLL_SECONDS = 0.05


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


def make_tiny(path: Path) -> Path:
    """Makes a small classifier, a small tokenizer and a detector in a directory, unless they are there."""
    if not path.exists():
        subprocess.run([sys.executable, "-c", MAKE_TINY, str(path)], check=True)
    if not (path / DETECTOR).exists():
        subprocess.run([sys.executable, "-m", "transformers_beats", *words_of_fit(path), "--quiet"], check=True)
    return path


def words_of_fit(path: Path) -> list[str]:
    """Returns the words that fit a detector with a model of [`make_tiny`], to five minutes, which are written."""
    write_recordings(path / "normal", 300)
    return ["anomalies", "fit", str(path / "normal"), "-m", str(path / "classifier"), "-o", str(path / DETECTOR)]


def new_directory(path: Path) -> Path:
    """Returns a directory that is empty."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def words_of_long(choice: str, models: Path, recording: Path, output: Path, workers: int) -> list[str]:
    """Returns the words of a command of `LONG` on one recording."""
    words, model, name = LONG[choice]
    words = [str(models / word) if word == DETECTOR else word for word in words]
    words += [str(recording), "-m", str(models / model)]
    words += [] if name is None else ["-o", str(output / name)]
    return words if words[0] in ("listen", "anomalies") else [*words, "--workers", str(workers)]


def peak_of(process: int) -> int:
    """Returns the peak of the resident memory of a process so far, in bytes; 0 of one that has ended."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def start_command(words: list[str], output: Path, pattern: str, seconds: float) -> tuple[float, int, int]:
    """
    Starts a command, and ends it some seconds after its first result, a file of the output directory that is not
    empty. Returns the seconds to this result and the peak of memory, in bytes, then and at the end.

    Raises:
        `SystemExit`: if the command fails before.
    """
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "transformers_beats", *words, "--quiet"])
    try:
        while not any(path.stat().st_size for path in output.glob(pattern)):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(words)}: ended with status {process.returncode} and no result.")
            time.sleep(POLL_SECONDS)
        first, peak = time.monotonic() - begin, peak_of(process.pid)
        last, deadline = peak, time.monotonic() + seconds
        # A process that has ended has no memory, and few files may be done before.
        while time.monotonic() < deadline and process.poll() is None:
            last = max(last, peak_of(process.pid))
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    return first, peak, last


def measure_names(folder: Path) -> Table:
    """Returns a table of the listing of a folder and of one with a tenth of its names."""
    table = Table("files", "time of listing", "memory a file", "peak a file")
    for path in (folder.with_name(f"{folder.name}-tenth"), folder):
        list_names(path, table)
    return table


def measure_start(folder: Path, models: Path, output: Path, seconds: float) -> Table:
    """Returns a table of the first results of commands on many files, and of their memory then and later."""
    table = Table("command", "first result on disk", "peak memory then", f"{seconds:g} s later")
    for name, pattern in MANY.items():
        place = new_directory(output)
        model = models / ("tokenizer" if name == "tokenize" else "classifier")
        words = [name, "-m", str(model), str(folder), "-o", str(place / pattern.split("/")[0])]
        first, *peaks = start_command(words, place, pattern, seconds)
        table.add_row(name, f"{first:.1f} s", *(f"{peak / 1e6:,.0f} MB" for peak in peaks))
    return table


def measure_memory(recordings: dict[float, Path], models: Path, output: Path) -> Table:
    """Returns a table of commands on recordings, by their minutes."""
    table = Table("command", "workers", *(f"{minutes:g} min" for minutes in recordings), "peak memory", "growth")
    for choice in LONG:
        for workers in (0, 1) if choice == "tag" else (0,):
            costs = [
                run(words_of_long(choice, models, path, new_directory(output), workers))
                for path in recordings.values()
            ]
            times = [
                f"{cost.clock:.1f} s, {60 * minutes / cost.clock:,.0f}x" for minutes, cost in zip(recordings, costs)
            ]
            growth = f"{(costs[-1].peak - costs[0].peak) / 1e6:+,.0f} MB"
            peaks = ", ".join(f"{cost.peak / 1e6:,.0f}" for cost in costs)
            table.add_row(choice, str(workers), *times, f"{peaks} MB", growth)
    return table


def measure_cores(clips: Path, model: Path, output: Path) -> Table:
    """Returns a table of `tag` on one core and on two, with and without a process that decodes."""
    table, first = Table("cores", "workers", "time", "of one core without workers"), None
    for cores, workers in ((1, 0), (1, 1), (2, 0), (2, 1)):
        place = new_directory(output) / "tags.csv"
        words = ["tag", "-m", str(model), str(clips), "-o", str(place), "--workers", str(workers)]
        cost = run(words, cores)
        first = first or cost.clock
        table.add_row(str(cores), str(workers), f"{cost.clock:.1f} s", f"{first / cost.clock:.2f} times as fast")
    return table


def main(
    work: Annotated[Path, typer.Argument(help="Directory for names, recordings, models and outputs.")],
    part: Annotated[list[Part] | None, typer.Option(help="Repeat for more (all)")] = None,
    prepare: Annotated[bool, typer.Option("--prepare", help="Only make names, recordings and models.")] = False,
    names: Annotated[int, typer.Option(min=1, help="Files to list")] = 1_000_000,
    later: Annotated[float, typer.Option(min=0, help="Seconds of a command after its first result")] = 15.0,
    hours: Annotated[float, typer.Option(min=0.01, help="Length of the long recording")] = 10.0,
    seconds: Annotated[int, typer.Option(min=1, help="Length of all clips for the cores")] = 600,
    layers: Annotated[int, typer.Option(min=1, help="Layers of the model for the cores")] = 12,
) -> None:
    """Prints start, memory and scaling of commands on whole archives, each table when it is complete."""
    parts = {choice.value for choice in part or Part}
    console, output = Console(width=140), work / "output"
    folder, tiny = work / f"names-{names}", work / "tiny"
    lengths = (min(SHORT_MINUTES, hours * 60), hours * 60)
    recordings = {minutes: work / f"recording-{minutes:g}.flac" for minutes in lengths}
    clips, model = work / f"recordings-{seconds}", work / f"model-{layers}"
    work.mkdir(parents=True, exist_ok=True)
    if parts & {"names", "start"}:
        make_corpus(folder, names, min(names, 1000))
    if "names" in parts:
        make_corpus(folder.with_name(f"{folder.name}-tenth"), max(1, names // 10), min(names, 1000))
    if parts & {"start", "memory"}:
        make_tiny(tiny)
    if "memory" in parts:
        for minutes, path in recordings.items():
            write_long(path, minutes)
    if "cores" in parts:
        make_model(model, layers)
        write_recordings(clips, seconds)
    if prepare:
        return
    if "names" in parts:
        console.print(measure_names(folder))
    if "start" in parts:
        console.print(measure_start(folder, tiny, output, later))
    if "memory" in parts:
        console.print(measure_memory(recordings, tiny, output))
    if "cores" in parts:
        console.print(measure_cores(clips, model, output))
    # Imports torch, which nothing has done before.
    from transformers_beats.utils.machine import describe_machine, in_a_line

    machine = describe_machine("cpu")
    console.print(f"{in_a_line(machine)}; load {machine['load']:.1f}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
