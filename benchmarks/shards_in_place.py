# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Tar and Parquet shards that are not streamed: bytes in the cache, and CPU time of a clip in order and at random:

    python -m benchmarks.shards_in_place --megabytes 200
"""

import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile
import typer
from rich.console import Console
from rich.table import Table

from transformers_beats.training.data.sources import DataArguments, decode_row, load_audio_dataset


RATE, SECONDS = 16000, 10


def make_clips(num_bytes: int) -> list[bytes]:
    """Makes FLAC files of 10 s of noise, together of about `num_bytes`."""
    generator, clips, total = np.random.default_rng(0), [], 0
    while total < num_bytes:
        file = io.BytesIO()
        soundfile.write(file, 0.1 * generator.standard_normal(SECONDS * RATE), RATE, format="FLAC")
        clips.append(file.getvalue())
        total += len(clips[-1])
    return clips


def write_tar(folder: Path, clips: list[bytes]) -> None:
    """Writes two tar shards."""
    for shard in range(2):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for number in range(shard, len(clips), 2):
                info = tarfile.TarInfo(f"{number}.flac")
                info.size = len(clips[number])
                archive.addfile(info, io.BytesIO(clips[number]))


def write_parquet(folder: Path, clips: list[bytes], rows: int) -> None:
    """Writes two Parquet files, with row groups of some rows."""
    for shard in range(2):
        sounds = [{"bytes": clips[number], "path": f"{number}.flac"} for number in range(shard, len(clips), 2)]
        table = pyarrow.table({"audio": sounds})
        pyarrow.parquet.write_table(table, folder / f"{shard}.parquet", row_group_size=rows)


def size_of(folder: Path) -> int:
    """Returns the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def cpu_seconds(function: Callable[[], object]) -> float:
    """Returns the CPU time of a call, in all threads of this process."""
    start = time.process_time()
    function()
    return time.process_time() - start


def read_clips(dataset: datasets.Dataset, order: Iterable[int]) -> None:
    """Decodes some clips."""
    for index in order:
        decode_row(dataset[index], RATE)


def measure(folder: Path, cache: Path, num_clips: int) -> list[str]:
    """Returns the cells of a row: sizes of shards and cache, CPU time to load, and of a clip in both orders."""
    datasets.config.HF_DATASETS_CACHE = cache
    loaded: list[datasets.Dataset] = []
    arguments = DataArguments(dataset=str(folder))
    load = cpu_seconds(lambda: loaded.append(load_audio_dataset(arguments)))
    dataset = loaded[0]
    num_clips = min(num_clips, len(dataset))
    orders = range(num_clips), np.random.default_rng(0).permutation(len(dataset))[:num_clips].tolist()
    times = [cpu_seconds(partial(read_clips, dataset, order)) for order in orders]
    cells = [f"{size_of(folder) / 1e6:.1f} MB", f"{size_of(cache) / 1e6:.2f} MB", f"{load:.2f} s"]
    return cells + [f"{1000 * seconds / num_clips:.1f} ms" for seconds in times]


def main(
    megabytes: Annotated[int, typer.Option(help="Size of the shards")] = 200,
    clips: Annotated[int, typer.Option(help="Clips that are read in each order")] = 100,
) -> None:
    """Prints a row for each kind of shards."""
    audio = make_clips(megabytes * 1_000_000)
    table = Table("", "shards", "in the cache", "loading", "a clip, in order", "a clip, at random")
    kinds: dict[str, Callable[[Path], None]] = {
        "tar": lambda folder: write_tar(folder, audio),
        "Parquet, row groups of 10 clips": lambda folder: write_parquet(folder, audio, 10),
        "Parquet, row groups of 100 clips": lambda folder: write_parquet(folder, audio, 100),
    }
    with tempfile.TemporaryDirectory() as directory:
        for number, (name, write) in enumerate(kinds.items()):
            folder, cache = Path(directory, f"shards-{number}"), Path(directory, f"cache-{number}")
            folder.mkdir()
            write(folder)
            table.add_row(name, *measure(folder, cache, clips))
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
