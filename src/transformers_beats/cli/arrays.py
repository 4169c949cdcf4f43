# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats embed` and `tokenize`: an array for each file."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.audio.files import AudioFile, check_names, find_audio

from .options import Shared, with_shared_options
from .processing import has_seconds_bar, process, settings_of
from .writers import begin_directory


if TYPE_CHECKING:
    import numpy as np

    from transformers_beats.inference.windowed import Columns, WindowedInference


Directory = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIRECTORY", help="Directory for one .npy for each file.")
]


@with_shared_options
def embed(
    shared: Shared,
    output: Directory,
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

    def compute(inference: "WindowedInference", paths: list[Path]) -> Iterator[np.ndarray]:
        return map(join, inference.stream_embeddings_many(paths)) if columns else inference.embed_many(paths)

    save_arrays("embed", shared, output, compute, columns=columns)


@with_shared_options
def tokenize(shared: Shared, output: Directory) -> None:
    """
    Write acoustic tokens of audio files, with a tokenizer.

    Int32 of shape (num_columns, num_freq_patches): a token for each 160 ms and frequency band.
    """

    def as_int32(codes: "Columns") -> "np.ndarray":
        return codes.values.astype("int32")

    def compute(inference: "WindowedInference", paths: list[Path]) -> Iterator["np.ndarray"]:
        return map(as_int32, inference.codes_many(paths))

    save_arrays("tokenize", shared, output, compute)


def save_arrays(
    command: str,
    shared: Shared,
    output: Path,
    compute: Callable[["WindowedInference", list[Path]], "Iterator[np.ndarray]"],
    **others: Any,
) -> None:
    """Saves what `compute` yields for each file as one .npy; `others` are options of the command that change that."""
    import numpy as np

    from transformers_beats.inference.loading import load
    from transformers_beats.inference.windowed import WindowedInference
    from transformers_beats.utils.files import replace_file

    files = find_audio(shared.inputs)
    check_names(files)
    model, extractor = load(shared.model, shared.device, shared.dtype.value)
    has_bar = has_seconds_bar(files)
    inference = WindowedInference(model, extractor, shared.window, shared.hop, shared.batch_size, has_bar)
    begin_directory(output, settings_of(command, model, extractor, shared, **others), shared.resume, files, ".npy")

    def write(file: AudioFile, array: np.ndarray) -> None:
        path = file.result(output, ".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)

    def is_done(file: AudioFile) -> bool:
        return shared.resume and os.path.exists(file.result(output, ".npy"))

    process(files, is_done, lambda paths: compute(inference, paths), write)
