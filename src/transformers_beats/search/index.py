# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Index of recordings: a directory with a vector for each clip or moment.

`index.json` names the shards that count, and is replaced as a whole when others do: after an interrupted run, the
index has whole recordings only. Those that are to be computed anew are removed before, so that there may be fewer; the
next run adds them. A shard is two files with the same number of rows: `NAME.safetensors`
with `vectors` `(num_rows, hidden_size)`, float32, of length 1 or 0, and `NAME.parquet` with what each row is of:
`file`, `start` and `end` in seconds, `size` in bytes and `mtime_ns`, the time of its last change in nanoseconds.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from pyarrow import parquet
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from transformers_beats.utils.errors import BeatsError, UsageError, first_line
from transformers_beats.utils.files import PARTIAL, replace_file
from transformers_beats.utils.lock import HOLDER, LOCK, hold
from transformers_beats.utils.resume import as_json, check_settings, read_settings


MANIFEST = "index.json"
VERSION = 1
VECTORS, ROWS = ".safetensors", ".parquet"
# Names of the files of a shard: others are not ours to remove.
SHARD_FILE = re.compile(rf"[0-9a-f]{{16}}({re.escape(VECTORS)}|{re.escape(ROWS)})")
# What a run leaves that is killed before the first `index.json` is there.
LEFTOVER = re.compile(rf"{re.escape(LOCK)}|{re.escape(HOLDER)}|{PARTIAL.pattern}")
SCHEMA = pyarrow.schema(
    {
        "file": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "start": pyarrow.float64(),
        "end": pyarrow.float64(),
        "size": pyarrow.int64(),
        "mtime_ns": pyarrow.int64(),
    }
)
# A shard is complete with so many rows, 6 MB of a base model, and has not much more.
SHARD_ROWS = 2048
# What a run that is killed loses at most, in seconds.
COMMIT_SECONDS = 60.0


class State(NamedTuple):
    """Size of a file in bytes, and time of its last change in nanoseconds: others mean another content."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | Path) -> "State":
        """Asks the file system. A file that is not there, such as the target of a link, has negative numbers."""
        try:
            found = os.stat(path)
        except OSError:
            return cls(-1, -1)
        return cls(found.st_size, found.st_mtime_ns)


class Entry(NamedTuple):
    """A moment for an index: start and end in seconds, and vector `(hidden_size,)`, float32, of length 1 or 0."""

    start: float
    end: float
    vector: np.ndarray


class Moment(NamedTuple):
    """A row of an index: absolute path of the file, start and end in seconds."""

    file: str
    start: float
    end: float


class Shard(NamedTuple):
    """A part of an index: name of its files without suffix, and number of rows."""

    name: str
    num_rows: int


class Index:
    """
    An index that is searched. Vectors are read from memory maps in blocks, and never all at once.

    Args:
        directory (`Path`):
            The index, as `transformers-beats index` writes it.

    Raises:
        [`UsageError`]: if the directory holds no index.

    Methods raise [`BeatsError`] for files that are missing or damaged.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        # Before it is read: a change in between is noticed.
        self.state = State.of(directory / MANIFEST)
        self.manifest = read_manifest(directory)
        if self.manifest is None:
            reason = (
                "is no index: make one with `transformers-beats index`." if directory.exists() else "no such index."
            )
            raise UsageError(f"{directory}: {reason}")
        self.settings: dict[str, Any] = self.manifest["settings"]
        self.model: str = self.manifest["model"]
        self.shards = [Shard(*shard) for shard in self.manifest["shards"]]

    def __len__(self) -> int:
        return sum(shard.num_rows for shard in self.shards)

    def is_current(self) -> bool:
        """Returns whether the index has not been changed since it was opened: its files may be gone otherwise."""
        return State.of(self.directory / MANIFEST) == self.state

    @cached_property
    def rows(self) -> pyarrow.Table:
        """All rows but their vectors, see the module's description."""
        tables = [read_rows(self.directory, shard) for shard in self.shards]
        return pyarrow.concat_tables([SCHEMA.empty_table(), *tables]).unify_dictionaries()

    @cached_property
    def files(self) -> list[str]:
        """Paths of the files, in the order of their first rows."""
        return self.rows["file"].combine_chunks().dictionary.to_pylist() if len(self) else []

    @cached_property
    def folder(self) -> str:
        """Folder that all files are in or below; `""` if there are none."""
        folders = {os.path.dirname(file) for file in self.files}
        return os.path.commonpath(folders) if folders else ""

    @cached_property
    def file_of(self) -> np.ndarray:
        """Number of the file of each row in `files`, `(num_rows,)`, int32."""
        return self.rows["file"].combine_chunks().indices.to_numpy() if len(self) else np.zeros(0, np.int32)

    def states(self) -> dict[str, State]:
        """Returns what is known of each file."""
        _, first = np.unique(self.file_of, return_index=True)
        found = self.rows.take(pyarrow.array(first)).to_pydict()
        return dict(zip(found["file"], map(State, found["size"], found["mtime_ns"])))

    def moments(self, rows: Sequence[int] | np.ndarray) -> list[Moment]:
        """Returns what rows are of, by their numbers."""
        found = self.rows.select(["file", "start", "end"]).take(pyarrow.array(np.asarray(rows, dtype=np.int64)))
        return [Moment(**row) for row in found.to_pylist()]

    @cached_property
    def _rows_by_file(self) -> tuple[dict[str, int], np.ndarray, np.ndarray]:
        """Number of each file, rows sorted by these numbers, and where those of each file begin and end."""
        order = np.argsort(self.file_of, kind="stable")
        bounds = np.searchsorted(self.file_of[order], np.arange(len(self.files) + 1))
        return {file: number for number, file in enumerate(self.files)}, order, bounds

    def entries(self, file: str) -> Iterator[Entry]:
        """Yields the moments of one file with their vectors, in the order in which they were added."""
        numbers, order, bounds = self._rows_by_file
        for first, vectors in self.read(order[bounds[numbers[file]] : bounds[numbers[file] + 1]]):
            for (_, start, end), vector in zip(self.moments(range(first, first + len(vectors))), vectors):
                yield Entry(start, end, vector)

    def read(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the number of the first row and the vectors `(num_rows, hidden_size)` of runs of ascending `rows`."""
        begin = 0
        for shard in self.shards:
            own = rows[(rows >= begin) & (rows < begin + shard.num_rows)]
            if len(own):
                with errors_of_shard(self.directory, shard), open_vectors(self.directory, shard) as vectors:
                    for run in np.split(own, np.flatnonzero(np.diff(own) > 1) + 1):
                        yield int(run[0]), vectors[int(run[0]) - begin : int(run[-1]) + 1 - begin]
            begin += shard.num_rows

    def blocks(self, num_rows: int = SHARD_ROWS, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """
        Yields the number of the first row and the vectors `(num_rows, hidden_size)` of consecutive blocks, from that
        of row `first` on. Blocks are the same in each call: they begin with every `num_rows`-th row of a shard.
        """
        begin = 0
        for shard in self.shards:
            if begin + shard.num_rows > first:
                with errors_of_shard(self.directory, shard), open_vectors(self.directory, shard) as vectors:
                    for start in range(0, shard.num_rows, num_rows):
                        if begin + start >= first:
                            yield begin + start, vectors[start : min(start + num_rows, shard.num_rows)]
            begin += shard.num_rows


class IndexWriter:
    """
    Adds recordings to an index and removes some, as a context: at its end, also after an error, all recordings that
    were added as a whole are in the index. In between the directory is locked.

    Args:
        directory (`Path`):
            The index, which is made if it is not there.
        settings (`Mapping[str, Any]`):
            Whatever changes the vectors. An index that was begun with others is refused.
        model (`str`):
            Name or directory of the model, for searches.

    Its begin raises a [`UsageError`] for other settings, a directory of something else, or one that cannot be written
    or that another run writes to.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any], model: str):
        self.directory, self.settings, self.model = directory, as_json(settings), model
        self.shards: list[Shard] = []
        self.states: dict[str, State] = {}
        # The last, incomplete shard: it is written again with more rows.
        self.rows: list[tuple[Any, ...]] = []
        self.vectors: list[np.ndarray] = []
        self.is_changed, self.committed_at = False, time.monotonic()
        self.lock = ExitStack()

    def __enter__(self) -> "IndexWriter":
        check_index_directory(self.directory)
        with ExitStack() as stack:
            stack.enter_context(hold(self.directory))
            self._begin()
            self.lock = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        with self.lock:
            self._commit()

    def _begin(self) -> None:
        """Reads what is there already."""
        manifest = read_manifest(self.directory)
        if manifest is not None:
            check_settings(manifest["settings"], self.settings, self.directory)
            self.shards = [Shard(*shard) for shard in manifest["shards"]]
            self.states = Index(self.directory).states()
        if self.shards and self.shards[-1].num_rows < SHARD_ROWS:
            self._take_back(self.shards.pop())
        self.is_changed = manifest is None or manifest["model"] != self.model
        self._commit()

    def __len__(self) -> int:
        return sum(shard.num_rows for shard in self.shards) + len(self.rows)

    def add(self, file: str, state: State, entries: Iterable[Entry]) -> None:
        """
        Adds a recording, of whose entries some thousands are held at most. It is added as a whole, or not at all if
        reading its entries raises an error.

        Raises:
            [`BeatsError`]: if the name of the file is not text.
            [`UsageError`]: if the index cannot be written.
        """
        try:
            file.encode()
        except UnicodeEncodeError as error:
            raise BeatsError("its path is not UTF-8, and an index holds text: rename it.") from error
        mark, complete = len(self.rows), []
        try:
            for entry in entries:
                self.vectors.append(entry.vector)
                self.rows.append((file, entry.start, entry.end, *state))
                # A long recording: its shards count once all of it is there.
                if len(self.rows) - mark >= SHARD_ROWS:
                    complete.append(self._write(self.rows[mark:], self.vectors[mark:]))
                    del self.rows[mark:], self.vectors[mark:]
        except BaseException:
            del self.rows[mark:], self.vectors[mark:]
            for shard in complete:
                self._discard(shard.name)
            raise
        self.shards += complete
        self.states[file] = state
        self.is_changed = True
        if len(self.rows) >= SHARD_ROWS or time.monotonic() - self.committed_at >= COMMIT_SECONDS:
            self._commit()

    def remove(self, files: Set[str]) -> None:
        """Removes recordings. Shards that hold other ones as well are written again, one at a time."""
        if not files:
            return
        before = self.rows, self.vectors, self.shards
        kept = [index for index, row in enumerate(self.rows) if row[0] not in files]
        self.rows, self.vectors = [self.rows[index] for index in kept], [self.vectors[index] for index in kept]
        shards, self.shards = self.shards, []
        try:
            for shard in shards:
                with errors_of_shard(self.directory, shard):
                    names = read_rows(self.directory, shard)["file"].unique().to_pylist()
                if files.isdisjoint(names):
                    self.shards.append(shard)
                    continue
                self._take_back(shard, files)
                if len(self.rows) >= SHARD_ROWS:
                    self._complete_shard()
        except BaseException:
            # The rest would be lost with the commit at the end.
            self.rows, self.vectors, self.shards = before
            raise
        self.states = {file: state for file, state in self.states.items() if file not in files}
        self.is_changed = True
        self._commit()

    def _take_back(self, shard: Shard, without: Set[str] = frozenset()) -> None:
        """Makes the rows of a shard, except those of some files, rows of the incomplete one."""
        with errors_of_shard(self.directory, shard), open_vectors(self.directory, shard) as vectors:
            rows = [tuple(row.values()) for row in read_rows(self.directory, shard).to_pylist()]
            for row, vector in zip(rows, vectors[:]):
                if row[0] not in without:
                    self.rows.append(row)
                    self.vectors.append(vector)

    def _complete_shard(self) -> None:
        self.shards.append(self._write(self.rows, self.vectors))
        self.rows, self.vectors = [], []

    def _write(self, rows: Sequence[tuple[Any, ...]], vectors: Sequence[np.ndarray]) -> Shard:
        """Writes a shard under a new name. It counts from the next commit on."""
        shard = Shard(secrets.token_hex(8), len(rows))
        columns = [pyarrow.array(column, type) for column, type in zip(zip(*rows), SCHEMA.types)]
        with errors_of_writing(self.directory):
            with replace_file(self.directory / f"{shard.name}{VECTORS}") as path:
                save_file({"vectors": np.stack(vectors)}, path)
            parquet.write_table(pyarrow.table(columns, schema=SCHEMA), self.directory / f"{shard.name}{ROWS}")
        return shard

    def _discard(self, name: str) -> None:
        """Removes the files of a shard that never counted; the next commit tries again what cannot be removed."""
        for suffix in (VECTORS, ROWS):
            with suppress(OSError):
                (self.directory / f"{name}{suffix}").unlink()

    def _commit(self) -> None:
        """Makes all rows count, if any is new; then removes the files of shards that do not."""
        if not self.is_changed:
            return
        shards = [*self.shards, *([self._write(self.rows, self.vectors)] if self.rows else [])]
        manifest = {"version": VERSION, "model": self.model, "settings": self.settings, "shards": shards}
        with errors_of_writing(self.directory):
            with replace_file(self.directory / MANIFEST) as temporary:
                temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            self.committed_at, self.is_changed = time.monotonic(), False
            if len(self.rows) >= SHARD_ROWS:
                self.shards, self.rows, self.vectors = shards, [], []
            names = {shard.name for shard in shards}
            for path in self.directory.iterdir():
                if SHARD_FILE.fullmatch(path.name) and path.stem not in names:
                    path.unlink(missing_ok=True)


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """Reads `index.json`; None if there is none; raises a [`UsageError`] for a file of something else."""
    manifest = read_settings(directory / MANIFEST) if directory.is_dir() else None
    if manifest is None:
        return None
    if manifest.get("version") != VERSION or not {"model", "settings", "shards"} <= manifest.keys():
        raise UsageError(f"{directory}: {MANIFEST} is of another program, or of another version of this one.")
    return manifest


def check_index_directory(directory: Path) -> None:
    """Raises a [`UsageError`] for a directory that holds something else than an index."""
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory}: cannot be an index: it is a file.")
    if not directory.is_dir() or (directory / MANIFEST).exists():
        return
    if not all(LEFTOVER.fullmatch(path.name) for path in directory.iterdir()):
        raise UsageError(f"{directory}: is not empty, and holds no index: choose another directory.")


def read_rows(directory: Path, shard: Shard) -> pyarrow.Table:
    """Reads the rows of a shard; raises a [`BeatsError`] if they are missing or damaged."""
    with errors_of_shard(directory, shard):
        table = parquet.read_table(directory / f"{shard.name}{ROWS}").cast(SCHEMA)
        if len(table) != shard.num_rows:
            raise ValueError(f"it has {len(table)} rows in place of {shard.num_rows}")
        return table


@contextmanager
def open_vectors(directory: Path, shard: Shard) -> Generator[Any, None, None]:
    """Opens the vectors of a shard as a memory map, of which slices are read."""
    with safe_open(directory / f"{shard.name}{VECTORS}", "np") as file:
        vectors = file.get_slice("vectors")
        if vectors.get_shape()[0] != shard.num_rows:
            raise ValueError(f"it has {vectors.get_shape()[0]} vectors in place of {shard.num_rows}")
        yield vectors


@contextmanager
def errors_of_shard(directory: Path, shard: Shard) -> Generator[None, None, None]:
    """Turns what damaged or missing files raise into one line that names the index."""
    try:
        yield
    except BeatsError:
        raise
    except (OSError, ValueError, SafetensorError, pyarrow.ArrowException) as error:
        raise BeatsError(
            f"{directory}: its part {shard.name} cannot be read ({first_line(error)}). If the index is not being "
            "written now, remove it and make it again."
        ) from error


@contextmanager
def errors_of_writing(directory: Path) -> Generator[None, None, None]:
    """Turns errors of the file system into one line: no other recording can be added either."""
    try:
        yield
    except BeatsError:
        raise
    except (OSError, SafetensorError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(f"{directory}: cannot be written: {reason}.") from error


__all__ = ["Entry", "Index", "IndexWriter", "Moment", "State"]
