# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Settings of probes, and the place of their heads in a model."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from transformers_beats.modeling_beats import POOLINGS, BeatsLayerAverage


# A logit of the weights of layers that leaves nothing to the others.
ONE_HOT = 100.0


class Settings(NamedTuple):
    """
    Settings of probes.

    Args:
        problem_type (`str`), weights (`np.ndarray` of shape `(num_labels,)`, *optional*), seed (`int`):
            The model's; weights of the classes; seed of the folds that choose, and of what trains with gradients.
        c (`float`):
            scikit-learn's `C` of a logistic regression, for standardised embeddings.
        query (`str`), layer_weights (`str`), prototypes (`int`):
            Of the heads: `shared` or `class`; `learned` or `attention`; the number of prototypes for each class.
        steps (`int`), learning_rate (`float`, *optional*), device (`str`):
            Of AdamW, by default with the rate of the kind of probe, and where it runs.
    """

    problem_type: str
    c: float = 1.0
    weights: np.ndarray | None = None
    seed: int = 0
    query: str = "shared"
    layer_weights: str = "learned"
    prototypes: int = 4
    steps: int = 200
    learning_rate: float | None = None
    device: str = "cpu"


def set_head(model: Any, pooling: str = "mean", num_prototypes: int | None = None) -> None:
    """Gives a [`BeatsForAudioClassification`] an untrained pooling of patches, and a classifier that fits it."""
    config = model.config
    config.classifier_pooling = pooling
    # Probes read patches, whatever frames the head that they replace has read.
    config.frame_recurrent_layers, model.recurrent = 0, None
    if num_prototypes is not None:
        config.num_prototypes = num_prototypes
    model.pooling = None if pooling == "mean" else POOLINGS[pooling](config)
    num_inputs = config.hidden_size if model.pooling is None else model.pooling.num_outputs
    model.classifier = nn.Linear(num_inputs, config.num_labels)


def set_average(model: Any, layer_weights: str = "learned") -> None:
    """Gives a [`BeatsForAudioClassification`] an untrained average of its layers."""
    model.config.use_weighted_layer_sum, model.config.layer_weights = True, layer_weights
    model.layer_average = BeatsLayerAverage(model.config)


def set_layer(model: Any, layer: int) -> None:
    """Has a [`BeatsForAudioClassification`] read one layer."""
    if layer == model.config.num_hidden_layers:
        model.config.use_weighted_layer_sum, model.config.layer_weights = False, "learned"
        model.layer_average = None
        return
    set_average(model)
    with torch.no_grad():
        model.layer_average.weight.fill_(-ONE_HOT)
        model.layer_average.weight[layer] = ONE_HOT
