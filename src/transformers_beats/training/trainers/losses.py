# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Losses in which classes have weights."""

import math
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from transformers_beats.training.data.labels import Labels
from transformers_beats.utils.errors import BeatsError, name_some


BALANCED = "balanced"


def weigh_classes(model: Any, labels: Labels, wanted: str | dict | None) -> Any:
    """Gives a classifier a loss with [`class_weights`], and returns it; without any, as it is."""
    if wanted is not None:
        weights = torch.from_numpy(class_weights(labels, wanted, str(model.config.problem_type)))
        model.loss_function = partial(weighted_loss, weights=weights)
    return model


def class_weights(labels: Labels, wanted: str | dict, problem_type: str) -> np.ndarray:
    """
    Returns the weights of classes, float32 `(num_labels,)`. `"balanced"` is scikit-learn's rule for one class a clip,
    clips / (classes * clips of the class), and for several the number of clips without a class for each with it. A
    class without clips has the weight 1.

    Raises:
        [`BeatsError`]: for another text, `"balanced"` with events, a class that there is not, or a weight that is not
            positive.
    """
    if isinstance(wanted, dict):
        wanted = {str(name): weight for name, weight in wanted.items()}
        if unknown := [name for name in wanted if name not in labels.names]:
            raise BeatsError(
                f"`class_weights`: there is no class {name_some(unknown)}, only {name_some(labels.names)}."
            )
        for name, weight in wanted.items():
            if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 < weight < math.inf:
                raise BeatsError(f"`class_weights.{name}` must be a positive number, got {weight!r}.")
        return np.array([wanted.get(name, 1.0) for name in labels.names], dtype=np.float32)
    if wanted != BALANCED:
        raise BeatsError(f"`class_weights` must be {BALANCED} or {{class: weight}}, got {wanted!r}.")
    if labels.task == "frames":
        # Clips say nothing about how much of their time a class takes.
        raise BeatsError(
            f"`class_weights: {BALANCED}` counts clips, but the loss of events is that of moments: name the weights, "
            "{class: weight}."
        )
    counts = labels.counts().astype(np.float64)
    if problem_type == "single_label_classification":
        weights = len(labels) / (len(counts) * np.maximum(counts, 1))
    else:
        # All clips may have a class, which then has no weight at all.
        weights = np.maximum(labels.known_counts() - counts, 1) / np.maximum(counts, 1)
    return np.where(counts > 0, weights, 1.0).astype(np.float32)


def weighted_loss(
    labels: torch.Tensor, logits: torch.Tensor, config: Any, weights: torch.Tensor, **kwargs
) -> torch.Tensor:
    """
    Computes cross-entropy, or binary cross-entropy in which the positives of a class have its weight; arguments are
    those of `loss_function` of transformers' models. It is a mean over labels: one over their weights, which
    `cross_entropy` computes, would leave a clip that is alone in its batch without a weight.
    """
    weights = weights.to(logits.device, logits.dtype)
    if config.problem_type == "single_label_classification":
        num_labels = kwargs.get("num_items_in_batch")
        total = cross_entropy(logits, labels, weight=weights, reduction="sum")
        return total / ((labels != -100).sum().clamp(min=1) if num_labels is None else num_labels)
    return binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
