# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What `transformers-beats tag` writes: a table, JSON lines, CSV or Audacity's label tracks, each file's at once."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, TextIO

from transformers_beats.utils.errors import UsageError
from transformers_beats.utils.files import replace_file


# Formats that soundfile reads and, after them, containers that torchcodec reads where it is installed.
AUDIO_SUFFIXES = {
    *(".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp2", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd"),
    *(".sph", ".voc", ".w64", ".wav"),
    *(".aac", ".m4a", ".mka", ".mkv", ".mp4", ".webm", ".wma"),
}
# Beside a file of results, after its name; in a directory of results, alone.
SETTINGS = ".settings.json"


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
    The files that are meant: those named, and those in the folders named and below that have a suffix of audio, also
    behind links. Links that lead nowhere are among them: they are to be named with what cannot be read.

    Raises:
        [`UsageError`]: if an input does not exist, there is no audio, or two results would have one name.
    """
    files: dict[Path, AudioFile] = {}
    for path in inputs:
        if path.is_dir():
            files.update({_place(file): AudioFile(file, file.relative_to(path)) for file in sorted(_search(path))})
        elif path.exists():
            files.setdefault(_place(path), AudioFile(path, Path(path.name)))
        else:
            raise UsageError(f"{path}: no such file or folder.")
    if not files:
        raise UsageError(f"No audio in {', '.join(map(str, inputs))}.")
    return list(files.values())


def _search(folder: Path) -> Iterator[Path]:
    """Audio in a folder and those below. Each is searched once, also if links lead to it, perhaps from within."""
    searched = set()
    for directory, folders, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(directory)
        # Hidden folders are other programs' own, and hidden files their notes about files of the same name.
        folders[:] = [] if place in searched else sorted(name for name in folders if not name.startswith("."))
        found = [] if place in searched else [Path(directory, name) for name in names if not name.startswith(".")]
        searched.add(place)
        for file in found:
            if file.suffix.lower() in AUDIO_SUFFIXES and (file.is_file() or not file.exists()):
                yield file


def _place(path: str | Path) -> Path:
    """Where a file is, however its path is spelled. A link to a file is another file, with results of its own."""
    directory, name = os.path.split(os.path.abspath(path))
    return Path(os.path.realpath(directory), name)


def check_names(files: list[AudioFile]) -> None:
    """Raises a [`UsageError`] if results of two files would have one name in an output directory."""
    owners: dict[Path, Path] = {}
    for file in files:
        other = owners.setdefault(file.relative, file.path)
        if other != file.path:
            raise UsageError(
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
        self.done: set[Path] = set()
        text = _read_earlier(path, resume)
        # A line that was not finished counts for nothing.
        kept = text[: text.rfind("\n") + 1]
        for line in kept.splitlines():
            try:
                record = json.loads(line)
                fits = ("events" in record) == with_events
                self.done.add(_place(record["file"]))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UsageError(f"{path}: holds something else than results of this command.") from error
            if not fits:
                raise UsageError(f"{path}: was begun {'without' if with_events else 'with'} --events.")
        self.stream = _begin(path, kept)

    def is_done(self, file: AudioFile) -> bool:
        return _place(file.path) in self.done

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
            raise UsageError(f"{path}: holds something else than results of this command.") from error
        if rows and rows[0] != header:
            raise UsageError(f"{path}: has other columns than {','.join(header)}.")
        if rows and not (text.endswith("\n") and len(rows[-1]) == len(header)):
            rows.pop()
        # Of the last file some rows may be missing: it is done again.
        kept = [row for row in rows[1:] if row[0] != rows[-1][0]]
        try:
            self.done = {_place(row[0]) for row in kept}
        except ValueError as error:
            raise UsageError(f"{path}: holds something else than results of this command.") from error
        self.stream = _begin(path, _to_csv([header, *kept]))

    def is_done(self, file: AudioFile) -> bool:
        return _place(file.path) in self.done

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
        # Unlike that of `Path`, this `exists` takes a name that is too long for one of no file.
        return self.resume and os.path.exists(file.result(self.directory, ".txt"))

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
        [`UsageError`]: if the output is missing, not wanted, or there already and not to be resumed.
    """
    if kind is Format.table:
        if output is not None:
            raise UsageError("A table is for the terminal: name an --output that ends in .jsonl or .csv, or --format.")
        return TableWriter(with_events)
    if kind is Format.audacity:
        if output is None:
            raise UsageError("Label tracks are files: name a directory as --output.")
        return LabelTrackWriter(output, resume)
    return (JsonLinesWriter if kind is Format.jsonl else CsvWriter)(output, with_events, resume)


def make_directory(directory: Path, resume: bool) -> None:
    """Makes an output directory; a [`UsageError`] if it cannot, or it holds something and is not to be resumed."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be an output directory: {error.strerror}.") from error
    if not resume and any(path.name != SETTINGS for path in directory.iterdir()):
        raise UsageError(f"{directory}: is not empty. To go on with the same settings, add --resume.")


def settings_of(
    command: str, model: str, dtype: str, window: float, hop: float | None, **others: Any
) -> dict[str, Any]:
    """What an output depends on: with other settings it is not to be resumed."""
    model = str(Path(model).resolve()) if Path(model).exists() else model
    hop = window if hop is None else hop
    return {"command": command, "model": model, "dtype": dtype, "window": window, "hop": hop, **others}


def check_settings(output: Path, settings: dict[str, Any]) -> None:
    """
    Raises a [`UsageError`] if an output that is to be resumed was begun with other settings. Those of an output of
    an earlier version are not known, and are taken for these.
    """
    path = _settings_file(output)
    if not (output.exists() and path.exists()):
        return
    try:
        earlier = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as the settings of {output}: remove one of them.") from error
    for name, value in settings.items():
        if earlier.get(name) != value:
            raise UsageError(
                f"{output}: was begun with another {name} ({json.dumps(earlier.get(name))}, now {json.dumps(value)}): "
                "choose the same, or another output."
            )


def keep_settings(output: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of an output, which exists, for [`check_settings`]."""
    path = _settings_file(output)
    try:
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}.") from error


def _settings_file(output: Path) -> Path:
    return output / SETTINGS if output.is_dir() else output.with_name(f".{output.name}{SETTINGS}")


def _read_earlier(path: Path | None, resume: bool) -> str:
    if path is None or not path.exists():
        return ""
    if not resume:
        raise UsageError(f"{path}: exists already. To go on with the same settings, add --resume.")
    # Devices are read without end.
    if not path.is_file():
        raise UsageError(f"{path}: is no file of results.")
    try:
        # Of a line that was cut off, the last character may be too. File names may hold any bytes.
        return path.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}.") from error


def _begin(path: Path | None, text: str) -> TextIO:
    """A stream to append to, which holds `text`."""
    if path is None:
        if sys.stdout is None:
            raise UsageError("Standard output is closed: name a file as --output.")
        _write(sys.stdout, text)
        return sys.stdout
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary:
            temporary.write_bytes(text.encode("utf-8", errors="surrogateescape"))
        return path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}.") from error


def _write(stream: TextIO, text: str) -> None:
    """Appends text. A stream that can take no more is the end of all results, not only of this file's."""
    try:
        stream.write(text)
        stream.flush()
    # Who reads what is printed has enough: no error.
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "Standard output" if stream is sys.stdout else stream.name
        raise UsageError(f"{name}: cannot be written: {error.strerror}.") from error


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
    "Writer",
    "check_names",
    "check_settings",
    "find_audio",
    "keep_settings",
    "make_directory",
    "open_writer",
    "settings_of",
]
