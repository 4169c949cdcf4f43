# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Memory bank of a machine: a back end for each domain, layer and band, and one score of all of them."""

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
from sklearn.metrics import pairwise_distances_chunked

from transformers_beats.audio.machines import TARGET
from transformers_beats.utils.errors import UsageError

from .backends import make_backend
from .choices import DetectorSettings, check_num_clips


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
            Vectors of the normal clips of each domain, float32. Copies count once, since a clip with a copy in the
            bank would be nearer to it than any new clip; a clip that several domains have is kept in the target.
        settings ([`DetectorSettings`]):
            Back end and neighbors.
        held_out (`Mapping[str, np.ndarray]` with values `(num_clips, num_layers, num_bands)`, *optional*):
            Scores of these clips, each against the others, as of [`~MemoryBank.held_out`] of an earlier bank.
            Computed if not given. With them, the vectors are those of that bank, and no copies are looked for.
        name (`str`, *optional*):
            Name of the machine for messages.

    Attributes:
        num_copies (`int`):
            Copies that were left out.
        num_shared (`int`):
            Those among them whose other copy is in another domain.

    Raises:
        [`BeatsError`]: for a domain of fewer than three different clips.
        [`UsageError`]: for domains with vectors of different shapes.
    """

    def __init__(
        self,
        vectors: Mapping[str, np.ndarray],
        settings: DetectorSettings,
        held_out: Mapping[str, np.ndarray] | None = None,
        name: str = "",
    ):
        shapes = {domain: values.shape[1:] for domain, values in vectors.items()}
        if len(set(shapes.values())) > 1 or not all(len(shape) == 3 for shape in shapes.values()):
            found = ", ".join(f"{shape} of {domain or 'a clip'}" for domain, shape in shapes.items())
            raise UsageError(
                f"Vectors of a clip have the shapes {found}: expected one shape (num_layers, num_bands, dim)."
            )
        self.num_copies = self.num_shared = 0
        if held_out is None:
            vectors = self._without_copies(vectors)
        for domain, values in vectors.items():
            check_num_clips(len(values), domain, name)
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

    def _without_copies(self, vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the vectors of each domain without those of copies, which are counted."""
        # There are few clips of the target: it keeps its own.
        order = sorted(vectors, key=lambda domain: domain != TARGET)
        owners = [(domain, number) for domain in order for number in range(len(vectors[domain]))]
        joined = np.concatenate([vectors[domain] for domain in order])
        rows, squares = _flatten(joined)
        kept: dict[int, None] = {}
        for place, near in enumerate(_find_copies(joined, rows, squares)):
            first = next((other for other in near if other in kept), None)
            if first is None:
                kept[place] = None
            else:
                self.num_copies += 1
                self.num_shared += owners[first][0] != owners[place][0]
        numbers: dict[str, list[int]] = {domain: [] for domain in vectors}
        for place in kept:
            domain, number = owners[place]
            numbers[domain].append(number)
        return {domain: values[numbers[domain]] for domain, values in vectors.items()}

    def _check(self, vectors: np.ndarray) -> None:
        """Raises a [`UsageError`] for vectors of another shape than those of the bank."""
        expected = next(iter(self.vectors.values())).shape[1:]
        if vectors.shape[1:] != expected:
            raise UsageError(
                f"Vectors have the shape {vectors.shape}, and those of the normal clips (num_clips, "
                f"{', '.join(map(str, expected))}): embed clips with the model and the settings of the detector."
            )

    def __len__(self) -> int:
        return sum(map(len, self.vectors.values()))

    def parts(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """
        Returns the standardised scores `(num_clips, num_layers, num_bands)`, float64, of clips `(num_clips,
        num_layers, num_bands, dim)` in each domain; raises a [`UsageError`] for vectors of another shape.
        """
        self._check(vectors)
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
        self._check(vectors)
        found = [list(map(bool, _find_copies(vectors, *flat))) for flat in self._flat]
        return np.any(found, axis=0)

    @cached_property
    def _flat(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows and squared lengths of each domain: clips come one at a time, and would each convert the bank."""
        return [_flatten(values) for values in self.vectors.values()]


def _flatten(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vectors of clips as rows, float64, and their squared lengths."""
    rows = vectors.reshape(len(vectors), -1).astype(np.float64)
    return rows, np.square(rows).sum(axis=1)


def _find_copies(vectors: np.ndarray, bank: np.ndarray, squares: np.ndarray) -> Iterator[list[int]]:
    """Yields for each clip the numbers of rows of a bank, from [`_flatten`], that it is equal to, up to rounding."""
    tolerances = COPY_TOLERANCE * np.sqrt(squares)

    def find(distances: np.ndarray, start: int) -> list[list[int]]:
        return [np.flatnonzero(row <= tolerances).tolist() for row in distances]

    rows, _ = _flatten(vectors)
    # A few rows at a time: of many clips, all distances would not fit into memory.
    for found in pairwise_distances_chunked(rows, bank, reduce_func=find, Y_norm_squared=squares):
        yield from found


__all__ = ["MemoryBank"]
