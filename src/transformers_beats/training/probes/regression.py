# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Logistic regression on embeddings, as the weights of a linear classifier; and the choice of a layer by it."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from transformers_beats.training.data.labels import Labels
from transformers_beats.training.reports.report import Predictions
from transformers_beats.training.reports.scoring import clip_scores
from transformers_beats.utils.errors import BeatsError

from .embeddings import Embeddings


# The logit of a class without a clip to learn from: its probability is about 1e-13.
NO_CHANCE = -30.0
MAX_FOLDS = 5
# Products of so many numbers are too small to share among threads, which would wait for each other instead.
MAX_VALUES_OF_ONE_THREAD = 10_000_000
MAX_ITERATIONS = 2000


class LinearClassifier(NamedTuple):
    """Weights `(num_labels, hidden_size)` and biases `(num_labels,)` of logits, float64."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, values: np.ndarray) -> np.ndarray:
        """Returns logits `(num_windows, num_labels)` of embeddings `(num_windows, hidden_size)`, float32."""
        return (values @ self.weight.T + self.bias).astype(np.float32)


class Settings(NamedTuple):
    """
    Settings of a logistic regression: the model's `problem_type`, scikit-learn's `C` for standardised embeddings, the
    weights of the classes `(num_labels,)`, and the seed of the folds that choose a layer.
    """

    problem_type: str
    c: float = 1.0
    weights: np.ndarray | None = None
    seed: int = 0


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
    return LinearClassifier(weight, bias - weight @ mean)


def predict(classifier: LinearClassifier, embeddings: Embeddings, labels: Labels, problem_type: str) -> Predictions:
    """Returns the probabilities of clips, means over their windows."""
    scores = clip_scores(classifier.logits(embeddings.values), embeddings.clip_of, problem_type)
    return Predictions(embeddings.names, scores, labels.as_array(), labels.names)


def choose_layer(embeddings: Embeddings, labels: Labels, settings: Settings) -> tuple[int, list[float]]:
    """
    Chooses the layer of the least cross-validated log loss of the clips to learn from.

    Returns:
        `tuple[int, list[float]]`: the position of the layer, and the log loss of each: in nats a clip, or with several
        labels a clip and class.

    Raises:
        [`BeatsError`]: if there are too few clips.
    """
    losses = []
    splits = list(_split(labels, settings.seed))
    if not splits:
        raise BeatsError("There are too few clips to choose a layer by cross-validation: name one in `probe_layers`.")
    for position in range(embeddings.values.shape[1]):
        of_layer = embeddings.of_layer(position)
        parts = []
        for train, held_out in splits:
            classifier = fit_classifier(of_layer.select(train), labels.select(train.tolist()), settings)
            unseen = labels.select(held_out.tolist())
            predictions = predict(classifier, of_layer.select(held_out), unseen, settings.problem_type)
            parts.append(_log_loss(predictions, settings.problem_type))
        losses.append(float(np.concatenate(parts).mean()))
    return int(np.argmin(losses)), losses


def _split(labels: Labels, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields indices of clips to learn from and held out; classes in the same shares where each has enough clips."""
    targets = labels.as_array()
    if len(targets) < 2:
        return
    splitter: Any = KFold(min(MAX_FOLDS, len(targets)), shuffle=True, random_state=seed)
    if targets.ndim == 1 and (smallest := int(np.unique(targets, return_counts=True)[1].min())) >= 2:
        splitter = StratifiedKFold(min(MAX_FOLDS, smallest), shuffle=True, random_state=seed)
    for train, held_out in splitter.split(targets, targets if targets.ndim == 1 else None):
        # A part with one class has nothing to learn from.
        if targets.ndim == 2 or len(np.unique(targets[train])) > 1:
            yield train, held_out


def _log_loss(predictions: Predictions, problem_type: str) -> np.ndarray:
    scores = predictions.scores.astype(np.float64).clip(1e-7, 1 - 1e-7)
    labels = predictions.labels
    if problem_type == "single_label_classification":
        return -np.log(scores[np.arange(len(scores)), labels])
    if labels.ndim == 1:
        labels = labels[:, None] == np.arange(scores.shape[1])
    return -np.where(labels > 0, np.log(scores), np.log(1 - scores)).ravel()
