# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Backends of a classifier against PyTorch and the published code, on a CPU: time from waveforms to probabilities, all in
turns in one process, size, and whether the results are the same. By default in base size with random weights, on
synthesised sounds; a path with `{fold}` is a model for each fold, which is tried on the clips of that fold.

    python -m benchmarks.backends --batch-size 1 --batch-size 4
    python -m benchmarks.backends --compile --variants --openvino --files
    python -m benchmarks.backends --model CHECKPOINT --dataset FOLDER --fold 1
    python -m benchmarks.backends --model 'runs/esc10_finetune/fold-{fold}' --dataset ESC10 --fold 1 --fold 2 ...
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
from scipy.stats import bootstrap

from benchmarks.clips import Clip, load_classifier, read_clips
from benchmarks.measuring import time_alternately
from benchmarks.options import make_clips
from benchmarks.peers import reference_style_classifier
from transformers_beats import BeatsFeatureExtractor, BeatsForAudioClassification
from transformers_beats.backends.choice import Backend
from transformers_beats.backends.encoder import (
    INPUT,
    SLOW_FUSIONS,
    OnnxEncoder,
    open_session,
    session_options,
    with_encoder,
)
from transformers_beats.backends.graphs import centered_cosine
from transformers_beats.export.onnx import export_onnx
from transformers_beats.fbank_beats import num_fbank_frames
from transformers_beats.inference.backend import in_backend
from transformers_beats.inference.results import to_scores
from transformers_beats.utils.errors import UsageError, errors_in_one_line
from transformers_beats.utils.machine import describe_machine, in_a_line


# From clips of one length to probabilities `(num_clips, num_labels)`.
Classify: TypeAlias = Callable[[list[np.ndarray]], np.ndarray]
REFERENCE, PYTORCH = "reference-style", "torch"
BACKENDS: tuple[Backend, ...] = ("onnx", "onnx-int8")
RESAMPLES = 2000


@torch.inference_mode()
def classify_with_model(model: Any, extractor: BeatsFeatureExtractor, clips: list[np.ndarray]) -> np.ndarray:
    inputs = extractor(clips, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    mask = inputs["attention_mask"]
    # As `WindowedInference` does it: none where there is no padding.
    logits = model(inputs["input_values"], attention_mask=None if mask.all() else mask).logits
    return to_scores(logits, model.config).numpy()


@torch.inference_mode()
def classify_as_published(classify: Callable[[list[torch.Tensor]], torch.Tensor], clips: list[np.ndarray]):
    return classify([torch.from_numpy(clip) for clip in clips]).numpy()


def classify_with_file(session: onnxruntime.InferenceSession, clips: list[np.ndarray]) -> np.ndarray:
    min_samples = int(session.get_modelmeta().custom_metadata_map["min_samples"])
    waveforms = np.zeros((len(clips), max(min_samples, *map(len, clips), 0)), dtype=np.float32)
    for row, clip in zip(waveforms, clips):
        row[: len(clip)] = clip
    inputs = {"waveforms": waveforms, "lengths": np.array([len(clip) for clip in clips])}
    probabilities: Any = session.run(["probabilities"], inputs)[0]
    return probabilities


class OpenVinoEncoder(OnnxEncoder):
    """The float32 encoder of another one in OpenVINO, with as many threads as PyTorch has."""

    def __init__(self, other: OnnxEncoder):
        import openvino  # ty: ignore[unresolved-import]

        super().__init__(other.path, other.config, "float32")
        settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
        # Otherwise bfloat16, where the CPU has it.
        settings["INFERENCE_PRECISION_HINT"] = "f32"
        self.compiled = openvino.Core().compile_model(str(other.path), "CPU", settings)

    def _run(self, columns: np.ndarray) -> np.ndarray:
        return self.compiled({INPUT: columns})[0]


def fix_sizes(options: onnxruntime.SessionOptions, num_columns: int) -> None:
    """Makes shapes static: one clip at a time, of one length."""
    options.add_free_dimension_override_by_name("batch", 1)
    options.add_free_dimension_override_by_name("columns", num_columns)


def optimise_less(options: onnxruntime.SessionOptions, num_columns: int) -> None:
    """Leaves out all fusions."""
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC


def keep_weights_as_they_are(options: onnxruntime.SessionOptions, num_columns: int) -> None:
    """Packs no weights in advance for the products of matrices."""
    options.add_session_config_entry("session.disable_prepacking", "1")


def spin(options: onnxruntime.SessionOptions, num_columns: int) -> None:
    """Lets threads spin while they wait."""
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")


def leave_as_it_is(options: onnxruntime.SessionOptions, num_columns: int) -> None:
    """Changes nothing: the variant leaves out other optimisers."""


GELU_FUSIONS = ["GeluFusionL1", "GeluFusionL2", "BiasGeluFusion", "FastGeluFusion"]
# What each changes in the options of the backend, and the optimisers that it leaves out.
VARIANTS: dict[str, tuple[Callable[[onnxruntime.SessionOptions, int], None], list[str]]] = {
    "static shapes": (fix_sizes, SLOW_FUSIONS),
    "all fusions": (leave_as_it_is, []),
    "no fused GELU": (leave_as_it_is, SLOW_FUSIONS + GELU_FUSIONS),
    "no fusions": (optimise_less, SLOW_FUSIONS),
    "weights not packed": (keep_weights_as_they_are, SLOW_FUSIONS),
    "spinning threads": (spin, SLOW_FUSIONS),
}


class VariantEncoder(OnnxEncoder):
    """The encoder of another one in onnxruntime with a variant of its options."""

    def __init__(self, other: OnnxEncoder, variant: str, num_columns: int):
        super().__init__(other.path, other.config, other.precision)
        change, left_out = VARIANTS[variant]
        options = session_options()
        change(options, num_columns)
        self.session = onnxruntime.InferenceSession(
            self.path, options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out
        )

    def _split(self, lengths: list[int], num_bands: int):
        # Static shapes are those of one clip.
        yield from (([row], length) for row, length in enumerate(lengths) if length)


def in_openvino(model: BeatsForAudioClassification) -> Any:
    replaced = in_backend(model, "onnx")
    replaced.beats = with_encoder(model.beats, OpenVinoEncoder(replaced.beats.encoder))
    return replaced


def engines(
    model: BeatsForAudioClassification,
    extractor: BeatsFeatureExtractor,
    with_files: bool,
    with_compile: bool,
    with_openvino: bool,
    with_variants: int | None,
) -> tuple[dict[str, Classify], dict[str, int]]:
    """What is compared, by name, and the bytes of its weights; variants are for clips of so many columns."""
    functions: dict[str, Classify] = {PYTORCH: partial(classify_with_model, model, extractor)}
    sizes = {PYTORCH: 4 * model.num_parameters()}
    for backend in BACKENDS:
        replaced = in_backend(model, backend)
        functions[backend] = partial(classify_with_model, replaced, extractor)
        sizes[backend] = Path(replaced.beats.encoder.path).stat().st_size
        for variant in VARIANTS if with_variants else ():
            name, varied = f"{backend}, {variant}", in_backend(model, backend)
            varied.beats = with_encoder(model.beats, VariantEncoder(replaced.beats.encoder, variant, with_variants))
            functions[name] = partial(classify_with_model, varied, extractor)
            sizes[name] = sizes[backend]
    if with_openvino:
        functions["openvino"] = partial(classify_with_model, in_openvino(model), extractor)
        sizes["openvino"] = sizes["onnx"]
    if with_files:
        with TemporaryDirectory() as directory:
            for name, is_int8 in (("file", False), ("file int8", True)):
                path = Path(directory, f"{name}.onnx")
                export_onnx(model, extractor, path, int8=is_int8)
                sizes[name] = path.stat().st_size
                functions[name] = partial(classify_with_file, open_session(path))
    if with_compile:
        import torch._inductor.config as inductor_config

        inductor_config.freezing = True
        for mode in (None, "max-autotune"):
            name = "compiled, freezing" + (f", {mode}" if mode else "")
            functions[name] = partial(classify_with_model, torch.compile(model, mode=mode), extractor)
            sizes[name] = sizes[PYTORCH]
    return functions, sizes


@torch.inference_mode()
def embed(classify: Classify, clip: np.ndarray) -> np.ndarray | None:
    """The embedding of a clip, `(1, hidden_size)`, by the model that `classify` has; None for a file."""
    model, *rest = classify.args  # ty: ignore[unresolved-attribute]
    if not isinstance(model, BeatsForAudioClassification):
        return None
    (extractor,) = rest
    inputs = extractor([clip], sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return model.beats(inputs["input_values"]).pooler_output.numpy()


def compare(reference: np.ndarray, found: np.ndarray, labels: list[int | None]) -> dict[str, Any]:
    """How near probabilities of clips are to PyTorch's, and how many are right."""
    classes = found.argmax(axis=1)
    result: dict[str, Any] = {
        "largest_difference": float(np.abs(found - reference).max()),
        "cosine": centered_cosine(reference, found),
        "same_class": float((classes == reference.argmax(axis=1)).mean()),
    }
    if None not in labels:
        right, expected = classes == np.array(labels), reference.argmax(axis=1) == np.array(labels)
        result["accuracy"] = float(right.mean())
        # One clip has no interval.
        if len(right) > 1:
            result["accuracy_interval"] = interval(right)
            result["change_interval"] = interval(right.astype(float) - expected)
    return result


def interval(values: np.ndarray) -> tuple[float, float]:
    """The interval of 95 % of a mean over clips: percentiles of a bootstrap."""
    found = bootstrap((values.astype(float),), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def make_table(rows: list[dict[str, Any]], times: dict[int, dict[str, float]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for header in ("", "size", "difference", "cosine", "embeddings", "same class", "accuracy"):
        table.add_column(header, justify="right" if header else "left")
    for batch_size in times:
        table.add_column(f"batch {batch_size}", justify="right")
        table.add_column(f"{REFERENCE} /", justify="right")
    for row in rows:
        cells = [row["name"], "", "", "", "", "", ""]
        if "cosine" in row:
            cells[1:6] = [
                f"{row['bytes'] / 1e6:,.1f} MB",
                f"{row['largest_difference']:.1e}",
                f"{row['cosine']:.5f}",
                f"{row['embeddings']:.5f}" if "embeddings" in row else "",
                f"{row['same_class']:.1%}",
            ]
        if "accuracy" in row:
            cells[6] = f"{row['accuracy']:.1%}"
        if "accuracy_interval" in row:
            low, high = row["accuracy_interval"]
            cells[6] += f" ({low:.1%} to {high:.1%})"
        for seconds in times.values():
            cells += [f"{1000 * seconds[row['name']]:,.0f} ms", f"{seconds[REFERENCE] / seconds[row['name']]:.2f}"]
        table.add_row(*cells)
    return table


def main(
    model: Annotated[
        str | None, typer.Option(help="Directory or Hub id of a classifier [base size, random weights]")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder with metadata.csv: file_name and, where known, label and fold")
    ] = None,
    fold: Annotated[list[int] | None, typer.Option(help="Which clips of --dataset are compared [all]")] = None,
    batch_size: Annotated[list[int], typer.Option(min=1, help="Synthesised clips that are timed at once")] = [1, 4],  # noqa: B006
    seconds: Annotated[float, typer.Option(help="Their length")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, help="Timed turns of each, after one for warming up")] = 5,
    layers: Annotated[int, typer.Option(help="Layers of the encoder with random weights")] = 12,
    files: Annotated[bool, typer.Option(help="Also files of `export`, from waveforms")] = False,
    compile: Annotated[bool, typer.Option(help="Also torch.compile with freezing, and max-autotune")] = False,
    variants: Annotated[bool, typer.Option(help="Also onnxruntime with other options, one at a time")] = False,
    openvino: Annotated[bool, typer.Option(help="Also OpenVINO, which must be installed")] = False,
) -> None:
    """Size, time and results of a model in each backend. Clips are compared alone."""
    with errors_in_one_line():
        if variants and dataset is not None:
            raise UsageError("--variants have static shapes, those of the clips that are timed: leave --dataset out.")
        if model is not None and "{fold}" in model and not (fold and dataset):
            raise UsageError("A model for each fold needs --dataset and --fold.")
        runs: list[tuple[str | None, list[int] | None]] = [(model, fold)]
        if model is not None and "{fold}" in model:
            runs = [(model.format(fold=number), [number]) for number in fold or []]
        found: dict[str, list[np.ndarray]] = {}
        embedded: dict[str, list[np.ndarray]] = {}
        labels: list[int | None] = []
        for name, folds in runs:
            classifier, extractor = load_classifier(name, layers)
            clips = [Clip(waveform) for waveform in make_clips(max(batch_size), seconds)]
            if dataset is not None:
                of_each = [
                    read_clips(dataset, number, classifier.config.id2label, extractor.sampling_rate)
                    for number in folds or [None]
                ]
                clips = [clip for part in of_each for clip in part]
            num_columns = num_fbank_frames(len(clips[0].waveform)) // classifier.config.patch_size
            functions, sizes = engines(
                classifier, extractor, files, compile, openvino, num_columns if variants else None
            )
            labels += [clip.label for clip in clips]
            for key, classify in functions.items():
                found.setdefault(key, []).extend(classify([clip.waveform]) for clip in clips)
                vectors = [embed(classify, clip.waveform) for clip in clips]
                embedded.setdefault(key, []).extend(vector for vector in vectors if vector is not None)
    published = partial(classify_as_published, reference_style_classifier(classifier))
    times = {}
    for size in batch_size:
        clips_at_once = make_clips(size, seconds)
        calls = {REFERENCE: partial(published, clips_at_once)}
        calls |= {key: partial(classify, clips_at_once) for key, classify in functions.items()}
        times[size] = time_alternately(calls, repeats, "cpu")
    probabilities = {key: np.concatenate(values) for key, values in found.items()}
    rows: list[dict[str, Any]] = [{"name": REFERENCE}]
    rows += [
        {"name": key, "bytes": sizes[key], **compare(probabilities[PYTORCH], values, labels)}
        for key, values in probabilities.items()
    ]
    for row in rows:
        if vectors := embedded.get(row["name"]):
            row["embeddings"] = centered_cosine(np.concatenate(embedded[PYTORCH]), np.concatenate(vectors))
        row["seconds"] = {size: of_size[row["name"]] for size, of_size in times.items()}
    machine = describe_machine("cpu") | {"onnxruntime": onnxruntime.__version__}
    title = f"clips of {seconds:g} s timed, {len(labels)} compared\n{in_a_line(machine)}"
    Console(width=160).print(make_table(rows, times, title))
    print(json.dumps({"machine": machine, "clips": len(labels), "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
