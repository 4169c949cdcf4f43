# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Slower learning of the lower layers in fine-tuning: smaller learning rates, or the reference's smaller gradients."""

import math
import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback
from transformers.utils import logging

from transformers_beats.modeling_beats import BeatsModel
from transformers_beats.utils.errors import BeatsError

from .pretraining import WaveformTrainer


logger = logging.get_logger(__name__)

# Also behind the prefixes of PEFT, DDP and `torch.compile`, but not the encoders of other parts of a model.
ENCODER_NAME = re.compile(r"(?:^|\.)beats\.(?:embeddings|encoder)\.(?:layers\.(\d+)\.)?")
FINAL_NORM_NAME = re.compile(r"(?:^|\.)beats\.encoder\.layer_norm\.")


def find_base_model(model: nn.Module) -> BeatsModel:
    """Returns the [`BeatsModel`] in a model that may be wrapped; raises a [`BeatsError`] if there is none."""
    for module in model.modules():
        if isinstance(module, BeatsModel):
            return module
    raise BeatsError(f"There is no BeatsModel in {type(model).__name__}.")


def layer_of(name: str, num_hidden_layers: int, layer_norm_first: bool = False) -> int:
    """
    Returns the depth of a parameter by its name: 0 before the layers (patches, projection, positional convolution, and
    the table of relative positions, which all layers share), i + 1 for layer i, `num_hidden_layers + 1` for the
    classifier and the average of the layers. With `layer_norm_first`, the encoder's own norm comes after its layers.
    """
    match = ENCODER_NAME.search(name)
    if match is None or (layer_norm_first and FINAL_NORM_NAME.search(name)):
        return num_hidden_layers + 1
    return 0 if match[1] is None else int(match[1]) + 1


def layerwise_parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, decay: float
) -> list[dict[str, Any]]:
    """
    Returns parameter groups for layer-wise learning-rate decay (as in ELECTRA, BEiT and Audio-MAE): parameters of
    depth d (see [`layer_of`]) learn with `learning_rate * decay ** (num_hidden_layers + 1 - d)`. Weight decay is for
    those that [`WaveformTrainer`] decays. Groups have `params`, `lr`, `weight_decay` and `depth`; those of the head
    come first, since `Trainer` logs the learning rate of the first. Frozen parameters are left out.

    Raises:
        [`BeatsError`]: if the model has no BEATs encoder, or all its parameters are frozen.
    """
    config = find_base_model(model).config
    head_depth = config.num_hidden_layers + 1
    # The rule is a method, but needs no trainer that is ready.
    decayed_names = set(WaveformTrainer.__new__(WaveformTrainer).get_decay_parameter_names(model))
    members: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            depth = layer_of(name, config.num_hidden_layers, config.layer_norm_first)
            members[depth, name in decayed_names].append(parameter)
    if not members:
        raise BeatsError("All parameters of the model are frozen: there is nothing to train.")
    return [
        {
            "params": members[depth, is_decayed],
            "lr": learning_rate * decay ** (head_depth - depth),
            "weight_decay": weight_decay if is_decayed else 0.0,
            "depth": depth,
        }
        for depth, is_decayed in sorted(members, reverse=True)
    ]


class UnfreezeByEpoch(TrainerCallback):
    """
    Trains the classifier alone before `epoch`, counted from 0; from then on the encoder too, or so many more of its
    layers in each epoch, the last ones first (gradual unfreezing, Howard and Ruder, 2018).
    """

    def __init__(self, epoch: int, num_layers: int | None):
        self.epoch, self.num_layers = epoch, num_layers

    def lowest(self, epoch: int, num_hidden_layers: int) -> int:
        """Returns the depth, see [`layer_of`], from which on parameters learn in an epoch."""
        if epoch < self.epoch:
            return num_hidden_layers + 1
        learning = math.inf if self.num_layers is None else self.num_layers * (epoch - self.epoch + 1)
        return int(max(num_hidden_layers + 1 - learning, 0))

    def on_train_begin(self, args, state, control, **kwargs):
        if self.epoch >= state.num_train_epochs and state.is_world_process_zero:
            logger.warning_once(
                f"`unfreeze_epoch` is {self.epoch}, counted from 0, but the training has {state.num_train_epochs} "
                "epoch(s): the classifier alone learns."
            )

    def on_epoch_begin(self, args, state, control, *, model: nn.Module, **kwargs):  # ty: ignore[incompatible-method-override]
        config = find_base_model(model).config
        # The number of epochs is a sum of shares.
        lowest = self.lowest(int((state.epoch or 0) + 1e-6), config.num_hidden_layers)
        for name, parameter in model.named_parameters():
            depth = layer_of(name, config.num_hidden_layers, config.layer_norm_first)
            parameter.requires_grad_(depth >= lowest)


def multiply_gradients(model: nn.Module, ratio: float) -> None:
    """
    Multiplies the gradient at the input of every layer by `ratio`, in (0, 1]: the `layer_wise_gradient_decay_ratio` of
    Microsoft's encoder, 0.6 for its fine-tuned checkpoint. Outputs stay the same; call it before `torch.compile`. Adam
    is nearly blind to such a factor, which its normalisation cancels: [`layerwise_parameter_groups`] has the effect
    that the name promises.
    """

    def scale(layer: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        constant = args[0].detach()
        # The difference is zero: the value stays, its gradient is scaled.
        return (constant + ratio * (args[0] - constant), *args[1:])

    for layer in find_base_model(model).encoder.layers:
        layer.register_forward_pre_hook(scale)
