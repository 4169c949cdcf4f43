# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Command line: `transformers-beats tag`, `embed`, `tokenize` and `info`."""

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_results import AudioFile, Format, OutputError, check_names, find_audio, make_directory, open_writer


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .feature_extraction_beats import BeatsFeatureExtractor
    from .inference import Columns, WindowedInference


# What transformers, torch and matplotlib are imported for is imported where it is used: --help is to come at once.
app = typer.Typer(
    help="What BEATs models hear in audio files, of any format, rate and length. Folders are searched.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Joins the lines of a paragraph.
    rich_markup_mode="markdown",
)


class Dtype(str, Enum):
    """Precision of the model."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


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
    top_k: Annotated[int, typer.Option(min=1, help="How many labels for each file, at most.")] = 5,
    threshold: Annotated[float | None, typer.Option(help="Only labels with scores above this.")] = None,
    events: Annotated[bool, typer.Option("--events", help="Also what is heard from when to when.")] = False,
    event_threshold: Annotated[float, typer.Option(help="For events: their scores come above this.")] = 0.5,
    low_threshold: Annotated[
        float | None, typer.Option(help="For events: they go on above this (default: --event-threshold).")
    ] = None,
    median: Annotated[float, typer.Option(help="For events: length of a median filter, in seconds.")] = 0.0,
    gap: Annotated[float, typer.Option(help="For events: those so many seconds apart are one.")] = 0.0,
    min_duration: Annotated[float, typer.Option(help="For events: the shortest, in seconds.")] = 0.0,
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
    with_events = events or kind is Format.audacity
    with errors_in_one_line():
        from .pipeline_audio_tagging import BeatsAudioTaggingPipeline

        files = find_audio(inputs)
        if kind is Format.audacity or pictures:
            check_names(files)
        loaded, extractor = load_model(model, device, dtype)
        tagger = BeatsAudioTaggingPipeline(
            model=loaded,
            feature_extractor=extractor,
            device=loaded.device,
            window_seconds=window,
            hop_seconds=hop,
            batch_size=batch_size,
            progress=has_seconds_bar(files),
            top_k=top_k,
            threshold=threshold,
            return_events=with_events or pictures is not None,
            event_threshold=event_threshold,
            low_threshold=low_threshold,
            median_seconds=median,
            gap_seconds=gap,
            min_seconds=min_duration,
        )
        if pictures:
            make_directory(pictures, resume=True)
        writer = open_writer(kind, output, with_events, resume)

        def compute(files: list[AudioFile]) -> Iterator[Any]:
            return iter(tagger((file.path for file in files), batch_size=batch_size))

        def finish(file: AudioFile, result: Any) -> None:
            result = result if isinstance(result, dict) else {"labels": result}
            if pictures:
                draw(file, result["events"], extractor, pictures)
            writer.write(file, result if with_events else {"labels": result["labels"]})

        try:
            process(files, writer.is_done, compute, finish)
        finally:
            writer.close()


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
        from .modeling_beats import BeatsModel

        files = find_audio(inputs)
        inference = load_inference(files, model, device, dtype, window, hop, batch_size)
        if not isinstance(inference.model.base_model, BeatsModel):
            raise OutputError(f"A {type(inference.model).__name__} has no encoder that gives embeddings.")
        if columns:
            save_arrays(files, output, resume, lambda paths: map(join, inference.stream_embeddings_many(paths)))
        else:
            save_arrays(files, output, resume, inference.embed_many)


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
        inference = load_inference(files, model, device, dtype, window, hop, batch_size)
        if not hasattr(inference.model.config, "codebook_dim"):
            raise OutputError(f"A {type(inference.model).__name__} gives no tokens: --model must be a tokenizer.")

        save_arrays(files, output, resume, lambda paths: map(as_int32, inference.codes_many(paths)))


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Directory of a model, or its id on the Hub.")],
    labels: Annotated[bool, typer.Option("--labels", help="Print the labels, and nothing else.")] = False,
) -> None:
    """What a model is: its kind, size, labels, and the statistics of its filter bank."""
    with errors_in_one_line():
        loaded, extractor = load_model(model, "cpu", Dtype.auto)
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


def load_model(model: str, device: str, dtype: Dtype) -> tuple["PreTrainedModel", "BeatsFeatureExtractor"]:
    """A model of the kind that was saved, on its device, and its feature extractor."""
    import torch
    from transformers import AutoFeatureExtractor
    from transformers.utils import logging

    from .feature_extraction_beats import BeatsFeatureExtractor
    from .pipeline_audio_tagging import BeatsModelForTask

    logging.disable_progress_bar()
    # An id on the Hub has one slash at most.
    if not Path(model).exists() and (model.startswith((".", "/", "~")) or model.count("/") > 1):
        raise OutputError(f"{model}: no such directory.")
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        device = "cpu" if accelerator is None else accelerator.type
    extractor = AutoFeatureExtractor.from_pretrained(model)
    if not isinstance(extractor, BeatsFeatureExtractor):
        raise OutputError(f"{model}: its feature extractor is a {type(extractor).__name__}, it is no BEATs model.")
    loaded = BeatsModelForTask.from_pretrained(model, dtype=dtype.value)
    try:
        # A torch without CUDA fails with an AssertionError.
        return loaded.to(torch.device(device)), extractor
    except (RuntimeError, AssertionError) as error:
        raise OutputError(f"--device {device}: {first_line(error)}") from error


def load_inference(
    files: list[AudioFile], model: str, device: str, dtype: Dtype, window: float, hop: float | None, batch_size: int
) -> "WindowedInference":
    """A model for recordings of any length."""
    from .inference import WindowedInference

    return WindowedInference(*load_model(model, device, dtype), window, hop, batch_size, has_seconds_bar(files))


def has_seconds_bar(files: list[AudioFile]) -> bool:
    """Whether the progress bar counts seconds of a single file instead of files; none where nobody watches."""
    return len(files) == 1 and sys.stderr.isatty()


def save_arrays(
    files: list[AudioFile], output: Path, resume: bool, compute: Callable[[list[Path]], Iterator[Any]]
) -> None:
    """Computes an array of each file, and saves it as one .npy each."""
    import numpy as np

    from .files import replace_file

    check_names(files)
    make_directory(output, resume)

    def write(file: AudioFile, array: np.ndarray) -> None:
        path = file.result(output, ".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)

    process(
        files,
        lambda file: resume and file.result(output, ".npy").exists(),
        lambda files: compute([file.path for file in files]),
        write,
    )


def draw(file: AudioFile, events: list[dict[str, Any]], extractor: "BeatsFeatureExtractor", directory: Path) -> None:
    """The picture of a file."""
    from .events import Event
    from .timeline import draw_timeline, read_spectrogram

    path = file.result(directory, ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    spectrogram = read_spectrogram(file.path, extractor)
    draw_timeline(spectrogram, [Event(**event) for event in events], path, str(file.relative))


def process(
    files: list[AudioFile],
    is_done: Callable[[AudioFile], bool],
    compute: Callable[[list[AudioFile]], Iterator[Any]],
    write: Callable[[AudioFile, Any], None],
) -> None:
    """
    Goes through the files; `compute` gives their results, and after an error the next one's. Those that cannot be used
    are named at the end, and make the exit status 1; what cannot be written ends it at once.
    """
    from tqdm import tqdm

    todo = [file for file in files if not is_done(file)]
    if len(todo) < len(files):
        typer.echo(f"{len(files) - len(todo)} of {len(files)} files are done already.", err=True)
    failures, results = [], compute(todo)
    for file in tqdm(todo, unit="file", disable=True if has_seconds_bar(files) else None):
        try:
            result = next(results)
        except (ValueError, OSError) as error:
            message = first_line(error)
            failures.append(message if str(file.path) in message else f"{file.path}: {message}")
            continue
        write(file, result)
    if failures:
        typer.echo("\n".join(failures), err=True)
        typer.echo(f"{len(failures)} of {len(todo)} files could not be used.", err=True)
        raise typer.Exit(1)


def labels_of(model: "PreTrainedModel") -> dict[int, str]:
    """The labels of a classifier by index; none of other models, whose configurations have made-up ones."""
    id2label = model.config.id2label if "Classification" in type(model).__name__ else None
    return {int(index): label for index, label in (id2label or {}).items()}


def describe(model: "PreTrainedModel", extractor: "BeatsFeatureExtractor") -> dict[str, str]:
    """What `info` prints."""
    from .windows import column_samples

    config = model.config
    kind, saved = type(model).__name__, next(iter(config.architectures or []), None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    description = {
        "kind": kind if saved in (None, kind) else f"{kind}, of a {saved}",
        "parameters": f"{parameters:,} ({str(model.dtype).removeprefix('torch.')})",
        "encoder": f"{config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} heads"
        if hasattr(config, "num_hidden_layers")
        else "none",
        "audio": f"{extractor.sampling_rate} Hz mono, a column every "
        f"{1000 * column_samples(extractor) // extractor.sampling_rate} ms",
        "fbank": f"{extractor.feature_size} filters, mean {extractor.fbank_mean}, standard deviation "
        f"{extractor.fbank_std}",
    }
    if hasattr(config, "codebook_dim"):
        description["codebook"] = f"{config.codebook_size} codes of {config.codebook_dim}"
    if labels := labels_of(model):
        names = list(labels.values())
        shown = "; ".join(names[:10]) + ("; ... (all with --labels)" if len(names) > 10 else "")
        description["labels"] = f"{len(names)}, {config.problem_type or 'single-label'}: {shown}"
    return description


def first_line(error: BaseException) -> str:
    """The first line of what an exception says that is not empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def errors_in_one_line() -> Generator[None, None, None]:
    """Turns what users can put right into one line and exit status 1."""
    # Waiting threads sleep instead of spinning; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        typer.echo(f"error: {first_line(error)}", err=True)
        raise typer.Exit(1) from error


def main() -> None:
    """Command line entry."""
    app()


if __name__ == "__main__":
    sys.exit(main())
