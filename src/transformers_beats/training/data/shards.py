# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Tar and Parquet shards, read in place: a row says where its audio is, which is read when it is needed. An index of each
shard is made once and kept in the cache; there is no copy of the audio.
"""

import json
import os
import posixpath
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

from transformers_beats.audio.decoding import AudioError
from transformers_beats.audio.files import AUDIO_SUFFIXES, is_hidden
from transformers_beats.utils.cache import mark_used, remove_unused
from transformers_beats.utils.errors import BeatsError, first_line
from transformers_beats.utils.lock import hold

from .manifest import (
    AUDIO_STRUCT,
    BATCH_ROWS,
    cache_path,
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
INDEX_VERSION = 4
INDEX_NAME = "shard-{}.arrow"
# Entry of the metadata of an index: warnings about the shard.
WARNINGS = b"warnings"
MAX_THREADS = 8
BLOCK_BYTES = 1 << 20
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
    with pyarrow.parquet.ParquetFile(shard) as file:
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
                columns[name] = _places(table[name], shard, name, modified, _find_bytes(file, name))
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


def _find_bytes(file: pyarrow.parquet.ParquetFile, name: str) -> np.ndarray:
    """Returns whether the rows of a column of audio have bytes, bool `(num_rows,)`; others only name a file."""
    parts = []
    for group in range(file.metadata.num_row_groups):
        of_group = file.metadata.row_group(group)
        chunks = [of_group.column(index) for index in range(of_group.num_columns)]
        statistics = next(chunk.statistics for chunk in chunks if chunk.path_in_schema == f"{name}.bytes")
        if statistics is not None and statistics.has_null_count and statistics.null_count in (0, of_group.num_rows):
            parts.append(np.full(of_group.num_rows, statistics.null_count == 0))
            continue
        values = file.read_row_group(group, columns=[f"{name}.bytes"], use_threads=False)[name]
        parts.append(pc.fill_null(pc.binary_length(pc.struct_field(values, "bytes")), 0).to_numpy() > 0)
    return np.concatenate([np.zeros(0, dtype=bool), *parts])


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
    distant: dict[str, dict[str, Any]] = {}
    schema = TAR_FEATURES.arrow_schema
    # Warnings, and what is beside the audio, are known when all rows are written; warnings come before these.
    rows = index.with_name(f".{index.name}")
    try:
        write_batches(_batch_rows(_read_shard(str(shard), warnings.append, distant)), schema, rows)
        if warnings:
            schema = schema.with_metadata({**(schema.metadata or {}), WARNINGS: json.dumps(warnings)})
        if warnings or distant:
            table = map_arrow(rows).table
            write_batches(_add_values(table, distant, f"{shard}/") if distant else table.to_batches(), schema, index)
        else:
            rows.replace(index)
    finally:
        rows.unlink(missing_ok=True)


def _add_values(
    table: pyarrow.Table, distant: dict[str, dict[str, Any]], prefix: str
) -> Iterator[pyarrow.RecordBatch]:
    """
    Yields the rows of a tar archive with what is beside their audio elsewhere in it, by the name without suffix: the
    values of a name that no audio file has are those of all clips of its key.
    """
    paths = pc.struct_field(table["audio"], "path").to_pylist()
    stems = {_stem(path.removeprefix(prefix)) for path in paths}
    of_keys: dict[str, dict[str, Any]] = {}
    for stem, values in distant.items():
        if stem not in stems:
            of_keys.setdefault(_clip_key(stem), {}).update(values)
    column = table.schema.get_field_index(METADATA_COLUMN)
    for batch in table.to_batches():
        texts = []
        names = pc.struct_field(batch.column("audio"), "path").to_pylist()
        for path, text in zip(names, batch.column(column).to_pylist()):
            name = path.removeprefix(prefix)
            values = of_keys.get(_clip_key(name), {}) | distant.get(_stem(name), {})
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


def _read_shard(
    shard: str, warn: Callable[[str], None], distant: dict[str, dict[str, Any]] | None = None
) -> Iterator[dict[str, Any]]:
    """
    Yields the rows of a tar archive; see [`read_tar_shards`]. `warn` is told of damage. With `distant`, metadata go
    there, by the name without suffix, unless the audio file of this name is next to them.
    """
    for members in _group_members(shard, warn):
        audio = [(name, content) for name, content in members if _suffix(name) in AUDIO_SUFFIXES]
        stems = {_stem(name) for name, _ in audio}
        values: dict[str, dict[str, Any]] = {}
        others: dict[str, dict[str, Any]] = {} if distant is None else distant
        for name, content in members:
            if (suffix := _suffix(name)) in (".json", *CLASS_SUFFIXES):
                found = _read_values(f"{shard}/{name}", content["bytes"], is_json=suffix == ".json")
                stem = _stem(name)
                (values if stem in stems else others).setdefault(stem, {}).update(found)
        of_all: dict[str, Any] = {}
        for found in others.values() if distant is None else ():
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
    files: dict[str, tarfile.TarInfo] = {}
    try:
        num_bytes, modified = read_state(Path(shard))
        archive, is_compressed = _open_tar(shard)
        with archive:
            for member in archive:
                file = _resolve(archive, member, files)
                if file is None or _suffix(member.name) not in wanted or _is_hidden(member.name):
                    continue
                if not is_compressed and file.offset_data + file.size > num_bytes:
                    raise tarfile.ReadError("unexpected end of data")
                if group and _clip_key(group[0][0]) != _clip_key(member.name):
                    yield group
                    group = []
                place = None if is_compressed or file.issparse() else {"shard": shard, "modified": modified}
                group.append((member.name, _content(archive, file, f"{shard}/{member.name}", place)))
            if not is_compressed:
                _check_rest(shard, archive.offset)
    except (tarfile.TarError, EOFError) as error:
        warn(f"{shard}: the rest of this shard cannot be read: {first_line(error).rstrip(':')}")
    if group:
        yield group


def _resolve(
    archive: tarfile.TarFile, member: tarfile.TarInfo, files: dict[str, tarfile.TarInfo]
) -> tarfile.TarInfo | None:
    """Returns the file that a member is or links to, or None, and adds it to the names in `files`."""
    found = member if member.isfile() else None
    if member.islnk():
        found = files.get(posixpath.normpath(member.linkname))
    elif member.issym():
        name = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
        found = files.get(name) or _find_later(archive, name)
    if found is not None:
        files[posixpath.normpath(member.name)] = found
    return found


def _find_later(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo | None:
    """Returns a file that may come later in an archive."""
    try:
        found = next((other for other in archive.getmembers() if posixpath.normpath(other.name) == name), None)
    except tarfile.TarError:
        # The archive's damage is found when it is read up to there.
        return None
    return found if found is not None and found.isfile() else None


def _check_rest(shard: str, start: int) -> None:
    """
    Raises a `tarfile.ReadError` unless all is zero from where the files of an archive end: a header that is damaged,
    and another archive behind this one, look like the end.
    """
    with open(shard, "rb") as file:
        file.seek(start)
        while block := file.read(BLOCK_BYTES):
            if block.count(0) < len(block):
                raise tarfile.ReadError(f"no file begins at byte {start}, and more follows")


def _open_tar(shard: str) -> tuple[tarfile.TarFile, bool]:
    """Opens a tar archive; returns it, and whether it is compressed."""
    try:
        return tarfile.open(shard, "r:"), False
    except tarfile.ReadError:
        return tarfile.open(shard), True


def _content(
    archive: tarfile.TarFile, file: tarfile.TarInfo, path: str, place: dict[str, Any] | None
) -> dict[str, Any]:
    """Returns the place of an audio file, if it has one, or the bytes of another file."""
    content = dict.fromkeys(SHARD_AUDIO) | {"path": path}
    if _suffix(path) in AUDIO_SUFFIXES and place is not None:
        return content | place | {"offset": file.offset_data, "size": file.size}
    data = archive.extractfile(file)
    return content | {"bytes": data.read() if data is not None else b""}


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
