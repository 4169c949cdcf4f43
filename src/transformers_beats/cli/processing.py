# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Inputs of a command, and the loop over them, in which a file that cannot be used does not stop the others."""

import errno
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_beats.audio.files import STDIN, AudioFile, FileList, find_audio
from transformers_beats.utils.errors import FAILURE, FOREIGN_ERRORS, UsageError, first_line, printable
from transformers_beats.utils.machine import count_cpus, name_of
from transformers_beats.utils.messages import is_quiet, note, warn
from transformers_beats.utils.numbers import format_number
from transformers_beats.utils.ranks import Rank, current_rank, read_skipped, write_skipped
from transformers_beats.utils.stages import current_times, stage, timed

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
# Fewer files are decoded in this process: others take a moment to start.
FILES_FOR_WORKERS = 32
# Processes that decode for a GPU; one for a CPU, whose cores the model keeps busy.
MOST_WORKERS = 8


def find_inputs(words: list[str], resume: bool = False) -> Sequence[AudioFile]:
    """
    Lists the audio of a command line: see [`find_audio`]; `-` is read from standard input, to its end.

    Raises:
        [`UsageError`]: if a path does not exist, there is no audio, or standard input is empty, a terminal or closed.
    """
    paths = [Path(word) for word in words if word != STDIN]
    if len(paths) == len(words):
        with stage("find files"):
            return find_audio(paths)
    if resume:
        raise UsageError("--resume continues with files, and standard input is none: leave out --resume or -.")
    # All paths are checked before anything is waited for.
    files = find_audio(paths) if paths else []
    return [AudioFile(STDIN, "stdin", read_standard_input()), *files]


def check_rank(shared: Shared, output: Path | None) -> tuple[Shared, Rank | None]:
    """
    Returns the rank of this process, and its options: one of several goes on with what is there, as with `--resume`,
    so that it can be started again.

    Raises:
        [`UsageError`]: if the results of several processes have no common file or directory, or they would read one
            standard input.
    """
    rank = current_rank()
    if rank is None:
        return shared, None
    if output is None or STDIN in shared.inputs:
        raise UsageError(
            f"{rank.count} processes (WORLD_SIZE) share files and write one --output: name it, and no standard input."
        )
    return shared._replace(resume=True), rank


def share_of(files: Sequence[AudioFile], rank: Rank | None) -> Sequence[AudioFile]:
    """Returns the files of a rank: each belongs to one rank."""
    return files if rank is None else files[rank.number :: rank.count]


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
    files: Sequence[AudioFile],
    is_done: Callable[[AudioFile], bool] | None,
    notes: DecoderNotes,
    sampling_rate: int,
    compute: Callable[[Sequence[AudioFile], Open], Iterator[Any]],
    write: Callable[[AudioFile, Any, "AudioReport"], None],
    skip: Callable[[AudioFile, str], None] = lambda file, reason: None,
    workers: int = 0,
) -> list[str]:
    """
    Computes and writes the results of the files that are not done, and returns a line for each that cannot be used.
    `is_done` is none for a new output. `skip` is called with the reason if there is no result to write. `compute`
    opens all files that it is given, one after another, and returns their results in this order: after an error,
    `next` gives that of the next file. With `workers`, so many processes decode meanwhile.

    Raises:
        [`OutputError`], `OSError`: if the output takes no more results.
    """
    from tqdm import tqdm

    # Of several processes, one has a bar.
    is_silent = is_quiet() or has_seconds_bar(files) or getattr(current_rank(), "number", 0) > 0
    todo = files if is_done is None else leave_out(files, is_done)
    if len(todo) < len(files):
        note(f"{len(files) - len(todo)} of {len(files)} files are done already.")
    reports: dict[AudioFile, AudioReport] = {}
    failures: list[str] = []
    with ExitStack() as stack:
        decoders = None
        if workers and todo:
            # Imports torch.
            from transformers_beats.audio.decoders import Decoders

            decoders = stack.enter_context(Decoders(todo, notes.in_other_process(sampling_rate), workers))

        def open_file(file: AudioFile) -> "AudioStream":
            with stage("decode"):
                stream = notes.open(file, sampling_rate) if decoders is None else decoders.open_next()
            reports[file] = stream.report
            return replace(stream, blocks=timed("decode", stream.blocks))

        results = compute(todo, open_file)
        for file in tqdm(todo, unit="file", disable=True if is_silent else None):
            has_result = False
            try:
                with stage("join"):
                    result = next(results)
                has_result = True
                report = reports[file]
                with stage("write"):
                    write(file, result, report)
                warn_of(file, report.warnings)
            except FOREIGN_ERRORS as error:
                if ends_output(error):
                    raise
                reason = first_line(error, file.name)
                failures.append(reason if printable(file.name) in reason else f"{file.name}: {reason}")
                if not has_result:
                    skip(file, reason)
            reports.pop(file, None)
        if decoders is not None and (times := current_times()) is not None:
            times.num_decoders, times.decoder_seconds = decoders.num_processes, decoders.seconds
    return failures


def warn_of(file: AudioFile, warnings: Iterable[str]) -> None:
    """Prints warnings about a file, each as a line that begins with its name."""
    for warning in warnings:
        warn(printable(f"{file.name}: {warning}"))


def leave_out(files: Sequence[AudioFile], is_done: Callable[[AudioFile], bool]) -> Sequence[AudioFile]:
    """Returns the files that are not done."""
    rows = array("Q", (row for row, file in enumerate(files) if not is_done(file)))
    return files.take(rows) if isinstance(files, FileList) else [files[row] for row in rows]


def choose_workers(asked: int | None, num_files: int, device: str) -> int:
    """Returns the number of processes that decode files for a model on a device of PyTorch's, such as `cpu`."""
    if asked is not None:
        return asked
    num_others = count_cpus() - 1
    if num_files < FILES_FOR_WORKERS:
        return 0
    return min(1 if device == "cpu" else MOST_WORKERS, num_others)


def finish(
    files: Sequence[AudioFile], failures: list[str], *closing: str, rank: Rank | None = None, num_left: int = 0
) -> None:
    """
    Names the files that were skipped, and then says where results are and what to type next. A rank fails only if it
    has found that no rank has anything left to do, and that `num_left` files of all ranks have no result: torchrun
    ends all others as soon as one fails.

    Raises:
        `SystemExit`: with status 1 if a file was skipped.
    """
    if failures:
        number = f"{len(failures)} of {len(files)} files could not be used."
        print(*map(printable, failures), number, sep="\n", file=sys.stderr)
    if num_left:
        print(f"Of the files of all shares, {num_left} could not be used.", file=sys.stderr)
    note(*closing)
    if num_left or (failures and rank is None):
        raise SystemExit(FAILURE)


def write_left(part: Path, files: Sequence[AudioFile], has_result: Callable[[AudioFile], bool]) -> None:
    """Writes which files of a rank have no result, for [`count_left`], once it has tried its share."""
    write_skipped(part, [file.address for file in files if not has_result(file)])


def count_left(files: Sequence[AudioFile], has_result: Callable[[AudioFile], bool], parts: list[Path]) -> int | None:
    """Returns how many files of all ranks have no result; None if there is one that no rank has tried."""
    left = [file.address for file in files if not has_result(file)]
    return len(left) if read_skipped(parts).issuperset(left) else None


def count(files: Sequence[AudioFile], failures: list[str], rank: Rank | None = None) -> str:
    """Returns how many files have results: "3 of 4 files"; of a rank, which share of the files these are."""
    total = f"{len(files)} file{'s' * (len(files) != 1)}{f' ({rank})' if rank is not None else ''}"
    return f"{len(files) - len(failures)} of {total}" if failures else total


def ends_output(error: BaseException) -> bool:
    """Returns whether the results of no other file can be written after an error, or computed after a wrong use."""
    return isinstance(error, (OutputError, UsageError)) or getattr(error, "errno", None) in END_OF_OUTPUT


def note_left_out(number: int, role: str) -> None:
    """Says how many files a command leaves out, and why."""
    if number:
        note(f"{format_number(number)} files are {role}, and are left out.")


def has_seconds_bar(files: Sequence[AudioFile]) -> bool:
    """Returns whether the progress bar counts seconds of a single file; without a terminal there is no bar."""
    return len(files) == 1 and sys.stderr.isatty() and not is_quiet()


def settings_of(
    command: str, model: "PreTrainedModel", extractor: "BeatsFeatureExtractor", shared: Shared, **others: Any
) -> dict[str, Any]:
    """Returns the settings that results depend on. An output that was begun with others cannot be resumed."""
    from transformers_beats.backends.choice import settings_of_backend
    from transformers_beats.utils.fingerprint import model_fingerprint

    return {
        "command": command,
        "model": model_fingerprint(model, extractor),
        "dtype": name_of(model.dtype),
        "window": shared.window,
        "hop": shared.window if shared.hop is None else shared.hop,
        **settings_of_backend(shared.backend.value),
        **others,
    }
