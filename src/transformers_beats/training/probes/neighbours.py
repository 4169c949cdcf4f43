# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Nearest neighbours among the embeddings of labelled clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

from transformers_beats.training.data.labels import Labels
from transformers_beats.training.reports.scoring import mean_over_windows

from .embeddings import Embeddings
from .regression import standardise
from .settings import Settings


# Numbers of neighbours that are tried.
NUMBERS = (1, 2, 3, 5, 10, 20, 50)
# More of a vote that the nearest has, divided by the rank of the others: it decides between equal numbers of votes
# alone, since that of 50 neighbours together is below a hundredth of a vote.
NEARER = 1e-3


def weigh_ranks(number: int) -> np.ndarray:
    """Returns the votes of neighbours, the nearest first: `number` in all, and hardly more for a nearer one."""
    weights = 1 + NEARER / np.arange(1, number + 1)
    return weights / weights.mean()


@dataclass
class Neighbours:
    """
    Nearest neighbours of standardised embeddings, by cosine. The score of a class is its share of the votes of the
    `number` nearest windows and of one more vote, divided among all outcomes (Laplace's rule), so that the log loss of
    a class without a vote is finite; the order of the classes is that of the votes.
    """

    index: NearestNeighbors
    statistics: tuple[np.ndarray, np.ndarray]
    votes: np.ndarray
    prior: float
    number: int

    def scores(self, embeddings: Embeddings) -> np.ndarray:
        """Returns the probabilities of clips, means over their windows, float32 `(num_clips, num_labels)`."""
        mean, std = self.statistics
        nearest = self.index.kneighbors((embeddings.values - mean) / std, self.number, return_distance=False)
        votes = np.einsum("k,wkl->wl", weigh_ranks(self.number), self.votes[nearest])
        scores = (votes + self.prior) / (self.number + 1)
        return mean_over_windows(scores.astype(np.float32), embeddings.clip_of)


class NearestNeighbour:
    """Nearest neighbours, by scikit-learn, among the means over the patches of a layer."""

    name, title, reads, has_weights = "knn", "nearest neighbours", "means", False
    chosen: str | None = "the number of neighbours"

    def choices(self, num_windows: int, settings: Settings) -> list[int]:
        """Returns the numbers of neighbours that are tried, at most that of the windows."""
        return [number for number in NUMBERS if number <= num_windows]

    def fit(
        self, embeddings: Embeddings, labels: Labels, settings: Settings, choices: Sequence[int]
    ) -> list[Neighbours]:
        """Keeps the windows of clips and their labels, for each of the numbers of neighbours; fewer have fewer."""
        statistics = standardise(embeddings.values)
        index = NearestNeighbors(metric="cosine").fit((embeddings.values - statistics[0]) / statistics[1])
        targets = labels.as_array()
        votes = np.eye(len(labels.names))[targets] if targets.ndim == 1 else targets
        is_single = settings.problem_type == "single_label_classification"
        prior = 1 / len(labels.names) if is_single else 0.5
        numbers = [min(number, len(embeddings.values)) for number in choices]
        return [Neighbours(index, statistics, votes[embeddings.clip_of], prior, number) for number in numbers]
