# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Two ways to let the lower layers learn more slowly in fine-tuning: smaller learning rates, and the reference's smaller
gradients.
"""

import re
from collections import defaultdict
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import Trainer

from transformers_beats.modeling_beats import BeatsModel


# Also behind the prefixes of PEFT, DDP and `torch.compile`, but not the encoders of other parts of a model.
ENCODER_NAME = re.compile(r"(?:^|\.)beats\.(?:embeddings|encoder)\.(?:layers\.(\d+)\.)?")
FINAL_NORM_NAME = re.compile(r"(?:^|\.)beats\.encoder\.layer_norm\.")


def find_base_model(model: nn.Module) -> BeatsModel:
    """
    The [`BeatsModel`] in a model that may be wrapped.

    Raises:
        `ValueError`: if there is none.
    """
    for module in model.modules():
        if isinstance(module, BeatsModel):
            return module
    raise ValueError(f"There is no BeatsModel in {type(model).__name__}.")


# Learning rates


def layer_of(name: str, num_hidden_layers: int, layer_norm_first: bool = False) -> int:
    """
    Depth of a parameter, from the input to the head.

    Args:
        name (`str`):
            Name of a parameter of [`BeatsForAudioClassification`] or [`BeatsForAudioFrameClassification`]; the
            prefixes of wrappers do not matter.
        num_hidden_layers (`int`):
            Layers of the encoder.
        layer_norm_first (`bool`, defaults to `False`):
            As in the configuration. If set, the encoder's own layer norm comes after its layers.

    Returns:
        `int`: 0 for what comes before the layers (patches, projection, positional convolution, and the table of
        relative positions, which all layers share); i + 1 for layer i; `num_hidden_layers + 1` for whatever comes
        after them, that is, the classifier and the average of the layers.

    Raises:
        `ValueError`: if the name is that of a layer that the model does not have.
    """
    match = ENCODER_NAME.search(name)
    if match is None or (layer_norm_first and FINAL_NORM_NAME.search(name)):
        return num_hidden_layers + 1
    if match[1] is None:
        return 0
    if int(match[1]) >= num_hidden_layers:
        raise ValueError(f"`{name}` belongs to a layer beyond the {num_hidden_layers} of the model.")
    return int(match[1]) + 1


def layerwise_parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, decay: float
) -> list[dict[str, Any]]:
    """
    Parameter groups for layer-wise learning-rate decay (as in ELECTRA, BEiT and Audio-MAE): parameters of depth d (see
    [`layer_of`]) learn with `learning_rate * decay ** (num_hidden_layers + 1 - d)`. Biases and norms have no weight
    decay, by the rule of `Trainer`; to that rule the table of relative positions is a bias.

    Args:
        model (`nn.Module`):
            A classifier with a [`BeatsModel`]. Frozen parameters are left out.
        learning_rate (`float`):
            Of the head.
        weight_decay (`float`):
            Of everything but biases and norms.
        decay (`float`):
            Between 0, which is excluded, and 1, which gives all layers the same learning rate.

    Returns:
        `list[dict]`: groups for an optimizer, with `params`, `lr` and `weight_decay`, and with `depth`. Those of the
        head come first, if it is trained: `Trainer` logs the learning rate of the first.

    Raises:
        `ValueError`: if `decay` is out of range, the model has no BEATs encoder, or all its parameters are frozen.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"`decay` must lie in (0, 1], got {decay}.")
    config = find_base_model(model).config
    head_depth = config.num_hidden_layers + 1
    # The rule is a method, but needs no trainer that is ready.
    decayed_names = set(Trainer.__new__(Trainer).get_decay_parameter_names(model))
    members: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            depth = layer_of(name, config.num_hidden_layers, config.layer_norm_first)
            members[depth, name in decayed_names].append(parameter)
    if not members:
        raise ValueError("All parameters of the model are frozen: there is nothing to train.")
    return [
        {
            "params": members[depth, is_decayed],
            "lr": learning_rate * decay ** (head_depth - depth),
            "weight_decay": weight_decay if is_decayed else 0.0,
            "depth": depth,
        }
        for depth, is_decayed in sorted(members, reverse=True)
    ]


# Gradients


class MultiplyGradient(torch.autograd.Function):
    """Its input, whose gradient is `ratio` times that of the output."""

    @staticmethod
    def forward(ctx, hidden_states: torch.Tensor, ratio: float) -> torch.Tensor:
        ctx.ratio = ratio
        # A new tensor: a result that is the input itself would keep the gradient as it is.
        return hidden_states.view_as(hidden_states)

    @staticmethod
    def backward(ctx, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad_outputs[0] * ctx.ratio, None


def _multiply_gradient_of_input(layer: nn.Module, args: tuple, ratio: float) -> tuple:
    """Forward pre-hook of a layer, whose first argument are the hidden states."""
    return (MultiplyGradient.apply(args[0], ratio), *args[1:])


def multiply_gradients(model: nn.Module, ratio: float) -> list[RemovableHandle]:
    """
    Makes the gradient smaller from layer to layer: the `layer_wise_gradient_decay_ratio` of Microsoft's encoder, 0.6
    in the configuration of its fine-tuned checkpoint. The gradient at the input of every layer is multiplied by
    `ratio`, so that the parameters of layer i of N get `ratio ** (N - 1 - i)` times their gradient, and what comes
    before the layers `ratio ** N` times. The head gets its full gradient, and each layer adds to the table of relative
    positions, which it reads itself, by its own factor. What the model computes stays the same.

    Adam is nearly blind to such a factor: it divides the mean of a gradient by the root of its mean square, and the
    factor cancels. What is left is its `eps`, and the clipping of the gradient's norm, which the lower layers now
    contribute less to. [`layerwise_parameter_groups`] has the effect that the name promises.

    With `config.use_weighted_layer_sum`, the head also reads every layer directly. Those gradients reach a layer
    without the factors of the layers above it.

    Args:
        model (`nn.Module`):
            A model with a [`BeatsModel`]. Call this before `torch.compile`, which ignores later changes.
        ratio (`float`):
            Between 0, which is excluded, and 1, which changes nothing.

    Returns:
        `list` of `torch.utils.hooks.RemovableHandle`: one for each layer; `remove()` of all restores the gradient.
        A second call without it multiplies again.

    Raises:
        `ValueError`: if `ratio` is out of range, or the model has no BEATs encoder.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"`ratio` must lie in (0, 1], got {ratio}.")
    # Hooks stay outside of what gradient checkpointing computes again, since transformers wraps `forward`.
    hook = partial(_multiply_gradient_of_input, ratio=ratio)
    return [layer.register_forward_pre_hook(hook) for layer in find_base_model(model).encoder.layers]


__all__ = [
    "MultiplyGradient",
    "find_base_model",
    "layer_of",
    "layerwise_parameter_groups",
    "multiply_gradients",
]
