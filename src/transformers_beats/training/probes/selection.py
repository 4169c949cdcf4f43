# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Kinds of probes, and the choice of their layers and settings by a cross-validation of the clips to learn from."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from transformers.utils import logging

from transformers_beats.training.data.labels import Labels
from transformers_beats.training.reports.report import Predictions
from transformers_beats.utils.errors import BeatsError

from .embeddings import Embedded, View
from .heads import AttentiveProbe, LayerProbe, PrototypeProbe
from .neighbours import NearestNeighbour
from .regression import Regression
from .settings import Settings


logger = logging.get_logger(__name__)

MAX_FOLDS = 5


class Fitted(Protocol):
    """A probe that has learned."""

    def scores(self, view: Any) -> np.ndarray:
        """Returns the probabilities of clips, float32 `(num_clips, num_labels)`."""


class Probe(Protocol):
    """
    Kind of probe: its name among the arguments, its title in reports, whether it `reads` the means over the patches of
    a layer, the patches, or all layers, whether it can be saved, and what is chosen beside its layer, if anything.
    """

    name: str
    title: str
    reads: str
    has_weights: bool
    chosen: str | None

    def choices(self, num_windows: int, settings: Settings) -> list[Any]:
        """Returns the values that are tried."""

    def fit(self, view: Any, labels: Labels, settings: Settings, choices: Sequence[Any]) -> list[Any]:
        """Fits a probe for each of the choices."""


_ALL: list[Any] = [Regression(), NearestNeighbour(), AttentiveProbe(), LayerProbe(), PrototypeProbe()]
# By their names in `probe`.
KINDS: dict[str, Probe] = {probe.name: probe for probe in _ALL}


class Candidate(NamedTuple):
    """A kind of probe, and the layer that it reads; None for all."""

    probe: Probe
    layer: int | None

    def view(self, embedded: Embedded) -> View:
        """Returns what it reads of some clips."""
        if self.layer is None:
            return embedded.means
        if self.probe.reads == "patches":
            return embedded.patches[self.layer]
        return embedded.means.of_layer(embedded.layers.index(self.layer))


class Choice(NamedTuple):
    """The value that was chosen for a candidate, and its cross-validated log loss, None if nothing was to choose."""

    value: Any
    loss: float | None


def list_candidates(names: Sequence[str], layers: Sequence[int]) -> list[Candidate]:
    """Returns the candidates that probes of these names are for these layers."""
    probes = [KINDS[name] for name in names]
    return [Candidate(probe, layer) for probe in probes for layer in ([None] if probe.reads == "layers" else layers)]


def predict(fitted: Fitted, view: View, labels: Labels) -> Predictions:
    """Returns the probabilities of clips, means over their windows."""
    return Predictions(view.names, fitted.scores(view), labels.as_array(), labels.names)


def choose(
    candidates: Sequence[Candidate],
    embedded: Embedded,
    labels: Labels,
    settings: Settings,
    groups: Sequence[Any] | None = None,
) -> tuple[int | None, list[Choice]]:
    """
    Chooses by the least cross-validated log loss of the clips to learn from. Clips of the same value in `groups`, such
    as those of a recording, are never on both sides of it, if there are two values or more.

    Returns:
        `tuple[int | None, list[Choice]]`: the position of the best candidate that can be saved, None if none can; and
        for each candidate the best value with its log loss: in nats a clip, or with several labels a clip and class.

    Raises:
        [`BeatsError`]: if there are too few clips.
    """
    # A part has four fifths of the clips, or half of two.
    windows = [candidate.view(embedded).clip_of for candidate in candidates]
    values = [
        candidate.probe.choices(max(1, len(clip_of) // 2), settings) for candidate, clip_of in zip(candidates, windows)
    ]
    choices = [Choice(of_candidate[0], None) for of_candidate in values]
    if len(candidates) > 1 or len(values[0]) > 1:
        splits = list(split_clips(labels, settings.seed, groups))
        if not splits:
            raise BeatsError(_too_few(candidates))
        choices = [
            _cross_validate(candidate, of_candidate, splits, embedded, labels, settings)
            for candidate, of_candidate in zip(candidates, values)
        ]
    losses = [
        choice.loss or 0.0 if candidate.probe.has_weights else np.inf for candidate, choice in zip(candidates, choices)
    ]
    best = int(np.argmin(losses))
    return (None if np.isinf(losses[best]) else best), choices


def _too_few(candidates: Sequence[Candidate]) -> str:
    layers = {candidate.layer for candidate in candidates}
    if len(layers) > 1 and None not in layers:
        return "There are too few clips to choose a layer by cross-validation: name one in `probe_layers`."
    chosen = next((probe.chosen for probe, _ in candidates if probe.chosen), "a probe")
    return f"There are too few clips to choose {chosen} by cross-validation: `probe: linear` needs none."


def _cross_validate(
    candidate: Candidate,
    values: Sequence[Any],
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    embedded: Embedded,
    labels: Labels,
    settings: Settings,
) -> Choice:
    """Returns the value of the least log loss over the clips that were held out."""
    view, parts = candidate.view(embedded), []
    for train, held_out in splits:
        fitted = candidate.probe.fit(view.select(train), labels.select(train.tolist()), settings, values)
        unseen, unseen_labels = view.select(held_out), labels.select(held_out.tolist())
        parts.append([_log_loss(predict(each, unseen, unseen_labels), settings.problem_type) for each in fitted])
    losses = [float(np.concatenate(of_value).mean()) for of_value in zip(*parts)]
    best = int(np.argmin(losses))
    return Choice(values[best], losses[best])


def split_clips(
    labels: Labels, seed: int, groups: Sequence[Any] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """
    Yields indices of clips to learn from and held out; classes in the same shares where each has enough clips, whole
    groups where there are two of them. Warns of one group alone, whose clips are parted at random.
    """
    targets = labels.as_array()
    if len(targets) < 2:
        return
    strata = targets if targets.ndim == 1 else None
    smallest = 0 if strata is None else int(np.unique(strata, return_counts=True)[1].min())
    found = None if groups is None else np.unique([str(group) for group in groups], return_inverse=True)[1]
    num_groups = 0 if found is None else int(found.max()) + 1
    num_parts = min(MAX_FOLDS, num_groups if num_groups >= 2 else len(targets))
    splitter: Any
    if num_groups >= 2:
        splitter = GroupKFold(num_parts)
        if smallest >= num_parts:
            splitter = StratifiedGroupKFold(num_parts, shuffle=True, random_state=seed)
    else:
        if num_groups == 1:
            logger.warning(
                "The clips to learn from are all of one fold: probes, layers and settings are chosen by random parts "
                "of them, and clips of one recording may be on both sides. Take three folds or more, or "
                "`probe: linear` of one layer, which has nothing to choose."
            )
        found, splitter = None, KFold(num_parts, shuffle=True, random_state=seed)
        if smallest >= 2:
            splitter = StratifiedKFold(min(num_parts, smallest), shuffle=True, random_state=seed)
    for train, held_out in splitter.split(targets, strata, found):
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
