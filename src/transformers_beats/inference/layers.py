# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Hidden states of chosen layers, without the layers above them, and their means over time and frequency."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import nn

from transformers_beats.backends.encoder import OnnxEncoder, shallow_copy
from transformers_beats.utils.errors import UsageError

from .grains import Grain, Pooling
from .results import Columns
from .windows import RowMean


# A number, several, "all", or their words: "8", "-4:", "2,5,8".
Layers: TypeAlias = int | str | slice | Sequence[int]


def choose_layers(layers: Layers, num_layers: int) -> list[int]:
    """
    Returns the indices in `hidden_states` that `layers` stand for: 0 is the input of the first layer, `num_layers` the
    output of the last. Negative numbers count from the end, slices are Python's.

    Raises:
        [`UsageError`]: if there is no such layer, or one is named twice.
    """
    count = num_layers + 1
    known = f"0 (the input of the first layer) to {num_layers}, or {-count} to -1 from the end"
    try:
        chosen = list(_indices(layers, count))
    except (ValueError, TypeError):
        raise UsageError(
            f"Layers are {layers!r}: write a number, numbers with commas, a slice such as -4:, or all."
        ) from None
    for layer in chosen:
        if not -count <= layer < count:
            raise UsageError(f"There is no layer {layer}: this model has {known}.")
    chosen = [layer % count for layer in chosen]
    if not chosen or len(set(chosen)) < len(chosen):
        raise UsageError(f"Layers are {layers!r}, which names {'one twice' if chosen else 'none'}, of {known}.")
    return chosen


def _indices(layers: Layers, count: int) -> Iterable[int]:
    if isinstance(layers, str):
        if layers.strip().lower() == "all":
            return range(count)
        if ":" in layers:
            return range(count)[slice(*(int(part) if part.strip() else None for part in layers.split(":")))]
        return [int(part) for part in layers.split(",")]
    if isinstance(layers, slice):
        return range(count)[layers]
    # Truth values are no layers.
    return [_as_int(layer) for layer in ([layers] if isinstance(layers, (int, np.integer)) else layers)]


def _as_int(layer: Any) -> int:
    if isinstance(layer, (bool, np.bool_)) or not isinstance(layer, (int, np.integer)):
        raise TypeError
    return int(layer)


def is_single(layers: Layers | None) -> bool:
    """Returns whether a choice is that of one layer, so that results have no axis of layers."""
    if isinstance(layers, str):
        # As in `choose_layers`.
        with suppress(ValueError):
            int(layers)
            return True
        return False
    return layers is None or isinstance(layers, (int, np.integer))


class _Recorder(nn.Module):
    """Layer that keeps its input, its output, or both, for the reader; without a layer it returns its input."""

    def __init__(
        self, layer: nn.Module | None, states: dict[int, torch.Tensor], before: int | None, after: int | None
    ):
        super().__init__()
        self.layer, self.states, self.before, self.after = layer, states, before, after

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.before is not None:
            self.states[self.before] = hidden_states
        if self.layer is None:
            return hidden_states
        hidden_states = self.layer(hidden_states, *args, **kwargs)
        if self.after is not None:
            self.states[self.after] = hidden_states
        return hidden_states


class LayerReader:
    """
    Reader of some of the `hidden_states` of an encoder. Layers above the last one that is asked for are not computed,
    and states of others are not kept. The model is not changed: the reader has a copy, which shares its weights.

    Args:
        encoder ([`BeatsModel`]):
            Encoder.
        layers (`list[int]`):
            Indices in `hidden_states`, see [`choose_layers`].

    Raises:
        [`UsageError`]: for other layers than the last of an encoder in onnxruntime.
    """

    def __init__(self, encoder: Any, layers: list[int]):
        self.layers, self.states, wanted = layers, cast(dict[int, torch.Tensor], {}), set(layers)
        num_layers, last = encoder.config.num_hidden_layers, max(layers)
        # The last state of a model is that after its last layer norm.
        self.takes_output = last == num_layers
        recorded = wanted - {num_layers}
        # A compiled encoder stays one where its whole output is asked for.
        self.model = encoder
        if layers != [num_layers]:
            if isinstance(encoder.encoder, OnnxEncoder):
                raise UsageError(f"onnxruntime gives the last layer alone: for layers {layers} use the backend torch.")
            modules: list[nn.Module] = [_Recorder(None, self.states, 0, None)] if 0 in recorded else []
            for number, layer in enumerate(encoder.encoder.layers[:last], start=1):
                modules.append(_Recorder(layer, self.states, None, number) if number in recorded else layer)
            self.model = shallow_copy(encoder)
            self.model.encoder = shallow_copy(encoder.encoder)
            self.model.encoder.layers = nn.ModuleList(modules)
        self.model.eval()

    def __call__(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Returns `(batch_size, num_columns, num_layers, num_freq_patches, hidden_size)`, in the order of `layers`."""
        try:
            output = self.model(input_values, attention_mask=attention_mask, return_dict=True).last_hidden_state
            if self.takes_output:
                self.states[max(self.layers)] = output
            return torch.stack([self.model.to_grid(self.states[layer]) for layer in self.layers], dim=2)
        finally:
            self.states.clear()


def join_columns(blocks: Iterable[Columns], grain: Grain, pooling: Pooling, single: bool) -> np.ndarray:
    """
    Joins blocks of hidden states `(num_columns, num_layers, num_freq_patches, hidden_size)` to the embeddings of a
    recording, float32; see [`WindowedInference.embed`]. Of means, one block is held at a time.
    """
    arrays = (block.values for block in blocks)
    if grain in ("clip", "band"):
        mean, shape = RowMean(), ()
        for values in arrays:
            values = values.mean(axis=2) if (grain, pooling) == ("clip", "mean") else values
            shape = values.shape[1:]
            mean.add(values.reshape(len(values), -1))
        joined = mean.value().reshape(shape)
        joined = joined.reshape(len(joined), -1) if (grain, pooling) == ("clip", "concat") else joined
    else:
        pool = grain == "column" and pooling == "mean"
        values = np.concatenate([values.mean(axis=2) if pool else values for values in arrays])
        joined = np.moveaxis(values, 1, 0)
        if not pool:
            rows = joined.shape[1] * (joined.shape[2] if grain == "patch" else 1)
            joined = joined.reshape(len(joined), rows, -1)
    return np.ascontiguousarray(joined[0] if single else joined)


__all__ = ["LayerReader", "Layers", "choose_layers", "is_single", "join_columns"]
