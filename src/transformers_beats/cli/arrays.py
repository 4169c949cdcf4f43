# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats embed` and `tokenize`: an array for each file."""

import json as json_format
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from transformers_beats.audio.files import STDIN, AudioFile, check_names, place_of, remember_folders
from transformers_beats.inference.grains import Grain, Pooling, check_grain
from transformers_beats.inference.records import OK, SKIPPED
from transformers_beats.utils.errors import BeatsError, UsageError
from transformers_beats.utils.files import check_place, write_array
from transformers_beats.utils.messages import note
from transformers_beats.utils.ranks import lock_of, ranks_directory, take_share
from transformers_beats.utils.resume import read_settings

from .notes import DecoderNotes
from .options import Json, Shared, with_shared_options
from .processing import (
    Open,
    check_rank,
    choose_workers,
    count,
    count_left,
    find_inputs,
    finish,
    has_seconds_bar,
    process,
    settings_of,
    share_of,
    write_left,
)
from .writers import SOURCES, begin_directory, check_directory, new_result, write_standard_output


if TYPE_CHECKING:
    import numpy as np

    from transformers_beats.audio.decoding import AudioReport, AudioStream
    from transformers_beats.inference.kinds import Use
    from transformers_beats.inference.results import Columns
    from transformers_beats.inference.windowed import WindowedInference
    from transformers_beats.utils.embeddings import Layout


Directory = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIRECTORY", help="Directory for one .npy for each file.")
]
DirectoryOrFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUTPUT",
        help="Directory for one .npy for each file, or one file: .parquet or .safetensors.",
    ),
]


# Choices of an option, as typer takes them.
GrainName = Enum("GrainName", {name: name for name in get_args(Grain)}, type=str)
PoolingName = Enum("PoolingName", {name: name for name in get_args(Pooling)}, type=str)


@with_shared_options
def embed(
    shared: Shared,
    notes: DecoderNotes,
    output: DirectoryOrFile = None,
    json: Json = False,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="LAYERS",
            help="As in hidden_states: 8, 2,5,8, -4: or all; 0 is the input of the first layer (default: the last).",
            show_default=False,
        ),
    ] = None,
    grain: Annotated[
        GrainName,
        typer.Option(help="A vector for the file, each frequency band, each column of 160 ms, or each patch."),
    ] = GrainName["clip"],
    pooling: Annotated[
        PoolingName, typer.Option(help="Bands of a clip or column: their mean, or one after another.")
    ] = PoolingName["mean"],
) -> None:
    """
    Write embeddings of audio files, of any layer and grain.

    Means of the hidden states, float32 of shape (hidden_size,); by band (8, hidden_size), by column (num_columns,
    hidden_size), by patch (8 * num_columns, hidden_size). Several layers are a first axis more.
    """
    check_grain(grain.value, pooling.value)

    def layout_of(inference: "WindowedInference") -> "Layout":
        from transformers_beats.inference.layers import choose_layers, is_single
        from transformers_beats.utils.embeddings import Layout

        # Before the output is begun.
        inference.check_layers(layers)
        config = inference.plain_model.base_model.config
        chosen = choose_layers(-1 if layers is None else layers, config.num_hidden_layers)
        num_bands = config.num_freq_patches if grain.value in ("band", "patch") else None
        seconds = inference.column_seconds if grain.value in ("column", "patch") else None
        return Layout(chosen, is_single(layers), num_bands, seconds)

    def compute(inference: "WindowedInference", streams: Iterator["AudioStream"]) -> Iterator["np.ndarray"]:
        return inference.embed_many(streams, layers=layers, grain=grain.value, pooling=pooling.value)

    options = {"grain": grain.value, "pooling": pooling.value}
    save_arrays("embed", "embeddings", shared, notes, output, json, compute, layout_of, **options)


@with_shared_options
def tokenize(shared: Shared, notes: DecoderNotes, output: Directory = None, json: Json = False) -> None:
    """
    Write acoustic tokens of audio files, with a tokenizer.

    Int32 of shape (num_columns, num_freq_patches): a token for each 160 ms and frequency band. Several codebooks add a
    dimension.
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
    layout_of: Callable[["WindowedInference"], "Layout"] | None = None,
    **others: Any,
) -> None:
    """
    Saves what `compute` yields for each file as one .npy, or prints it as a JSON line with the key `use`; `others` are
    options of the command that change that. With `layout_of`, which gives the meaning of the vectors, an output with a
    suffix is one file for all.
    """
    from transformers_beats.inference.loading import check_model, load

    if json == (output is not None):
        raise UsageError("Choose --output for files, or --json for standard output.")
    if json and shared.resume:
        raise UsageError("--resume continues an --output, and --json has none.")
    check_model(shared.model, use)
    shared, rank = check_rank(shared, output)
    directory, suffix = output, ".npy"
    one_file = output if output is not None and is_one_file(output, command) else None
    if one_file is not None:
        if rank is None:
            # Several look once they have a lock.
            check_one_file(one_file, shared.resume)
        directory, suffix = parts_of(one_file), ".npz"
    if directory is not None:
        check_directory(directory, shared.resume)
    everything = find_inputs(shared.inputs, shared.resume)
    files = share_of(everything, rank)
    if directory is not None:
        check_names(everything)
    if one_file is not None:
        check_texts(one_file, everything)
    # From here on, torch is imported.
    import numpy as np

    from transformers_beats.inference.windowed import WindowedInference
    from transformers_beats.utils.embeddings import digest_sources, has_embeddings

    model, extractor = load(shared.model, shared.device, shared.dtype.value)
    has_bar = has_seconds_bar(files)
    inference = WindowedInference(
        model, extractor, shared.window, shared.hop, shared.batch_size, has_bar, shared.backend.value
    )
    layout = None if layout_of is None else layout_of(inference)
    if layout is not None:
        # Numbers, however they were written.
        others["layers"] = layout.layers[0] if layout.is_single else layout.layers
    settings = settings_of(command, model, extractor, shared, **others)

    is_complete, num_left = False, 0

    def begin(part: Path | None) -> Path | None:
        nonlocal is_complete
        if part is None and one_file is not None:
            # Another run may have written it until this one had the lock.
            check_one_file(one_file, shared.resume)
        if part is not None and one_file is not None and one_file.exists() and not parts_of(one_file).exists():
            # Another rank may have joined what this one, which is late or was started again, would do.
            assert layout is not None
            real_path = remember_folders()
            sources = ((file.short_name, place_of(file.full_name, real_path)) for file in everything)
            is_complete = has_embeddings(one_file, layout, settings, digest_sources(sources))
            if not is_complete:
                raise UsageError(f"{one_file}: is complete already: remove it, or choose another output.")
        elif directory is not None:
            begin_directory(directory, settings, shared.resume, everything, suffix)
        return part

    def write(file: AudioFile, array: np.ndarray, report: "AudioReport") -> None:
        if directory is None:
            record = {"warnings": report.warnings, "status": OK, "reason": "", use: array.tolist()}
            write_standard_output(json_format.dumps({"file": file.address, **record}) + "\n")
            return
        with new_result(file.result(directory, suffix)) as temporary:
            if one_file is None:
                write_array(temporary, array)
            else:
                with temporary.open("wb") as stream:
                    np.savez(stream, values=array, seconds=report.seconds)

    def skip(file: AudioFile, reason: str) -> None:
        if directory is None:
            record = {"warnings": [], "status": SKIPPED, "reason": reason, use: None}
            write_standard_output(json_format.dumps({"file": file.address, **record}) + "\n")

    def has_result(file: AudioFile) -> bool:
        return is_complete or (directory is not None and os.path.exists(file.result(directory, suffix)))

    def join(is_all: bool) -> list[str]:
        """Joins all that is there, also of runs that this one continues; returns the line that says how to read it."""
        assert one_file is not None
        assert layout is not None
        is_joined = join_parts(one_file, layout, settings)
        if is_all or not is_joined:
            shutil.rmtree(parts_of(one_file))
        return [f"Next: {READERS[one_file.suffix.lower()]}({str(one_file)!r}) in Python."] if is_joined else []

    def merge(parts: list[Path]) -> bool:
        """Joins the results of all ranks, if there is no file that none of them has tried."""
        nonlocal num_left
        left = count_left(everything, has_result, parts)
        num_left = left or 0
        if left is not None and one_file is not None and not is_complete:
            note(f"All {len(everything)} files: {output}", *join(not left))
        return left is not None

    def compute_all(todo: Sequence[AudioFile], open_file: Open) -> "Iterator[np.ndarray]":
        return compute(inference, map(open_file, todo))

    workers = choose_workers(shared.workers, len(files), model.device.type)
    is_done = has_result if shared.resume else None
    alone = [] if output is None else [output if one_file is None else lock_of(output)]
    following: list[str] = []
    with take_share(ranks_directory(output or Path(STDIN)), rank, begin, merge, alone) as part:
        failures = process(files, is_done, notes, extractor.sampling_rate, compute_all, write, skip, workers)
        if part is not None and failures:
            write_left(part, files, has_result)
        if one_file is not None and rank is None:
            following = join(not failures)
    closing = [f"{count(files, failures, rank)}: {output}"] if output is not None else []
    if one_file is not None and rank is None:
        closing = closing + following if following else []
    elif output is not None and one_file is None and (done := next(filter(has_result, files), None)) is not None:
        closing.append(f"Next: numpy.load({str(done.result(output, suffix))!r}) in Python.")
    finish(files, failures, *closing, rank=rank, num_left=num_left)


# Suffixes of other kinds of files, which no directory has.
OTHER_SUFFIXES = (".csv", ".h5", ".hdf5", ".json", ".jsonl", ".npy", ".npz", ".pt", ".txt")
# Functions that read a file of embeddings.
READERS = {".parquet": "pandas.read_parquet", ".safetensors": "safetensors.numpy.load_file"}


def is_one_file(output: Path, command: str) -> bool:
    """
    Returns whether an output of `embed` is one file for all recordings, by its suffix, or a directory. Those of other
    commands are directories.

    Raises:
        [`UsageError`]: for the suffix of another kind of file.
    """
    suffix = output.suffix.lower()
    if suffix not in (*READERS, *OTHER_SUFFIXES) or output.is_dir():
        return False
    if command != "embed":
        raise UsageError(
            f"{output}: {command} writes a .npy for each file, and no {suffix} file: choose a name without this "
            "suffix, for a directory."
        )
    if suffix in OTHER_SUFFIXES:
        raise UsageError(
            f"{output}: embeddings are no {suffix} file: choose a name that ends in {' or '.join(READERS)}, or a "
            "directory."
        )
    return True


def parts_of(path: Path) -> Path:
    """Returns the hidden directory of what is done of one file: arrays and lengths, a file for each recording."""
    return path.with_name(f".{path.name}.parts")


def check_one_file(path: Path, resume: bool) -> None:
    """Raises a [`UsageError`] for a file of embeddings that cannot be begun or resumed."""
    parts = parts_of(path)
    if path.exists() and not (resume and parts.exists()):
        done = "is complete already" if resume else "exists already"
        raise UsageError(f"{path}: {done}: remove it, or choose another output.")
    check_place(path)
    check_parts(path, resume)


def check_parts(path: Path, resume: bool) -> None:
    """Raises a [`UsageError`] for a file that was begun, see [`parts_of`], and is not to be continued."""
    parts = parts_of(path)
    if parts.exists() and not resume:
        raise UsageError(
            f"{path}: was begun already: {parts} is of an interrupted run. To go on with the same settings, add "
            "--resume; otherwise remove it."
        )


def check_texts(path: Path, files: Sequence[AudioFile]) -> None:
    """Raises a [`UsageError`] for a name of a file that is no text, which one file for all could not hold."""
    for file in files:
        try:
            file.short_name.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{file.name!r}: its name is not UTF-8, and {path} holds texts: rename it, or choose a directory as "
                "--output."
            ) from None


def join_parts(path: Path, layout: "Layout", settings: dict[str, Any]) -> bool:
    """
    Writes the file from all of its parts; returns False if there is none.

    Raises:
        [`BeatsError`]: if it is not known which files the parts are of.
    """
    import numpy as np

    from transformers_beats.utils.embeddings import Recording, digest_sources, write_embeddings

    parts = parts_of(path)
    sources = read_settings(parts / SOURCES)
    if sources is None:
        raise BeatsError(
            f"{path}: cannot be written: {parts / SOURCES}, which names the files of the results, was "
            "removed meanwhile: begin again."
        )
    names = sorted(name for name in sources if (parts / f"{name}.npz").exists())

    def read(name: str) -> Recording:
        with np.load(parts / f"{name}.npz") as part:
            values = part["values"]
            return Recording(name, float(part["seconds"]), values.reshape(len(layout.layers), -1, values.shape[-1]))

    if names:
        digest = digest_sources((name, sources[name]) for name in names)
        write_embeddings(path, map(read, names), layout, settings, digest)
    return bool(names)
