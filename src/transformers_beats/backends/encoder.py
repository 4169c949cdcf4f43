# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Encoder that onnxruntime computes: the graph, its copy in the cache, and the module that takes its place."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import nn

from transformers_beats.modeling_beats import find_unknown
from transformers_beats.utils.cache import cache_directory, mark_used, remove_unused
from transformers_beats.utils.errors import BeatsError, UsageError, first_line
from transformers_beats.utils.files import replace_file
from transformers_beats.utils.fingerprint import model_fingerprint
from transformers_beats.utils.lock import hold
from transformers_beats.utils.machine import name_of
from transformers_beats.utils.messages import note

from .graphs import (
    MIN_SIMILARITY,
    TOLERANCE,
    ExportError,
    centered_cosine,
    exportable_copy,
    largest_difference,
    layers_to_quantize,
    remove_origins,
    require_exporters,
    to_graph,
    trace,
    write_int8,
)


if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions


Precision: TypeAlias = Literal["float32", "int8"]
# Directories in the cache, one for each encoder and precision. The version is that of the graph.
NAME, GRAPH_VERSION = "encoder-{}", 1
FILE = "encoder.onnx"
INPUT, OUTPUT = "columns", "last_hidden_state"
# Arguments of `forward` and settings that ask for outputs of the layers.
OUTPUTS = ("output_hidden_states", "output_attentions")
# Patches of clips of the same length that are computed at once. A clip of 10 s alone is as fast as several.
PATCHES_PER_RUN = 512
# Its fusion of residual and layer norm is slower than the two on their own: 5 % of the time in float32, 8 % in int8.
SLOW_FUSIONS = ["SkipLayerNormFusion"]


def shallow_copy(module: Any) -> Any:
    """Returns a module with the same parts, some of which can then be replaced."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


class _Graph(nn.Module):
    """
    Encoder from columns of patches `(batch_size, num_columns, patch_size, num_mel_bins)` to hidden states
    `(batch_size, num_patches, hidden_size)`, without a mask.
    """

    def __init__(self, encoder: Any):
        super().__init__()
        self.embeddings, self.encoder = encoder.embeddings, encoder.encoder

    def forward(self, columns: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.embeddings(columns.flatten(1, 2)))


def export_encoder(encoder: Any, precision: Precision, path: Path) -> None:
    """
    Writes an encoder as an ONNX file, for any batch and number of columns.

    Raises:
        [`ExportError`]: if it has no layers for int8.
        `ImportError`: if `onnx` or `onnxscript` is missing.
    """
    require_exporters()
    import onnx

    config = encoder.config
    module = _Graph(exportable_copy(encoder)).eval()
    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("columns")},)
    example = (torch.zeros(2, 3, config.patch_size, config.num_mel_bins),)
    graph = to_graph(trace(module, example, shapes), [INPUT], [OUTPUT], shapes)
    nodes = layers_to_quantize(graph)
    remove_origins(graph)
    if precision == "int8":
        write_int8(graph, nodes, path)
    else:
        onnx.save(graph, path)


def session_options() -> "SessionOptions":
    """Returns options of onnxruntime: as many threads as PyTorch has, which sleep while they wait."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin would take the cores from PyTorch, which computes filter banks and head.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Its warnings are about the graph, which no user has written.
    options.log_severity_level = 3
    return options


def open_session(path: Path) -> "InferenceSession":
    """Opens an ONNX file with [`session_options`]."""
    import onnxruntime

    return onnxruntime.InferenceSession(
        path, session_options(), providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
    )


class _NoGradients(torch.autograd.Function):
    """Passes values on, and refuses their gradients, which would be none of the weights."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        raise UsageError(
            "onnxruntime computes no gradients: train with the backend torch, or freeze the encoder "
            "(`requires_grad_(False)`) to train the head alone."
        )


class _InGraph(nn.Module):
    """Part of a model whose weights are in the graph as well: those of the module cannot become others."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_refuse_other_weights)

    def take_weights(self, module: nn.Module) -> None:
        """Has from now on the weights of a module, under their names."""
        # Not its parts themselves, which would have hooks and adapters that nothing calls.
        weights = _Weights(module)
        self._modules, self._parameters, self._buffers = weights._modules, weights._parameters, weights._buffers

    def refuse_gradients(self, values: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Returns `values`, computed from `inputs`, whose backward pass is a [`UsageError`] if it asks for any."""
        sources = (each for each in (inputs, *self.parameters()) if each.requires_grad)
        if torch.is_grad_enabled() and (source := next(sources, None)) is not None:
            return _NoGradients.apply(values, source)
        return values

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        probe = fn(torch.zeros(0))
        if probe.dtype != torch.float32 or probe.device.type != "cpu":
            raise UsageError(
                f"onnxruntime computes in float32 on the CPU: a model for {name_of(probe.dtype)} on "
                f"{probe.device.type} needs the backend torch."
            )
        return super()._apply(fn, recurse)


def _refuse_other_weights(module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
    """Raises a [`UsageError`] for weights that a module does not have already."""
    own = module.state_dict(prefix=prefix)
    for key in filter(state_dict.__contains__, own):
        given = state_dict[key]
        if own[key].shape != given.shape or not torch.equal(own[key], given.to(own[key])):
            raise UsageError(
                f"`{key}`: onnxruntime computes with the weights that it was opened with, and these are others: load "
                "them into the model of PyTorch, and open the backend for that."
            )


class _Weights(nn.Module):
    """Weights and buffers of a module and of its parts, under their names, without what they compute."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self._parameters, self._buffers = dict(module._parameters), dict(module._buffers)
        self._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
        for name, part in module._modules.items():
            self._modules[name] = None if part is None else _Weights(part)

    def __getitem__(self, index: int) -> Any:
        """Returns a part by its place, as a list of modules does."""
        return [*self._modules.values()][index]

    def __len__(self) -> int:
        return len(self._modules)

    def __bool__(self) -> bool:
        return True

    def register_forward_hook(self, *args: Any, **kwargs: Any) -> Any:
        """Raises a [`UsageError`], since nothing would call it."""
        raise UsageError("onnxruntime calls no layers of PyTorch: hooks on them need the backend torch.")

    register_forward_pre_hook = register_forward_hook


class PassOn(_InGraph):
    """
    Takes the place of the embeddings, which are in the graph: returns its input. It has their weights and parts, under
    their names, by which a model knows its dtype and its device.
    """

    def __init__(self, embeddings: Any):
        super().__init__()
        self.take_weights(embeddings)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Returns `input_values` in the dtype of the model, as the embeddings take them."""
        values = input_values.to(next(self.parameters()).dtype)
        return self.refuse_gradients(values, values)


class OnnxEncoder(_InGraph):
    """
    Layers of an encoder in onnxruntime, in the place of [`BeatsEncoder`] behind [`PassOn`]. Clips are computed without
    their padding, those of the same length together in float32 and each alone in int8, where the inputs of a layer
    have one scale: a clip has the same result alone and in any batch. What a model has and saves are the weights of
    the layers that it replaces, with which it was exported: loading others, other dtypes and devices, and a backward
    pass are errors.

    Args:
        path (`Path`):
            File of [`export_encoder`].
        config ([`BeatsConfig`]):
            The encoder's.
        precision (`str`):
            `"float32"` or `"int8"`.
    """

    def __init__(self, path: Path, config: Any, precision: Precision):
        super().__init__()
        self.path, self.session, self.config, self.precision = path, open_session(path), config, precision

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnnxEncoder":
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        # A session is never changed, and cannot be copied.
        memo[id(self.session)] = self.session
        vars(copied).update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        return copied

    def forward(
        self, input_values: torch.Tensor, patch_attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """
        Computes hidden states `(batch_size, num_patches, hidden_size)` of filter banks `(batch_size, num_frames,
        num_mel_bins)`; zeros where `patch_attention_mask` `(batch_size, num_patches)` is false.

        Raises:
            `ValueError`: for a mask that hides something else than whole columns at the end, and for arguments that
                ask for more than the last hidden states.
            `MemoryError`: if a clip needs more memory than there is.
        """
        self._check_keywords(kwargs)
        size, num_bands = self.config.patch_size, self.config.num_freq_patches
        num_columns = input_values.shape[1] // size
        columns = input_values[:, : num_columns * size].unflatten(1, (num_columns, size))
        lengths = [num_columns] * len(columns)
        if patch_attention_mask is not None:
            lengths = _count_columns(patch_attention_mask.unflatten(1, (num_columns, num_bands)))
        output = columns.new_zeros(len(columns), num_columns * num_bands, self.config.hidden_size)
        for rows, length in self._split(lengths, num_bands):
            states = self._run(columns[rows, :length].detach().float().contiguous().numpy())
            output[rows, : length * num_bands] = torch.from_numpy(states).to(output.dtype)
        return self.refuse_gradients(output, input_values)

    def _check_keywords(self, keywords: dict[str, Any]) -> None:
        """Raises a [`UsageError`] for arguments, and settings of the model, that onnxruntime would ignore."""
        asked = {name for name in OUTPUTS if keywords.get(name, getattr(self.config, name, False))}
        asked |= find_unknown(keywords)
        if asked:
            raise UsageError(
                f"onnxruntime gives the last hidden states of all patches alone: without `{min(asked)}`, or with the "
                "backend torch."
            )

    def _split(self, lengths: list[int], num_bands: int) -> Iterator[tuple[list[int], int]]:
        """Yields the numbers of clips that are computed at once, and their columns; none for clips without any."""
        for length in sorted({*lengths} - {0}):
            rows = [row for row, columns in enumerate(lengths) if columns == length]
            count = 1 if self.precision == "int8" else max(1, PATCHES_PER_RUN // (length * num_bands))
            for start in range(0, len(rows), count):
                yield rows[start : start + count], length

    def _run(self, columns: np.ndarray) -> np.ndarray:
        try:
            states: Any = self.session.run([OUTPUT], {INPUT: columns})[0]
            return states
        except Exception as error:  # the classes of onnxruntime, which say nothing of memory
            if "alloc" in str(error):
                raise MemoryError(f"onnxruntime: out of memory with {columns.shape[1]} columns.") from error
            raise RuntimeError(f"onnxruntime: {first_line(error)}") from error


def _count_columns(mask: torch.Tensor) -> list[int]:
    """Returns the columns of each clip that are not hidden by a mask `(batch_size, num_columns, num_bands)`."""
    lengths = mask.all(dim=2).sum(dim=1)
    expected = torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]
    if not (mask == expected[:, :, None]).all():
        raise ValueError("The backend takes masks that hide whole columns at the end of a clip: use PyTorch's.")
    return lengths.tolist()


def with_encoder(encoder: Any, replacement: OnnxEncoder) -> Any:
    """Returns an encoder ([`BeatsModel`]) whose embeddings and layers are computed by a replacement."""
    copied = shallow_copy(encoder)
    replacement.take_weights(encoder.encoder)
    copied.embeddings, copied.encoder = PassOn(encoder.embeddings), replacement
    return made_of(encoder, copied)


def made_of(model: Any, copied: Any) -> Any:
    """Returns a copy that [`in_torch`] leads back from."""
    # In a tuple: it is no part of the copy.
    copied.model_in_torch = (model,)
    return copied


def in_torch(model: Any) -> Any:
    """Returns the model of PyTorch whose encoder a backend has replaced in `model`; `model` itself if none has."""
    # Not `getattr`, which wrappers hand on to what they wrap.
    (original,) = vars(model).get("model_in_torch", (model,))
    return original


# Whatever precision the caller computes in, the graph is that of float32.
@torch.autocast("cpu", enabled=False)
def open_encoder(encoder: Any, precision: Precision) -> OnnxEncoder:
    """
    Opens the ONNX file of an encoder ([`BeatsModel`], float32, on the CPU), which is exported at first use and kept in
    the cache under the encoder's fingerprint. A file there that is damaged, or does not compute what the encoder
    computes, is exported anew, and replaced if that one does.

    Raises:
        [`ExportError`]: if the encoder cannot be exported, or the export cannot be opened or does not compute what the
            encoder computes, or the encoder's output is not finite.
        [`UsageError`]: if it cannot be kept in the cache.
        `ImportError`: if a package of the extra `onnx` is missing.
    """
    try:
        directory = cache_directory() / NAME.format(f"{model_fingerprint(encoder)}-{precision}-{GRAPH_VERSION}")
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be written, set HF_DATASETS_CACHE: {error.strerror}.") from error
    path = directory / FILE
    if isinstance(found := _open(path, encoder, precision), str):
        require_exporters()
        with hold(directory, wait=True):
            # Another process may have written it meanwhile.
            if isinstance(found := _open(path, encoder, precision), str):
                reason = f" ({found})" if path.is_file() else ""
                note(f"Exports the encoder to ONNX, {precision}, once for this model{reason}: {path}")
                found = _export(encoder, precision, path)
    mark_used(directory)
    with suppress(OSError):
        remove_unused(NAME)
    return found


def _export(encoder: Any, precision: Precision, path: Path) -> OnnxEncoder:
    """Exports an encoder and opens the file, which takes its place only if it computes what the encoder computes."""
    name = f"The encoder in ONNX, {precision},"
    try:
        with replace_file(path) as temporary:
            try:
                export_encoder(encoder, precision, temporary)
            except (BeatsError, ImportError, MemoryError, OSError):
                raise
            except Exception as error:  # the exporter has classes of its own
                raise ExportError(f"{name} cannot be made: {first_line(error)}: use the backend torch.") from error
            if isinstance(found := _open(temporary, encoder, precision), str):
                raise ExportError(f"{name} {found}: use the backend torch.")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or first_line(error)}.") from error
    found.path = path
    return found


def _open(path: Path, encoder: Any, precision: Precision) -> OnnxEncoder | str:
    """Opens a file; returns what is wrong with it if it is absent, damaged or of another encoder."""
    if not path.is_file():
        return "is absent"
    try:
        opened = OnnxEncoder(path, encoder.config, precision)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # whatever onnxruntime raises for bytes that are no graph, or one of a later version
        return f"cannot be opened by onnxruntime: {first_line(error)}"
    try:
        return opened if is_equal(opened, encoder) else "does not compute what PyTorch computes"
    except RuntimeError as error:  # a graph of other shapes
        return f"cannot be computed: {first_line(error)}"


@torch.inference_mode()
def is_equal(opened: OnnxEncoder, encoder: Any) -> bool:
    """
    Returns whether a file computes what an encoder computes, of short clips of noise.

    Raises:
        [`ExportError`]: if the encoder's output is not finite.
    """
    config = encoder.config
    generator = torch.Generator().manual_seed(0)
    expected, found = [], []
    for num_columns in (3, 2):
        shape = (2, num_columns * config.patch_size, config.num_mel_bins)
        input_values = 0.5 * torch.randn(shape, generator=generator)
        expected.append(encoder.eval()(input_values, return_dict=True).last_hidden_state.flatten(0, 1))
        found.append(opened(input_values).flatten(0, 1))
    expected, found = torch.cat(expected), torch.cat(found)
    if not expected.isfinite().all():
        raise ExportError("The model's output is not finite: its training has diverged, or its file is damaged.")
    if opened.precision == "float32":
        return largest_difference(expected.numpy(), found.numpy()) <= TOLERANCE
    return centered_cosine(expected.numpy(), found.numpy()) >= MIN_SIMILARITY


__all__ = ["OnnxEncoder", "export_encoder", "open_encoder", "open_session", "session_options", "with_encoder"]
