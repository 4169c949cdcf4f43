# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Probes that are trained with gradients: the poolings of [`BeatsForAudioClassification`], of which they become the head,
on frozen embeddings that were computed before.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from transformers_beats import BeatsConfig
from transformers_beats.modeling_beats import (
    POOLINGS,
    BeatsAttentionPooling,
    BeatsLayerAverage,
    BeatsPrototypePooling,
    score_pooled,
)
from transformers_beats.training.data.labels import Labels
from transformers_beats.training.reports.scoring import clip_scores
from transformers_beats.training.trainers.losses import weighted_loss

from .embeddings import Embeddings, PatchEmbeddings, View
from .settings import Settings, set_average, set_head


# Windows in a step of the optimiser.
BATCH_SIZE = 64
# After these shares of the steps, a training is looked at: it may be better to stop there.
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)


class Head(nn.Module):
    """
    A pooling of patches or an average of layers, and the classifier behind it.

    Args:
        pool (`nn.Module`):
            [`BeatsAttentionPooling`], [`BeatsPrototypePooling`] or [`BeatsLayerAverage`].
        num_labels (`int`):
            Number of classes.
        mean (`torch.Tensor` of shape `(hidden_size,)`), std (`(hidden_size,)`):
            Statistics by which embeddings are standardised before the head sees them. Prototypes have their own.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, pool: Any, num_labels: int, mean: torch.Tensor, std: torch.Tensor):
        super().__init__()
        self.pool = pool
        self.classifier = nn.Linear(getattr(pool, "num_outputs", len(mean)), num_labels)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """
        Returns logits `(batch_size, num_labels)` of patches `(batch_size, num_patches, hidden_size)` with their mask,
        or of means of layers `(batch_size, num_layers, hidden_size)` without one.
        """
        if not isinstance(self.pool, BeatsPrototypePooling):
            states = (states - self.mean) / self.std
        if isinstance(self.pool, BeatsLayerAverage):
            # Each mean stands for a clip of one patch.
            return self.classifier(self.pool(states.transpose(0, 1).unsqueeze(2)).squeeze(1))
        return score_pooled(self.pool(states, mask), self.classifier)


@dataclass
class TrainedHead:
    """A head that has been trained, for views of the kind that it was trained on."""

    head: Head
    settings: Settings

    @torch.no_grad()
    def scores(self, view: View) -> np.ndarray:
        """Returns the probabilities of clips, means over their windows, float32 `(num_clips, num_labels)`."""
        device, num_windows = self.settings.device, len(view.clip_of)
        parts = [
            self.head(*_read(view, np.arange(start, min(start + BATCH_SIZE, num_windows)), device)).cpu().numpy()
            for start in range(0, num_windows, BATCH_SIZE)
        ]
        return clip_scores(np.concatenate(parts), view.clip_of, self.settings.problem_type)

    @torch.no_grad()
    def write(self, model: Any) -> None:
        """
        Makes this the head of a model, which reads states as they are: with the division by the standard deviation in
        the queries and in the classifier, where the mean is a part of the bias. What a mean adds to the products with
        a query is the same for all, and a softmax does not see it.
        """
        pool, weight, bias = self.head.pool, self.head.classifier.weight, self.head.classifier.bias
        values = {name: value.clone() for name, value in pool.state_dict().items()}
        if isinstance(pool, BeatsPrototypePooling):
            set_head(model, "prototypes", pool.num_outputs)
        else:
            weight, bias = weight / self.head.std, bias - weight @ (self.head.mean / self.head.std)
            if "query" in values:
                values["query"] /= self.head.std
            if isinstance(pool, BeatsAttentionPooling):
                set_head(model, "class_attention" if self.settings.query == "class" else "attention")
            else:
                set_head(model)
                set_average(model, self.settings.layer_weights)
        (model.layer_average if isinstance(pool, BeatsLayerAverage) else model.pooling).load_state_dict(values)
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)


class TrainedProbe:
    """Base class of the probes that AdamW trains; subclasses build a head."""

    name: str
    title: str
    reads = "patches"
    has_weights = True
    chosen: str | None = "the steps of training"
    learning_rate = 1e-2

    def choices(self, num_windows: int, settings: Settings) -> list[int]:
        """Returns the numbers of steps after which a training may end."""
        return sorted({max(1, round(settings.steps * share)) for share in SHARES})

    def build(self, view: Any, labels: Labels, settings: Settings) -> Head:
        """Builds an untrained head for a view."""
        raise NotImplementedError

    def fit(self, view: View, labels: Labels, settings: Settings, choices: Sequence[int]) -> list[TrainedHead]:
        """
        Trains a head by AdamW with a constant learning rate, on the cross-entropy of windows, each with the label of
        its clip. Returns it as it was after each of the numbers of steps, in ascending order. The same seed gives the
        same head.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            head = self.build(view, labels, settings).to(settings.device)
        rate = self.learning_rate if settings.learning_rate is None else settings.learning_rate
        optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.01)
        is_single = settings.problem_type == "single_label_classification"
        targets = labels.as_array()
        if targets.ndim == 1 and not is_single:
            targets = np.eye(len(labels.names), dtype=np.float32)[targets]
        weights = np.ones(len(labels.names), dtype=np.float32) if settings.weights is None else settings.weights
        config = _config(view, labels, problem_type=settings.problem_type)
        kept, order = [], _draw_batches(len(view.clip_of), settings.seed)
        for step in range(1, max(choices) + 1):
            windows = next(order)
            expected = torch.from_numpy(targets[view.clip_of[windows]]).to(settings.device)
            logits = head(*_read(view, windows, settings.device))
            loss = weighted_loss(expected, logits, config, torch.from_numpy(weights))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step in choices:
                kept.append(TrainedHead(copy.deepcopy(head).eval(), settings))
        return kept


def _draw_batches(num_windows: int, seed: int) -> Iterator[np.ndarray]:
    """Yields windows of batches, in ascending order, without end; each window once in an epoch."""
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(num_windows)
        for start in range(0, num_windows, BATCH_SIZE):
            yield np.sort(order[start : start + BATCH_SIZE])


def _read(view: View, windows: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Reads the inputs of a head: patches of windows with their mask, or means of layers."""
    if isinstance(view, Embeddings):
        return torch.from_numpy(view.values[windows]).to(device), None
    states, mask = view.read(windows)
    return states.to(device), mask.to(device)


def _patch_statistics(view: PatchEmbeddings) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes mean and standard deviation over all valid patches, float32 `(hidden_size,)`."""
    count, total, square = 0, 0.0, 0.0
    for start in range(0, len(view.rows), BATCH_SIZE):
        states, mask = view.read(np.arange(start, min(start + BATCH_SIZE, len(view.rows))))
        valid = states[mask].double()
        count, total, square = count + len(valid), total + valid.sum(dim=0), square + valid.square().sum(dim=0)
    mean = torch.as_tensor(total / max(count, 1))
    return _as_statistics(mean, (torch.as_tensor(square / max(count, 1)) - mean.square()).clamp(min=0.0).sqrt())


def _layer_statistics(values: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Computes the mean over windows and layers, and the root of the mean of the layers' variances, float32
    `(hidden_size,)`, of embeddings `(num_windows, num_layers, hidden_size)`, one layer in float64 at a time.
    """
    means, variances = torch.zeros(values.shape[-1]).double(), torch.zeros(values.shape[-1]).double()
    for layer in range(values.shape[1]):
        states = torch.from_numpy(values[:, layer]).double()
        means += states.mean(dim=0)
        variances += states.var(dim=0, correction=0)
    return _as_statistics(means / values.shape[1], (variances / values.shape[1]).sqrt())


def _as_statistics(mean: torch.Tensor, std: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns statistics in float32, with 1 for the deviation of a dimension that does not vary."""
    return mean.float(), torch.where(std > 1e-6, std, 1.0).float()


def _config(view: Any, labels: Labels, **values: Any) -> Any:
    """Returns a configuration for the poolings of a model with embeddings of this size."""
    size = view.values.shape[-1]
    # Heads and groups must divide it.
    return BeatsConfig(
        hidden_size=size,
        num_attention_heads=1,
        num_conv_pos_embedding_groups=1,
        id2label=dict(enumerate(labels.names)),
        **values,
    )


class AttentiveProbe(TrainedProbe):
    """
    Attention of learned queries to the patches of a layer, and a linear classifier of what they find; see
    [`BeatsAttentionPooling`]. Before the first step, it is the mean over the patches.
    """

    name, title = "attentive", "attention to the patches"

    def build(self, view: Any, labels: Labels, settings: Settings) -> Head:
        pooling = "class_attention" if settings.query == "class" else "attention"
        config = _config(view, labels, classifier_pooling=pooling)
        return Head(POOLINGS[pooling](config), len(labels.names), *_patch_statistics(view))


class PrototypeProbe(TrainedProbe):
    """
    Binarised prototypes of the patches of a layer, and a linear classifier of their largest similarities; see
    [`BeatsPrototypePooling`] for its equations, their source, and what is ours. Ours are as well: the prototypes begin
    as standardised patches that were drawn from the clips to learn from, their number is a multiple of that of the
    classes, and the loss is that of the other probes.
    """

    name, title = "prototype", "binarised prototypes of patches"
    # Prototypes change only once their signs do.
    learning_rate = 3e-2

    def build(self, view: Any, labels: Labels, settings: Settings) -> Head:
        mean, std = _patch_statistics(view)
        number = settings.prototypes * len(labels.names)
        pool: Any = BeatsPrototypePooling(
            _config(view, labels, classifier_pooling="prototypes", num_prototypes=number)
        )
        generator = np.random.default_rng(settings.seed)
        rows = np.sort(generator.integers(len(view.rows), size=number))
        drawn = []
        # A window has hundreds of patches, of which one is kept.
        for start in range(0, number, BATCH_SIZE):
            states, mask = view.read(rows[start : start + BATCH_SIZE])
            positions = [int(generator.choice(np.flatnonzero(valid))) if valid.any() else 0 for valid in mask.numpy()]
            drawn.append(states[torch.arange(len(states)), torch.tensor(positions)])
        with torch.no_grad():
            pool.mean.copy_(mean)
            pool.std.copy_(std)
            pool.prototypes.copy_((torch.cat(drawn) - mean) / std)
        return Head(pool, len(labels.names), mean, std)


class LayerProbe(TrainedProbe):
    """
    Average of the means of all layers over the patches, with learned weights, the same for all clips or by attention
    for each, and a linear classifier of it; see [`BeatsLayerAverage`]. Layers are standardised together, by the mean
    over all and the deviation within each: then the weights are those of the states as they are.
    """

    name, title, reads = "multi_layer", "a learned average of all layers", "layers"

    def build(self, view: Any, labels: Labels, settings: Settings) -> Head:
        num_layers = view.values.shape[1] - 1
        values = {"use_weighted_layer_sum": True, "layer_weights": settings.layer_weights}
        config = _config(view, labels, num_hidden_layers=num_layers, **values)
        return Head(BeatsLayerAverage(config), len(labels.names), *_layer_statistics(view.values))
