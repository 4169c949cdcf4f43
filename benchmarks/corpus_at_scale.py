# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Cost of a large corpus before the first step of a training, and its memory, on names of a few real files:

    python -m benchmarks.corpus_at_scale WORK --files 2000000

WORK gets the corpus, whose names are hard links to some thousand WAV files, and a cache of its own; a second run uses
both again. `--checked` of the names are decoded. What would be found in the others, which are the same files, is
written into the cache, as two million decodings take an hour. Figures are CPU seconds, of a process and those that it
has started, and memory that a process has written to and shares with no other one, so that they mean the same on a
busy machine. Pages of mapped files are left out: a machine has them once, and may drop them.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import typer
from rich.console import Console
from rich.table import Table


FOLDER_FILES = 1000
BATCH_SIZE, NUM_BATCHES = 32, 100
NUM_PROCESSES, NUM_WORKERS = 2, 2


def make_corpus(folder: Path, num_files: int, num_real: int) -> None:
    """Makes a folder of names of `num_real` clips of noise, of 0.5 s; names that are there stay."""
    real = folder.with_name(f"{folder.name}.real")
    real.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(num_real):
        if not (path := real / f"{number}.wav").exists():
            soundfile.write(path, 0.1 * generator.standard_normal(8000), 16000)
    for start in range(0, num_files, FOLDER_FILES):
        directory = folder / f"{start // FOLDER_FILES:06d}"
        directory.mkdir(parents=True, exist_ok=True)
        known = {*os.listdir(directory)}
        for number in range(start, min(start + FOLDER_FILES, num_files)):
            if (name := f"{number:09d}.wav") not in known:
                os.link(real / f"{number % num_real}.wav", directory / name)


def cpu_seconds() -> float:
    """CPU seconds of this process and of those that it has started and that have ended."""
    return sum(os.times()[:4])


def own_memory(process: int | str = "self") -> float:
    """Memory of a process that it has written to and no other one shares, in MiB: without mapped files."""
    total, private = 0, 0
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Private_Clean":
            private = int(value.split()[0])
        elif name == "Private_Dirty":
            private += int(value.split()[0])
        elif name == "Anonymous":
            # Pages of a mapped file that were just written to disk are private and dirty as well.
            total += min(private, int(value.split()[0]))
    return total / 1024


@contextmanager
def measured(results: dict[str, Any], name: str) -> Iterator[None]:
    """Adds CPU and clock seconds of a block to `results`."""
    cpu, start = cpu_seconds(), time.monotonic()
    yield
    results[name] = {"cpu": cpu_seconds() - cpu, "clock": time.monotonic() - start}


def prepare(folder: Path) -> Any:
    """Crops of a corpus, as the stages of pre-training load them."""
    from transformers_beats import BeatsFeatureExtractor
    from transformers_beats.training.data.sources import DataArguments
    from transformers_beats.training.stages import load_crops

    return load_crops(DataArguments(dataset=str(folder), crop_seconds=0.5), BeatsFeatureExtractor())


def pretend_checks(folder: Path, num_real: int) -> None:
    """Writes what is found in the real files into the cache as what is found in all names."""
    import pyarrow.compute as pc

    from transformers_beats.training.data.clips import NUMBERS, CheckStore, check_rows
    from transformers_beats.training.data.manifest import list_audio_files, read_arrow
    from transformers_beats.training.data.tables import FILE_STATE

    dataset = list_audio_files(folder)
    findings = check_rows(dataset.select(range(num_real)), 16000)
    checksums = pc.struct_field(read_arrow(dataset, FILE_STATE), "checksum").to_numpy()
    store = CheckStore(16000)
    missing = np.flatnonzero(store.find(checksums) < 0)
    for start in range(0, len(missing), 50_000):
        rows = missing[start : start + 50_000]
        numbers = [getattr(findings, name)[rows % num_real].tolist() for name in NUMBERS]
        found = [{**dict(zip(NUMBERS, values)), "doubt": ""} for values in zip(*numbers)]
        store.add(checksums[rows].tolist(), found)
    store.merge()


def update(folder: Path) -> dict[str, Any]:
    """Lists and checks a folder again: as it was, and with 100 more files, which go at the end."""
    results: dict[str, Any] = {}
    with measured(results, "again"):
        prepare(folder)
    new = folder / "new"
    new.mkdir()
    try:
        for number in range(100):
            os.link(folder.with_name(f"{folder.name}.real") / f"{number}.wav", new / f"{time.time_ns()}.wav")
        with measured(results, "with 100 new files"):
            prepare(folder)
    finally:
        shutil.rmtree(new)
    return results


def check(folder: Path) -> dict[str, Any]:
    """Lists and checks a folder that was not checked before, and then again."""
    results: dict[str, Any] = {}
    with measured(results, "first"):
        prepare(folder)
    return results | update(folder)


def start(folder: Path) -> dict[str, Any]:
    """Starts as one of several processes of a training does, up to and beyond the first batch."""
    from torch.utils.data import DataLoader

    from transformers_beats import BeatsFeatureExtractor
    from transformers_beats.training.data.crops import DataCollator
    from transformers_beats.training.stages import process_state

    state = process_state()
    results: dict[str, Any] = {"process": state.process_index}
    before = own_memory()
    with measured(results, "start to first batch"):
        crops = prepare(folder)
        results["clips"] = len(crops)
        results["MiB of a process"] = own_memory() - before
        order = np.random.default_rng(state.process_index).permutation(len(crops))[: BATCH_SIZE * NUM_BATCHES]
        loader = DataLoader(
            crops,
            batch_size=BATCH_SIZE,
            sampler=order.tolist(),
            num_workers=NUM_WORKERS,
            collate_fn=DataCollator(BeatsFeatureExtractor(), 0.5),
        )
        batches = iter(loader)
        next(batches)
    workers = [own_memory(worker.pid) for worker in batches._workers]
    began = time.monotonic()
    num_items = sum(len(batch["waveforms"]) for batch in batches)
    results["items a second"] = num_items / (time.monotonic() - began)
    results["MiB of a worker"] = max(workers)
    results["MiB of a process, after 100 batches"] = own_memory() - before
    state.wait_for_everyone()
    return results


def trainer_order(folder: Path) -> dict[str, Any]:
    """Draws the first index as the `Trainer` does."""
    from torch.utils.data import RandomSampler

    crops = prepare(folder)
    before = own_memory()
    results: dict[str, Any] = {}
    with measured(results, "draw"):
        order = iter(RandomSampler(crops))
        next(order)
    results["MiB"] = own_memory() - before
    return results


def open_codes(folder: Path) -> dict[str, Any]:
    """Opens as many shards of codes as two million clips have, 4,096 in each."""
    import datasets

    from transformers_beats.training.compute_codes import DESCRIPTION, crop_settings, load_codes
    from transformers_beats.training.data.sources import DataArguments

    data, num_shards = DataArguments(dataset="any"), 489
    if not (folder / DESCRIPTION).exists():
        features = datasets.Features({"codes": datasets.Array2D(shape=(None, 8), dtype="int16")})
        rows = [np.zeros((2, 8), np.int16)] * 4096
        first = folder / "shard-00000"
        datasets.Dataset.from_dict({"codes": rows}, features=features).save_to_disk(str(first))
        for number in range(1, num_shards):
            shutil.copytree(first, folder / f"shard-{number:05d}", dirs_exist_ok=True)
        (folder / DESCRIPTION).write_text(json.dumps({"data": crop_settings(data), "num_shards": num_shards}))
    before = own_memory()
    results: dict[str, Any] = {}
    with measured(results, "open"):
        codes = load_codes(str(folder), data)[0].with_format("numpy")
    results["MiB"] = own_memory() - before
    indices = np.random.default_rng(0).integers(0, len(codes), 1000).tolist()
    with measured(results, "1,000 items"):
        for index in indices:
            codes[index]
    return results


TASKS: dict[str, Callable[[Path], dict[str, Any]]] = {"check": check, "update": update, "start": start}
TASKS |= {"order": trainer_order, "codes": open_codes}


def run(task: str, folder: Path, cache: Path, num_processes: int = 1) -> list[dict[str, Any]]:
    """Runs a task in fresh processes, as ranks of one training."""
    common = {"HF_DATASETS_CACHE": str(cache), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    common |= {"WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes), "OMP_NUM_THREADS": "1"}
    common |= {"ACCELERATE_USE_CPU": "true", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "benchmarks.corpus_at_scale", str(folder), "--task", task]
    processes = []
    for rank in range(num_processes):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if num_processes > 1 else {}
        environment = os.environ | (common if num_processes > 1 else {"HF_DATASETS_CACHE": str(cache)}) | ranks
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise typer.Exit(1)
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def as_text(figures: Any) -> str:
    """A number, or seconds of [`measured`], for the table."""
    is_time = isinstance(figures, dict)
    return f"{figures['cpu']:.1f} s CPU, {figures['clock']:.1f} s" if is_time else f"{figures:,.0f}"


def main(
    work: Annotated[Path, typer.Argument(help="Directory for the corpus and its cache.")],
    files: Annotated[int, typer.Option(help="Names of the large corpus.")] = 2_000_000,
    checked: Annotated[int, typer.Option(help="Names of a smaller one, which are all decoded.")] = 20_000,
    real: Annotated[int, typer.Option(help="Files behind the names.")] = 4000,
    task: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints CPU seconds, memory and items a second of a large corpus."""
    if task is not None:
        print(json.dumps(TASKS[task](work)))
        return
    table = Table("", "figures", title=f"{files:,} names of {real:,} files")
    small, large, cache = work / "small", work / "large", work / "cache"
    make_corpus(small, checked, real)
    for name, figures in run("check", small, cache)[0].items():
        table.add_row(f"{checked:,} files, {name}", as_text(figures))
    make_corpus(large, files, real)
    os.environ["HF_DATASETS_CACHE"] = str(cache)
    pretend_checks(large, real)
    for results in run("start", large, cache, NUM_PROCESSES):
        for name, figures in results.items():
            table.add_row(f"{files:,} files, process {results['process']}, {name}", as_text(figures))
    for name, figures in run("update", large, cache)[0].items():
        table.add_row(f"{files:,} files, {name}", as_text(figures))
    figures = run("order", large, cache)[0]
    table.add_row(
        "order of an epoch, drawn by the Trainer", f"{figures['draw']['cpu']:.1f} s, {figures['MiB']:.0f} MiB"
    )
    for name, figures in run("codes", work / "codes", cache)[0].items():
        table.add_row(f"codes of 489 shards, {name}", as_text(figures))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
