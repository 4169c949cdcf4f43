# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Export to one ONNX file, from waveforms to results, filter bank included:

    transformers-beats export MODEL OUTPUT.onnx [--int8]

Inputs are `waveforms` `(batch, samples)`, float32 with full scale at 1.0, and `lengths` `(batch,)`, int64: how many
samples of each row are audio. The rest of a row is ignored, so that clips of different lengths go into one batch and,
in float32, each gives the result that it gives alone. In int8, the inputs of a layer have one scale for the whole
batch, padding included: run clips one by one for reproducible results. Both dimensions are free, except that rows need
`min_samples` (2,800: one column of patches); `lengths` may be less.

| model | outputs |
| --- | --- |
| `BeatsForAudioClassification` | `logits`, `probabilities` `(batch, labels)` |
| `BeatsForAudioFrameClassification` | `logits`, `probabilities` `(batch, columns, labels)`, `column_attention_mask` |
| `BeatsModel`, `BeatsForPreTraining` | `last_hidden_state` `(batch, patches, hidden_size)`, `pooler_output` `(batch, hidden_size)`, `patch_attention_mask` |
| tokenizers | `audio_codes` `(batch, columns, num_freq_patches)`, -100 on padding |

Metadata of the file: `labels` (JSON), `sampling_rate`, `min_samples`, `column_samples` (from one column to the next:
2,560, or 640 for scores every 40 ms), `num_freq_patches`, `problem_type`, `architecture`, `model_fingerprint` and
`transformers_beats_version`.
`examples/onnx_inference.py` uses them without this package.
"""  # noqa: E501

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from transformers_beats import BeatsFeatureExtractor, __version__
from transformers_beats.backends import graphs
from transformers_beats.backends.graphs import (
    MIN_SIMILARITY,
    TOLERANCE,
    ExportError,
    exportable_copy,
    layers_to_quantize,
    remove_origins,
    require_exporters,
    write_int8,
)
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.inference.windows import column_samples, step_samples
from transformers_beats.utils.files import check_absent, replace_file, work_directory
from transformers_beats.utils.fingerprint import model_fingerprint
from transformers_beats.utils.numbers import format_number

from .checks import check
from .waveform_model import INPUTS, WaveformModel


if TYPE_CHECKING:
    from onnx import ModelProto


CODES_TOLERANCE = 0.01
# An int8 file with less equal codes is refused.
MIN_EQUAL_CODES = 0.5


@dataclass
class OnnxExport:
    """
    Result of an export.

    Args:
        path (`Path`):
            The file.
        outputs (`list[str]`):
            Names of its outputs.
        difference (`float`):
            Largest difference between onnxruntime and PyTorch on [`check_sounds`], float32 graph; see [`Comparison`].
        similarity (`float`, *optional*):
            Similarity of the first output of an int8 file to PyTorch's; see [`Comparison`].
        same_class (`float`, *optional*):
            Share of the sounds, or of their columns, to which an int8 classifier gives PyTorch's likeliest label.
    """

    path: Path
    outputs: list[str]
    difference: float
    similarity: float | None = None
    same_class: float | None = None


def example_inputs(module: WaveformModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns waveforms and lengths of two clips of noise, one and two columns long."""
    num_samples = module.min_samples + column_samples(module.feature_extractor)
    waveforms = torch.randn(2, num_samples, generator=torch.Generator().manual_seed(0)) * 0.1
    return waveforms, torch.tensor([num_samples, module.min_samples])


def dynamic_shapes(module: WaveformModel) -> tuple[dict[int, torch.export.Dim], dict[int, torch.export.Dim]]:
    """Free dimensions for `torch.export` and `torch.onnx`: any batch, any length from `min_samples` on."""
    batch, samples = torch.export.Dim("batch"), torch.export.Dim("samples", min=module.min_samples)
    return {0: batch, 1: samples}, {0: batch}


def metadata(module: WaveformModel) -> dict[str, str]:
    """Metadata of the file, see the module's docstring; without the fingerprint."""
    config: Any = module.model.config
    extractor = module.feature_extractor
    entries = {
        "architecture": type(module.model).__name__,
        "transformers_beats_version": __version__,
        "sampling_rate": str(extractor.sampling_rate),
        "min_samples": str(module.min_samples),
        "column_samples": str(
            step_samples(config, extractor) if module.kind == "frames" else column_samples(extractor)
        ),
        "num_freq_patches": str(config.num_freq_patches),
    }
    if "logits" in module.output_names:
        entries["labels"] = json.dumps([config.id2label[index] for index in range(config.num_labels)])
        entries["problem_type"] = problem_type_of(module.model.config)
    return entries


def export_program(module: WaveformModel) -> torch.export.ExportedProgram:
    """
    Exports a model with `torch.export`, for any batch and length: `export_program(module).module()` runs it on the
    CPU. The program is a copy in evaluation mode, whatever mode, device and attention `module` has, which stays as it
    is.
    """
    return trace(WaveformModel(exportable_copy(module.model), module.feature_extractor).eval())


def trace(module: WaveformModel) -> torch.export.ExportedProgram:
    """Traces a module whose model is an [`exportable_copy`]."""
    return graphs.trace(module, example_inputs(module), dynamic_shapes(module))


def build_graph(module: WaveformModel, program: torch.export.ExportedProgram) -> "ModelProto":
    """Converts a program to an ONNX graph in float32 with its [`metadata`]."""
    model = graphs.to_graph(program, INPUTS, module.output_names, dynamic_shapes(module))
    for key, value in metadata(module).items():
        model.metadata_props.add(key=key, value=value)
    return model


def export_onnx(
    model: PreTrainedModel,
    feature_extractor: BeatsFeatureExtractor,
    output: str | Path,
    int8: bool = False,
) -> OnnxExport:
    """
    Writes a model as an ONNX file after checking that onnxruntime computes from it what PyTorch computes.

    Args:
        model (`PreTrainedModel`):
            A classifier, encoder or tokenizer of this package. It is not changed.
        feature_extractor ([`BeatsFeatureExtractor`]):
            The model's.
        output (`str` or `Path`):
            The file; an older one is replaced. It is never seen half-written.
        int8 (`bool`, defaults to `False`):
            Whether the linear layers of the encoder get int8 weights and, at run time, int8 inputs (dynamic
            quantisation): less than a third of the size. Everything else stays float32.

    Returns:
        [`OnnxExport`]

    Raises:
        [`UsageError`]: if the file cannot be written.
        [`ExportError`]: for a model that cannot be exported, a graph whose results differ by more than 1e-4, or in
            more than 1 % of the codes, and an int8 file whose similarity to the model is below 0.95 (codes: 0.5).
        `ImportError`: if `onnx`, `onnxscript` or `onnxruntime` is missing.
    """
    require_exporters()
    import onnx

    output = Path(output)
    check_absent(output, overwrite=True)
    # Refuses what cannot be exported before it is copied.
    model = WaveformModel(model, feature_extractor).model
    module = WaveformModel(exportable_copy(model), feature_extractor).eval()
    graph = build_graph(module, trace(module))
    graph.metadata_props.add(key="model_fingerprint", value=model_fingerprint(model, feature_extractor))
    nodes = layers_to_quantize(graph)
    remove_origins(graph)
    output.parent.mkdir(parents=True, exist_ok=True)
    with work_directory(output.parent, ".exporting-") as work:
        onnx.save(graph, work / "model.onnx")
        is_tokenizer = module.output_names == ["audio_codes"]
        difference = check(work / "model.onnx", module).difference
        if difference > (CODES_TOLERANCE if is_tokenizer else TOLERANCE):
            raise ExportError(f"The exported graph differs from PyTorch by {difference:.1e}.")
        similarity = same_class = None
        if int8:
            write_int8(graph, nodes, work / "int8.onnx")
            _, similarity, same_class = check(work / "int8.onnx", module)
            if similarity < (minimum := MIN_EQUAL_CODES if is_tokenizer else MIN_SIMILARITY):
                measure = "share of equal codes" if is_tokenizer else "cosine"
                raise ExportError(
                    f"The int8 file differs too much from the model, {measure} {format_number(similarity)} on test "
                    f"sounds, less than {minimum}: export it without int8."
                )
        with replace_file(output) as temporary:
            (work / ("int8.onnx" if int8 else "model.onnx")).replace(temporary)
    return OnnxExport(output, module.output_names, difference, similarity, same_class)
