# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
A classifier exported to ONNX, in float32 and in int8, against PyTorch: size, CPU time from waveforms to logits, and
whether the results are the same. By default in base size with random weights, on synthesised sounds.

    python -m benchmarks.onnx_against_torch
    python -m benchmarks.onnx_against_torch --model CHECKPOINT --dataset FOLDER --fold 1
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeAlias

import numpy as np
import onnxruntime
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.clips import Clip, load_classifier, read_clips
from benchmarks.measuring import time_alternately
from benchmarks.options import make_clips
from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.export.checks import cosine
from transformers_beats.export.onnx import export_onnx
from transformers_beats.utils.errors import errors_in_one_line
from transformers_beats.utils.machine import describe_machine, in_a_line


# From clips to logits `(num_clips, num_labels)`.
Classify: TypeAlias = Callable[[list[np.ndarray]], np.ndarray]


def classify_with_torch(
    model: BeatsForAudioClassification, extractor: BeatsFeatureExtractor, clips: list[np.ndarray]
) -> np.ndarray:
    inputs = extractor(clips, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).logits.numpy()


def classify_with_onnx(session: onnxruntime.InferenceSession, clips: list[np.ndarray]) -> np.ndarray:
    min_samples = int(session.get_modelmeta().custom_metadata_map["min_samples"])
    waveforms = np.zeros((len(clips), max(min_samples, *map(len, clips), 0)), dtype=np.float32)
    for row, clip in zip(waveforms, clips):
        row[: len(clip)] = clip
    inputs = {"waveforms": waveforms, "lengths": np.array([len(clip) for clip in clips])}
    logits: Any = session.run(["logits"], inputs)[0]
    return logits


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """With as many threads as PyTorch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait would take the cores from PyTorch's turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def compare(reference: np.ndarray, logits: np.ndarray, labels: list[int | None]) -> dict[str, float | None]:
    """How near logits of clips are to PyTorch's, and how many are right."""
    classes = logits.argmax(axis=1)
    # What is common to all clips says nothing of what the model hears.
    center = reference.mean(axis=0)
    return {
        "largest_difference": float(np.abs(logits - reference).max()),
        "cosine": cosine(reference - center, logits - center),
        "same_class": float((classes == reference.argmax(axis=1)).mean()),
        "accuracy": None if None in labels else float((classes == np.array(labels)).mean()),
    }


def make_table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for header in ("", "size", "time", "/ PyTorch", "/ float32", "difference", "cosine", "same class"):
        table.add_column(header, justify="right" if header else "left", no_wrap=True)
    table.add_column("accuracy", justify="right")
    torch_seconds, onnx_seconds = rows[0]["seconds"], rows[1]["seconds"]
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['bytes'] / 1e6:,.1f} MB",
            f"{1000 * row['seconds']:,.1f} ms",
            f"{row['seconds'] / torch_seconds:.2f}",
            f"{row['seconds'] / onnx_seconds:.2f}",
            f"{row['largest_difference']:.1e}",
            f"{row['cosine']:.5f}",
            f"{row['same_class']:.1%}",
            "" if row["accuracy"] is None else f"{row['accuracy']:.1%}",
        )
    return table


def main(
    model: Annotated[
        str | None, typer.Option(help="Directory or Hub id of a classifier [base size, random weights]")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder with metadata.csv: file_name and, where known, label and fold")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Which clips of --dataset are compared [all]")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Synthesised clips that are timed at once")] = 4,
    seconds: Annotated[float, typer.Option(help="Their length")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, help="Timed turns of each, after one for warming up")] = 5,
    layers: Annotated[int, typer.Option(help="Layers of the encoder with random weights")] = 12,
) -> None:
    """Size, time and results of a model in PyTorch, of its ONNX file, and of one in int8. Clips are compared alone."""
    synthesised = make_clips(batch_size, seconds)
    clips = [Clip(waveform) for waveform in synthesised]
    with errors_in_one_line():
        classifier, extractor = load_classifier(model, layers)
        if dataset is not None:
            clips = read_clips(dataset, fold, classifier.config.id2label, extractor.sampling_rate)
        with TemporaryDirectory() as directory:
            files = {"float32": Path(directory, "float32.onnx"), "int8": Path(directory, "int8.onnx")}
            for name, path in files.items():
                export_onnx(classifier, extractor, path, int8=name == "int8")
            sizes = [4 * classifier.num_parameters(), *(path.stat().st_size for path in files.values())]
            sessions = {f"onnxruntime {name}": open_session(path) for name, path in files.items()}

    functions: dict[str, Classify] = {"PyTorch float32": partial(classify_with_torch, classifier, extractor)}
    functions |= {name: partial(classify_with_onnx, session) for name, session in sessions.items()}
    logits = {
        name: np.concatenate([classify([clip.waveform]) for clip in clips]) for name, classify in functions.items()
    }
    times = time_alternately(
        {name: partial(classify, synthesised) for name, classify in functions.items()}, repeats, "cpu"
    )
    reference, labels = logits["PyTorch float32"], [clip.label for clip in clips]
    rows = [
        {"name": name, "bytes": size, "seconds": times[name], **compare(reference, logits[name], labels)}
        for name, size in zip(functions, sizes)
    ]
    machine = describe_machine("cpu") | {"onnxruntime": onnxruntime.__version__}
    title = f"{batch_size} clips of {seconds:g} s timed, {len(clips)} compared\n{in_a_line(machine)}"
    Console(width=120).print(make_table(rows, title))
    print(json.dumps({"machine": machine, "batch_size": batch_size, "clips": len(clips), "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
