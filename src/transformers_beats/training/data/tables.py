# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Tables of audio files: CSV, TSV, JSON and Parquet. Text stays text: `datasets` and pandas make 7 of the class `007`,
and nothing of the class `NA`.
"""

import codecs
import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet

from transformers_beats.utils.errors import BeatsError, did_you_mean, first_line, name_some


# Delimiter of each kind of delimited text, unless its header has none.
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
OTHER_DELIMITERS = ",\t;|"
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = (*DELIMITERS, *JSON_LINES_SUFFIXES, ".json", ".parquet")
# In a folder of audio, `metadata.json` may be anything.
METADATA_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# Encodings of text that begins with such a mark, as Excel and PowerShell write it.
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# Names of columns that are made here.
FILE_COLUMN = "file_name"
# A file's size in bytes, the time of its last change in nanoseconds, and a checksum of both and its path.
FILE_STATE = "file_state"
# What is beside the audio in a tar shard, as JSON.
METADATA_COLUMN = "_metadata"
# Audio that was decoded once.
WAVEFORM_COLUMN = "_waveform"
# Number of the dataset of a row, among several.
CORPUS_COLUMN = "_corpus"
# Number of a row, from 0 on, in its dataset before `select`.
ROW_COLUMN = "_source_row"
OWN_COLUMNS = (FILE_STATE, METADATA_COLUMN, WAVEFORM_COLUMN, CORPUS_COLUMN, ROW_COLUMN)
# Path of an audio file in a tar archive, after that of the archive.
ARCHIVE = re.compile(r"^/.*\.tar/", re.IGNORECASE | re.DOTALL)
DRIVE = re.compile(r"[a-z]:[\\/]|//", re.IGNORECASE)
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass
class Table:
    """Rows of a table, and the line (or, in JSON and Parquet, the number from 1) of each in its file."""

    path: Path
    dataset: datasets.Dataset
    numbers: Sequence[int]
    unit: str = "row"

    def place(self, index: int) -> str:
        """Returns the file and the place of a row, for messages."""
        return f"{self.path}, {self.unit} {self.numbers[index]}"


def find_table(path: Path, audio_column: str | None) -> Path | None:
    """Finds the table of paths that `path` is, or that a folder holds under the name `metadata`."""
    if path.is_dir():
        tables = (path / f"metadata{suffix}" for suffix in METADATA_SUFFIXES)
        return next((table for table in tables if table.exists()), None)
    if path.suffix.lower() == ".parquet":
        # One with the audio itself has other columns.
        schema = read_parquet_schema(path)
        has_audio = any(is_audio_type(entry.type) for entry in schema)
        names = [entry.name for entry in schema if _is_text(entry.type)]
        return path if (audio_column or FILE_COLUMN) in names and (audio_column or not has_audio) else None
    return path if path.suffix.lower() in TABLE_SUFFIXES else None


def read_parquet_schema(path: Path) -> pyarrow.Schema:
    """Reads the columns of a Parquet file; raises a [`BeatsError`] that names one that cannot be read."""
    try:
        return pyarrow.parquet.read_schema(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise BeatsError(f"{path}: cannot be read as Parquet: {first_line(error)}") from error


def read_parquet_features(path: Path) -> datasets.Features:
    """Reads the features of the columns of a Parquet file; raises a [`BeatsError`] as [`read_parquet_schema`] does."""
    schema = read_parquet_schema(path)
    try:
        return datasets.Features.from_arrow_schema(schema)
    # Of its metadata, `datasets` believes all.
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BeatsError(f"{path}: its metadata of `datasets` are damaged: {first_line(error)}") from error


def check_parquet(shards: list[Path]) -> None:
    """
    Checks that Parquet files have the same classes, whose indices are in their rows.

    Raises:
        [`BeatsError`]: if one cannot be read, or has other names of classes than the first that has some.
    """
    first: dict[str, tuple[Path, list[str]]] = {}
    for shard in shards:
        for column, names in _class_names(read_parquet_features(shard)).items():
            other, expected = first.setdefault(column, (shard, names))
            if names != expected:
                differs = next((pair for pair in zip(names, expected) if pair[0] != pair[1]), None)
                found = (
                    f"{len(names)} classes, not {len(expected)}"
                    if differs is None
                    else "{!r}, not {!r}".format(*differs)
                )
                raise BeatsError(
                    f"{shard}: the classes of its column {column!r} are not those of {other} ({found}): write both "
                    "with the same list of classes."
                )


def _class_names(feature: Any, name: str = "") -> dict[str, list[str]]:
    """Returns the names of the classes in the columns of some features, by column, also those within others."""
    if isinstance(feature, datasets.ClassLabel):
        return {name: feature.names}
    if isinstance(feature, dict):
        inner = [(f"{name}.{key}" if name else key, value) for key, value in feature.items()]
    elif isinstance(feature, (list, tuple)):
        inner = [(name, value) for value in feature]
    else:
        inner = [(name, feature.feature)] if hasattr(feature, "feature") else []
    return {key: names for inner_name, value in inner for key, names in _class_names(value, inner_name).items()}


def _is_text(kind: pyarrow.DataType) -> bool:
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return str(kind) in ("string", "large_string", "string_view")


def is_audio_type(kind: pyarrow.DataType) -> bool:
    """Returns whether a column of this type holds audio: bytes and a path."""
    return pyarrow.types.is_struct(kind) and {"bytes", "path"} <= {entry.name for entry in kind}


def list_table_files(path: Path, audio_column: str | None = None) -> tuple[datasets.Dataset, list[str]]:
    """
    Lists the audio files that a table names in a column, `file_name` by default. Backslashes of Windows, and `~`, are
    understood; other paths are relative to the folder of the table.

    Returns:
        `tuple`: the rows of the table, with the names in the column `file_name`; and the paths of the files.

    Raises:
        [`BeatsError`]: a table that cannot be read or has no such column or no row; a row without a file name, or with
            a URL; or no file that is there.
    """
    table, column = read_table(path), audio_column or FILE_COLUMN
    names = table.dataset.column_names
    if column not in names:
        hint = did_you_mean(column, names) or ("" if audio_column else ": set `audio_column`")
        raise BeatsError(f"{path}: has no column `{column}`, only {', '.join(names)}{hint.rstrip('?')}.")
    listed, files = [], []
    # As `Path` joins it.
    folder = "" if str(path.parent) == "." else str(path.parent)
    for index, name in enumerate(table.dataset[column][:]):
        if not isinstance(name, str) or not name:
            raise BeatsError(f"{table.place(index)}: has no `{column}`.")
        if URL.match(name):
            raise BeatsError(f"{table.place(index)}: {name} is a URL, and audio is read from disk: name a file.")
        listed.append(_as_posix(path.parent, name))
        files.append(os.path.join(folder, os.path.expanduser(listed[-1])))
    if not any(map(os.path.exists, files)):
        hint = " Drives of Windows are not known here." if DRIVE.match(listed[0]) else ""
        raise BeatsError(
            f"{path}: none of its {len(files)} files is there, such as {listed[0]!r}: names are relative to "
            f"{path.parent}.{hint}"
        )
    # Another column of that name goes.
    others = [name for name in names if name not in (column, FILE_COLUMN)]
    dataset = datasets.Dataset.from_dict({FILE_COLUMN: listed})
    parts = [dataset, table.dataset.select_columns(others)] if others else [dataset]
    return datasets.concatenate_datasets(parts, axis=1), files


def _as_posix(folder: Path, name: str) -> str:
    """Returns a name with `/` for the backslashes of Windows, unless there is a file whose name has them."""
    return name if "\\" not in name or os.path.exists(folder / name) else name.replace("\\", "/")


def read_table(path: Path) -> Table:
    """
    Reads a table. In delimited text every cell is a text, and an empty one is an empty text.

    Raises:
        [`BeatsError`]: naming the file and, if one is to blame, the row.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        table = _read_parquet(path)
    elif suffix in DELIMITERS:
        table = read_delimited(path, DELIMITERS[suffix])
    else:
        table = _read_json(path, suffix in JSON_LINES_SUFFIXES)
    if not len(table.dataset):
        raise BeatsError(f"{path}: has no rows.")
    return table


def read_text(path: Path, may_be_empty: bool = False) -> str:
    """Reads text in UTF-8, or UTF-16 with its mark; raises a [`BeatsError`] that names the file and the line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BeatsError(f"{path}: cannot be read: {error.strerror}.") from error
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = data[: error.start].count(b"\n") + 1, data[error.start]
        raise BeatsError(f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8: save the table as UTF-8.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise BeatsError(f"{path}, line {line}: holds a zero byte, so it is no text in UTF-8: save it as UTF-8.")
    if not text.strip() and not may_be_empty:
        raise BeatsError(f"{path}: is empty.")
    return text


def read_delimited(path: Path, delimiter: str) -> Table:
    """Reads delimited text with a header, by default with this `delimiter`; see [`read_table`]."""
    text = read_text(path)
    # Spreadsheets write rows without content, also before the header.
    header_line = next((line for line in text.splitlines() if line.strip(OTHER_DELIMITERS + " ").strip()), text)
    others = [other for other in OTHER_DELIMITERS if other in header_line]
    if others and delimiter not in header_line:
        # As Excel writes a CSV where the comma is the decimal sign.
        delimiter = max(others, key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows, lines = [], []
    try:
        for cells in reader:
            if any(cells := [cell.strip() for cell in cells]):
                rows.append(cells)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise BeatsError(f"{path}, line {reader.line_num}: cannot be read: {error}.") from error
    if not rows:
        raise BeatsError(f"{path}: is empty, it has only delimiters.")
    header, *rows = rows
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        raise BeatsError(f"{path}: has several columns {name_some(twice)}.")
    for cells, line in zip(rows, lines[1:]):
        if len(cells) != len(header):
            raise BeatsError(f"{path}, line {line}: has {len(cells)} cells, but the header {len(header)}.")
    # A column without a name is the index of pandas.
    columns = {name: [cells[index] for cells in rows] for index, name in enumerate(header) if name}
    features = datasets.Features({name: datasets.Value("string") for name in columns})
    return Table(path, datasets.Dataset.from_dict(columns, features=features), lines[1:], "line")


def _read_json(path: Path, is_lines: bool) -> Table:
    """Reads JSON lines; a list of records, also as the only entry of a mapping; or a mapping of columns."""
    text = read_text(path)
    if not is_lines:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            # `datasets` writes JSON lines to .json.
            if not _is_record(text.strip().split("\n")[0]):
                raise BeatsError(f"{path}: is not JSON: {first_line(error)}.") from error
        else:
            rows = _records(content)
            if rows is None:
                raise BeatsError(f"{path}: must hold a list of records, such as [{{{FILE_COLUMN!r}: ...}}, ...].")
            return _table_of_records(path, rows, range(1, len(rows) + 1), "row")
    rows, lines = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise BeatsError(f"{path}, line {number}: is not JSON: {first_line(error)}.") from error
        lines.append(number)
    return _table_of_records(path, rows, lines, "line")


def _is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _records(content: Any) -> list | None:
    """Returns the rows of a JSON document, or None if it has no rows."""
    if isinstance(content, dict) and len(content) == 1 and isinstance(next(iter(content.values())), list):
        # {"data": [...]}, as AST's lists.
        (rows,) = content.values()
        return rows if all(isinstance(row, dict) for row in rows) else None
    if isinstance(content, dict) and content:
        columns = [list(value.values()) if isinstance(value, dict) else value for value in content.values()]
        if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
            return None
        return [dict(zip(content, cells)) for cells in zip(*columns)]
    return content if isinstance(content, list) else None


def _table_of_records(path: Path, rows: list, numbers: Sequence[int], unit: str) -> Table:
    for row, number in zip(rows, numbers):
        if not isinstance(row, dict):
            raise BeatsError(f"{path}, {unit} {number}: must be a record {{column: value}}, got {str(row)[:50]}.")
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _of_one_type([row.get(name) for row in rows], f"{path}: column {name!r}") for name in names}
    return Table(path, datasets.Dataset.from_dict(columns), numbers, unit)


def _of_one_type(values: list, described: str) -> list:
    """Returns values that a column can hold: text of all, if some are numbers and some text; lists, if some are."""
    for _ in range(2):
        try:
            pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError):
            if any(isinstance(value, list) for value in values):
                values = [value if value is None or isinstance(value, list) else [value] for value in values]
            values = [_as_text(value) for value in values]
        else:
            return values
    raise BeatsError(f"{described} holds values of different kinds.")


def _as_text(value: Any) -> Any:
    """Returns a value with a text for each number in it."""
    if isinstance(value, dict):
        return {key: _as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_text(inner) for inner in value]
    # JSON of Python has NaN where there is no value.
    return None if value is None or is_nan(value) else label_name(value)


def _read_parquet(path: Path) -> Table:
    read_parquet_schema(path)
    try:
        # Not `read_table`, which takes `fold=1` in a path for a column.
        content = pyarrow.parquet.ParquetFile(path).read()
        for index, entry in enumerate(content.schema):
            if _is_text(entry.type):
                content = content.set_column(index, entry.name, content.column(index).cast(pyarrow.string()))
    except (OSError, pyarrow.ArrowException) as error:
        raise BeatsError(f"{path}: cannot be read as Parquet: {first_line(error)}") from error
    try:
        dataset = datasets.Dataset(content)
    # Of its metadata, `datasets` believes all.
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BeatsError(f"{path}: its metadata of `datasets` are damaged: {first_line(error)}") from error
    return Table(path, dataset, range(1, len(dataset) + 1))


# Columns


def read_column(dataset: datasets.Dataset, column: str) -> list:
    """Returns the values of a column, or of metadata beside the audio; class indices are replaced by their names."""
    if column not in dataset.column_names:
        return [read_metadata(text, column) for text in dataset[METADATA_COLUMN][:]]
    feature = dataset.features[column]
    # All at once: one by one, they take a hundred times as long.
    return [name_classes(value, feature) for value in dataset[column][:]]


def read_metadata(text: str | None, column: str) -> Any:
    """Returns the value of a column that is beside the audio of a row; None if it has none."""
    return json.loads(text).get(column) if text else None


def name_classes(value: Any, feature: Any) -> Any:
    """Returns a value of a column of this feature as it was written: class indices are replaced by their names."""
    if isinstance(feature, datasets.ClassLabel):
        # Datasets write -1 for a clip without a class.
        return None if value is None or value < 0 else feature.int2str(int(value))
    inner = getattr(feature, "feature", None)
    if isinstance(inner, datasets.ClassLabel):
        return [inner.int2str(each) for each in value or []]
    if isinstance(inner, dict) and isinstance(inner.get("label"), datasets.ClassLabel):
        return [event | {"label": inner["label"].int2str(event["label"])} for event in value or []]
    # A column of whole numbers with gaps is one of floats.
    return None if is_nan(value) else int(value) if is_whole(value) else value


def metadata_names(dataset: datasets.Dataset) -> list[str]:
    """Returns the names of the metadata beside the audio in tar shards, if there are some."""
    if METADATA_COLUMN not in dataset.column_names:
        return []
    return [*dict.fromkeys(name for text in dataset[METADATA_COLUMN][:] if text for name in json.loads(text))]


def list_columns(dataset: datasets.Dataset) -> list[str]:
    """Returns the columns that a dataset has for users: its own, and those beside the audio in tar shards."""
    own = [name for name in dataset.column_names if name not in OWN_COLUMNS]
    return [*dict.fromkeys([*own, *metadata_names(dataset)])]


def keep_columns(dataset: datasets.Dataset, parts: Sequence[datasets.Dataset]) -> None:
    """Notes in the `info` of a dataset, for [`columns_of_parts`], which columns those have that it is joined of."""
    dataset.info.description = json.dumps([part.column_names for part in parts])


def columns_of_parts(dataset: datasets.Dataset) -> list[list[str]]:
    """Returns the columns of each of the datasets that one is joined of, by the numbers in `_corpus`."""
    return json.loads(dataset.info.description) if CORPUS_COLUMN in dataset.column_names else []


def name_files(dataset: datasets.Dataset) -> list[str | None]:
    """Returns the path of each clip in its folder or shard; None if it has none."""
    names: list[str | None] = [None] * len(dataset)
    if FILE_COLUMN in dataset.column_names:
        names = list(dataset[FILE_COLUMN][:])
    if "audio" not in dataset.column_names or all(names):
        return names
    audio = dataset.select_columns("audio").with_format("arrow")[:]["audio"]
    paths = (ARCHIVE.sub("", path or "") for chunk in audio.chunks for path in chunk.field("path").to_pylist())
    # Another absolute path tells nothing of the dataset.
    return [name or (None if os.path.isabs(path) else path or None) for name, path in zip(names, paths)]


def is_nan(value: Any) -> bool:
    """Returns whether a value is NaN, as tables have it for an empty cell."""
    return isinstance(value, float) and math.isnan(value)


def is_whole(value: Any) -> bool:
    """Returns whether a value is a float without a fraction."""
    return isinstance(value, float) and value.is_integer()


def label_name(label: Any) -> str:
    """Returns the name of a class: 1, 1.0 and "1" are the same."""
    return str(int(label)) if is_whole(label) else str(label)
