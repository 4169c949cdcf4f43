# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
BEATs as one ONNX file, from waveforms to results, filter banks included:

    python -m transformers_beats.export.onnx MODEL OUTPUT.onnx [--int8]

Inputs are `waveforms` `(batch, samples)`, float32 with full scale at 1.0, and `lengths` `(batch,)`, int64: how many
samples of each row are audio. The rest of a row is not looked at, so that clips of different lengths go into one batch
and, in float32, each gives what it gives alone. In int8, the inputs of a layer have one scale for the whole batch,
padding included: run clips one by one for results that depend on nothing else. Both dimensions are free, except that
rows need `min_samples` (2,800: one column of patches); `lengths` may be less.

| model | outputs |
| --- | --- |
| `BeatsForAudioClassification` | `logits`, `probabilities` `(batch, labels)` |
| `BeatsForAudioFrameClassification` | `logits`, `probabilities` `(batch, columns, labels)`, `column_attention_mask` |
| `BeatsModel`, `BeatsForPreTraining` | `last_hidden_state` `(batch, patches, hidden_size)`, `pooler_output` `(batch, hidden_size)`, `patch_attention_mask` |
| tokenizers | `audio_codes` `(batch, columns, num_freq_patches)`, -100 on padding |

The metadata of the file says what a user needs to know: `labels` (JSON), `sampling_rate`, `min_samples`,
`column_samples` (from one column to the next), `num_freq_patches`, `problem_type`, `architecture` and
`transformers_beats_version`. `examples/onnx_inference.py` uses it without this package.
"""  # noqa: E501

import copy
import importlib
import json
import logging
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from safetensors import SafetensorError
from torch import nn
from torch.fx.experimental import _config as fx_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from transformers import AutoConfig, PreTrainedModel

from transformers_beats import (
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsTokenizerModel,
    __version__,
)
from transformers_beats.configuration_beats import problem_type_of
from transformers_beats.feature_extraction_beats import fbank_constants, kaldi_fbank_block, num_fbank_samples
from transformers_beats.inference.loading import first_line
from transformers_beats.inference.windowed import to_scores
from transformers_beats.inference.windows import column_samples
from transformers_beats.utils.files import replace_file, work_directory

from .checks import INPUTS, ExportError, check


if TYPE_CHECKING:
    from onnx import ModelProto


# From the class in a configuration to the class to load: of a pre-training checkpoint, what it was for.
MODEL_CLASSES: dict[str, type[PreTrainedModel]] = {
    "BeatsModel": BeatsModel,
    "BeatsForPreTraining": BeatsModel,
    "BeatsForAudioClassification": BeatsForAudioClassification,
    "BeatsForAudioFrameClassification": BeatsForAudioFrameClassification,
    "BeatsTokenizerModel": BeatsTokenizerModel,
    "BeatsTokenizerForPreTraining": BeatsTokenizerModel,
    "BeatsRandomProjectionTokenizer": BeatsRandomProjectionTokenizer,
}
# The first opset whose DFT takes its axis as an input, which is what PyTorch writes.
OPSET = 20
TOLERANCE = 1e-4
CODES_TOLERANCE = 0.01
# An int8 file below is not the model any more.
MIN_SIMILARITY = 0.95
MIN_EQUAL_CODES = 0.5
# What int8 pays for: nearly all weights and products. The filter bank, the gates of the position bias, the codebook
# and the classifier are small and keep float32.
QUANTIZED_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@dataclass
class OnnxExport:
    """
    What was written.

    Args:
        path (`Path`):
            The file.
        outputs (`list[str]`):
            Names of its outputs.
        difference (`float`):
            Largest difference between onnxruntime and PyTorch on [`check_sounds`], float32 graph; see [`Comparison`].
        similarity (`float`, *optional*):
            Of an int8 file, how near its first output is to PyTorch's; see [`Comparison`].
        same_class (`float`, *optional*):
            Of an int8 classifier, the share of the sounds, or of their columns, with PyTorch's likeliest label.
    """

    path: Path
    outputs: list[str]
    difference: float
    similarity: float | None = None
    same_class: float | None = None


class WaveformModel(nn.Module):
    """
    A model with its feature extractor in front, all in tensor operations: what is exported. It computes what
    [`BeatsFeatureExtractor`] and the model compute, for any batch and length.

    Args:
        model (`PreTrainedModel`):
            A model of this package in float32, in evaluation mode.
        feature_extractor ([`BeatsFeatureExtractor`]):
            The model's.

    Raises:
        [`ExportError`]: a model of another kind or dtype, an extractor of another patch size, or the legacy padding
            mask.
    """

    def __init__(self, model: PreTrainedModel, feature_extractor: BeatsFeatureExtractor):
        super().__init__()
        config = model.config
        if not isinstance(model, tuple(MODEL_CLASSES.values())):
            raise ExportError(f"A {type(model).__name__} cannot be exported; these can: {', '.join(MODEL_CLASSES)}.")
        if model.dtype != torch.float32:
            raise ExportError(f"The model is in {model.dtype}: export it in float32 (`model.float()`).")
        if feature_extractor.patch_size != config.patch_size or feature_extractor.feature_size != config.num_mel_bins:
            raise ExportError("The feature extractor is not the model's: `patch_size` or number of mel bins differ.")
        if feature_extractor.legacy_padding_mask or config.legacy_padding_mask:
            raise ExportError("`legacy_padding_mask` depends on the length of the batch: export without it.")
        self.model = model
        self.feature_extractor = feature_extractor
        self.min_samples = num_fbank_samples(config.patch_size, feature_extractor.sampling_rate)

    @property
    def output_names(self) -> list[str]:
        """What `forward` returns, in its order."""
        if isinstance(self.model, BeatsModel):
            return ["last_hidden_state", "pooler_output", "patch_attention_mask"]
        if isinstance(self.model, (BeatsTokenizerModel, BeatsRandomProjectionTokenizer)):
            return ["audio_codes"]
        names = ["logits"] if problem_type_of(self.model.config) == "regression" else ["logits", "probabilities"]
        return names + ["column_attention_mask"] * isinstance(self.model, BeatsForAudioFrameClassification)

    def features(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            waveforms (`torch.Tensor` of shape `(batch_size, num_samples)`):
                Float32, full scale at 1.0, at least `min_samples` of them.
            lengths (`torch.LongTensor` of shape `(batch_size,)`):
                Samples of audio in each row.

        Returns:
            The normalised filter bank `(batch_size, num_frames, num_mel_bins)` and its mask `(batch_size,
            num_frames)`, boolean: what the feature extractor gives.
        """
        extractor = self.feature_extractor
        sample_index = torch.arange(waveforms.shape[1], device=waveforms.device)
        waveforms = waveforms.masked_fill(sample_index >= lengths.unsqueeze(1), 0.0)
        # Without a choice of blocks by length, which would not export for any length.
        constants = fbank_constants(extractor.feature_size, extractor.sampling_rate, waveforms.device)
        fbank = kaldi_fbank_block(waveforms, *constants)
        fbank = (fbank - extractor.fbank_mean) / (2 * extractor.fbank_std)
        # A frame counts if its last sample does. A shorter clip counts as if silence up to one column belonged to it.
        frame_index = torch.arange(fbank.shape[1], device=fbank.device)
        first = num_fbank_samples(1, extractor.sampling_rate)
        shift = num_fbank_samples(2, extractor.sampling_rate) - first
        mask = frame_index * shift + first <= lengths.clamp(min=self.min_samples).unsqueeze(1)
        return fbank.masked_fill(~mask.unsqueeze(-1), extractor.padding_value), mask

    def forward(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        input_values, mask = self.features(waveforms, lengths)
        outputs = self.model(input_values, attention_mask=mask, return_dict=True)
        if "probabilities" in self.output_names:
            outputs["probabilities"] = to_scores(outputs["logits"], self.model.config)
        return tuple(outputs[name] for name in self.output_names)


def load_model(name: str, revision: str = "main") -> PreTrainedModel:
    """
    The model of a directory or Hub repository, of the class that its configuration names, in evaluation mode.

    Raises:
        [`ExportError`]: if it holds no model of this package, or not all of it, or cannot be read.
    """
    with reading(name):
        architectures = AutoConfig.from_pretrained(name, revision=revision).architectures or []
    model_class = next((MODEL_CLASSES[found] for found in architectures if found in MODEL_CLASSES), None)
    if model_class is None:
        raise ExportError(f"{name}: holds {', '.join(architectures) or 'no known model'}, which cannot be exported.")
    with reading(name):
        loaded: Any = model_class.from_pretrained(
            name, revision=revision, dtype=torch.float32, output_loading_info=True
        )
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        raise ExportError(f"{name}: lacks the tensors {', '.join(missing[:5])}.")
    return model.eval()


@contextmanager
def reading(name: str) -> Generator[None, None, None]:
    """Turns what transformers raises for a checkpoint that is missing, damaged or foreign into an [`ExportError`]."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ExportError(f"{name}: {first_line(error)}") from error


def exportable_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The model on the CPU, with one attention for all, and without weights that would be computed in each run."""
    # Not `copy.deepcopy`: what removes a parametrisation from the copy would take it from the model, too.
    duplicate = type(model)(copy.deepcopy(model.config)).eval()
    duplicate.load_state_dict(model.state_dict())
    if not isinstance(duplicate, BeatsRandomProjectionTokenizer):
        duplicate.set_attn_implementation("sdpa")
    for submodule in duplicate.modules():
        if parametrize.is_parametrized(submodule, "weight"):
            parametrize.remove_parametrizations(submodule, "weight")
    return duplicate


def example_inputs(module: WaveformModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Two clips of noise, one and two columns long: waveforms and lengths."""
    num_samples = module.min_samples + column_samples(module.feature_extractor)
    waveforms = torch.randn(2, num_samples, generator=torch.Generator().manual_seed(0)) * 0.1
    return waveforms, torch.tensor([num_samples, module.min_samples])


def dynamic_shapes(module: WaveformModel) -> tuple[dict[int, torch.export.Dim], dict[int, torch.export.Dim]]:
    """For `torch.export.export` and `torch.onnx.export`: any batch, any length from `min_samples` on."""
    batch, samples = torch.export.Dim("batch"), torch.export.Dim("samples", min=module.min_samples)
    return {0: batch, 1: samples}, {0: batch}


def metadata(module: WaveformModel) -> dict[str, str]:
    """What stands in the file beside the graph."""
    config: Any = module.model.config
    extractor = module.feature_extractor
    entries = {
        "architecture": type(module.model).__name__,
        "transformers_beats_version": __version__,
        "sampling_rate": str(extractor.sampling_rate),
        "min_samples": str(module.min_samples),
        "column_samples": str(column_samples(extractor)),
        "num_freq_patches": str(config.num_freq_patches),
    }
    if "logits" in module.output_names:
        entries["labels"] = json.dumps([config.id2label[index] for index in range(config.num_labels)])
        entries["problem_type"] = problem_type_of(module.model.config)
    return entries


@contextmanager
def tracing() -> Generator[None, None, None]:
    """How PyTorch must trace the model, here and again when it writes the ONNX graph."""
    # A batch of one or a single column is no case of its own; the fused CPU attention has no translation to ONNX.
    any_size = fx_config.patch(backed_size_oblivious=True)  # ty: ignore[missing-attribute]
    with any_size, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


def export_program(module: WaveformModel) -> torch.export.ExportedProgram:
    """
    The model as PyTorch exports it, for any batch and length: `export_program(module).module()` runs it, on the CPU.
    It is a copy in evaluation mode, whatever the mode, device and attention of `module`, which stays as it is.
    """
    return trace(WaveformModel(exportable_copy(module.model), module.feature_extractor).eval())


def trace(module: WaveformModel) -> torch.export.ExportedProgram:
    """The program of a module whose model is an [`exportable_copy`]."""
    with tracing():
        return torch.export.export(
            module,
            example_inputs(module),
            dynamic_shapes=dynamic_shapes(module),
            # What PyTorch cannot prove of the shapes for all lengths is checked when the program runs.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def build_graph(module: WaveformModel, program: torch.export.ExportedProgram) -> "ModelProto":
    """The ONNX graph of a program in float32. Its nodes say from which modules they come, as PyTorch writes it."""
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
    """Without the advice of exporter and quantiser: to install torchvision, to optimise the graph first."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def layers_to_quantize(model: "ModelProto") -> list[str]:
    """Names of the nodes that are products with the weights of [`QUANTIZED_LAYERS`]."""
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm")
        and any(f".{layer}'" in scopes for scopes in _name_scopes(node) for layer in QUANTIZED_LAYERS)
    ]


def _name_scopes(node) -> list[str]:
    return [entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]


def write_int8(model: "ModelProto", nodes: list[str], path: Path) -> None:
    """Writes `model` with int8 weights for `nodes`, whose inputs are quantised when it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not nodes:
        raise ExportError("This model has no layers for int8: export it without.")
    # 7 bits: on CPUs without VNNI the sums of 8-bit products saturate, which no test on another CPU shows.
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
    Writes a model as an ONNX file, whole or not at all, once onnxruntime has computed from it what PyTorch computes.

    Args:
        model (`PreTrainedModel`):
            A classifier, encoder or tokenizer of this package. It stays as it is.
        feature_extractor ([`BeatsFeatureExtractor`]):
            The model's.
        output (`str` or `Path`):
            The file; an older one is replaced.
        int8 (`bool`, defaults to `False`):
            Whether the linear layers of the encoder get int8 weights and, at run time, int8 inputs (dynamic
            quantisation): less than a third of the size. Everything else stays float32.

    Returns:
        [`OnnxExport`]

    Raises:
        [`ExportError`]: a model that cannot be exported, a graph whose results differ by more than 1e-4, or in more
            than 1 % of the codes, or an int8 file whose similarity to the model is below 0.95 (codes: 0.5).
        `ImportError`: if `onnx`, `onnxscript` or `onnxruntime` is missing.
    """
    require_exporters()
    import onnx

    output = Path(output)
    # Refuses what cannot be exported before it is copied.
    WaveformModel(model, feature_extractor)
    module = WaveformModel(exportable_copy(model), feature_extractor).eval()
    graph = build_graph(module, trace(module))
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
                    f"The int8 file is not the model any more, {measure} {similarity:.3f} on test sounds, less than "
                    f"{minimum}: export it without int8."
                )
        with replace_file(output) as temporary:
            (work / ("int8.onnx" if int8 else "model.onnx")).replace(temporary)
    return OnnxExport(output, module.output_names, difference, similarity, same_class)


def require_exporters() -> None:
    """Raises an `ImportError` for what is missing before the work, of which one is needed only at the end."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        importlib.import_module(name)


def main(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="Directory or Hub id of a model of this package.")],
    output: Annotated[Path, typer.Argument(help="File to write (.onnx).")],
    int8: Annotated[bool, typer.Option("--int8", help="Int8 weights, and int8 products at run time.")] = False,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit on the Hub.")] = "main",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
) -> None:
    """Export a BEATs model (encoder, classifier or tokenizer) to ONNX, from waveforms to results."""
    try:
        if output.exists() and not overwrite:
            raise ExportError(f"{output}: exists; pass --overwrite to replace it.")
        require_exporters()
        model = load_model(source, revision)
        with reading(source):
            extractor = BeatsFeatureExtractor.from_pretrained(source, revision=revision)
        written = export_onnx(model, extractor, output, int8)
    except ImportError as error:
        print(f"error: {error}. The export needs `pip install onnx onnxruntime onnxscript`.", file=sys.stderr)
        raise typer.Exit(code=1) from None
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(code=1) from None
    print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB, {', '.join(INPUTS)} -> {', '.join(written.outputs)}")
    print(f"  largest difference from PyTorch: {written.difference:.1e}")
    if written.similarity is not None:
        print(
            f"  after quantisation, {'equal codes' if 'audio_codes' in written.outputs else 'cosine'} on test sounds: "
            f"{written.similarity:.4f}"
        )
    if written.same_class is not None:
        print(f"  the same likeliest label: {written.same_class:.0%}")


if __name__ == "__main__":
    typer.run(main)
