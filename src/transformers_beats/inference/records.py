# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Records of what is heard in recordings: files of JSON lines, rows of CSV, and label tracks of Audacity."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from transformers_beats.utils.errors import UsageError


if TYPE_CHECKING:
    from transformers_beats.audio.decoding import AudioReport

    from .events import Event


# Lengths of a file in seconds: what was decoded, and what its header states.
DURATIONS = ("duration", "stated_duration")
# Whether a file could be used and, if not, why.
STATUS = ("status", "reason")
OK, SKIPPED = "ok", "skipped"
# A label and its score, as the tagging pipeline returns them; and the results of a file for JSON.
Label = Mapping[str, Any]
Record = dict[str, Any]


def make_record(
    name: str, labels: Sequence[Label], events: "Sequence[Event] | None", report: "AudioReport | None" = None
) -> Record:
    """Returns the results of a file for JSON, with events if they are not `None`."""
    lengths = (None, None) if report is None else (report.seconds, report.stated_seconds)
    record: Record = {"file": name}
    record |= {name: None if value is None else round(value, 6) for name, value in zip(DURATIONS, lengths)}
    record["warnings"] = [] if report is None else report.warnings
    # Scores as precise as float32.
    record["labels"] = [{**label, "score": round(label["score"], 6)} for label in labels]
    if events is not None:
        record["events"] = [{**event._asdict(), "score": round(event.score, 6)} for event in events]
    return {**record, "status": OK, "reason": ""}


def to_label_track(record: Mapping[str, Any]) -> str:
    """Returns the events of a record as a label track of Audacity."""
    return "".join(
        f"{event['start']:.6f}\t{event['end']:.6f}\t{' '.join(event['label'].split())}\n" for event in record["events"]
    )


def csv_header(with_events: bool) -> list[str]:
    """Returns the names of the columns of a CSV."""
    return ["file", "label", "score", *(("start", "end") if with_events else ()), *DURATIONS, *STATUS]


def csv_rows(record: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yields a row for each event of a record or, without events, each label; an empty one if there is none."""
    columns = ["label", "score", *(("start", "end") if "events" in record else ())]
    status = [record.get("status", OK), record.get("reason", "")]
    durations = ["" if record.get(name) is None else record[name] for name in DURATIONS]
    for item in record.get("events", record["labels"]) or [dict.fromkeys(columns, "")]:
        yield [record["file"], *(item[name] for name in columns), *durations, *status]


def read_results(path: Path) -> Iterator[tuple[str, Record]]:
    """
    Yields the lines of a file of results, without their ends, and what they hold; none if there is no such file. A
    last line that was cut off counts for nothing. One that lacks only its end, as an editor leaves it, is whole.

    Raises:
        [`UsageError`]: if the file holds something else, or cannot be read.
    """
    try:
        with open_text(path, "r") as lines:
            for text in lines:
                line = text.removesuffix("\n")
                if line == text and not _is_json(line):
                    return
                try:
                    record = json.loads(line)
                    # Fails for records of other programs.
                    list(csv_rows(record))
                    os.fspath(record["file"])
                except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                    raise UsageError(f"{path}: holds something else than results of this command.") from error
                yield line, record
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}.") from error


def _is_json(text: str) -> bool:
    try:
        return bool(json.loads(text))
    except (ValueError, RecursionError):
        return False


def open_text(path: Path, mode: Literal["r", "w", "a"]) -> TextIO:
    """Opens a file of results, in which names of files are the bytes that they are for the system."""
    # Only this ends a line: others are content.
    return open(path, mode, encoding="utf-8", errors="surrogateescape", newline="\n")
