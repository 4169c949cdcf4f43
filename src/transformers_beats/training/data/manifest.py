# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""List of the audio files of a folder or table, made by one process of a node and mapped into memory by the others."""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute
import soundfile
import soxr
from datasets.fingerprint import Hasher
from datasets.table import MemoryMappedTable
from transformers.utils import logging

import transformers_beats
from transformers_beats.audio.files import AUDIO_SUFFIXES, has_suffix, list_folders, walk_folder
from transformers_beats.utils.cache import cache_directory, mark_used, remove_unused
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.files import replace_file
from transformers_beats.utils.lock import hold

from .tables import FILE_COLUMN, FILE_STATE, TABLE_SUFFIXES, list_table_files


logger = logging.get_logger(__name__)

# Its functions are made when it is imported, so that type checkers do not know them.
pc: Any = pyarrow.compute

# Audio of a row: the bytes of a file, or its path.
AUDIO_STRUCT = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
# Of `FILE_STATE`.
STATE_STRUCT = {name: datasets.Value("int64") for name in ("size", "modified", "checksum")}
# Size and time of a file that is not there.
ABSENT = (-1, 0)
# The newest list, and what it was made from.
LATEST = "latest.json"
# Suffixes of files that hold many clips.
SHARD_SUFFIXES = frozenset((".parquet", ".tar"))
# Rows that are Python objects at a time.
BATCH_ROWS = 50_000


def cache_path(name: str, *key: Any) -> Path:
    """
    Returns the path of a file in the cache. Its name changes with the key, the package and the decoders: a fix of a
    decoder, or one that is installed, must be seen.
    """
    decoders = [soundfile.__version__, soundfile.__libsndfile_version__, soxr.__version__, _version("torchcodec")]
    # Not its path: what is known of a corpus can be taken to another machine.
    decoders.append(shutil.which("ffmpeg") is not None)
    return cache_directory() / name.format(Hasher.hash((key, transformers_beats.__version__, decoders)))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def map_cached(
    dataset: datasets.Dataset, function: Callable, features: datasets.Features, **kwargs: Any
) -> datasets.Dataset:
    """Maps a dataset to new columns only, cached on disk also for datasets that are themselves in memory."""
    file = cache_path("{}.arrow", dataset._fingerprint, function, str(features))
    # Those of several processes have a number.
    for cached in file.parent.glob(f"{file.stem}*"):
        if open_arrow(cached) is None:
            cached.unlink(missing_ok=True)
    return dataset.map(
        function,
        features=features,
        remove_columns=dataset.column_names,
        cache_file_name=str(file),
        **kwargs,
    )


def hash_columns(columns: Iterable[pa.ChunkedArray], *others: Any) -> str:
    """Returns a digest of columns of texts or integers without nulls, however they are cut into chunks."""
    digest = hashlib.blake2b(json.dumps(others).encode(), digest_size=16)
    for column in columns:
        digest.update(f"{column.type} {len(column)}".encode())
        for start in range(0, len(column), BATCH_ROWS):
            chunk = column.slice(start, BATCH_ROWS).combine_chunks()
            if pa.types.is_integer(chunk.type):
                digest.update(chunk.to_numpy().data)
                continue
            _, offsets, data = chunk.buffers()
            places = np.frombuffer(offsets, np.int64 if pa.types.is_large_string(chunk.type) else np.int32)
            places = places[chunk.offset : chunk.offset + len(chunk) + 1]
            digest.update(np.diff(places).data)
            if data is not None:
                digest.update(memoryview(data)[places[0] : places[-1]])
    return digest.hexdigest()


def write_arrow(table: pa.Table, path: Path, max_rows: int | None = BATCH_ROWS) -> None:
    """Writes a table to a file that [`map_arrow`] opens, in batches of at most `max_rows` rows."""
    write_batches(table.to_batches(max_chunksize=max_rows), table.schema, path)


def write_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path) -> None:
    """Writes batches of rows as they come to a file that [`map_arrow`] opens, at once."""
    with replace_file(path) as temporary, pa.ipc.new_stream(str(temporary), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def map_arrow(path: Path) -> MemoryMappedTable:
    """Opens a file of [`write_arrow`] in mapped memory, which processes of a node share."""
    return MemoryMappedTable.from_file(str(path))


def open_arrow(path: Path) -> MemoryMappedTable | None:
    """Opens a file of the cache as [`map_arrow`] does; None if it is absent or damaged, to be made anew."""
    try:
        return map_arrow(path)
    except (OSError, pa.ArrowException):
        return None


def read_arrow(dataset: datasets.Dataset, column: str) -> pa.ChunkedArray:
    """Returns a column of a dataset; it stays in mapped memory unless rows were selected."""
    return dataset.select_columns(column).with_format("arrow")[:][column]


def list_audio_files(
    path: Path, audio_column: str | None = None, table: Path | None = None, refresh: bool = True
) -> datasets.Dataset:
    """Lists audio files as [`search_audio`] does, whatever else is beside them."""
    _, dataset = search_audio(path, audio_column, table, refresh, shard_suffixes=())
    assert dataset is not None
    return dataset


def search_audio(
    path: Path,
    audio_column: str | None = None,
    table: Path | None = None,
    refresh: bool = True,
    shard_suffixes: Collection[str] = SHARD_SUFFIXES,
) -> tuple[list[Path], datasets.Dataset | None]:
    """
    Lists the audio files under a folder, or those under it that a table names; see [`list_table_files`]. The column
    `file_name` has their names, relative to the folder; `file_state` tells when a file has changed.

    The list is a file in the cache that is mapped into memory, and made anew when a file was added, changed or
    removed. Without `refresh`, the last one is taken as it is, if there is one: another process has just made it.

    Returns:
        `tuple`: the shards in the folder, sorted; and the list, or None if there are shards.

    Raises:
        [`BeatsError`]: if there is no file, or the name of one is no text in UTF-8.
    """
    place = os.path.abspath(path)
    directory = cache_path("files-{}", str(path), place, audio_column, table and str(table))
    if not refresh and (known := _open_list(directory, place)) is not None:
        return [], known
    with hold(directory, wait=True):
        source = None if table is None else list(state_of(table))
        features = datasets.Features()
        if table is None:
            shards, rows = _search(path, shard_suffixes)
            if rows is None:
                # Other processes would take an older list.
                (directory / LATEST).unlink(missing_ok=True)
                return shards, None
        else:
            rows, features = _read_again(directory, place, source) or _read_table(path, audio_column, table)
        names = [name for name in (FILE_COLUMN, "path", "size", "modified") if name in rows.column_names]
        digest = hash_columns((rows[name] for name in names), source)
        known = _keep_list(directory, place, digest, partial(_write_list, rows, features, path), source)
    if table is None:
        _warn_of_empty_folders(path, one_of_each_folder(rows[FILE_COLUMN]))
    del rows
    # Arrow would keep it for what comes.
    pa.default_memory_pool().release_unused()
    return [], known


def _read_latest(directory: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((directory / LATEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _keep_list(
    directory: Path, place: str, digest: str, write: Callable[[Path], None], source: list[int] | None = None
) -> datasets.Dataset | None:
    """Opens the list of a digest, see [`_open_list`], which `write` writes to a file if it is not the newest one."""
    known = _open_list(directory, place) if _read_latest(directory).get("digest") == digest else None
    if known is None:
        write(directory / f"list-{digest}.arrow")
        with replace_file(directory / LATEST) as temporary:
            temporary.write_text(json.dumps({"digest": digest, "source": source}), encoding="utf-8")
        known = _open_list(directory, place)
        # Also those of other places: of one that is gone, or a dataset that has changed, nothing else would.
        remove_unused("files-*/list-*.arrow")
    return known


def _open_list(directory: Path, place: str) -> datasets.Dataset | None:
    """
    Opens the newest list of a folder or table, if there is one that can be read. The `description` of its `info` is
    the digest of names, sizes and times; its fingerprint changes with the place as well, as other folders may have
    files with these.
    """
    digest = _read_latest(directory).get("digest")
    if digest is None:
        return None
    file = directory / f"list-{digest}.arrow"
    if (table := open_arrow(file)) is None:
        return None
    mark_used(file)
    info = datasets.DatasetInfo(description=digest)
    return datasets.Dataset(table, info=info, fingerprint=Hasher.hash((digest, place)))


def read_state(path: str | Path) -> tuple[int, int]:
    """Returns size and time of a file, in bytes and nanoseconds, which change with its content."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def state_of(path: str | Path) -> tuple[int, int]:
    """Returns what [`read_state`] does, or `ABSENT`."""
    try:
        return read_state(path)
    except (OSError, ValueError):
        return ABSENT


def _states_of(paths: Iterable[str]) -> tuple[pa.Array, pa.Array]:
    """Returns sizes and times of files, int64."""
    states = np.array([state_of(path) for path in paths], dtype=np.int64).reshape(-1, 2)
    return pa.array(states[:, 0]), pa.array(states[:, 1])


def _search(path: Path, shard_suffixes: Collection[str]) -> tuple[list[Path], pa.Table | None]:
    """
    Searches a folder; returns its shards or, if there are none, `file_name`, `size` and `modified` of each audio file,
    in the order of their names.
    """
    prefix = os.path.join(path, "")
    # A pipe called like audio is a row, whose check names it; shards are opened before they are checked.
    walk = walk_folder(path, {*AUDIO_SUFFIXES, *shard_suffixes}, special_suffixes=AUDIO_SUFFIXES)
    if path.is_file():
        if not has_suffix(path.name, {*AUDIO_SUFFIXES, *shard_suffixes}):
            raise BeatsError(f"{path}: is no audio, and no table of a known kind ({', '.join(TABLE_SUFFIXES)}).")
        prefix, walk = str(path)[: -len(path.name)], iter([str(path)])
    shards: list[Path] = []
    batches: list[pa.Table] = []
    while paths := list(islice(walk, BATCH_ROWS)):
        if found := [Path(file) for file in paths if has_suffix(file, shard_suffixes)]:
            shards += found
            batches = []
        if shards:
            continue
        names = as_text([file[len(prefix) :] for file in paths])
        size, modified = _states_of(paths)
        batches.append(pa.table({FILE_COLUMN: names, "size": size, "modified": modified}))
    if shards:
        return sorted(shards), None
    if not batches:
        raise BeatsError(f"{path}: holds no audio files, no Parquet files and no tar shards.")
    return [], _sort(pa.concat_tables(batches))


def as_text(values: list[str] | pa.Array) -> pa.Array:
    """Returns an array of names of files; raises a [`BeatsError`] for one that is no text in UTF-8."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError as error:
        raise BeatsError(f"{error.object!r}: its name is no text in UTF-8: rename it.") from error


def _sort(rows: pa.Table) -> pa.Table:
    """Sorts rows by the parts of their names: a folder comes before another one that its name begins."""
    names = rows[FILE_COLUMN]
    # What no link leads to comes in this order already. Neighbours are compared across the batches, too.
    starts = range(0, len(names) - 1, BATCH_ROWS)
    pieces = (_sort_keys(names.slice(start, BATCH_ROWS + 1)) for start in starts)
    if all(pc.all(pc.less_equal(keys[:-1], keys[1:])).as_py() for keys in pieces):
        return rows
    return rows.take(pc.sort_indices(_sort_keys(names)))


def _sort_keys(names: pa.ChunkedArray) -> pa.Array:
    return pc.replace_substring(names, "/", "\0").combine_chunks()


def _read_table(path: Path, audio_column: str | None, table: Path) -> tuple[pa.Table, datasets.Features]:
    """Reads a table; returns rows as [`_search`] does, with `path` and its other columns, and their features."""
    dataset, files = list_table_files(table, audio_column)
    if not _is_within(os.path.abspath(table), os.path.abspath(path)):
        # Of all splits.
        folders = [os.path.dirname(os.path.abspath(file)) for file in files]
        is_of_split = {folder: _is_of_split(folder, path, table.parent) for folder in {*folders}}
        rows = [index for index, folder in enumerate(folders) if is_of_split[folder]]
        if not rows:
            raise BeatsError(f"{table}: names no file in {path}.")
        dataset, files = dataset.select(rows), [files[index] for index in rows]
    paths = as_text(files)
    size, modified = _states_of(files)
    others = dataset.select_columns(
        [name for name in dataset.column_names if name not in (FILE_COLUMN, "audio", FILE_STATE)]
    )
    names = read_arrow(dataset, FILE_COLUMN)
    found = pa.table({FILE_COLUMN: names, "path": paths, "size": size, "modified": modified})
    return _join_columns(found, others), others.features


def _is_within(place: str, folder: str) -> bool:
    return Path(place).is_relative_to(folder)


def _is_of_split(place: str, split: Path, root: Path) -> bool:
    """Returns whether an absolute path is in a split; one outside `root` may lead into it by another name of this."""
    if _is_within(place, os.path.abspath(root)):
        return _is_within(place, os.path.abspath(split))
    return _is_within(os.path.realpath(place), os.path.realpath(split))


def _join_columns(found: pa.Table, others: datasets.Dataset) -> pa.Table:
    """Adds columns under names that are no other's."""
    if others.column_names:
        arrow = others.with_format("arrow")[:]
        for name in others.column_names:
            found = found.append_column(f"table.{name}", arrow[name])
    return found


def _read_again(directory: Path, place: str, source: list[int] | None) -> tuple[pa.Table, datasets.Features] | None:
    """Returns the rows of a table that has not changed since it was read, with the states that its files have now."""
    known = _open_list(directory, place)
    if known is None or _read_latest(directory).get("source") != source:
        return None
    paths = pc.struct_field(known.data.column("audio"), "path")
    parts = [_states_of(chunk.to_pylist()) for chunk in paths.chunks]
    if not any((pc.max(size).as_py() or 0) >= 0 for size, _ in parts):
        # The error of a table whose files are gone.
        return None
    found = pa.table(
        {
            FILE_COLUMN: known.data.column(FILE_COLUMN),
            "path": paths,
            "size": pa.chunked_array([size for size, _ in parts]),
            "modified": pa.chunked_array([modified for _, modified in parts]),
        }
    )
    others = known.select_columns(
        [name for name in known.column_names if name not in (FILE_COLUMN, "audio", FILE_STATE)]
    )
    return _join_columns(found, others), others.features


def _checksum(path: str, size: int, modified: int) -> int:
    digest = hashlib.blake2b(f"{size} {modified} {os.path.abspath(path)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def is_filled(audio: pa.ChunkedArray | pa.Array, name: str) -> np.ndarray:
    """Returns whether the rows of a column of audio have `bytes`, or a `path`, that is not empty, `(num_rows,)`."""
    values = pc.struct_field(audio, name)
    # Arrow gives the type `null` to what is None in all rows, and has no lengths of it.
    values = values.cast(pa.binary()) if pa.types.is_null(values.type) else values
    return pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False) > 0


def add_file_states(dataset: Any, refresh: bool = True) -> Any:
    """
    Returns a dataset with the column `file_state` of rows whose audio is a file of its own, which Parquet files and
    datasets of the Hub may name. Its fingerprint changes with these files. A stream, and a dataset that has the column
    or no such row, is returned as it is. The column is a file in the cache, as the list of a folder is; `refresh` is
    that of [`search_audio`].
    """
    if isinstance(dataset, datasets.IterableDataset) or FILE_STATE in dataset.column_names:
        return dataset
    audio = read_arrow(dataset, "audio")
    is_file = is_filled(audio, "path") & ~is_filled(audio, "bytes")
    if "shard" in dataset.features["audio"]:
        is_file &= pc.struct_field(audio, "shard").is_null().to_numpy()
    if not is_file.any():
        return dataset
    place = dataset._fingerprint
    directory = cache_path("files-{}", place)
    known = None if refresh else _open_list(directory, place)
    if known is None:
        with hold(directory, wait=True):
            states = _find_states(pc.struct_field(audio, "path"), is_file)
            digest = hash_columns([pa.chunked_array([pa.array(states[:, -1])])])
            known = _keep_list(directory, place, digest, partial(_write_states, states, is_file))
    return datasets.concatenate_datasets([dataset, known], axis=1)


def _find_states(paths: pa.ChunkedArray, is_file: np.ndarray) -> np.ndarray:
    """Returns size, time and checksum of some files, int64 `(num_rows, 3)`, and zeros for the other rows."""
    states = np.zeros((len(paths), len(STATE_STRUCT)), dtype=np.int64)
    for start in range(0, len(paths), BATCH_ROWS):
        for row, path in enumerate(paths.slice(start, BATCH_ROWS).to_pylist(), start=start):
            if is_file[row]:
                states[row] = *(state := state_of(path)), _checksum(path, *state)
    return states


def _write_states(states: np.ndarray, is_file: np.ndarray, file: Path) -> None:
    columns = [pa.array(values, mask=~is_file) for values in states.T]
    schema = datasets.Features({FILE_STATE: STATE_STRUCT}).arrow_schema
    write_arrow(pa.table([pa.StructArray.from_arrays(columns, names=list(STATE_STRUCT))], schema=schema), file)


def _write_list(rows: pa.Table, others: datasets.Features, folder: Path, file: Path) -> None:
    """
    Writes rows, with the features of the other columns of a table, in the form that they are mapped in. Without a
    column of paths, the names are those of files in `folder`.
    """
    features = datasets.Features(
        {FILE_COLUMN: datasets.Value("string"), **others, "audio": AUDIO_STRUCT, FILE_STATE: STATE_STRUCT}
    )
    schema = features.arrow_schema

    def make_batches() -> Iterator[pa.RecordBatch]:
        for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
            names, size, modified = (batch.column(name) for name in (FILE_COLUMN, "size", "modified"))
            paths = batch.column("path") if "path" in rows.column_names else _paths_of(folder, names)
            values = zip(paths.to_pylist(), size.to_pylist(), modified.to_pylist())
            checksum = pa.array([_checksum(*value) for value in values], pa.int64())
            audio = pa.StructArray.from_arrays([pa.nulls(len(batch), pa.binary()), paths], names=["bytes", "path"])
            state = pa.StructArray.from_arrays([size, modified, checksum], names=list(STATE_STRUCT))
            columns = [names, *(batch.column(f"table.{name}") for name in others), audio, state]
            arrays = [column.cast(field.type) for column, field in zip(columns, schema)]
            yield pa.record_batch(arrays, schema=schema)

    write_batches(make_batches(), schema, file)


def _paths_of(folder: Path, names: pa.Array) -> pa.Array:
    """Returns the paths of files in a folder, as `Path` writes them; of `folder` itself, if that is a file."""
    if folder.is_file():
        return pa.array([str(folder)] * len(names))
    prefix = "" if str(folder) == "." else os.path.join(folder, "")
    return pc.binary_join_element_wise(prefix, names, "")


def one_of_each_folder(names: pa.ChunkedArray) -> list[str]:
    """Returns the first file of each folder, from names of files."""
    found: dict[str, str] = {}
    for start in range(0, len(names), BATCH_ROWS):
        part = names.slice(start, BATCH_ROWS).combine_chunks()
        folders = pc.replace_substring_regex(part, r"(?s)[^/]*$", "").dictionary_encode()
        _, first = np.unique(folders.indices.to_numpy(), return_index=True)
        for folder, name in zip(folders.dictionary.to_pylist(), part.take(pa.array(first)).to_pylist()):
            found.setdefault(folder, name)
    return list(found.values())


def _warn_of_empty_folders(path: Path, names: list[str]) -> None:
    """Warns of the folders in `path` without any of the files: the classes that they may be would vanish."""
    if not path.is_dir():
        return
    read = {name.partition("/")[0] for name in names}
    place = os.path.realpath(path)
    for entry in list_folders(path, with_missing=True):
        if entry.name in read:
            continue
        target = os.path.realpath(entry)
        if Path(place).is_relative_to(target):
            # A circle.
            continue
        reason = f": it leads to {target}" if entry.is_symlink() else ""
        logger.warning(f"{path / entry.name}: no audio is read from it{reason}.")
