# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Index of a folder of audio files: each is decoded once, before a training, and again when it changes."""

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import typer

from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor
from transformers_beats.training.data.clips import (
    CHECKED_WITH,
    NUM_NAMED_PROBLEMS,
    NUMBERS,
    CheckStore,
    Findings,
    check_rows,
    warn_of,
)
from transformers_beats.training.data.manifest import pc, read_arrow, search_audio
from transformers_beats.training.data.tables import FILE_COLUMN, FILE_STATE, find_table
from transformers_beats.utils.errors import BeatsError, UsageError, end_on_signals, errors_in_one_line
from transformers_beats.utils.files import check_absent, make_directory, replace_file
from transformers_beats.utils.messages import next_command, note
from transformers_beats.utils.numbers import format_number


def index_audio(path: Path, audio_column: str | None = None, num_proc: int | None = None) -> tuple[pa.Table, Findings]:
    """
    Decodes the audio files of a folder or table that are new or have changed, in parallel. The result is in the cache,
    for every training on these files. It can be interrupted and goes on when it is called again.

    Returns:
        `tuple`: a table with the `path` of each file, its `size` in bytes, `modified`, the time of its last change in
        nanoseconds, and `checksum`, a digest of these three; and what was found, at 16 kHz.

    Raises:
        [`UsageError`]: if there is no such folder or table.
        [`BeatsError`]: if there is no audio, or the folder has Parquet files or tar shards.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder.")
    shards, dataset = search_audio(path, audio_column, find_table(path, audio_column))
    if dataset is None:
        raise BeatsError(
            f"{path}: holds Parquet files or tar shards, such as {shards[0].name}: only audio files are "
            "indexed, clips in shards are checked by the training that reads them."
        )
    rate = BeatsFeatureExtractor().sampling_rate
    findings = check_rows(dataset, rate, num_proc)
    state = read_arrow(dataset, FILE_STATE)
    columns = {name: pc.struct_field(state, name) for name in ("size", "modified", "checksum")}
    table = pa.table({"path": pc.struct_field(read_arrow(dataset, "audio"), "path"), **columns})
    version = pa.array([CheckStore(rate).version]).take(pa.array(np.zeros(len(table), dtype=np.int64)))
    return table.append_column(CHECKED_WITH, version), findings


def write_manifest(files: pa.Table, findings: Findings, output: Path) -> None:
    """Writes a table with a row for each file, which is itself a dataset of these files, as Parquet."""
    folder = os.path.join(os.path.abspath(output.parent), "")
    absolute = [os.path.abspath(path) for path in files["path"].to_pylist()]
    names = [path[len(folder) :] if path.startswith(folder) else path for path in absolute]
    texts = {"problem": [""] * len(names), "doubt": [""] * len(names)}
    for row, problem in findings.problems.items():
        texts["problem"][row] = problem
    for row, doubt in zip(findings.doubtful.tolist(), findings.doubts):
        texts["doubt"][row] = doubt
    table = files.remove_column(files.column_names.index("path")).add_column(0, FILE_COLUMN, pa.array(names))
    for name in NUMBERS:
        table = table.append_column(name, pa.array(getattr(findings, name)))
    for name, values in texts.items():
        table = table.append_column(name, pa.array(values))
    make_directory(output.absolute().parent)
    with replace_file(output) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def describe_index(files: pa.Table, findings: Findings) -> str:
    """Returns numbers of files, hours and rates as a text of one line."""
    hours = findings.num_samples.sum() / BeatsFeatureExtractor().sampling_rate / 3600
    num_bytes = pc.sum(pc.max_element_wise(files["size"], 0)).as_py()
    rates, counts = np.unique(findings.rate[findings.rate > 0], return_counts=True)
    by_rate = ", ".join(f"{rate:,} Hz: {count:,}" for rate, count in zip(rates.tolist(), counts.tolist()))
    return (
        f"{format_number(len(files))} files, {hours:,.1f} h, {num_bytes / 1e9:,.1f} GB ({by_rate}); "
        f"{(findings.num_samples == 0).sum():,} cannot be read, {len(findings.doubtful):,} may be bad"
    )


def main(
    dataset: Annotated[
        Path, typer.Argument(help="Folder of audio files, or table of paths (*.csv, *.tsv, *.jsonl, *.parquet).")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Parquet file to write as well: it can be the `dataset` of a training on another machine."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    audio_column: Annotated[str | None, typer.Option(help="Column of the paths in a table.")] = None,
    num_proc: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one for each CPU that may be used.")
    ] = None,
) -> None:
    """
    Decode every file of a folder once, so that a training on it starts at once.

    Interrupted, it goes on when it is given again. Later, only files that are new or have changed are decoded.
    """
    end_on_signals()
    with errors_in_one_line():
        if output is not None:
            if output.suffix.lower() != ".parquet":
                raise UsageError(f"{output}: is a Parquet file: choose a name that ends in .parquet.")
            if dataset.is_dir() and output.absolute().is_relative_to(dataset.absolute()):
                raise UsageError(f"{output}: in the folder, it would be taken for its audio: choose another place.")
            check_absent(output, overwrite)
        files, findings = index_audio(dataset, audio_column, num_proc)
        problems = list(findings.problems.values())
        warn_of(problems[:NUM_NAMED_PROBLEMS], len(problems), len(files), "cannot be read")
        doubts = [findings.doubts[index] for index in range(min(NUM_NAMED_PROBLEMS, len(findings.doubts)))]
        warn_of(doubts, len(findings.doubtful), len(files), "may be bad")
        print(f"{dataset}: {describe_index(files, findings)}")
        if output is not None:
            write_manifest(files, findings, output)
            note(f"Index: {output}")
        words = ["iterate", "--config", "folder_iterate", "--data.dataset", str(output or dataset)]
        note(next_command(*words, "--output_dir", "RUN"))
