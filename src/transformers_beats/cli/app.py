# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Command line: `transformers-beats tag`, `embed`, `tokenize` and `info`."""

import errno
import os
import pickle
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from safetensors import SafetensorError

from transformers_beats.inference.loading import Dtype, describe, labels_of, load
from transformers_beats.utils.errors import UsageError, first_line

from .writers import (
    AudioFile,
    Format,
    Writer,
    check_names,
    check_settings,
    find_audio,
    keep_settings,
    make_directory,
    open_writer,
    settings_of,
)


if TYPE_CHECKING:
    from transformers_beats.audio.decoding import AudioStream
    from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline
    from transformers_beats.inference.windowed import Columns, WindowedInference
    from transformers_beats.plotting.spectrogram import Spectrogram


# What files, models and too little memory raise.
ERRORS = (OSError, ValueError, ImportError, RuntimeError, MemoryError, SafetensorError, pickle.UnpicklingError)
# After these nothing else can be written, either; the last is that of a reader who has gone.
END_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EPIPE)
# What transformers, torch and matplotlib are imported for is imported where it is used: --help is to come at once.
app = typer.Typer(
    help="What BEATs models hear in audio files, of any format, rate and length. Folders are searched.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Joins the lines of a paragraph.
    rich_markup_mode="markdown",
)


Inputs = Annotated[list[Path], typer.Argument(metavar="FILE_OR_FOLDER...", help="Audio files, and folders of them.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Directory of a model, or its id on the Hub.")]
Directory = Annotated[Path, typer.Option("--output", "-o", help="Directory for one .npy for each file.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an output, leaving out the files that are done.")]
Window = Annotated[float, typer.Option("--window", help="Length of the windows of long recordings, in seconds.")]
Hop = Annotated[
    float | None, typer.Option("--hop", help="From one window to the next, in seconds (default: --window).")
]
BatchSize = Annotated[int, typer.Option(min=1, help="How many windows the model gets at once.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...; auto takes a GPU if there is one.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Precision of the model; auto is what it was saved in.")]


@app.command()
def tag(
    inputs: Inputs,
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A .jsonl or .csv file; for label tracks, a directory (default: the terminal)."
        ),
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="By default what the suffix of --output says, or a table.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="How many labels for each file, at most (default: 5).")
    ] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Only labels with scores above this.")] = None,
    events: Annotated[
        bool,
        typer.Option(
            "--events",
            help="What is heard from when to when: instead of labels or, in JSON lines, beside them. Label tracks are "
            "events, and each option of events asks for them.",
        ),
    ] = False,
    event_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="For events: their scores come above this (default: 0.5).")
    ] = None,
    low_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="For events: they go on above this (default: --event-threshold)."),
    ] = None,
    median: Annotated[
        float | None, typer.Option(min=0, help="For events: length of a median filter, in seconds (default: none).")
    ] = None,
    gap: Annotated[
        float | None, typer.Option(min=0, help="For events: those so many seconds apart are one (default: 0).")
    ] = None,
    min_duration: Annotated[
        float | None, typer.Option(min=0, help="For events: the shortest, in seconds (default: 0).")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Draw the spectrogram and events of each file as .png.")
    ] = None,
    resume: Resume = False,
    window: Window = 10.0,
    hop: Hop = None,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
) -> None:
    """
    Which sounds are heard in each file and, with --events, when.

    A frame-level model says it every 160 ms; the events of a clip-level model are as coarse as its windows: try
    --window 2 --hop 0.5.
    """
    kind = format or choose_format(output)
    event_options = {
        "event_threshold": event_threshold,
        "low_threshold": low_threshold,
        "median_seconds": median,
        "gap_seconds": gap,
        "min_seconds": min_duration,
    }
    with_events = events or kind is Format.audacity or any(value is not None for value in event_options.values())
    label_options = {"top_k": 5 if top_k is None else top_k, "threshold": threshold}
    with errors_in_one_line():
        from transformers_beats.inference.pipeline import BeatsAudioTaggingPipeline

        if with_events and kind is not Format.jsonl and (top_k, threshold) != (None, None):
            raise UsageError(
                "--top-k and --threshold are for labels, and with events only JSON lines hold labels: leave them out, "
                "or choose --format jsonl."
            )
        files = find_audio(inputs)
        if kind is Format.audacity or pictures:
            check_names(files)
        if pictures:
            from transformers_beats.plotting.figures import check_matplotlib

            check_matplotlib()
        settings = settings_of(
            "tag", model, dtype.value, window, hop, events=with_events, **label_options, **event_options
        )
        if output is not None and resume:
            check_settings(output, settings)
        loaded, extractor = load(model, device, dtype.value)
        tagger = BeatsAudioTaggingPipeline(
            model=loaded,
            feature_extractor=extractor,
            device=loaded.device,
            window_seconds=window,
            hop_seconds=hop,
            batch_size=batch_size,
            progress=has_seconds_bar(files),
            return_events=with_events or pictures is not None,
            **label_options,
            **event_options,
        )
        writer = open_writer(kind, output, with_events, resume)
        try:
            if output is not None:
                keep_settings(output, settings)
            tag_files(files, tagger, writer, with_events, pictures, batch_size)
        finally:
            writer.close()


def tag_files(
    files: list[AudioFile],
    tagger: "BeatsAudioTaggingPipeline",
    writer: Writer,
    with_events: bool,
    pictures: Path | None,
    batch_size: int,
) -> None:
    """Writes labels and events of each file and then, if there is a directory for them, draws its picture."""
    from transformers_beats.audio.decoding import open_audio
    from transformers_beats.plotting.spectrogram import SpectrogramReader

    if pictures:
        make_directory(pictures, resume=True)
    readers: dict[Path, SpectrogramReader] = {}

    def open_file(file: AudioFile) -> "AudioStream":
        """Opens a file that is decoded once, for its scores and its picture."""
        stream = open_audio(file.path, tagger.feature_extractor.sampling_rate)
        readers[file.path] = SpectrogramReader(tagger.feature_extractor)
        return readers[file.path].follow(stream)

    def is_done(file: AudioFile) -> bool:
        return writer.is_done(file) and (pictures is None or os.path.exists(file.result(pictures, ".png")))

    def compute(files: list[AudioFile]) -> Iterator[Any]:
        # A `map`, unlike a generator, goes on after an error.
        recordings = map(open_file, files) if pictures else (file.path for file in files)
        return tagger(recordings, batch_size=batch_size)

    def finish(file: AudioFile, result: Any) -> None:
        result = result if isinstance(result, dict) else {"labels": result}
        # Only its picture may be missing.
        if not writer.is_done(file):
            writer.write(file, result if with_events else {"labels": result["labels"]})
        if pictures:
            draw(file, result["events"], readers.pop(file.path).spectrogram(), pictures)

    process(files, is_done, compute, finish)


@app.command()
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
    Embeddings of the files: what a linear classifier or a search can work with.

    A file's is the mean of the last hidden state, float32, (hidden_size,); with --columns, (num_columns, hidden_size).
    """
    import numpy as np

    def join(blocks: Iterator["Columns"]) -> np.ndarray:
        return np.concatenate([block.values.mean(axis=1) for block in blocks])

    with errors_in_one_line():
        from transformers_beats.modeling_beats import BeatsModel

        files = find_audio(inputs)
        settings = settings_of("embed", model, dtype.value, window, hop, columns=columns)
        inference = load_inference(files, model, device, dtype, window, hop, batch_size)
        if not isinstance(inference.model.base_model, BeatsModel):
            raise UsageError(f"A {type(inference.model).__name__} has no encoder that gives embeddings.")
        if columns:
            save_arrays(
                files, output, resume, settings, lambda paths: map(join, inference.stream_embeddings_many(paths))
            )
        else:
            save_arrays(files, output, resume, settings, inference.embed_many)


@app.command()
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
    Acoustic tokens of the files, from a tokenizer.

    For each file int32 of shape (num_columns, num_freq_patches): a token for each 160 ms and frequency band.
    """
    import numpy as np

    def as_int32(codes: "Columns") -> np.ndarray:
        return codes.values.astype(np.int32)

    with errors_in_one_line():
        files = find_audio(inputs)
        settings = settings_of("tokenize", model, dtype.value, window, hop)
        inference = load_inference(files, model, device, dtype, window, hop, batch_size)
        if not hasattr(inference.model.config, "codebook_dim"):
            raise UsageError(f"A {type(inference.model).__name__} gives no tokens: --model must be a tokenizer.")

        save_arrays(files, output, resume, settings, lambda paths: map(as_int32, inference.codes_many(paths)))


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Directory of a model, or its id on the Hub.")],
    labels: Annotated[bool, typer.Option("--labels", help="Print the labels, and nothing else.")] = False,
) -> None:
    """What a model is: its kind, size, labels, and the statistics of its filter bank."""
    with errors_in_one_line():
        loaded, extractor = load(model, "cpu")
        if labels:
            typer.echo("\n".join(f"{index}\t{label}" for index, label in labels_of(loaded).items()))
            return
        for name, value in describe(loaded, extractor).items():
            typer.echo(f"{name + ':':<16}{value}")


def choose_format(output: Path | None) -> Format:
    """The format that an output's suffix names."""
    if output is None:
        return Format.table
    return {".jsonl": Format.jsonl, ".csv": Format.csv, "": Format.audacity}.get(output.suffix.lower(), Format.table)


def load_inference(
    files: list[AudioFile], model: str, device: str, dtype: Dtype, window: float, hop: float | None, batch_size: int
) -> "WindowedInference":
    """A model for recordings of any length."""
    from transformers_beats.inference.windowed import WindowedInference

    return WindowedInference(*load(model, device, dtype.value), window, hop, batch_size, has_seconds_bar(files))


def has_seconds_bar(files: list[AudioFile]) -> bool:
    """Whether the progress bar counts seconds of a single file instead of files; none where nobody watches."""
    return len(files) == 1 and sys.stderr.isatty()


def save_arrays(
    files: list[AudioFile],
    output: Path,
    resume: bool,
    settings: dict[str, Any],
    compute: Callable[[list[Path]], Iterator[Any]],
) -> None:
    """Computes an array of each file, and saves it as one .npy each."""
    import numpy as np

    from transformers_beats.utils.files import replace_file

    check_names(files)
    if resume:
        check_settings(output, settings)
    make_directory(output, resume)
    keep_settings(output, settings)

    def write(file: AudioFile, array: np.ndarray) -> None:
        path = file.result(output, ".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)

    process(
        files,
        lambda file: resume and os.path.exists(file.result(output, ".npy")),
        lambda files: compute([file.path for file in files]),
        write,
    )


def draw(file: AudioFile, events: list[dict[str, Any]], spectrogram: "Spectrogram", directory: Path) -> None:
    """Draws the picture of a file."""
    from transformers_beats.inference.events import Event
    from transformers_beats.plotting.timeline import draw_timeline

    path = file.result(directory, ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_timeline(spectrogram, [Event(**event) for event in events], path, str(file.relative))


def process(
    files: list[AudioFile],
    is_done: Callable[[AudioFile], bool],
    compute: Callable[[list[AudioFile]], Iterator[Any]],
    write: Callable[[AudioFile, Any], None],
) -> None:
    """
    Goes through the files; `compute` gives their results, and after an error the next one's. Those that cannot be
    used, or whose own result or picture cannot be written, are named at the end, and make the exit status 1. An output
    of all files that cannot be written ends it at once.
    """
    from tqdm import tqdm

    todo = [file for file in files if not is_done(file)]
    if len(todo) < len(files):
        typer.echo(f"{len(files) - len(todo)} of {len(files)} files are done already.", err=True)
    failures, results = [], compute(todo)
    for file in tqdm(todo, unit="file", disable=True if has_seconds_bar(files) else None):
        try:
            write(file, next(results))
        except ERRORS as error:
            if isinstance(error, UsageError) or getattr(error, "errno", None) in END_OF_OUTPUT:
                raise
            message = first_line(error)
            failures.append(message if str(file.path) in message else f"{file.path}: {message}")
    if failures:
        typer.echo("\n".join(failures), err=True)
        typer.echo(f"{len(failures)} of {len(todo)} files could not be used.", err=True)
        raise typer.Exit(1)


@contextmanager
def errors_in_one_line() -> Generator[None, None, None]:
    """Turns what users can put right into one line and exit status 1."""
    # Waiting threads sleep instead of spinning; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        yield
    # Also a RuntimeError. Typer itself ends a command whose output nobody reads any more, without a word.
    except (typer.Exit, BrokenPipeError):
        raise
    except ERRORS as error:
        typer.echo(f"error: {first_line(error)}", err=True)
        raise typer.Exit(1) from error


def main() -> None:
    """Command line entry."""
    app()


if __name__ == "__main__":
    sys.exit(main())
