# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Blocks of an archive, each of which becomes one Parquet file: files, or consecutive rows of a Parquet file of contents
of files. A block knows its name, what to open and which columns its results stand beside.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from transformers_beats.audio.files import (
    FileList,
    NamedBytes,
    check_no_url,
    place_of,
    remember_folders,
    search_folder,
)
from transformers_beats.audio.recordings import AudioError
from transformers_beats.utils.errors import BeatsError, UsageError, first_line

from .batches import is_text, to_utf8


PATH, SOURCE_FILE, SOURCE_ROW = "path", "source_file", "source_row"
# In the metadata of a Parquet file of results: the rows that it is of, as JSON.
ROWS = b"transformers_beats.rows"
# Rows of contents that are read at once: those of a block may be too large to be held.
ROWS_AT_ONCE = 16
# A name that is not UTF-8 is one to pyarrow.
PARQUET_ERRORS = (OSError, pa.ArrowException, UnicodeError)


@dataclass(frozen=True)
class FileBlock:
    """Files by their absolute paths."""

    paths: Sequence[str]

    @property
    def name(self) -> str:
        """Name of the Parquet file."""
        return name_of_block(self.paths)

    def as_item(self) -> dict[str, Any]:
        """Returns what Ray passes to an actor. Names that are not UTF-8 are bytes."""
        return {"paths": list(map(os.fsencode, self.paths))}

    def recordings(self) -> list[str]:
        """Returns what [`open`] takes."""
        return list(self.paths)

    def label(self, recording: str) -> str:
        """Returns the name of a recording for messages."""
        return recording

    def open(self, recording: str) -> str:
        """Returns what a decoder opens."""
        return recording

    def table(self, results: Mapping[str, pa.Array]) -> pa.Table:
        """Returns results beside the columns of the block."""
        return pa.table({PATH: list(map(to_utf8, self.paths)), **results})


@dataclass(frozen=True)
class RowBlock:
    """
    Rows of a Parquet file.

    Args:
        file (`str`):
            Its absolute path.
        digest (`str`):
            Of the file's description of itself; see [`digest_of`].
        start, stop (`int`):
            First row, from 0, and the one after the last.
        column (`str`):
            Column of the recordings.
        keep (`Sequence[str]`, *optional*):
            Other columns that are passed on; all by default.
    """

    file: str
    digest: str
    start: int
    stop: int
    column: str
    keep: Sequence[str] | None = None

    @property
    def name(self) -> str:
        """Name of the Parquet file of results."""
        return name_of_block([self.file, self.digest, str(self.start), str(self.stop)])

    def as_item(self) -> dict[str, Any]:
        """Returns what Ray passes to an actor."""
        return {"rows": json.dumps(asdict(self))}

    def recordings(self) -> list[int]:
        """Returns what [`open`] takes, in this order: numbers of rows. Fails if the file cannot be opened."""
        # Opened before any recording: what fails then is no fault of a row.
        block = self.reader.block
        return list(range(block.start, block.stop))

    def label(self, recording: int) -> str:
        """Returns the name of a recording for messages."""
        return f"{self.file}, row {recording}"

    def open(self, recording: int) -> Any:
        """Returns what a decoder opens; raises an [`AudioError`] if it is missing or cannot be read."""
        name = self.label(recording)
        content = self.reader.content(recording, name)
        if isinstance(content, dict):
            content = content.get("path") if content.get("bytes") is None else content["bytes"]
        if content is None:
            raise AudioError(f"{name}: holds no recording.")
        return NamedBytes(content, name) if isinstance(content, bytes) else content

    def table(self, results: Mapping[str, pa.Array]) -> pa.Table:
        """Returns results beside the other columns of the rows; these are null if they cannot be read."""
        num_rows = self.stop - self.start
        columns = {
            SOURCE_FILE: pa.array([to_utf8(self.file)] * num_rows),
            SOURCE_ROW: pa.array(np.arange(self.start, self.stop)),
            **self.reader.others,
            **results,
        }
        rows = {ROWS: json.dumps(asdict(self)).encode()}
        return pa.table(columns).replace_schema_metadata((self.reader.schema.metadata or {}) | rows)

    @cached_property
    def reader(self) -> "_RowReader":
        """The file, once it is opened."""
        return _RowReader(self)


class _RowReader:
    """
    Reads the rows of a block: the other columns at once, the recordings one after the other. A group of rows that is
    damaged is no loss of another.

    Raises:
        [`BeatsError`], `OSError` or `pyarrow.ArrowException`: if the file cannot be opened, or is another one.
    """

    def __init__(self, block: RowBlock):
        self.block = block
        # Read as it is needed: a group of rows may be larger than the memory.
        self.file = parquet.ParquetFile(block.file, buffer_size=1 << 20, pre_buffer=False)
        if digest_of(block.file) != block.digest:
            raise BeatsError(f"{block.file}: has changed since its rows were counted.")
        self.schema = self.file.schema_arrow
        groups = map(self.file.metadata.row_group, range(self.file.metadata.num_row_groups))
        # The row after the last of each group.
        self.stops = list(accumulate(group.num_rows for group in groups))
        # Why the rows of a group cannot be used.
        self.problems: dict[int, str] = {}
        self.others = self._read_others()
        # The group that is being read, and what is left of it.
        self.group = -1
        self.contents: Iterator[tuple[int, Any]] = iter(())

    def content(self, row: int, name: str) -> Any:
        """Returns the recording of a row, which comes after those that were asked for before."""
        group = bisect_right(self.stops, row)
        if group not in self.problems:
            if group != self.group:
                batches = self._read(group, [self.block.column], ROWS_AT_ONCE)
                items = (item for batch in batches for item in batch[self.block.column].to_pylist())
                self.group, self.contents = group, enumerate(items, self._span(group)[0])
            try:
                return next(content for number, content in self.contents if number == row)
            except (*PARQUET_ERRORS, StopIteration) as error:
                self.problems[group] = f"cannot be read: {first_line(error)}"
        raise AudioError(f"{name}: {self.problems[group]}")

    def _read_others(self) -> dict[str, pa.ChunkedArray]:
        names = kept_columns(self.schema, self.block.column, self.block.keep)
        chunks: dict[str, list[pa.Array]] = {name: [] for name in names}
        for group in range(len(self.stops)) if names else ():
            start, stop = self._span(group)
            if start >= stop:
                continue
            try:
                table = pa.Table.from_batches(self._read(group, names, 1 << 10))
                found = {name: table[name].chunks for name in names}
            except PARQUET_ERRORS as error:
                # Results of rows that nobody can tell apart are none.
                self.problems[group] = f"cannot be read: {first_line(error)}"
                found = {name: [pa.nulls(stop - start, self.schema.field(name).type)] for name in names}
            for name in names:
                chunks[name] += found[name]
        return {name: pa.chunked_array(chunks[name], self.schema.field(name).type) for name in names}

    def _span(self, group: int) -> tuple[int, int]:
        """Returns the rows of the block that are in a group: the first, and the one after the last."""
        first = self.stops[group - 1] if group else 0
        return max(first, self.block.start), min(self.stops[group], self.block.stop)

    def _read(self, group: int, columns: list[str], rows_at_once: int) -> Iterator[pa.RecordBatch]:
        """Yields columns of the rows of the block that are in a group, in their order."""
        start, stop = self._span(group)
        position = self.stops[group - 1] if group else 0
        for batch in self.file.iter_batches(rows_at_once, [group], columns):
            skipped = max(start - position, 0)
            if skipped < len(batch):
                yield batch.slice(skipped, min(stop - position, len(batch)) - skipped)
            position += len(batch)
            if position >= stop:
                return


Block: TypeAlias = FileBlock | RowBlock


def block_of(item: Mapping[str, Any]) -> Block:
    """Returns the block of a batch of one item, as Ray passes it."""
    if "rows" in item:
        return RowBlock(**json.loads(item["rows"][0]))
    return FileBlock([os.fsdecode(path) for path in chain.from_iterable(item["paths"])])


def name_of_block(paths: Iterable[str]) -> str:
    """Returns the name of the Parquet file of a block, which depends on its files, or on file and rows."""
    digest = hashlib.blake2b(os.fsencode("\0".join(paths)), digest_size=12)
    return f"part-{digest.hexdigest()}.parquet"


def digest_of(file: str) -> str:
    """
    Returns a digest of the description at the end of a Parquet file, which has the columns and the sizes of all that
    is in the file: another one where rows were added, removed or changed in their lengths.
    """
    with open(file, "rb") as content:
        # The length of the description, and four letters.
        content.seek(-8, os.SEEK_END)
        length = int.from_bytes(content.read(4), "little")
        content.seek(-8 - length, os.SEEK_END)
        return hashlib.blake2b(content.read(length), digest_size=12).hexdigest()


def read_column(part: Path, name: str) -> pa.ChunkedArray:
    """Reads a column of a Parquet file."""
    # Not `read_table`, which takes `error=1` in a path for a column.
    with parquet.ParquetFile(part) as file:
        return file.read([name])[name]


def split_files(files: FileList, parts: Iterable[Path], size: int) -> list[Block]:
    """Returns the blocks of the files that are not in `parts`, Parquet files of results."""
    real_path = remember_folders()
    paths = (path for part in parts for path in read_column(part, PATH).to_pylist())
    done = {place_of(path, real_path) for path in paths}
    places = (to_utf8(place_of(file.full_name, real_path)) for file in files)
    left = [file.address for file, place in zip(files, places) if place not in done]
    return [FileBlock(left[start : start + size]) for start in range(0, len(left), size)]


def find_parquet(inputs: Iterable[Path], output: Path) -> list[str]:
    """
    Lists Parquet files, and those in folders, each once, as absolute paths.

    Raises:
        [`UsageError`]: if an input is not there, there is no Parquet file, or the output lies in one of the folders.
    """
    inputs = list(inputs)
    found: dict[str, str] = {}
    real_path = remember_folders()
    for path in inputs:
        if not path.exists():
            check_no_url(path)
            raise UsageError(f"{path}: no such file or folder.")
        if path.is_dir() and output.resolve().is_relative_to(path.resolve()):
            raise UsageError(f"{output}: lies in {path}, whose Parquet files are read: choose another output.")
        for file in search_folder(path, (".parquet",)) if path.is_dir() else [path]:
            found.setdefault(place_of(file, real_path), os.path.abspath(file))
    if not found:
        raise UsageError(f"No Parquet file in {', '.join(map(str, inputs))}.")
    return list(found.values())


def kept_columns(schema: pa.Schema, column: str, keep: Sequence[str] | None) -> list[str]:
    """Returns the names of the columns that are passed on: that of the recordings only if it is of texts."""
    kept = [name for name in schema.names if name != column or is_text(schema.field(name).type)]
    return kept if keep is None else [name for name in kept if name in keep]


def count_rows(file: str, column: str, keep: Sequence[str] | None, results: Collection[str]) -> int:
    """
    Checks the columns of a Parquet file and returns the number of its rows.

    Raises:
        [`UsageError`]: if it cannot be read, lacks the column of the recordings or one to keep, this holds something
            else, or another one has the name of a result.
    """
    try:
        with parquet.ParquetFile(file) as opened:
            schema, num_rows = opened.schema_arrow, opened.metadata.num_rows
    except PARQUET_ERRORS as error:
        raise UsageError(f"{file}: cannot be read as Parquet: {first_line(error)}") from error
    for name in (column, *(schema.names if keep is None else keep)):
        if schema.names.count(name) != 1:
            problem = "several columns" if name in schema.names else "no column"
            raise UsageError(f"{file}: has {problem} {name!r}; it has {', '.join(schema.names)}.")
    kind = schema.field(column).type
    names = [field.name for field in kind] if pa.types.is_struct(kind) else []
    if not (str(kind) in ("binary", "large_binary", "binary_view") or is_text(kind) or {"bytes", "path"} & {*names}):
        raise UsageError(f"{file}: its column {column!r} is of {kind}: expected bytes, or structs of bytes and path.")
    taken = [name for name in kept_columns(schema, column, keep) if name in (*results, SOURCE_FILE, SOURCE_ROW)]
    if taken:
        raise UsageError(
            f"{file}: has a column {taken[0]!r}, which is the name of a result: leave it out of `keep`, or rename it."
        )
    return num_rows


def split_rows(
    num_rows: Mapping[str, int], parts: Iterable[Path], size: int, column: str, keep: Sequence[str] | None
) -> list[Block]:
    """
    Returns the blocks of the rows of Parquet files, of which the numbers of rows are given, that are not in `parts`,
    Parquet files of results.

    Raises:
        [`UsageError`]: if a file has changed of which rows are done.
    """
    real_path = remember_folders()
    done: dict[str, list[RowBlock]] = {}
    for part in parts:
        block = RowBlock(**json.loads(parquet.read_schema(part).metadata[ROWS]))
        done.setdefault(place_of(block.file, real_path), []).append(block)
    blocks: list[Block] = []
    for file, count in num_rows.items():
        digest, start = digest_of(file), 0
        found = sorted(done.get(place_of(file, real_path), []), key=lambda block: block.start)
        if any(block.digest != digest for block in found):
            raise UsageError(f"{file}: has changed since rows of it were computed: choose another output.")
        for stop, following in [*((block.start, block.stop) for block in found), (count, count)]:
            blocks += [
                RowBlock(file, digest, first, min(first + size, stop), column, keep)
                for first in range(start, stop, size)
            ]
            start = following
    return blocks
