# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Clips that can be read: each file is decoded once, and what was found is kept until it changes."""

import hashlib
import os
import secrets
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, overload

import datasets
import numpy as np
import pyarrow as pa
import torch
from tqdm.auto import tqdm
from transformers.utils import logging

from transformers_beats.audio.decoding import AudioError, AudioStream, read_samples
from transformers_beats.utils.cache import mark_used, remove_unused
from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.lock import hold
from transformers_beats.utils.machine import count_cpus

from .manifest import (
    BATCH_ROWS,
    cache_path,
    hash_columns,
    map_arrow,
    map_cached,
    open_arrow,
    pc,
    read_arrow,
    state_of,
    write_arrow,
)
from .reading import within
from .shards import read_audio
from .sources import DataArguments, decode_row, large_text, name_clips, number_rows, open_row, tell_apart
from .tables import FILE_STATE, WAVEFORM_COLUMN


logger = logging.get_logger(__name__)

NUM_NAMED_PROBLEMS = 5
# No field of `DataArguments`, as the results that are kept would be those of one value.
CHECK_SECONDS = 600.0
# Clips whose check an interruption costs at most.
PART_ROWS = 4096
# A process that checks fewer clips is not worth its start.
MIN_ROWS_OF_PROCESS = 256
ROWS_AT_A_TIME = 32
# Findings about a clip: samples at the model's rate, rate and channels of the file, digest of its bytes.
NUMBERS = ("num_samples", "rate", "channels", "digest")
FOUND_FEATURES = datasets.Features(
    {name: datasets.Value("int64" if name in NUMBERS else "string") for name in (*NUMBERS, "problem", "doubt")}
)
STORED = pa.schema([*((name, pa.int64()) for name in ("checksum", *NUMBERS)), ("doubt", pa.string())])
# Column of a table of `index-audio`: the versions that its findings are of.
CHECKED_WITH = "checked_with"
# Changes when the digest of the same clips does.
DIGEST_VERSION = "v3"
# Directory in the cache, one for each list of files.
CLIPS_NAME = "clips-{}"


class Names(Sequence[str]):
    """Names of clips in an Arrow column, which may lie in mapped memory."""

    def __init__(self, column: pa.ChunkedArray):
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: Any) -> Any:
        return self.column[index].to_pylist() if isinstance(index, slice) else self.column[int(index)].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.column), BATCH_ROWS):
            yield from self.column.slice(start, BATCH_ROWS).to_pylist()


@dataclass
class Clips:
    """
    Rows whose audio can be read, with their lengths at the model's sampling rate (int64), the names of their files
    within the dataset, which tell different clips apart, the number of rows that were skipped, and digests of the
    files (int64). `whole` are the clips that these were selected from, and their indices there.
    """

    dataset: datasets.Dataset
    num_samples: np.ndarray
    names: Sequence[str]
    num_skipped: int
    digests: np.ndarray
    whole: tuple["Clips", np.ndarray] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Digest that changes with the names, the order, the lengths and the contents of the clips."""
        names = self.names.column if isinstance(self.names, Names) else pa.chunked_array([large_text(self.names)])
        numbers = (pa.chunked_array([pa.array(values)]) for values in (self.num_samples, self.digests))
        return f"{DIGEST_VERSION}-{hash_columns([names, *numbers])}"


def check_clip(row: dict[str, Any], sampling_rate: int) -> dict[str, Any]:
    """
    Returns the length of a clip, rate and channels of its file, if known, the digest of its bytes, what may be wrong
    with it, and its problem, if any; without a length if it cannot be decoded within ten minutes.
    """
    audio = row["audio"] or {}
    path = audio.get("path") or ""

    def read() -> tuple[AudioStream, int]:
        stream = open_row(row, sampling_rate)
        return stream, len(read_samples(stream))

    found: dict[str, Any] = dict.fromkeys(NUMBERS, 0) | {"problem": "", "doubt": ""}
    try:
        stream, num_samples = within(CHECK_SECONDS, read)
        digest = hashlib.blake2b(read_audio(audio) or Path(path).read_bytes(), digest_size=8).digest()
    except (AudioError, OSError) as error:
        is_named = isinstance(error, AudioError)
        return found | {"problem": str(error) if is_named else f"{path}: {error}."}
    report = stream.report
    doubt = "".join(f"{stream.name}: {warning}" for warning in report.warnings[:1])
    return found | {
        "num_samples": num_samples,
        "rate": report.file_rate or 0,
        "channels": report.num_channels or 0,
        "digest": int.from_bytes(digest, "little", signed=True),
        "doubt": doubt,
    }


def _check_file(path: str, sampling_rate: int) -> dict[str, Any]:
    """Checks a file; `state` is its size and time after that."""
    found = check_clip({"audio": {"bytes": None, "path": path}}, sampling_rate)
    return found | {"state": state_of(path)}


@dataclass
class Findings:
    """
    Findings about the rows of a dataset, int64 `(num_rows,)` each: samples at the model's rate, 0 if a clip cannot be
    read; rate in hertz and channels of its file, 0 if unknown; digest of its bytes. `problems` are those of the clips
    that cannot be read; `doubtful` the rows of clips that may be bad, and `doubts` why.
    """

    num_samples: np.ndarray
    rate: np.ndarray
    channels: np.ndarray
    digest: np.ndarray
    problems: dict[int, str] = field(default_factory=dict)
    doubtful: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    doubts: Sequence[str] = ()


class CheckStore:
    """
    Findings about files, in the cache, by the checksums of their states. A file that is new or has changed has none.
    They are written in parts, so that an interrupted check goes on where it was.
    """

    def __init__(self, sampling_rate: int):
        self.directory = cache_path("checks-{}", sampling_rate)
        # Of the package and the decoders.
        self.version = self.directory.name
        self.file = self.directory / "checks.arrow"
        self.directory.mkdir(exist_ok=True)
        self.table = STORED.empty_table()
        self.checksums = np.zeros(0, dtype=np.int64)
        self.merge()

    def add(self, checksums: Iterable[int], findings: list[dict[str, Any]]) -> None:
        """Writes findings about files, which are found after the next [`merge`]."""
        rows = [{**found, "checksum": checksum} for checksum, found in zip(checksums, findings)]
        if rows:
            self._write_part(pa.Table.from_pylist(rows, STORED))

    def merge(self) -> None:
        """Merges all parts into one file, sorted by checksums, and opens that."""
        if any(self.directory.glob("part-*.arrow")):
            with hold(self.directory, wait=True):
                parts = list(self.directory.glob("part-*.arrow"))
                tables = [open_arrow(file) for file in (self.file, *parts)]
                table = pa.concat_tables([STORED.empty_table(), *(each.table for each in tables if each is not None)])
                # Of equal ones the last.
                reverse = table["checksum"].to_numpy()[::-1]
                _, last = np.unique(reverse, return_index=True)
                table = table.take(pa.array(len(table) - 1 - last)).combine_chunks()
                # In one piece: a search needs an array.
                write_arrow(table, self.file, max_rows=None)
                for part in parts:
                    part.unlink()
        if (found := open_arrow(self.file)) is not None and len(found):
            self.table = found.table
            self.checksums = self.table["checksum"].chunk(0).to_numpy()

    def take_from(self, dataset: datasets.Dataset, rows: np.ndarray, checksums: np.ndarray) -> None:
        """Takes the findings of a table of `index-audio`, where these are about the same states of files."""
        table = dataset.select(rows).select_columns([CHECKED_WITH, *STORED.names]).with_format("arrow")[:]
        try:
            # In delimited text, numbers are texts.
            table = table.cast(pa.schema([(CHECKED_WITH, pa.string()), *STORED]))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return
        is_same = pc.and_(pc.equal(table[CHECKED_WITH], self.version), pc.greater(table["num_samples"], 0))
        is_same = pc.and_(is_same, pc.equal(table["checksum"], pa.array(checksums)))
        if pc.any(is_same).as_py():
            self._write_part(table.filter(is_same).select(STORED.names))
            self.merge()

    def _write_part(self, table: pa.Table) -> None:
        write_arrow(table, self.directory / f"part-{secrets.token_hex(8)}.arrow")

    def find(self, checksums: np.ndarray) -> np.ndarray:
        """Returns the place of each checksum in `table`, -1 if there is none."""
        if len(self.checksums) == 0:
            return np.full(len(checksums), -1)
        places = np.searchsorted(self.checksums, checksums)
        places[places == len(self.checksums)] = 0
        places[self.checksums[places] != checksums] = -1
        return places


def count_processes(num_rows: int, asked: int | None) -> int:
    """Returns the number of processes that check rows: as many as asked for, or as there are CPUs for this process."""
    return max(1, min(asked or count_cpus(), num_rows // MIN_ROWS_OF_PROCESS))


def _begin_process() -> None:
    """Prepares a process that checks clips."""
    # Threads of PyTorch are lost when a process is copied, and the copy would wait for them.
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when the one that started it does: if that is killed, nobody else would."""
    if (parent := parent_process()) is not None:
        parent.join()
        # From this thread, `sys.exit` would end the thread alone. Windows has no SIGKILL.
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


@contextmanager
def _processes(count: int) -> Generator[Callable[..., Iterator[Any]], None, None]:
    """Yields `map` in some processes, or the usual one for a single process."""
    if count == 1:
        yield map
        return
    with ProcessPoolExecutor(count, initializer=_begin_process) as executor:
        try:
            yield partial(executor.map, chunksize=ROWS_AT_A_TIME)
        except BrokenProcessPool as error:
            raise BeatsError(
                "A process that checks clips was ended, perhaps for too little memory: give the command again, which "
                "goes on from here, or set a smaller `num_proc`."
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)


def check_rows(dataset: datasets.Dataset, sampling_rate: int, num_proc: int | None = None) -> Findings:
    """
    Decodes the clips of a dataset that were not decoded before, in parallel. Clips that could not be decoded are tried
    again every time: a disk may not have been mounted, a file may have been about to be written.

    Raises:
        [`BeatsError`]: if a process that checks is ended.
    """
    num_samples, rate, channels, digest = np.zeros((len(NUMBERS), len(dataset)), dtype=np.int64)
    findings = Findings(num_samples, rate, channels, digest)
    others = np.arange(len(dataset))
    if FILE_STATE in dataset.column_names:
        states = read_arrow(dataset, FILE_STATE)
        is_file = pc.is_valid(pc.struct_field(states, "checksum")).to_numpy()
        files, others = np.flatnonzero(is_file), np.flatnonzero(~is_file)
        _check_files(dataset, states, files, findings, sampling_rate, num_proc)
    if len(others):
        _check_others(dataset, others, findings, sampling_rate, num_proc)
    return findings


def _check_files(
    dataset: datasets.Dataset,
    states: pa.ChunkedArray,
    rows: np.ndarray,
    findings: Findings,
    sampling_rate: int,
    num_proc: int | None,
) -> None:
    """Adds to `findings` those about the files of some rows."""
    store = CheckStore(sampling_rate)
    # Without gaps, for which numpy has floats only.
    checksums = pc.fill_null(pc.struct_field(states, "checksum"), 0).to_numpy()[rows]
    new = np.flatnonzero(store.find(checksums) < 0)
    if len(new) and {CHECKED_WITH, *STORED.names} <= {*dataset.column_names}:
        store.take_from(dataset, rows[new], checksums[new])
        new = np.flatnonzero(store.find(checksums) < 0)
    if len(new):
        check = partial(_check_file, sampling_rate=sampling_rate)
        bar = tqdm(total=len(new), desc="Checking clips", unit="clip")
        with bar, _processes(count_processes(len(new), num_proc)) as call:
            for start in range(0, len(new), PART_ROWS):
                part = new[start : start + PART_ROWS]
                paths = [audio["path"] for audio in dataset.select_columns("audio")[rows[part].tolist()]["audio"]]
                kept: list[tuple[int, dict[str, Any]]] = []
                for index, found in zip(part, call(check, paths)):
                    row, state = int(rows[index]), states[int(rows[index])].as_py()
                    _write(findings, row, found)
                    # Of a file that changes meanwhile, its next state will be looked at.
                    if not found["problem"] and found["state"] == (state["size"], state["modified"]):
                        kept.append((state["checksum"], found))
                    bar.update()
                store.add([checksum for checksum, _ in kept], [found for _, found in kept])
        store.merge()
    places = store.find(checksums)
    is_known = places >= 0
    known, places = rows[is_known], places[is_known]
    for name in NUMBERS:
        if len(known):
            getattr(findings, name)[known] = store.table[name].chunk(0).to_numpy()[places]
    is_doubtful = pc.not_equal(store.table["doubt"], "").to_numpy()[places]
    findings.doubtful = known[is_doubtful]
    findings.doubts = Names(store.table["doubt"].take(pa.array(places[is_doubtful])))


def _write(findings: Findings, row: int, found: dict[str, Any]) -> None:
    """Writes what was found about a row."""
    for name in NUMBERS:
        getattr(findings, name)[row] = found[name]
    if found["problem"]:
        findings.problems[row] = found["problem"]
    else:
        findings.problems.pop(row, None)


def _check_others(
    dataset: datasets.Dataset, rows: np.ndarray, findings: Findings, sampling_rate: int, num_proc: int | None
) -> None:
    """Adds to `findings` those about rows that are no files of a list: of Parquet, of tar shards, of the Hub."""
    part = dataset if len(rows) == len(dataset) else dataset.select(rows)
    check = partial(check_clip, sampling_rate=sampling_rate)
    processes = count_processes(len(rows), num_proc)
    checks = map_cached(
        part, check, FOUND_FEATURES, num_proc=processes if processes > 1 else None, desc="Checking clips"
    )
    for name in NUMBERS:
        getattr(findings, name)[rows] = read_arrow(checks, name).to_numpy()
    for index in np.flatnonzero(findings.num_samples[rows] == 0).tolist():
        # A failure may be gone, whatever the cache says.
        _write(findings, int(rows[index]), check(part[index]))
    doubts = read_arrow(checks, "doubt")
    doubtful = np.flatnonzero(pc.not_equal(doubts, "").to_numpy())
    findings.doubtful = np.concatenate([findings.doubtful, rows[doubtful]])
    findings.doubts = [*findings.doubts, *doubts.take(pa.array(doubtful)).to_pylist()]


def decode_clip(row: dict[str, Any], sampling_rate: int) -> dict[str, np.ndarray]:
    """Returns the waveform of a clip."""
    return {WAVEFORM_COLUMN: decode_row(row, sampling_rate)}


def prepare_clips(
    dataset: datasets.Dataset, arguments: DataArguments, sampling_rate: int, refresh: bool = True
) -> Clips:
    """
    Decodes every clip once, so that none that cannot be read stops a training later; see [`check_rows`]. What was
    found is mapped into memory. Without `refresh`, nothing is checked if another process has just done so.

    Raises:
        [`BeatsError`]: if no clip is left.
    """
    if len(dataset) == 0:
        raise BeatsError(f"{arguments.dataset}: there is no clip, or `select` leaves none.")
    directory = cache_path(CLIPS_NAME, dataset._fingerprint, sampling_rate, isinstance(arguments.dataset, str))
    file = directory / f"{arguments.min_seconds!r}.arrow"
    if refresh or open_arrow(file) is None:
        with hold(directory, wait=True):
            table = _find_clips(dataset, arguments, sampling_rate)
            known = open_arrow(file)
            if known is None or not known.table.equals(table):
                write_arrow(table, file, max_rows=None)
            del table, known
            # Arrow would keep it for what comes.
            pa.default_memory_pool().release_unused()
    mark_used(directory)
    remove_unused(CLIPS_NAME)
    mapped = map_arrow(file).table
    rows, num_samples, digests = (mapped[name].chunk(0).to_numpy() for name in ("row", "num_samples", "digest"))
    num_skipped = len(dataset) - len(rows)
    if num_skipped:
        dataset = dataset.select(rows)
    if arguments.cache_audio:
        waveforms = map_cached(
            dataset,
            partial(decode_clip, sampling_rate=sampling_rate),
            datasets.Features({WAVEFORM_COLUMN: datasets.List(datasets.Value("float32"))}),
            num_proc=arguments.num_proc,
            desc="Decoding",
        )
        dataset = datasets.concatenate_datasets([dataset, waveforms], axis=1)
        dataset = dataset.with_format("numpy", columns=[WAVEFORM_COLUMN], output_all_columns=True)
    return Clips(dataset, num_samples, Names(mapped["name"]), num_skipped, digests)


def _find_clips(dataset: datasets.Dataset, arguments: DataArguments, sampling_rate: int) -> pa.Table:
    """Returns the rows that can be used, with names, lengths and digests, and warns of the others."""
    findings = check_rows(dataset, sampling_rate, arguments.num_proc)
    is_good = (findings.num_samples > 0) & (findings.num_samples >= arguments.min_seconds * sampling_rate)
    bad = np.flatnonzero(~is_good)
    problems = [_problem_of(dataset, findings, row, arguments, sampling_rate) for row in bad[:NUM_NAMED_PROBLEMS]]
    warn_of(problems, len(bad), len(dataset), "are skipped")
    # Of clips that are used.
    doubtful = np.flatnonzero(is_good[findings.doubtful])
    doubts = [findings.doubts[int(index)] for index in doubtful[:NUM_NAMED_PROBLEMS]]
    warn_of(doubts, len(doubtful), len(dataset), "are used and may be bad")
    rows = np.flatnonzero(is_good)
    if not len(rows):
        raise BeatsError(f"{arguments.dataset}: none of {len(dataset)} clips can be used.")
    names = name_clips(dataset, isinstance(arguments.dataset, str))
    columns: dict[str, Any] = {"row": rows, "name": names, "num_samples": findings.num_samples}
    columns["digest"] = findings.digest
    if len(rows) < len(dataset):
        columns |= {name: columns[name][rows] for name in ("num_samples", "digest")}
        columns["name"] = names.take(pa.array(rows))
    of_source, corpora = number_rows(dataset)
    corpora = None if corpora is None else corpora[rows]
    columns["name"] = tell_apart(columns["name"], columns["digest"], of_source[rows], corpora)
    # In one piece: numpy sees it as arrays.
    return pa.table(columns).combine_chunks()


def _problem_of(
    dataset: datasets.Dataset, findings: Findings, row: int, arguments: DataArguments, sampling_rate: int
) -> str:
    """Returns why a row is skipped; the message begins with its path."""
    if problem := findings.problems.get(int(row)):
        return problem
    path = (dataset[int(row)]["audio"] or {}).get("path") or ""
    seconds = findings.num_samples[row] / sampling_rate
    return f"{path}: lasts {seconds:.3f} s, less than `min_seconds` ({arguments.min_seconds:g})."


def warn_of(messages: list[str], count: int, num_clips: int, what: str) -> None:
    """Warns of clips that something is wrong with; the first messages begin with their names."""
    if messages:
        more = f"; and {count - len(messages)} more" if count > len(messages) else ""
        logger.warning(f"{count} of {num_clips} clips {what}: {'; '.join(messages)}{more}")
