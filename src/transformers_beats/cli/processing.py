# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Inputs of a command, and the loop over them, in which a file that cannot be used does not stop the others."""

import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_beats.audio.files import STDIN, AudioFile, find_audio
from transformers_beats.utils.errors import FOREIGN_ERRORS, UsageError, first_line
from transformers_beats.utils.machine import name_of
from transformers_beats.utils.messages import is_quiet, note, warn
from transformers_beats.utils.numbers import format_number

from .notes import DecoderNotes
from .options import Shared
from .writers import OutputError


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from transformers_beats.audio.decoding import AudioReport, AudioStream
    from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor


# After these, no other file can be written either. The last is raised if the reader of a pipe has gone.
END_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EPIPE)
# Opens a file for its computation.
Open = Callable[[AudioFile], "AudioStream"]


def find_inputs(words: list[str], resume: bool = False) -> list[AudioFile]:
    """
    Lists the audio of a command line: see [`find_audio`]; `-` is read from standard input, to its end.

    Raises:
        [`UsageError`]: if a path does not exist, there is no audio, or standard input is empty, a terminal or closed.
    """
    paths = [Path(word) for word in words if word != STDIN]
    if len(paths) == len(words):
        return find_audio(paths)
    if resume:
        raise UsageError("--resume continues with files, and standard input is none: leave out --resume or -.")
    # All paths are checked before anything is waited for.
    files = find_audio(paths) if paths else []
    return [AudioFile(Path(STDIN), Path("stdin"), read_standard_input()), *files]


def read_standard_input() -> bytes:
    """Reads standard input to its end; raises a [`UsageError`] if there is nothing to read."""
    if sys.stdin is None:
        raise UsageError("- is standard input, which is closed: pipe audio to the command, or name a file.")
    if sys.stdin.isatty():
        raise UsageError(
            "- is standard input, which is a terminal: pipe audio to the command (`cat clip.wav | ...`), or name a "
            "file."
        )
    if not (data := sys.stdin.buffer.read()):
        raise UsageError("- is standard input, which is empty: the program before the pipe has written nothing.")
    return data


def process(
    files: list[AudioFile],
    is_done: Callable[[AudioFile], bool],
    notes: DecoderNotes,
    sampling_rate: int,
    compute: Callable[[list[AudioFile], Open], Iterator[Any]],
    write: Callable[[AudioFile, Any, "AudioReport"], None],
    skip: Callable[[AudioFile, str], None] = lambda file, reason: None,
) -> list[str]:
    """
    Computes and writes the results of the files that are not done, and returns a line for each that cannot be used.
    `skip` is called with the reason if there is no result to write. `compute` returns the results of files in their
    order: after an error, `next` gives that of the next file.

    Raises:
        [`OutputError`], `OSError`: if the output takes no more results.
    """
    from tqdm import tqdm

    todo = [file for file in files if not is_done(file)]
    if len(todo) < len(files):
        note(f"{len(files) - len(todo)} of {len(files)} files are done already.")
    reports: dict[AudioFile, AudioReport] = {}

    def open_file(file: AudioFile) -> "AudioStream":
        stream = notes.open(file, sampling_rate)
        reports[file] = stream.report
        return stream

    failures, results = [], compute(todo, open_file)
    for file in tqdm(todo, unit="file", disable=True if is_quiet() or has_seconds_bar(files) else None):
        has_result = False
        try:
            result = next(results)
            has_result = True
            report = reports.pop(file)
            write(file, result, report)
            for warning in report.warnings:
                warn(f"{file.name}: {warning}")
        except FOREIGN_ERRORS as error:
            if ends_output(error):
                raise
            reason = first_line(error).removeprefix(f"{file.name}: ")
            failures.append(reason if file.name in reason else f"{file.name}: {reason}")
            if not has_result:
                skip(file, reason)
    return failures


def finish(files: list[AudioFile], failures: list[str], *closing: str) -> None:
    """
    Names the files that were skipped, and then says where results are and what to type next.

    Raises:
        `SystemExit`: with status 1 if a file was skipped.
    """
    if failures:
        print(*failures, f"{len(failures)} of {len(files)} files could not be used.", sep="\n", file=sys.stderr)
    note(*closing)
    if failures:
        raise SystemExit(1)


def count(files: list[AudioFile], failures: list[str]) -> str:
    """Returns how many files have results: "3 of 4 files"."""
    total = f"{len(files)} file{'s' * (len(files) != 1)}"
    return f"{len(files) - len(failures)} of {total}" if failures else total


def ends_output(error: BaseException) -> bool:
    """Returns whether the results of no other file can be written after an error, or computed after a wrong use."""
    return isinstance(error, (OutputError, UsageError)) or getattr(error, "errno", None) in END_OF_OUTPUT


def note_left_out(number: int, role: str) -> None:
    """Says how many files a command leaves out, and why."""
    if number:
        note(f"{format_number(number)} files are {role}, and are left out.")


def has_seconds_bar(files: list[AudioFile]) -> bool:
    """Returns whether the progress bar counts seconds of a single file; without a terminal there is no bar."""
    return len(files) == 1 and sys.stderr.isatty() and not is_quiet()


def settings_of(
    command: str, model: "PreTrainedModel", extractor: "BeatsFeatureExtractor", shared: Shared, **others: Any
) -> dict[str, Any]:
    """Returns the settings that results depend on. An output that was begun with others cannot be resumed."""
    from transformers_beats.utils.fingerprint import model_fingerprint

    if shared.backend.value == "onnx-int8":
        # Others give the same results, up to rounding.
        others["precision"] = "int8"
    return {
        "command": command,
        "model": model_fingerprint(model, extractor),
        "dtype": name_of(model.dtype),
        "window": shared.window,
        "hop": shared.window if shared.hop is None else shared.hop,
        **others,
    }
