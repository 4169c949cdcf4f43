# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Writers of the results of `tag`: table, JSON lines, CSV or Audacity's label tracks; and the settings of outputs."""

import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from transformers_beats.audio.files import AudioFile, place_of, remember_folders
from transformers_beats.inference.records import (
    DURATIONS,
    OK,
    SKIPPED,
    Label,
    Record,
    csv_header,
    csv_rows,
    make_record,
    open_text,
    read_results,
    to_label_track,
)
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import check_place, make_directory, replace_file
from transformers_beats.utils.lock import HOLDER, LOCK
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.ranks import parts_in
from transformers_beats.utils.resume import begin_or_resume, read_settings
from transformers_beats.utils.table import print_table, to_csv


if TYPE_CHECKING:
    from transformers_beats.audio.decoding import AudioReport
    from transformers_beats.inference.events import Event


# In the directory of the part of one of several processes.
PART = "results.jsonl"
# Beside a file of results, after its name; in a directory of results, alone.
SETTINGS = ".settings.json"
# In a directory of results: the file that each result, named by its path without a suffix, is of.
SOURCES = ".files.json"
# In a directory of results: names that are no results.
OWN_NAMES = frozenset((SETTINGS, SOURCES, LOCK, HOLDER))


class Format(str, Enum):
    """Format of results."""

    table = "table"
    jsonl = "jsonl"
    csv = "csv"
    audacity = "audacity"


class OutputError(BeatsError):
    """An output that takes no more results."""


class Writer(ABC):
    """Takes the results of one file after another, which have events or not."""

    def __init__(self, with_events: bool):
        self.with_events = with_events

    def is_done(self, file: AudioFile) -> bool:
        """Returns whether an earlier run has written the results of a file."""
        return False

    def write(
        self,
        file: AudioFile,
        labels: Sequence[Label],
        events: "Sequence[Event] | None",
        report: "AudioReport | None" = None,
    ) -> None:
        """Writes the labels of a file, what is known of its length and, if they are asked for, its events."""
        self.write_record(file, make_record(file.address, labels, events, report))

    def skip(self, file: AudioFile, reason: str) -> None:
        """Writes that a file could not be used, and why."""
        record: Record = {"file": file.address, **dict.fromkeys(DURATIONS), "warnings": [], "labels": []}
        if self.with_events:
            record["events"] = []
        self.write_record(file, {**record, "status": SKIPPED, "reason": reason})

    @abstractmethod
    def write_record(self, file: AudioFile, record: Record) -> None:
        """Writes the results of a file, as they are in JSON."""

    def close(self) -> None:  # noqa: B027  # most have nothing to complete
        """Completes the output."""


class TableWriter(Writer):
    """Prints a table when all files are done."""

    def __init__(self, with_events: bool):
        super().__init__(with_events)
        self.results: list[tuple[AudioFile, Record]] = []

    def write_record(self, file: AudioFile, record: Record) -> None:
        self.results.append((file, record))

    def close(self) -> None:
        rows = []
        for file, record in self.results:
            name = file.short_name
            for item in record.get("events", record["labels"]) or [{}]:
                times = [f"{item[key]:.2f}" if item else "" for key in ("start", "end")[: 2 * self.with_events]]
                nothing = f"skipped: {record['reason']}" if record["status"] == SKIPPED else "nothing"
                score, label = (format_number(item["score"]), item["label"]) if item else ("", nothing)
                rows.append([name, *times, score, label])
                name = ""
        times = ["Start (s)", "End (s)"] if self.with_events else []
        if rows:
            print_table(["File", *times, "Score", "Label"], rows)


class JsonLinesWriter(Writer):
    """
    Writes one line for each file, appended to `path` or printed. Files that have results in `others`, which are JSON
    lines of other processes, are done.
    """

    def __init__(self, path: Path | None, with_events: bool, resume: bool, others: Sequence[Path] = ()):
        super().__init__(with_events)
        self.done: set[str] = set()
        self.real_path = remember_folders()
        for other in others:
            deque(self._take(other), maxlen=0)
        self.stream = _open_stream(path, self._take(path) if path is not None and resume else ())

    def _take(self, path: Path) -> Iterator[str]:
        """Yields the lines of files that are done, and remembers these. Files that were skipped are tried again."""
        for line, record in read_results(path):
            if ("events" in record) != self.with_events:
                raise UsageError(f"{path}: was begun {'without' if self.with_events else 'with'} --events.")
            if record.get("status", OK) == OK:
                self.done.add(place_of(record["file"], self.real_path))
                yield f"{line}\n"

    def is_done(self, file: AudioFile) -> bool:
        return bool(self.done) and place_of(file.full_name, self.real_path) in self.done

    def write_record(self, file: AudioFile, record: Record) -> None:
        _write(self.stream, json.dumps(record) + "\n")

    def close(self) -> None:
        if self.stream is not sys.stdout:
            try:
                self.stream.close()
            except OSError as error:
                raise OutputError(f"{self.stream.name}: cannot be written: {error.strerror}.") from error


class CsvFileWriter(JsonLinesWriter):
    """
    Writes a CSV file at the end, from JSON lines in a hidden file beside it: they hold what is done, and are continued
    by `--resume`, also if the CSV is there.
    """

    def __init__(self, path: Path, with_events: bool, resume: bool):
        self.path = path
        super().__init__(partial_file(path), with_events, resume)

    def close(self) -> None:
        try:
            super().close()
        except OutputError:
            # Of what is done. The first error says why it is not all.
            with suppress(OutputError):
                write_csv(self.path, self.with_events)
            raise
        write_csv(self.path, self.with_events)


class CsvStreamWriter(Writer):
    """Prints CSV, the rows of each file at once."""

    def __init__(self, with_events: bool):
        super().__init__(with_events)
        self.stream = _open_stream(None, [to_csv([csv_header(with_events)])])

    def write_record(self, file: AudioFile, record: Record) -> None:
        _write(self.stream, to_csv(csv_rows(record)))


class LabelTrackWriter(Writer):
    """Writes for each file a text file that Audacity imports as a label track: start, end and label of each event."""

    def __init__(self, directory: Path, resume: bool):
        super().__init__(with_events=True)
        self.directory, self.resume = directory, resume

    def is_done(self, file: AudioFile) -> bool:
        # Unlike that of `Path`, this `exists` returns False for a name that is too long.
        return self.resume and os.path.exists(file.result(self.directory, ".txt"))

    def write_record(self, file: AudioFile, record: Record) -> None:
        if record["status"] == SKIPPED:
            return
        with new_result(file.result(self.directory, ".txt")) as temporary:
            temporary.write_text(to_label_track(record), encoding="utf-8")


def choose_format(output: Path | None) -> Format:
    """
    Returns the format that the name of an output stands for: a table without an output, label tracks for a name
    without a suffix.

    Raises:
        [`UsageError`]: for any other suffix.
    """
    if output is None:
        return Format.table
    formats = {".jsonl": Format.jsonl, ".csv": Format.csv, "": Format.audacity}
    if output.suffix.lower() not in formats:
        raise UsageError(
            f"{output}: the suffix {output.suffix} names no format: choose a name that ends in .jsonl or .csv, or say "
            "--format (audacity for a directory of label tracks)."
        )
    return formats[output.suffix.lower()]


def open_writer(
    kind: Format,
    output: Path | None,
    with_events: bool,
    resume: bool,
    settings: Mapping[str, Any],
    files: Sequence[AudioFile] = (),
    part: Path | None = None,
) -> Writer:
    """
    Opens an output for the results of files in a format; `settings` are those of [`begin_or_resume`]. One of several
    processes writes lines to the directory `part`, see [`take_share`], and label tracks to their place.

    Raises:
        [`UsageError`]: if the output is missing, not wanted, exists and is not to be resumed, was begun with other
            settings, holds something else, or cannot be written.
    """
    check_output(kind, output, resume)
    if kind is Format.table:
        return TableWriter(with_events)
    if kind is Format.audacity:
        assert output is not None
        begin_directory(output, settings, resume, files, ".txt")
        return LabelTrackWriter(output, resume)
    if output is not None:
        lines = partial_file(output) if kind is Format.csv else output
        others = [] if part is None else [path / PART for path in parts_in(part.parent)]
        is_begun = any(path.exists() for path in (lines, *others))
        has_results = any(path.exists() and path.stat().st_size > 0 for path in (lines, *others))
        begin_or_resume(output.with_name(f".{output.name}{SETTINGS}"), settings, output, is_begun, has_results)
        if part is not None:
            others = [path for path in others if path.parent != part]
            return JsonLinesWriter(part / PART, with_events, resume=True, others=[lines, *others])
    if kind is Format.csv:
        return CsvStreamWriter(with_events) if output is None else CsvFileWriter(output, with_events, resume)
    return JsonLinesWriter(output, with_events, resume)


def check_output(kind: Format, output: Path | None, resume: bool) -> None:
    """Checks what can be known of an output before a model is loaded; raises as [`open_writer`]."""
    if kind is Format.table and output is not None:
        raise UsageError("A table is for the terminal: name an --output that ends in .jsonl or .csv, or --format.")
    if kind is Format.audacity and output is None:
        raise UsageError("Label tracks are files: name a directory as --output.")
    if output is None:
        _check_standard_output()
    elif kind is Format.audacity:
        check_directory(output, resume)
    else:
        check_file(output, partial_file(output) if kind is Format.csv else output, resume)


def check_file(path: Path, lines: Path, resume: bool) -> None:
    """Checks a file of results, which are JSON lines in `lines`; see [`open_writer`]."""
    if not resume and (path.exists() or lines.exists()):
        found = "exists already" if path.exists() else f"was begun already: {lines} is of an interrupted run"
        raise UsageError(f"{path}: {found}. To go on with the same settings, add --resume; otherwise remove it.")
    # Devices would be read without end.
    if any(file.exists() and not file.is_file() for file in (path, lines)):
        raise UsageError(f"{path}: is no file of results.")
    if path.exists() and not lines.exists():
        raise UsageError(f"{path}: cannot be resumed without {lines}, which says what is done: choose another output.")
    check_place(path)


def check_directory(directory: Path, resume: bool, ignored: Collection[str] = ()) -> None:
    """
    Raises a [`UsageError`] for a directory of results that cannot be begun or resumed. What it holds under the names
    `ignored` does not count.
    """
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory}: cannot be an output directory: it is a file.")
    if (
        directory.exists()
        and not resume
        and any(path.name not in {*OWN_NAMES, *ignored} for path in directory.iterdir())
    ):
        raise UsageError(f"{directory}: is not empty. To go on with the same settings, add --resume.")


def begin_directory(
    directory: Path,
    settings: Mapping[str, Any],
    resume: bool,
    files: Sequence[AudioFile],
    suffix: str,
    ignored: Collection[str] = (),
) -> None:
    """
    Begins or resumes a directory with a result of each file, which ends in `suffix`; see [`open_writer`] and
    [`check_directory`].
    """
    check_directory(directory, resume, ignored)
    make_directory(directory)
    # Two folders can hold files of the same name: the result of one must not be taken for that of the other.
    sources = (read_settings(directory / SOURCES) if resume else None) or {}
    real_path = remember_folders()
    has_results = False
    # Files are not asked for if they have no results anyway.
    if (
        resume
        and not (directory / SETTINGS).exists()
        and any(path.name not in OWN_NAMES for path in directory.iterdir())
    ):
        names = chain(sources, (file.short_name for file in files))
        has_results = any(os.path.exists(Path(directory, name + suffix)) for name in names)
    begin_or_resume(directory / SETTINGS, settings, directory, resume, has_results)

    def entries() -> Iterator[tuple[str, str]]:
        for file in files:
            name, source = file.short_name, place_of(file.full_name, real_path)
            earlier = sources.pop(name, source)
            if earlier != source and os.path.exists(file.result(directory, suffix)):
                raise UsageError(
                    f"{directory}: {name}{suffix} is the result of {earlier}, not of {file.full_name}: choose another "
                    "output directory."
                )
            yield name, source
        yield from sources.items()

    # One by one: a million files would take hundreds of megabytes at once.
    with new_result(directory / SOURCES) as temporary, temporary.open("w", encoding="utf-8") as stream:
        separator = "{"
        for name, source in entries():
            stream.write(f"{separator}{json.dumps(name)}: {json.dumps(source)}")
            separator = ",\n"
        stream.write("}\n")


@contextmanager
def new_result(path: Path) -> Generator[Path, None, None]:
    """Makes the directory of a result, which is written as with [`replace_file`], and whose errors name it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replace_file(path) as temporary:
            yield temporary
    except OSError as error:
        # Of a full disk, the system does not say which file is meant.
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def partial_file(path: Path) -> Path:
    """Returns the hidden file of JSON lines that a CSV file is made of."""
    return path.with_name(f".{path.name}.jsonl")


def write_csv(path: Path, with_events: bool) -> None:
    """Writes a CSV file from the JSON lines beside it, see [`partial_file`]."""
    try:
        with replace_file(path) as temporary, open_text(temporary, "w") as stream:
            stream.write(to_csv([csv_header(with_events)]))
            with open_text(partial_file(path), "r") as lines:
                stream.writelines(to_csv(csv_rows(json.loads(line))) for line in lines)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error


def merge_results(target: Path, sources: Sequence[Path], files: Sequence[AudioFile]) -> int | None:
    """
    Joins JSON lines of several processes, in the order of `files`, to one file, and returns how many files were
    skipped. Before them stand the lines of other files in `target`, if it is there. A result counts before a line that
    says that its file was skipped. If files are missing, nothing is written, and None is returned: also if one was
    skipped by an earlier run, whose results are in `target`, as it is tried again.
    """
    real_path = remember_folders()
    # Which source has the line of a file, and where; whether it is a result.
    found: dict[str, tuple[int, int, bool]] = {}
    paths = [target, *sources]
    for source, path in enumerate(paths):
        start = 0
        for line, record in read_results(path):
            key, is_result = place_of(record["file"], real_path), record.get("status", OK) == OK
            if key not in found or is_result or not found[key][2]:
                found[key] = (source, start, is_result)
            start += len(line.encode("utf-8", errors="surrogateescape")) + 1
    wanted = dict.fromkeys(place_of(file.full_name, real_path) for file in files)
    if not all(key in found and (found[key][2] or found[key][0] > 0) for key in wanted):
        return None
    with ExitStack() as stack:
        streams = [stack.enter_context(path.open("rb")) if path.exists() else io.BytesIO() for path in paths]

        def lines() -> Iterator[str]:
            for key in chain((key for key in found if key not in wanted), wanted):
                source, start, _ = found[key]
                streams[source].seek(start)
                line = streams[source].readline().removesuffix(b"\n")
                yield f"{line.decode('utf-8', errors='surrogateescape')}\n"

        _open_stream(target, lines()).close()
    return sum(not found[key][2] for key in wanted)


def _check_standard_output() -> None:
    if sys.stdout is None:
        raise UsageError("Standard output is closed: name a file as --output.")


def _open_standard_output() -> TextIO:
    """Returns standard output, which takes any name: to a program or a file, in the same bytes as [`open_text`]."""
    _check_standard_output()
    # Others replace it by streams of their own, such as notebooks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="replace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    return sys.stdout


def _open_stream(path: Path | None, lines: Iterable[str]) -> TextIO:
    """Opens a file, or standard output, that holds some lines and is appended to."""
    if path is None:
        stream = _open_standard_output()
        for line in lines:
            _write(stream, line)
        return stream
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary, open_text(temporary, "w") as stream:
            stream.writelines(lines)
        return open_text(path, "a")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}.") from error


def write_standard_output(text: str) -> None:
    """Prints results for other programs."""
    _write(_open_standard_output(), text)


def _write(stream: TextIO, text: str) -> None:
    """Appends text. A stream that takes no more ends all results, not only those of this file."""
    try:
        stream.write(text)
        stream.flush()
    # Raised when the reader of a pipe has enough, which is no error.
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "Standard output" if stream is sys.stdout else stream.name
        raise OutputError(f"{name}: cannot be written: {error.strerror}.") from error
