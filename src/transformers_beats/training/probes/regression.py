# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Logistic regression on embeddings, as the weights of a linear classifier."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from transformers_beats.training.data.labels import Labels
from transformers_beats.training.reports.scoring import clip_scores

from .embeddings import Embeddings
from .settings import Settings, set_head


# The logit of a class without a clip to learn from: its probability is about 1e-13.
NO_CHANCE = -30.0
# Products of so many numbers are too small to share among threads, which would wait for each other instead.
MAX_VALUES_OF_ONE_THREAD = 10_000_000
MAX_ITERATIONS = 2000


@dataclass
class LinearClassifier:
    """
    Weights `(num_labels, hidden_size)` and biases `(num_labels,)` of logits, float64, for embeddings of one layer;
    their `problem_type`.
    """

    weight: np.ndarray
    bias: np.ndarray
    problem_type: str

    def logits(self, values: np.ndarray) -> np.ndarray:
        """Returns logits `(num_windows, num_labels)` of embeddings `(num_windows, hidden_size)`, float32."""
        return (values @ self.weight.T + self.bias).astype(np.float32)

    def scores(self, embeddings: Embeddings) -> np.ndarray:
        """Returns the probabilities of clips, means over their windows, float32 `(num_clips, num_labels)`."""
        return clip_scores(self.logits(embeddings.values), embeddings.clip_of, self.problem_type)

    def write(self, model: Any) -> None:
        """Makes this the head of a model, on the mean over the patches."""
        set_head(model)
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(self.weight))
            model.classifier.bias.copy_(torch.from_numpy(self.bias))


def standardise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes mean and standard deviation of each dimension, `(hidden_size,)`; 1 for one that does not vary."""
    std = values.std(axis=0, dtype=np.float64)
    return values.mean(axis=0, dtype=np.float64), np.where(std > 1e-6, std, 1.0)


def fit_classifier(embeddings: Embeddings, labels: Labels, settings: Settings) -> LinearClassifier:
    """
    Fits scikit-learn's logistic regression to the windows of one layer, each with the label of its clip: with a
    softmax for one class a clip, otherwise one for each class. Embeddings are standardised for it, which the weights
    that are returned have in them.
    """
    is_small = embeddings.values.size < MAX_VALUES_OF_ONE_THREAD
    with threadpool_limits(1) if is_small else nullcontext():
        return _fit(embeddings, labels, settings)


def _fit(embeddings: Embeddings, labels: Labels, settings: Settings) -> LinearClassifier:
    mean, std = standardise(embeddings.values)
    inputs = (embeddings.values - mean) / std
    regression = LogisticRegression(C=settings.c, max_iter=MAX_ITERATIONS)
    num_labels = len(labels.names)
    weight, bias = np.zeros((num_labels, inputs.shape[1])), np.full(num_labels, NO_CHANCE)
    targets = labels.as_array()[embeddings.clip_of]
    if settings.problem_type == "single_label_classification":
        per_window = None if settings.weights is None else settings.weights[targets]
        fitted: Any = regression.fit(inputs, targets, per_window)
        rows, offsets = fitted.coef_, fitted.intercept_
        if len(fitted.classes_) == 2:
            # scikit-learn has the logit of the second class; a softmax of half of it, up and down, is the same.
            rows, offsets = np.concatenate([-rows, rows]) / 2, np.concatenate([-offsets, offsets]) / 2
        weight[fitted.classes_], bias[fitted.classes_] = rows, offsets
    else:
        columns = targets.T if targets.ndim == 2 else targets == np.arange(num_labels)[:, None]
        for label, column in enumerate(columns):
            if column.all():
                bias[label] = -NO_CHANCE
            elif column.any():
                per_window = None
                if settings.weights is not None:
                    per_window = np.where(column > 0, settings.weights[label], 1.0)
                fitted = clone(regression).fit(inputs, column > 0, per_window)
                weight[label], bias[label] = fitted.coef_[0], fitted.intercept_[0]
    weight = weight / std
    return LinearClassifier(weight, bias - weight @ mean, settings.problem_type)


class Regression:
    """Logistic regression on the means over the patches of a layer; see [`fit_classifier`]."""

    name, title, reads, has_weights = "linear", "logistic regression", "means", True
    # What is chosen beside a layer.
    chosen: str | None = None

    def choices(self, num_windows: int, settings: Settings) -> list[None]:
        """Returns the values that are tried: nothing is left to choose."""
        return [None]

    def fit(
        self, embeddings: Embeddings, labels: Labels, settings: Settings, choices: Sequence[None]
    ) -> list[LinearClassifier]:
        """Fits a classifier for each of the choices."""
        return [fit_classifier(embeddings, labels, settings)]
