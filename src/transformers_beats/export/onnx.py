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

import copy
import importlib
import json
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.fx.experimental import _config as fx_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from transformers_beats import BeatsFeatureExtractor, BeatsRandomProjectionTokenizer, __version__
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.inference.windows import column_samples, step_samples
from transformers_beats.utils.files import replace_file, work_directory
from transformers_beats.utils.fingerprint import model_fingerprint
from transformers_beats.utils.numbers import format_number

from .checks import check
from .waveform_model import INPUTS, ExportError, WaveformModel


if TYPE_CHECKING:
    from onnx import ModelProto


# The first opset whose DFT takes its axis as an input, which is what PyTorch writes.
OPSET = 20
TOLERANCE = 1e-4
CODES_TOLERANCE = 0.01
# An int8 file that is less similar is refused.
MIN_SIMILARITY = 0.95
MIN_EQUAL_CODES = 0.5
# Nearly all weights and products. The filter bank, the gates of the position bias, the codebook and the classifier are
# small and keep float32.
QUANTIZED_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


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


def exportable_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Copies a model to the CPU, with attention that exports and without weights that each run would compute."""
    # Not `copy.deepcopy`: removing a parametrisation from such a copy would remove it from the model, too.
    duplicate = type(model)(copy.deepcopy(model.config)).eval()
    duplicate.load_state_dict(model.state_dict())
    if not isinstance(duplicate, BeatsRandomProjectionTokenizer):
        duplicate.set_attn_implementation("sdpa")
    for submodule in duplicate.modules():
        if parametrize.is_parametrized(submodule, "weight"):
            parametrize.remove_parametrizations(submodule, "weight")
    return duplicate


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


@contextmanager
def tracing() -> Generator[None, None, None]:
    """Settings under which PyTorch traces the model, once here and again when it writes the ONNX graph."""
    # A batch of one or a single column is no case of its own; the fused CPU attention has no translation to ONNX.
    any_size = fx_config.patch(backed_size_oblivious=True)  # ty: ignore[missing-attribute]
    with any_size, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


def export_program(module: WaveformModel) -> torch.export.ExportedProgram:
    """
    Exports a model with `torch.export`, for any batch and length: `export_program(module).module()` runs it on the
    CPU. The program is a copy in evaluation mode, whatever mode, device and attention `module` has, which stays as it
    is.
    """
    return trace(WaveformModel(exportable_copy(module.model), module.feature_extractor).eval())


def trace(module: WaveformModel) -> torch.export.ExportedProgram:
    """Traces a module whose model is an [`exportable_copy`]."""
    with tracing():
        return torch.export.export(
            module,
            example_inputs(module),
            dynamic_shapes=dynamic_shapes(module),
            # What PyTorch cannot prove of the shapes for all lengths is checked when the program runs.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def build_graph(module: WaveformModel, program: torch.export.ExportedProgram) -> "ModelProto":
    """Converts a program to an ONNX graph in float32, whose nodes name the modules that they come from."""
    with quiet(), tracing():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=module.output_names,
            dynamic_shapes=dynamic_shapes(module),
            verbose=False,
        )
    assert converted is not None
    model = converted.model_proto
    for key, value in metadata(module).items():
        model.metadata_props.add(key=key, value=value)
    return model


@contextmanager
def quiet() -> Generator[None, None, None]:
    """Silences the advice of exporter and quantiser: to install torchvision, to optimise the graph first."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def layers_to_quantize(model: "ModelProto") -> list[str]:
    """Returns the names of the nodes that are products with weights of `QUANTIZED_LAYERS`."""
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm")
        for entry in node.metadata_props
        if entry.key == "pkg.torch.onnx.name_scopes" and any(f".{layer}'" in entry.value for layer in QUANTIZED_LAYERS)
    ]


def write_int8(model: "ModelProto", nodes: list[str], path: Path) -> None:
    """Writes `model` with int8 weights for `nodes`, whose inputs are quantised when it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not nodes:
        raise ExportError("This model has no layers for int8: export it without.")
    # 7 bits: on CPUs without VNNI the sums of 8-bit products saturate, which a test on another CPU does not show.
    with quiet():
        quantize_dynamic(
            model,
            path,
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )


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
        [`ExportError`]: for a model that cannot be exported, a graph whose results differ by more than 1e-4, or in
            more than 1 % of the codes, and an int8 file whose similarity to the model is below 0.95 (codes: 0.5).
        `ImportError`: if `onnx`, `onnxscript` or `onnxruntime` is missing.
    """
    require_exporters()
    import onnx

    output = Path(output)
    # Refuses what cannot be exported before it is copied.
    model = WaveformModel(model, feature_extractor).model
    module = WaveformModel(exportable_copy(model), feature_extractor).eval()
    graph = build_graph(module, trace(module))
    graph.metadata_props.add(key="model_fingerprint", value=model_fingerprint(model, feature_extractor))
    nodes = layers_to_quantize(graph)
    for node in graph.graph.node:
        # Stack traces with the paths of this machine.
        del node.metadata_props[:]
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


def require_exporters() -> None:
    """Raises an `ImportError` before the work for a missing package, one of which is needed only at the end."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"{error}. The export needs: pip install 'transformers-beats[onnx]'") from error
