# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats embed` and `tokenize`: an array for each file."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.audio.files import AudioFile, check_names, find_audio
from transformers_beats.utils.errors import UsageError

from .options import BatchSize, Device, Directory, Dtype, DtypeOption, Hop, Inputs, Model, Resume, Window
from .processing import has_seconds_bar, process, refused_arguments, settings_of
from .writers import begin_directory


if TYPE_CHECKING:
    from transformers_beats.inference.windowed import Columns, WindowedInference


# From files to their arrays, one after the other.
Compute = Callable[[list[Path]], Iterator[Any]]


def embed(
    inputs: Inputs,
    model: Model,
    output: Directory,
    columns: Annotated[
        bool, typer.Option("--columns", help="One embedding for each 160 ms instead of one for the file.")
    ] = False,
    resume: Resume = False,
    window: Window = 10.0,
    hop: Hop = None,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
) -> None:
    """
    Write embeddings of audio files, for a linear classifier or a search.

    Mean of the last hidden state, float32 of shape (hidden_size,); with --columns, (num_columns, hidden_size).
    """
    import numpy as np

    from transformers_beats.modeling_beats import BeatsModel

    def join(blocks: Iterator["Columns"]) -> np.ndarray:
        return np.concatenate([block.values.mean(axis=1) for block in blocks])

    def choose(inference: "WindowedInference") -> Compute:
        if not isinstance(inference.model.base_model, BeatsModel):
            raise UsageError(f"A {type(inference.model).__name__} has no encoder that gives embeddings.")
        return (lambda paths: map(join, inference.stream_embeddings_many(paths))) if columns else inference.embed_many

    options = (window, hop, batch_size, device, dtype)
    save_arrays("embed", inputs, model, output, resume, options, choose, columns=columns)


def tokenize(
    inputs: Inputs,
    model: Model,
    output: Directory,
    resume: Resume = False,
    window: Window = 10.0,
    hop: Hop = None,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
) -> None:
    """
    Write acoustic tokens of audio files, with a tokenizer.

    Int32 of shape (num_columns, num_freq_patches): a token for each 160 ms and frequency band.
    """
    import numpy as np

    def as_int32(codes: "Columns") -> np.ndarray:
        return codes.values.astype(np.int32)

    def choose(inference: "WindowedInference") -> Compute:
        if not hasattr(inference.model.config, "codebook_dim"):
            raise UsageError(f"A {type(inference.model).__name__} gives no tokens: --model must be a tokenizer.")
        return lambda paths: map(as_int32, inference.codes_many(paths))

    save_arrays("tokenize", inputs, model, output, resume, (window, hop, batch_size, device, dtype), choose)


def save_arrays(
    command: str,
    inputs: list[Path],
    model: str,
    output: Path,
    resume: bool,
    options: tuple[float, float | None, int, str, Dtype],
    choose: Callable[["WindowedInference"], Compute],
    **others: Any,
) -> None:
    """
    Saves an array of each file as one .npy. `choose` returns the method that computes them, or refuses the model;
    `others` are the options that arrays of this command depend on beside the shared ones.
    """
    import numpy as np

    from transformers_beats.inference.loading import load
    from transformers_beats.inference.windowed import WindowedInference
    from transformers_beats.utils.files import replace_file

    files = find_audio(inputs)
    check_names(files)
    window, hop, batch_size, device, dtype = options
    loaded, extractor = load(model, device, dtype.value)
    with refused_arguments():
        inference = WindowedInference(loaded, extractor, window, hop, batch_size, has_seconds_bar(files))
    compute = choose(inference)
    begin_directory(output, settings_of(command, loaded, extractor, window, hop, **others), resume)

    def write(file: AudioFile, array: np.ndarray) -> None:
        path = file.result(output, ".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)

    process(files, lambda file: resume and os.path.exists(file.result(output, ".npy")), compute, write)
