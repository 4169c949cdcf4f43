# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Dataset for training from an official segment list of AudioSet and a folder of clips, and a list of what is missing.

Example:

    transformers-beats prepare-audioset --segments balanced_train_segments.csv --audio FOLDER --output_dir DIR

The clips lie anywhere under the folder and are named by their YouTube id, as the usual download scripts do: `ID.wav`,
`YID.wav`, `ID_30.000.wav`, `ID_30_40.flac`, `ID_30.0-40.0.wav`, `ID_30000_40000.m4a`.
"""

import csv
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from transformers_beats.audio.audioset import AUDIOSET_LABELS, CLIP_NAME, YTID, is_start
from transformers_beats.audio.files import search_folder
from transformers_beats.training.config.recipes import parse_arguments
from transformers_beats.utils.arguments import argument
from transformers_beats.utils.errors import BeatsError, name_some, run_command
from transformers_beats.utils.files import check_new, new_directory
from transformers_beats.utils.messages import next_command, note


COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")


@dataclass
class PrepareAudiosetArguments:
    """Segment list, clips, and directory of the dataset."""

    segments: str = argument("Segment list of AudioSet, e.g. balanced_train_segments.csv.")
    audio: str = argument("Folder of the clips, which may lie in subfolders.")
    output_dir: str = argument("Directory of the dataset: metadata.parquet and missing.csv.")


@dataclass(frozen=True)
class Segment:
    """Row of a segment list: id of the video, start in seconds, ids of the classes, and the row as it is written."""

    ytid: str
    start_seconds: float
    label_ids: tuple[str, ...]
    line: str

    @property
    def labels(self) -> list[str]:
        """Names of the classes that are known, in the order of the row."""
        return [AUDIOSET_LABELS[label] for label in self.label_ids if label in AUDIOSET_LABELS]

    @property
    def unknown_ids(self) -> list[str]:
        """Ids that no class has."""
        return [label for label in self.label_ids if label not in AUDIOSET_LABELS]


@dataclass
class FoundClips:
    """
    Clips of a segment list that were found: the file of each by its id, and the number of all audio files. Files of
    clips that have one already, that begin elsewhere in the video by their names, or that are empty are not taken.
    """

    files: dict[str, Path] = field(default_factory=dict)
    num_files: int = 0
    duplicates: list[Path] = field(default_factory=list)
    other_starts: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)


def read_segments(path: Path) -> dict[str, Segment]:
    """
    Reads the rows of a segment list in the format of Gemmeke et al. (2017): comments behind `#`, then
    `YTID, start_seconds, end_seconds, "label,label"`. Returns them by their id, in their order.

    Raises:
        [`BeatsError`]: a list that cannot be read or is empty, a row that is none, an id twice, or a row none of whose
            labels is a class of AudioSet.
    """
    segments: dict[str, Segment] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise BeatsError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BeatsError(f"{path}: is not text in UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        segment = parse_segment(line, f"{path}, line {number}")
        if segment.ytid in segments:
            raise BeatsError(f"{path}, line {number}: {segment.ytid} is listed twice.")
        segments[segment.ytid] = segment
    if not segments:
        raise BeatsError(f"{path}: lists no segments.")
    return segments


def parse_segment(line: str, place: str) -> Segment:
    """Reads a row of a segment list; `place` is its name in errors."""
    cells = [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
    if len(cells) != len(COLUMNS):
        raise BeatsError(f"{place}: is not `{', '.join(COLUMNS)}` with the labels in double quotes, but {line!r}.")
    ytid, start, end, label_ids = cells[0], as_seconds(cells[1]), as_seconds(cells[2]), cells[3].split(",")
    if not YTID.fullmatch(ytid):
        raise BeatsError(f"{place}: {ytid!r} is no id of a video, which has eleven letters, digits, - or _.")
    if not 0 <= start < end:
        raise BeatsError(f"{place}: {ytid} cannot last from {cells[1]} to {cells[2]} seconds.")
    segment = Segment(ytid, start, tuple(label.strip() for label in label_ids), line)
    if not segment.labels:
        raise BeatsError(f"{place}: {ytid} has no label that AudioSet's 527 classes know, only {cells[3]!r}.")
    return segment


def as_seconds(text: str) -> float:
    """Returns a number of seconds, NaN for other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def find_clips(folder: Path, segments: dict[str, Segment]) -> FoundClips:
    """
    Looks for the clips of a segment list in a folder and its subfolders. Of several files for a clip the first counts,
    in the order of their paths, which are absolute.

    Raises:
        [`BeatsError`]: if there is no such folder.
    """
    if not folder.is_dir():
        raise BeatsError(f"{folder}: no such folder.")
    found = FoundClips()
    for file in search_folder(folder.absolute()):
        found.num_files += 1
        name = CLIP_NAME.fullmatch(file.stem)
        segment = segments.get(name["ytid"]) if name else None
        if name is None or segment is None:
            continue
        if name["start"] is not None and not is_start(float(name["start"]), segment.start_seconds):
            found.other_starts.append(file)
        elif file.stat().st_size == 0:
            found.empty.append(file)
        elif segment.ytid in found.files:
            found.duplicates.append(file)
        else:
            found.files[segment.ytid] = file
    return found


def write_dataset(output_dir: Path, segments: dict[str, Segment], files: dict[str, Path]) -> None:
    """Writes `metadata.parquet` with the clips that have files and `missing.csv` with the others, both or none."""
    clips = [segment for segment in segments.values() if segment.ytid in files]
    columns: dict[str, list[Any]] = {
        "file_name": [str(files[clip.ytid]) for clip in clips],
        "ytid": [clip.ytid for clip in clips],
        "start_seconds": [clip.start_seconds for clip in clips],
        "labels": [clip.labels for clip in clips],
    }
    missing = [segment.line for segment in segments.values() if segment.ytid not in files]
    with new_directory(output_dir) as new:
        datasets.Dataset.from_dict(columns).to_parquet(new / "metadata.parquet")
        # In the format of the source, so that it is a segment list itself.
        lines = [f"# {', '.join(COLUMNS)}", *missing]
        (new / "missing.csv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def prepare_audioset(arguments: PrepareAudiosetArguments) -> FoundClips:
    """
    Writes the dataset, prints the numbers of clips found and missing, and returns the files.

    Raises:
        [`BeatsError`]: an output directory that exists, a list or a folder that cannot be used, or no clip at all.
    """
    output_dir = Path(arguments.output_dir)
    check_new(output_dir)
    segments = read_segments(Path(arguments.segments))
    found = find_clips(Path(arguments.audio), segments)
    if not found.files:
        example = next(iter(segments))
        raise BeatsError(
            f"{arguments.audio}: of {found.num_files} audio files none is a clip of {arguments.segments}; a name such "
            f"as {example}.wav, Y{example}.wav or {example}_{segments[example].start_seconds:.3f}.wav was expected. "
            f"{'; '.join(format_rejected(found))}".rstrip()
        )
    write_dataset(output_dir, segments, found.files)
    print("\n".join(format_counts(output_dir, segments, found)))
    return found


def format_counts(output_dir: Path, segments: dict[str, Segment], found: FoundClips) -> list[str]:
    """Returns lines on the numbers of clips."""
    unknown = Counter(label for segment in segments.values() for label in segment.unknown_ids)
    num_missing = len(segments) - len(found.files)
    listed = f" (listed in {output_dir / 'missing.csv'})" if num_missing else ""
    named = f" ({name_some(sorted(unknown))}), left out" if unknown else ""
    return [
        f"{output_dir}: {len(found.files)} of {len(segments)} clips found, {num_missing} missing{listed}; "
        f"labels unknown: {unknown.total()}{named}",
        *format_rejected(found),
    ]


def format_rejected(found: FoundClips) -> list[str]:
    """Returns lines on files that are named like clips but were not taken."""
    kinds = {
        "further files of clips that have one": found.duplicates,
        "files of a listed video that begin elsewhere in it, by their names": found.other_starts,
        "empty files": found.empty,
    }
    return [
        f"{kind}: {len(files)} ({name_some([file.name for file in files])})" for kind, files in kinds.items() if files
    ]


def main(argv: list[str] | None = None) -> None:
    """Runs the command with the words of `argv`; by default those of the command line."""
    (arguments,) = parse_arguments((PrepareAudiosetArguments,), argv, __doc__)
    prepare_audioset(arguments)
    words = ["finetune", "--config", "audioset20k_finetune", "--dataset", arguments.output_dir]
    words += ["--eval_dataset", "PREPARED_EVAL", "--model_name_or_path", "MODEL", "--output_dir", "CLASSIFIER"]
    note(next_command(*words))


if __name__ == "__main__":
    run_command(main)
