# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Memory bank of a machine: a back end for each domain, layer and band, and one score of all of them."""

from collections.abc import Iterator, Mapping

import numpy as np
from sklearn.metrics import pairwise_distances_chunked

from transformers_beats.utils.errors import BeatsError

from .backends import MIN_CLIPS, make_backend
from .choices import DetectorSettings


# A spread of scores that is smaller, relative to their mean or at all, is rounding.
MIN_SPREAD = 1e-9
# Largest difference, relative to the length of a vector, of two embeddings of one clip: batches round differently.
COPY_TOLERANCE = 1e-5


class MemoryBank:
    """
    Normal clips of a machine, and the score of others against them.

    Each domain, layer and band has a back end of its own. Its scores are standardised by the mean and the standard
    deviation of the scores that its own clips have when they are left out. The score of a clip is the mean over layers
    and bands, as in BEAM (arXiv 2603.13749); of several domains, the smallest counts, since a clip is normal if it is
    normal in one of them. So a domain of few clips, which are far from each other, is no disadvantage for clips of it
    (domain normalisation of GenRep, arXiv 2409.05035), and nobody has to know the domain of a clip.

    Args:
        vectors (`Mapping[str, np.ndarray]` with values `(num_clips, num_layers, num_bands, dim)`):
            Vectors of the normal clips of each domain, float32.
        settings ([`DetectorSettings`]):
            Back end and neighbors.
        held_out (`Mapping[str, np.ndarray]` with values `(num_clips, num_layers, num_bands)`, *optional*):
            Scores of these clips, each against the others, as of [`~MemoryBank.held_out`] of an earlier bank.
            Computed if not given.
        name (`str`, *optional*):
            Name of the machine for messages.

    Raises:
        [`BeatsError`]: for a domain of fewer than three clips.
    """

    def __init__(
        self,
        vectors: Mapping[str, np.ndarray],
        settings: DetectorSettings,
        held_out: Mapping[str, np.ndarray] | None = None,
        name: str = "",
    ):
        for domain, values in vectors.items():
            if len(values) < MIN_CLIPS:
                of = " of ".join(filter(None, (domain, name)))
                raise BeatsError(
                    f"There are {len(values)} different normal clips{of and f' ({of})'}, and {MIN_CLIPS} are needed "
                    "at least: add more."
                )
        self.vectors = dict(vectors)
        self.backends = {
            domain: [
                [make_backend(settings.backend, of_band, settings.num_neighbors) for of_band in of_layer]
                # Layers and bands first.
                for of_layer in np.moveaxis(values, 0, 2)
            ]
            for domain, values in self.vectors.items()
        }
        self.held_out: dict[str, np.ndarray] = dict(held_out or {})
        for domain in self.vectors.keys() - self.held_out.keys():
            scores = [[backend.held_out() for backend in row] for row in self.backends[domain]]
            # In the order of a file, so that means round alike.
            self.held_out[domain] = np.ascontiguousarray(np.moveaxis(np.array(scores), 2, 0))
        self.means = {domain: scores.mean(axis=0) for domain, scores in self.held_out.items()}
        self.spreads = {
            domain: np.maximum(scores.std(axis=0), MIN_SPREAD * np.maximum(self.means[domain], 1))
            for domain, scores in self.held_out.items()
        }

    def __len__(self) -> int:
        return sum(map(len, self.vectors.values()))

    def parts(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """
        Returns the standardised scores `(num_clips, num_layers, num_bands)`, float64, of clips `(num_clips,
        num_layers, num_bands, dim)` in each domain.
        """
        found = {}
        for domain, rows in self.backends.items():
            scores = [
                [backend.score(vectors[:, layer, band]) for band, backend in enumerate(row)]
                for layer, row in enumerate(rows)
            ]
            found[domain] = self._standardise(domain, np.moveaxis(np.array(scores), 2, 0))
        return found

    def _standardise(self, domain: str, scores: np.ndarray) -> np.ndarray:
        return (scores - self.means[domain]) / self.spreads[domain]

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the scores `(num_clips,)`, float64, of clips `(num_clips, num_layers, num_bands, dim)`."""
        return self.closest(vectors)[1].mean(axis=(1, 2))

    def closest(self, vectors: np.ndarray) -> tuple[list[str], np.ndarray]:
        """
        Returns the domain in which each clip has its score, and the standardised scores `(num_clips, num_layers,
        num_bands)` there, whose mean it is.
        """
        found = self.parts(vectors)
        names, scores = list(found), np.stack(list(found.values()))
        chosen = scores.mean(axis=(2, 3)).argmin(axis=0)
        return [names[number] for number in chosen], scores[chosen, np.arange(len(vectors))]

    def normal_scores(self) -> np.ndarray:
        """
        Returns the scores `(num_clips,)`, float64, of the bank's own clips, one domain after the other, each with the
        clip left out. (Mean and deviation of the standardisation are those of all clips.)
        """
        scores = []
        for domain, values in self.vectors.items():
            own = self._standardise(domain, self.held_out[domain]).mean(axis=(1, 2))
            others = (
                [part.mean(axis=(1, 2)) for other, part in self.parts(values).items() if other != domain]
                if len(self.vectors) > 1
                else []
            )
            scores.append(np.min([own, *others], axis=0))
        return np.concatenate(scores)

    def holds(self, vectors: np.ndarray) -> np.ndarray:
        """Returns which clips `(num_clips, num_layers, num_bands, dim)` are in the bank, `(num_clips,)`."""
        found = [list(map(bool, _find_copies(vectors, values))) for values in self.vectors.values()]
        return np.any(found, axis=0)


def without_copies(vectors: np.ndarray) -> np.ndarray:
    """
    Returns clips `(num_clips, num_layers, num_bands, dim)` without copies of those before them: left out of the bank,
    a clip with a copy in it would be nearer to it than any new clip.
    """
    kept: dict[int, None] = {}
    for number, near in enumerate(_find_copies(vectors, vectors)):
        if kept.keys().isdisjoint(near):
            kept[number] = None
    return vectors[list(kept)]


def _find_copies(vectors: np.ndarray, bank: np.ndarray) -> Iterator[list[int]]:
    """Yields for each clip the numbers of those of a bank that it is equal to, up to rounding."""
    rows, others = (values.reshape(len(values), -1).astype(np.float64) for values in (vectors, bank))
    lengths = np.linalg.norm(others, axis=1)

    def find(distances: np.ndarray, start: int) -> list[list[int]]:
        return [np.flatnonzero(row <= COPY_TOLERANCE * lengths).tolist() for row in distances]

    # A few rows at a time: of many clips, all distances would not fit into memory.
    for found in pairwise_distances_chunked(rows, others, reduce_func=find):
        yield from found


__all__ = ["MemoryBank", "without_copies"]
