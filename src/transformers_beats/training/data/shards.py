# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Tar and Parquet shards, read in place: a row says where its audio is, which is read when it is needed. An index of each
shard is made once and kept in the cache; there is no copy of the audio.
"""

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
from datasets.fingerprint import Hasher
from datasets.table import MemoryMappedTable, table_cast
from transformers.utils import logging

from transformers_beats.audio.archives import Member, walk_tar
from transformers_beats.audio.decoding import AudioError
from transformers_beats.audio.files import AUDIO_SUFFIXES, is_hidden
from transformers_beats.utils.cache import mark_used, remove_unused
from transformers_beats.utils.errors import BeatsError, first_line
from transformers_beats.utils.lock import hold

from .manifest import (
    AUDIO_STRUCT,
    BATCH_ROWS,
    cache_path,
    is_filled,
    map_arrow,
    open_arrow,
    pc,
    read_state,
    write_arrow,
    write_batches,
)
from .tables import METADATA_COLUMN, is_audio_type, read_parquet_features


logger = logging.get_logger(__name__)

# Suffixes of a clip's class, as text, beside its audio in a tar shard.
CLASS_SUFFIXES = (".cls", ".txt")
# Audio in a shard: in a tar archive `size` bytes from `offset` on, in Parquet row `offset` of a column. `modified` is
# the time of the shard's last change, in nanoseconds, when its index was made.
SHARD_AUDIO = AUDIO_STRUCT | {
    "shard": datasets.Value("string"),
    "column": datasets.Value("string"),
    "offset": datasets.Value("int64"),
    "size": datasets.Value("int64"),
    "modified": datasets.Value("int64"),
}
TAR_FEATURES = datasets.Features({"audio": SHARD_AUDIO, METADATA_COLUMN: datasets.Value("string")})
# Changes when rows of the indices do.
INDEX_VERSION = 5
INDEX_NAME = "shard-{}.arrow"
# Entry of the metadata of an index: warnings about the shard.
WARNINGS = b"warnings"
MAX_THREADS = 8
# A column of a row group that is read whatever it holds.
SMALL_BYTES = 1 << 20
# Bytes of rows in memory at a time.
BATCH_BYTES = 1 << 26


# Audio of a row


def read_audio(audio: dict[str, Any]) -> bytes | None:
    """
    Returns the encoded audio of a row: its bytes, or those in a shard; None if it is in a file of its own.

    Raises:
        [`AudioError`]: if it cannot be read from its shard; the message names both.
    """
    shard = audio.get("shard")
    if audio.get("bytes") or not shard:
        return audio.get("bytes") or None
    try:
        if audio["column"] is None:
            return _read_member(shard, audio["offset"], audio["size"], audio["modified"])
        return _read_cell(shard, audio["column"], audio["offset"], audio["modified"])
    except (OSError, IndexError, KeyError, pyarrow.ArrowException) as error:
        name = audio.get("path") or f"row {audio['offset'] + 1}"
        raise AudioError(f"{name}: cannot be read from {shard}: {first_line(error)}") from error


def _check_unchanged(found: os.stat_result, modified: int) -> None:
    """Raises an `OSError` for a shard that has changed: other audio would be at the places of its index."""
    if found.st_mtime_ns != modified:
        raise OSError("the shard has changed since it was indexed: start again.")


def _read_member(shard: str, offset: int, size: int, modified: int) -> bytes:
    """Reads a file in a tar archive."""
    with open(shard, "rb") as file:
        _check_unchanged(os.fstat(file.fileno()), modified)
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise OSError("the shard has become shorter.")
    return data


def _read_cell(shard: str, column: str, row: int, modified: int) -> bytes | None:
    """Reads the audio of a row in a Parquet file; None if the row has only a path."""
    _check_unchanged(os.stat(shard), modified)
    _, starts = _read_metadata(shard, modified)
    group = int(np.searchsorted(starts, row, side="right")) - 1
    value = _read_row_group(shard, modified, group, column)[row - int(starts[group])].as_py()
    return (value or {}).get("bytes") or None


@lru_cache(maxsize=1024)
def _read_metadata(shard: str, modified: int) -> tuple[Any, np.ndarray]:
    """Reads the metadata of a Parquet file, and the first row of each of its row groups and the number of rows."""
    metadata = pyarrow.parquet.read_metadata(shard)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return metadata, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


# Rows that follow one another are in one row group: no more than two are kept, as they can be large.
@lru_cache(maxsize=2)
def _read_row_group(shard: str, modified: int, group: int, column: str) -> pyarrow.ChunkedArray:
    """Reads the audio of a row group."""
    metadata, _ = _read_metadata(shard, modified)
    # Opened for each: several threads may read.
    with pyarrow.parquet.ParquetFile(shard, metadata=metadata, memory_map=True) as file:
        return file.read_row_group(group, columns=[f"{column}.bytes"], use_threads=False)[column]


# Indices


def load_shards(shards: list[Path]) -> datasets.Dataset:
    """
    Loads the rows of tar archives, or of Parquet files, with the places of their audio, memory-mapped. A shard whose
    size or time has changed is indexed anew, the others are not opened. Damage of a shard is logged every time.

    Raises:
        [`BeatsError`]: if a shard cannot be read, or its columns do not fit those of the first one.
    """
    # Those that are read later, whatever the working directory is then.
    shards = [Path(os.path.abspath(shard)) for shard in shards]
    if shards[0].suffix.lower() == ".tar":
        features, index, key = TAR_FEATURES, index_tar, None
    else:
        features = _parquet_features(shards[0])
        index, key = partial(index_parquet, features=features), str(features)
    files = [_index_path(shard, key) for shard in shards]
    tables = [table for file in files if (table := open_arrow(file)) is not None]
    if len(tables) < len(files):
        # Several processes may start at once.
        with hold(files[0].with_name("shards"), wait=True), ThreadPoolExecutor(MAX_THREADS) as executor:
            tables = list(executor.map(partial(_open_index, index), shards, files))
    for table in tables:
        for line in json.loads((table.schema.metadata or {}).get(WARNINGS, b"[]")):
            logger.warning(line)
    mark_used(*files)
    remove_unused(INDEX_NAME)
    # By their own, datasets would tell indices apart by the times of their files, which every use changes.
    parts = [datasets.Dataset(table, fingerprint=Hasher.hash(file.name)) for table, file in zip(tables, files)]
    return datasets.concatenate_datasets([part for part in parts if len(part)] or parts[:1])


def _index_path(shard: Path, key: str | None) -> Path:
    return cache_path(INDEX_NAME, INDEX_VERSION, str(shard), *read_state(shard), key)


def _open_index(index: Callable[[Path, Path], None], shard: Path, file: Path) -> MemoryMappedTable:
    """Opens the index of a shard, which is made if there is none that can be read."""
    if (known := open_arrow(file)) is not None:
        return known
    try:
        index(shard, file)
    except (OSError, ValueError, TypeError, pyarrow.ArrowException) as error:
        if isinstance(error, BeatsError):
            raise
        raise BeatsError(f"{shard}: cannot be read: {first_line(error)}") from error
    return map_arrow(file)


# Parquet


def _parquet_features(shard: Path) -> datasets.Features:
    """Returns the columns of the rows of a Parquet file, with places for the audio in it."""
    features = read_parquet_features(shard)
    return datasets.Features(
        {name: SHARD_AUDIO if is_audio(feature) else feature for name, feature in features.items()}
    )


def is_audio(feature: Any) -> bool:
    """Returns whether a column holds audio: that of `datasets`, or a struct of bytes and a path."""
    return isinstance(feature, datasets.Audio) or (isinstance(feature, dict) and {"bytes", "path"} <= feature.keys())


def index_parquet(shard: Path, index: Path, features: datasets.Features) -> None:
    """Writes the rows of a Parquet file without audio, but with its places, in the columns of `features`."""
    audio = [name for name, feature in features.items() if is_audio(feature)]
    _, modified = read_state(shard)
    # Mapped: batches of a column are read from it without a copy of the whole.
    with pyarrow.parquet.ParquetFile(shard, memory_map=True) as file:
        names = [field.name for field in file.schema_arrow]
        for field in file.schema_arrow:
            if field.name in audio and not is_audio_type(field.type):
                raise BeatsError(
                    f"{shard}: its columns differ from those of the first file: {field.name!r} holds {field.type}, no "
                    "audio."
                )
        wanted = [f"{name}.path" if name in audio else name for name in names]
        table = file.read(columns=wanted, use_threads=False)
        columns: dict[str, Any] = {name: table[name] for name in names}
        for name in audio:
            if name in columns:
                paths = pc.struct_field(table[name], "path")
                columns[name] = _places(table[name], shard, name, modified, _find_bytes(file, name, paths))
    for name in features.keys() - columns.keys():
        columns[name] = pyarrow.nulls(table.num_rows)
    ordered = {name: columns.pop(name) for name in features}
    if columns:
        raise BeatsError(f"{shard}: has columns that the first file lacks: {', '.join(columns)}.")
    try:
        table = table_cast(pyarrow.table(ordered), features.arrow_schema)
    except (TypeError, ValueError, pyarrow.ArrowException) as error:
        raise BeatsError(f"{shard}: its columns differ from those of the first file: {first_line(error)}") from error
    write_arrow(table, index)


def _find_bytes(file: pyarrow.parquet.ParquetFile, name: str, paths: pyarrow.ChunkedArray) -> np.ndarray:
    """
    Returns whether the rows of a column of audio have bytes, bool `(num_rows,)`; others only name a file. Bytes are
    read of those row groups alone whose statistics do not tell it, and of which a path leads to a file.
    """
    has_bytes = np.ones(file.metadata.num_rows, dtype=bool)
    stop = 0
    for group in range(file.metadata.num_row_groups):
        of_group = file.metadata.row_group(group)
        start, stop = stop, stop + of_group.num_rows
        chunks = [of_group.column(index) for index in range(of_group.num_columns)]
        chunk = next(chunk for chunk in chunks if chunk.path_in_schema == f"{name}.bytes")
        statistics = chunk.statistics
        if statistics is not None and statistics.has_null_count and statistics.null_count in (0, of_group.num_rows):
            has_bytes[start:stop] = statistics.null_count == 0
        elif chunk.total_uncompressed_size <= SMALL_BYTES or _names_file(paths.slice(start, of_group.num_rows)):
            num_rows = max(1, of_group.num_rows * BATCH_BYTES // max(chunk.total_uncompressed_size, BATCH_BYTES))
            batches = file.iter_batches(num_rows, row_groups=[group], columns=[f"{name}.bytes"], use_threads=False)
            for batch in batches:
                has_bytes[start : start + len(batch)] = is_filled(batch.column(0), "bytes")
                start += len(batch)
    return has_bytes


def _names_file(paths: pyarrow.ChunkedArray) -> bool:
    return any(path and os.path.exists(path) for path in paths.to_pylist())


def _places(
    column: pyarrow.ChunkedArray, shard: Path, name: str, modified: int, has_bytes: np.ndarray
) -> pyarrow.Array:
    """Returns the places of the audio in a column, given with the paths only; none of rows that only name a file."""
    rows = column.combine_chunks()
    num_rows, mask = len(rows), pyarrow.array(has_bytes)

    def place(value: str | int) -> pyarrow.Array:
        return pc.if_else(mask, pyarrow.scalar(value), None)

    values = {
        "bytes": pyarrow.nulls(num_rows, pyarrow.binary()),
        "path": rows.field("path").cast(pyarrow.string()),
        "shard": place(str(shard)),
        "column": place(name),
        "offset": pyarrow.array(np.arange(num_rows), mask=~has_bytes),
        "size": pyarrow.nulls(num_rows, pyarrow.int64()),
        "modified": place(modified),
    }
    return pyarrow.StructArray.from_arrays(list(values.values()), names=list(values))


# Tar


def index_tar(shard: Path, index: Path) -> None:
    """
    Writes the rows of a tar archive, with the places of the audio, and warnings of damage as metadata. Of rows that
    have bytes, few are in memory. Files beside the audio may be anywhere in the archive, as `tar` writes them in the
    order of the disk.
    """
    warnings: list[str] = []
    beside = Beside()
    schema = TAR_FEATURES.arrow_schema
    # Warnings, and what is beside the audio, are known when all rows are written; warnings come before these.
    rows = index.with_name(f".{index.name}")
    try:
        write_batches(_batch_rows(_read_shard(str(shard), warnings.append, beside)), schema, rows)
        if warnings:
            schema = schema.with_metadata({**(schema.metadata or {}), WARNINGS: json.dumps(warnings)})
        if warnings or beside:
            table = map_arrow(rows).table
            write_batches(_add_values(table, beside, f"{shard}/") if beside else table.to_batches(), schema, index)
        else:
            rows.replace(index)
    finally:
        rows.unlink(missing_ok=True)


class Beside:
    """
    Metadata in a tar archive under other names than those of the audio next to them, by the name without suffix:
    `of_rows` those in the group of each row, and `of_others` those in groups without audio.
    """

    def __init__(self):
        self.of_rows: list[dict[str, dict[str, Any]]] = []
        self.of_others: dict[str, dict[str, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self.of_others) or any(self.of_rows)

    def add(self, values: dict[str, dict[str, Any]], num_rows: int) -> None:
        """Adds the metadata of a group with so many rows."""
        self.of_rows += [values] * num_rows
        if not num_rows:
            _update(self.of_others, values)


def _update(known: dict[str, dict[str, Any]], values: dict[str, dict[str, Any]]) -> None:
    for name, found in values.items():
        known.setdefault(name, {}).update(found)


def _add_values(table: pyarrow.Table, beside: Beside, prefix: str) -> Iterator[pyarrow.RecordBatch]:
    """
    Yields the rows of a tar archive with what is beside their audio under other names. What has the name of an audio
    file is its own, wherever it is. Others are of the clips of their key: those of their group or, if no clip of it
    has any in its group, of all.
    """
    paths = pc.struct_field(table["audio"], "path").to_pylist()
    stems = {_stem(path.removeprefix(prefix)) for path in paths}
    own: dict[str, dict[str, Any]] = {}
    of_keys: dict[str, dict[str, Any]] = {}
    of_groups: dict[str, dict[str, Any]] = {}
    for values, of_all in ((beside.of_others, of_keys), *((values, of_groups) for values in beside.of_rows)):
        for stem, found in values.items():
            _update(own if stem in stems else of_all, {stem if stem in stems else _clip_key(stem): found})
    column = table.schema.get_field_index(METADATA_COLUMN)
    groups = iter(beside.of_rows)
    for batch in table.to_batches():
        texts = []
        names = pc.struct_field(batch.column("audio"), "path").to_pylist()
        for path, text, group in zip(names, batch.column(column).to_pylist(), groups):
            name = path.removeprefix(prefix)
            of_group: dict[str, Any] = {}
            for stem, found in group.items():
                if stem not in stems:
                    of_group |= found
            key = _clip_key(name)
            values = of_keys.get(key, {}) | (of_group or of_groups.get(key, {})) | own.get(_stem(name), {})
            texts.append(json.dumps(values | (json.loads(text) if text else {})) if values else text)
        yield batch.set_column(column, batch.schema.field(column), pyarrow.array(texts, pyarrow.string()))


def _batch_rows(rows: Iterator[dict[str, Any]]) -> Iterator[pyarrow.RecordBatch]:
    """Yields rows of tar archives in batches, which end after `BATCH_BYTES` of audio."""
    batch: list[dict[str, Any]] = []
    num_bytes = 0
    for row in rows:
        batch.append(row)
        num_bytes += len(row["audio"]["bytes"] or b"")
        if num_bytes >= BATCH_BYTES or len(batch) == BATCH_ROWS:
            yield pyarrow.RecordBatch.from_pylist(batch, TAR_FEATURES.arrow_schema)
            batch, num_bytes = [], 0
    if batch:
        yield pyarrow.RecordBatch.from_pylist(batch, TAR_FEATURES.arrow_schema)


def read_tar_shards(shards: list[str]) -> Iterator[dict[str, Any]]:
    """
    Yields the places of the audio files in tar archives, as they come, for streams; `NAME.json`, `NAME.cls` or
    `NAME.txt` next to `NAME.wav` become their metadata, as JSON. Other files, and the rest of a damaged archive, are
    left out with a warning. In a compressed archive, and of a sparse file, there is no place to read from: the rows
    have the bytes.
    """
    for shard in shards:
        yield from _read_shard(shard, logger.warning)


def _read_shard(shard: str, warn: Callable[[str], None], beside: Beside | None = None) -> Iterator[dict[str, Any]]:
    """
    Yields the rows of a tar archive; see [`read_tar_shards`]. `warn` is told of damage. Metadata of other names than
    those of the audio next to them go to `beside`, if that is given.
    """
    for members in _group_members(shard, warn):
        audio = [(name, content) for name, content in members if _suffix(name) in AUDIO_SUFFIXES]
        stems = {_stem(name) for name, _ in audio}
        values: dict[str, dict[str, Any]] = {}
        for name, content in members:
            if (suffix := _suffix(name)) in (".json", *CLASS_SUFFIXES):
                found = _read_values(f"{shard}/{name}", content["bytes"], is_json=suffix == ".json")
                _update(values, {_stem(name): found})
        others = {stem: found for stem, found in values.items() if stem not in stems}
        if beside is not None:
            beside.add(others, len(audio))
        of_all: dict[str, Any] = {}
        for found in others.values() if beside is None else ():
            of_all.update(found)
        for name, content in audio:
            metadata = of_all | values.get(_stem(name), {})
            yield {"audio": content, METADATA_COLUMN: json.dumps(metadata) if metadata else None}


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _is_hidden(name: str) -> bool:
    """Returns whether a file in an archive would be hidden in a folder: `._dog.wav` of macOS, `__MACOSX/dog.wav`."""
    return any(is_hidden(part) for part in PurePosixPath(name).parts if part != "..")


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _group_members(shard: str, warn: Callable[[str], None]) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Yields names and contents of the files of each clip: neighbours whose names differ after a dot only."""
    group: list[tuple[str, dict[str, Any]]] = []
    wanted = AUDIO_SUFFIXES | {".json", *CLASS_SUFFIXES}
    try:
        _, modified = read_state(shard)
        for member in walk_tar(shard, lambda name: _suffix(name) in wanted and not _is_hidden(name)):
            if group and _clip_key(group[0][0]) != _clip_key(member.name):
                yield group
                group = []
            group.append((member.name, _content(member, shard, modified)))
    except (tarfile.TarError, EOFError) as error:
        warn(f"{shard}: the rest of this shard cannot be read: {first_line(error).rstrip(':')}")
    if group:
        yield group


def _content(member: Member, shard: str, modified: int) -> dict[str, Any]:
    """Returns the place of an audio file, if it has one, or the bytes of another file."""
    content = dict.fromkeys(SHARD_AUDIO) | {"path": f"{shard}/{member.name}"}
    if _suffix(member.name) in AUDIO_SUFFIXES and member.offset is not None:
        return content | {"shard": shard, "modified": modified, "offset": member.offset, "size": member.size}
    return content | {"bytes": member.read()}


def _clip_key(name: str) -> str:
    """Returns WebDataset's key of a file: its path up to the first dot of its name."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0] or path.name))


def _read_values(name: str, data: bytes, is_json: bool) -> dict[str, Any]:
    """Reads a file beside the audio; nothing, with a warning, if it cannot be read."""
    try:
        text = data.decode("utf-8")
        values = json.loads(text) if is_json else {"label": text.strip()}
    except ValueError as error:
        logger.warning(f"{name}: cannot be read: {first_line(error)}")
        return {}
    return values if isinstance(values, dict) else {"label": values}
