# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""ONNX graphs of modules: tracing, conversion, int8, for the export of whole models and for the encoder alone."""

import copy
import importlib
import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.fx.experimental import _config as fx_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from transformers_beats.modeling_beats import run_gru
from transformers_beats.utils.errors import BeatsError, install_command


if TYPE_CHECKING:
    from onnx import ModelProto


# The first opset whose DFT takes its axis as an input, which is what PyTorch writes.
OPSET = 20
# Largest difference of results in float32, relative to the largest value where that is above 1.
TOLERANCE = 1e-4
# An int8 graph whose results are less similar is refused.
MIN_SIMILARITY = 0.95
# Nearly all weights and products. The filter bank, the gates of the position bias, the codebook and the classifier are
# small and keep float32.
QUANTIZED_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def largest_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest value that is expected where that is above 1."""
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine between two arrays of the same shape, taken as one vector each; 1 if both are zero, 0 if one is."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / lengths) if lengths > 0 else float((first == second).all())


def centered_cosine(expected: np.ndarray, found: np.ndarray) -> float:
    """
    Cosine between results `(n, size)`, less the mean of those that are expected: the part that is common to all, which
    may be most of them, would hide differences.
    """
    center = expected.mean(axis=0)
    return cosine(expected - center, found - center)


@torch.library.custom_op("transformers_beats::gru", mutates_args=())
def gru(
    states: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor,
    bias_hh: torch.Tensor,
) -> torch.Tensor:
    """Computes [`run_gru`] as one operation, which a trace keeps as it is, for sequences of any length."""
    # Not a view, which an operation must not return.
    return run_gru(states, weight_ih, weight_hh, bias_ih, bias_hh).contiguous()


@gru.register_fake
def _(states, weight_ih, weight_hh, bias_ih, bias_hh):
    return states.new_empty(states.shape[0], states.shape[1], weight_hh.shape[1])


def gru_to_onnx(states: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any) -> Any:
    """Writes [`gru`] as ONNX's own GRU, whose gates have another order: update, reset, new."""
    from onnxscript import opset20

    op: Any = opset20

    def reorder(values: Any) -> Any:
        reset, update, new = op.Split(values, num_outputs=3, axis=0)
        return op.Concat(update, reset, new, axis=0)

    first = op.Constant(value_ints=[0])
    weights = [op.Unsqueeze(reorder(values), first) for values in (weight_ih, weight_hh)]
    bias = op.Unsqueeze(op.Concat(reorder(bias_ih), reorder(bias_hh), axis=0), first)
    outputs, _ = op.GRU(
        op.Transpose(states, perm=[1, 0, 2]), *weights, bias, hidden_size=weight_hh.shape[1], linear_before_reset=1
    )
    # (length, directions, batch_size, size)
    return op.Transpose(op.Squeeze(outputs, op.Constant(value_ints=[1])), perm=[1, 0, 2])


class ExportError(BeatsError):
    """A model that cannot be exported, or an export that does not compute what the model computes."""


def exportable_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Copies a model to the CPU, with attention that exports and without weights that each run would compute."""
    # Not `copy.deepcopy`: removing a parametrisation from such a copy would remove it from the model, too.
    with torch.random.fork_rng(devices=[]):
        # Its random weights are replaced, and cost the caller's generator nothing.
        duplicate = type(model)(copy.deepcopy(model.config)).eval()
    duplicate.load_state_dict(model.state_dict())
    # A tokenizer without an encoder has no attention.
    if hasattr(model.config, "num_attention_heads"):
        duplicate.set_attn_implementation("sdpa")
    for submodule in duplicate.modules():
        # Known by its name, as the kinds of models are.
        if type(submodule).__name__ == "BeatsGRU":
            submodule.run = gru
        if parametrize.is_parametrized(submodule, "weight"):
            parametrize.remove_parametrizations(submodule, "weight")
    return duplicate


@contextmanager
def tracing() -> Generator[None, None, None]:
    """Settings under which PyTorch traces the model, once here and again when it writes the ONNX graph."""
    # A batch of one or a single column is no case of its own; the fused CPU attention has no translation to ONNX.
    any_size = fx_config.patch(backed_size_oblivious=True)  # ty: ignore[missing-attribute]
    with any_size, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


def trace(module: nn.Module, inputs: tuple[torch.Tensor, ...], dynamic_shapes: Any) -> torch.export.ExportedProgram:
    """Traces a module whose model is an [`exportable_copy`]; dimensions in `dynamic_shapes` are free."""
    with tracing():
        return torch.export.export(
            module,
            inputs,
            dynamic_shapes=dynamic_shapes,
            # What PyTorch cannot prove of the shapes for all lengths is checked when the program runs.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def to_graph(
    program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str], dynamic_shapes: Any
) -> "ModelProto":
    """Converts a program to an ONNX graph in float32, whose nodes name the modules that they come from."""
    with quiet(), tracing():
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic_shapes,
            custom_translation_table={torch.ops.transformers_beats.gru.default: gru_to_onnx},
            verbose=False,
        )
    assert converted is not None
    return converted.model_proto


def remove_origins(graph: "ModelProto") -> None:
    """Removes what the nodes of a graph say of their origin: stack traces with the paths of this machine."""
    for node in graph.graph.node:
        del node.metadata_props[:]


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


def require_exporters() -> None:
    """Raises an `ImportError` before the work for a missing package, one of which is needed only at the end."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"{error}. The export needs: {install_command('onnx')}") from error
