# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats embed` and `tokenize`: an array for each file."""

import json as json_format
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.audio.files import AudioFile, check_names
from transformers_beats.utils.errors import UsageError

from .notes import DecoderNotes
from .options import Json, Shared, with_shared_options
from .processing import Open, count, find_inputs, finish, has_seconds_bar, process, settings_of
from .writers import OK, SKIPPED, begin_directory, check_directory, write_standard_output


if TYPE_CHECKING:
    import numpy as np

    from transformers_beats.audio.decoding import AudioReport, AudioStream
    from transformers_beats.inference.kinds import Use
    from transformers_beats.inference.windowed import Columns, WindowedInference


Directory = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIRECTORY", help="Directory for one .npy for each file.")
]


@with_shared_options
def embed(
    shared: Shared,
    notes: DecoderNotes,
    output: Directory = None,
    json: Json = False,
    columns: Annotated[
        bool, typer.Option("--columns", help="One embedding for each 160 ms instead of one for the file.")
    ] = False,
) -> None:
    """
    Write embeddings of audio files, for a linear classifier or a search.

    Mean of the last hidden state, float32 of shape (hidden_size,); with --columns, (num_columns, hidden_size).
    """
    import numpy as np

    def join(blocks: Iterator["Columns"]) -> np.ndarray:
        return np.concatenate([block.values.mean(axis=1) for block in blocks])

    def compute(inference: "WindowedInference", streams: Iterator["AudioStream"]) -> Iterator[np.ndarray]:
        return map(join, inference.stream_embeddings_many(streams)) if columns else inference.embed_many(streams)

    save_arrays("embed", "embeddings", shared, notes, output, json, compute, columns=columns)


@with_shared_options
def tokenize(shared: Shared, notes: DecoderNotes, output: Directory = None, json: Json = False) -> None:
    """
    Write acoustic tokens of audio files, with a tokenizer.

    Int32 of shape (num_columns, num_freq_patches): a token for each 160 ms and frequency band.
    """

    def as_int32(codes: "Columns") -> "np.ndarray":
        return codes.values.astype("int32")

    def compute(inference: "WindowedInference", streams: Iterator["AudioStream"]) -> Iterator["np.ndarray"]:
        return map(as_int32, inference.codes_many(streams))

    save_arrays("tokenize", "tokens", shared, notes, output, json, compute)


def save_arrays(
    command: str,
    use: "Use",
    shared: Shared,
    notes: DecoderNotes,
    output: Path | None,
    json: bool,
    compute: Callable[["WindowedInference", Iterator["AudioStream"]], "Iterator[np.ndarray]"],
    **others: Any,
) -> None:
    """
    Saves what `compute` yields for each file as one .npy, or prints it as a JSON line with the key `use`; `others` are
    options of the command that change that.
    """
    from transformers_beats.inference.loading import check_model, load

    if json == (output is not None):
        raise UsageError("Choose --output DIRECTORY for files, or --json for standard output.")
    if json and shared.resume:
        raise UsageError("--resume continues an --output, and --json has none.")
    check_model(shared.model, use)
    if output is not None:
        check_directory(output, shared.resume)
    files = find_inputs(shared.inputs, shared.resume)
    if output is not None:
        check_names(files)
    # From here on, torch is imported.
    import numpy as np

    from transformers_beats.inference.windowed import WindowedInference
    from transformers_beats.utils.files import replace_file

    model, extractor = load(shared.model, shared.device, shared.dtype.value)
    has_bar = has_seconds_bar(files)
    inference = WindowedInference(model, extractor, shared.window, shared.hop, shared.batch_size, has_bar)
    if output is not None:
        settings = settings_of(command, model, extractor, shared, **others)
        begin_directory(output, settings, shared.resume, files, ".npy")

    def write(file: AudioFile, array: np.ndarray, report: "AudioReport") -> None:
        if output is None:
            record = {"warnings": report.warnings, "status": OK, "reason": "", use: array.tolist()}
            write_standard_output(json_format.dumps({"file": file.address, **record}) + "\n")
            return
        path = file.result(output, ".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)

    def skip(file: AudioFile, reason: str) -> None:
        if output is None:
            record = {"warnings": [], "status": SKIPPED, "reason": reason, use: None}
            write_standard_output(json_format.dumps({"file": file.address, **record}) + "\n")

    def is_done(file: AudioFile) -> bool:
        return output is not None and shared.resume and os.path.exists(file.result(output, ".npy"))

    def compute_all(todo: list[AudioFile], open_file: Open) -> "Iterator[np.ndarray]":
        return compute(inference, map(open_file, todo))

    failures = process(files, is_done, notes, extractor.sampling_rate, compute_all, write, skip)
    closing = []
    if output is not None:
        closing = [f"{count(files, failures)}: {output}"]
        if len(failures) < len(files):
            first = next(file for file in files if os.path.exists(file.result(output, ".npy")))
            closing.append(f"Next: numpy.load({str(first.result(output, '.npy'))!r}) in Python.")
    finish(files, failures, *closing)
