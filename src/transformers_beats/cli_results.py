# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What `transformers-beats tag` writes: a table, JSON lines, CSV or Audacity's label tracks, each file's at once."""

import csv
import io
import json
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, TextIO

from .files import replace_file


# Formats that soundfile reads and, after them, containers that torchcodec reads where it is installed.
AUDIO_SUFFIXES = {
    *(".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav"),
    *(".aac", ".m4a", ".mka", ".mkv", ".mp4", ".webm", ".wma"),
}


class OutputError(ValueError):
    """Inputs or outputs that cannot be used; the message is one line."""


class Format(str, Enum):
    """How results are written."""

    table = "table"
    jsonl = "jsonl"
    csv = "csv"
    audacity = "audacity"


@dataclass(frozen=True)
class AudioFile:
    """
    An input.

    Args:
        path (`Path`):
            Where it is.
        relative (`Path`):
            Its path within the folder that was named, or its name: where its results go in an output directory.
    """

    path: Path
    relative: Path

    def result(self, directory: Path, suffix: str) -> Path:
        """The file of its results in a directory. The name keeps its suffix: `a.wav` and `a.flac` are two."""
        return directory / self.relative.with_name(self.relative.name + suffix)


def find_audio(inputs: list[Path]) -> list[AudioFile]:
    """
    The files that are meant: those named, and those in the folders named and below that have a suffix of audio.

    Raises:
        [`OutputError`]: if an input does not exist, there is no audio, or two results would have one name.
    """
    files: dict[Path, AudioFile] = {}
    for path in inputs:
        if path.is_dir():
            # Hidden files are other programs' notes about files of the same name.
            found = (file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
            kept = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
            files.update({file: AudioFile(file, file.relative_to(path)) for file in kept})
        elif path.exists():
            files.setdefault(path, AudioFile(path, Path(path.name)))
        else:
            raise OutputError(f"{path}: no such file or folder.")
    if not files:
        raise OutputError(f"No audio in {', '.join(map(str, inputs))}.")
    return list(files.values())


def check_names(files: list[AudioFile]) -> None:
    """Raises an [`OutputError`] if results of two files would have one name in an output directory."""
    owners: dict[Path, Path] = {}
    for file in files:
        other = owners.setdefault(file.relative, file.path)
        if other != file.path:
            raise OutputError(
                f"{other} and {file.path} would both be written as {file.relative}: name the folder above them, or "
                "choose another output directory for one."
            )


class Writer(Protocol):
    """Takes the results of one file after another."""

    def is_done(self, file: AudioFile) -> bool:
        """Whether an earlier run has written them."""
        ...

    def write(self, file: AudioFile, result: dict[str, list[dict[str, Any]]]) -> None:
        """Writes `labels` and, if they were asked for, `events` of a file."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


class TableWriter:
    """A table on the terminal, when all files are done."""

    def __init__(self, with_events: bool):
        self.with_events = with_events
        self.results: list[tuple[AudioFile, dict]] = []

    def is_done(self, file: AudioFile) -> bool:
        return False

    def write(self, file: AudioFile, result: dict[str, list[dict[str, Any]]]) -> None:
        self.results.append((file, result))

    def close(self) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        if not self.results:
            return
        table = Table(box=SIMPLE_HEAD)
        table.add_column("File", overflow="fold")
        times = ("start", "end") if self.with_events else ()
        for key in times:
            table.add_column(f"{key.capitalize()} (s)", justify="right")
        table.add_column("Score", justify="right")
        table.add_column("Label", overflow="fold")
        for file, result in self.results:
            items = result["events" if self.with_events else "labels"]
            name = Text(str(file.relative))
            if not items:
                table.add_row(name, *("" for _ in times), "", "nothing")
            for item in items:
                table.add_row(
                    name, *(f"{item[key]:.2f}" for key in times), f"{item['score']:.3f}", Text(item["label"])
                )
                name = Text("")
        Console().print(table)


class JsonLinesWriter:
    """One line for each file, appended to `path` or printed."""

    def __init__(self, path: Path | None, with_events: bool, resume: bool):
        self.done: set[str] = set()
        text = _read_earlier(path, resume)
        # A line that was not finished counts for nothing.
        kept = text[: text.rfind("\n") + 1]
        for line in kept.splitlines():
            try:
                record = json.loads(line)
                fits = ("events" in record) == with_events
                self.done.add(record["file"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise OutputError(f"{path}: holds something else than results of this command.") from error
            if not fits:
                raise OutputError(f"{path}: was begun {'without' if with_events else 'with'} --events.")
        self.stream = _begin(path, kept)

    def is_done(self, file: AudioFile) -> bool:
        return str(file.path) in self.done

    def write(self, file: AudioFile, result: dict[str, list[dict[str, Any]]]) -> None:
        record = {"file": str(file.path), **{key: list(map(_rounded, items)) for key, items in result.items()}}
        _write(self.stream, json.dumps(record) + "\n")

    def close(self) -> None:
        _close(self.stream)


class CsvWriter:
    """One row for each label, or each event, appended to `path` or printed; one row without them where is none."""

    def __init__(self, path: Path | None, with_events: bool, resume: bool):
        self.key = "events" if with_events else "labels"
        self.columns = ["label", "score", "start", "end"] if with_events else ["label", "score"]
        header = ["file", *self.columns]
        text = _read_earlier(path, resume)
        # A header that was cut off counts for nothing, nor does a last row. A label that was cut off after a line end
        # of its own is not the last column.
        text = "" if _to_csv([header]).startswith(text) else text
        try:
            rows = [row for row in csv.reader(io.StringIO(text)) if row]
        except csv.Error as error:
            raise OutputError(f"{path}: holds something else than results of this command.") from error
        if rows and rows[0] != header:
            raise OutputError(f"{path}: has other columns than {','.join(header)}.")
        if rows and not (text.endswith("\n") and len(rows[-1]) == len(header)):
            rows.pop()
        # Of the last file some rows may be missing: it is done again.
        kept = [row for row in rows[1:] if row[0] != rows[-1][0]]
        self.done = {row[0] for row in kept}
        self.stream = _begin(path, _to_csv([header, *kept]))

    def is_done(self, file: AudioFile) -> bool:
        return str(file.path) in self.done

    def write(self, file: AudioFile, result: dict[str, list[dict[str, Any]]]) -> None:
        items = [_rounded(item) for item in result[self.key]] or [dict.fromkeys(self.columns, "")]
        _write(self.stream, _to_csv([[str(file.path), *(item[name] for name in self.columns)] for item in items]))

    def close(self) -> None:
        _close(self.stream)


class LabelTrackWriter:
    """For each file a text file that Audacity imports as a label track: start, end and label of each event."""

    def __init__(self, directory: Path, resume: bool):
        self.directory, self.resume = directory, resume
        make_directory(directory, resume)

    def is_done(self, file: AudioFile) -> bool:
        return self.resume and file.result(self.directory, ".txt").exists()

    def write(self, file: AudioFile, result: dict[str, list[dict[str, Any]]]) -> None:
        path = file.result(self.directory, ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (
            f"{event['start']:.6f}\t{event['end']:.6f}\t{' '.join(event['label'].split())}\n"
            for event in result["events"]
        )
        with replace_file(path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")

    def close(self) -> None:
        pass


def open_writer(kind: Format, output: Path | None, with_events: bool, resume: bool) -> Writer:
    """
    What writes results in a format.

    Raises:
        [`OutputError`]: if the output is missing, not wanted, or there already and not to be resumed.
    """
    if kind is Format.table:
        if output is not None:
            raise OutputError(
                "A table is for the terminal: name an --output that ends in .jsonl or .csv, or --format."
            )
        return TableWriter(with_events)
    if kind is Format.audacity:
        if output is None:
            raise OutputError("Label tracks are files: name a directory as --output.")
        return LabelTrackWriter(output, resume)
    return (JsonLinesWriter if kind is Format.jsonl else CsvWriter)(output, with_events, resume)


def make_directory(directory: Path, resume: bool) -> None:
    """Makes an output directory; an [`OutputError`] if it cannot, or it holds something and is not to be resumed."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{directory}: cannot be an output directory: {error.strerror}.") from error
    if not resume and any(directory.iterdir()):
        raise OutputError(f"{directory}: is not empty. To go on with the same settings, add --resume.")


def _read_earlier(path: Path | None, resume: bool) -> str:
    if path is None or not path.exists():
        return ""
    if not resume:
        raise OutputError(f"{path}: exists already. To go on with the same settings, add --resume.")
    # Devices are read without end.
    if not path.is_file():
        raise OutputError(f"{path}: is no file of results.")
    try:
        # Of a line that was cut off, the last character may be too. File names may hold any bytes.
        return path.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}.") from error


def _begin(path: Path | None, text: str) -> TextIO:
    """A stream to append to, which holds `text`."""
    if path is None:
        if sys.stdout is None:
            raise OutputError("Standard output is closed: name a file as --output.")
        sys.stdout.write(text)
        return sys.stdout
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary:
            temporary.write_bytes(text.encode("utf-8", errors="surrogateescape"))
        return path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def _close(stream: TextIO) -> None:
    if stream is not sys.stdout:
        stream.close()


def _to_csv(rows: list[list]) -> str:
    stream = io.StringIO()
    for row in rows:
        # Line ends of other systems, the writer would not quote.
        quoting = csv.QUOTE_ALL if any("\r" in str(value) for value in row) else csv.QUOTE_MINIMAL
        csv.writer(stream, lineterminator="\n", quoting=quoting).writerow(row)
    return stream.getvalue()


def _rounded(item: dict[str, Any]) -> dict[str, Any]:
    """Scores as precise as float32."""
    return {**item, "score": round(item["score"], 6)}


__all__ = [
    "AudioFile",
    "Format",
    "OutputError",
    "Writer",
    "check_names",
    "find_audio",
    "make_directory",
    "open_writer",
]
