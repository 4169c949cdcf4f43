# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Choices of a detector, and what is known of each; without torch and scikit-learn."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from transformers_beats.utils.errors import BeatsError, UsageError


# Name of the file of a detector.
SUFFIX = ".safetensors"
# Score of a vector against those of normal clips.
BackendName: TypeAlias = Literal["knn", "density", "mahalanobis", "pca"]
# The columns of a clip: their mean, generalised mean, mean weighted by relative deviation, or both of these.
TimePooling: TypeAlias = Literal["mean", "gem", "rdp", "rdp-gem"]
# The frequency bands of a clip: a bank of each, of their mean, or of all in one vector.
Bands: TypeAlias = Literal["separate", "mean", "concat"]
# Exponents of the generalised mean, and of the weights of relative deviation pooling.
GEM_POWER, RDP_POWER = 3.0, 4.0
# Clips of a bank: with fewer, there is no spread among those that are left when one is left out.
MIN_CLIPS = 3


@dataclass(frozen=True)
class DetectorSettings:
    """
    Settings of a detector, but for its model.

    Args:
        layers (`tuple[int, ...]`):
            Layers of the encoder, as in `hidden_states`; each has a bank of its own.
        pooling (`str`, defaults to `"mean"`):
            `"mean"`, `"gem"`, `"rdp"` or `"rdp-gem"`, see [`pool_time`].
        bands (`str`, defaults to `"separate"`):
            `"separate"`: a bank for each frequency band (BEAM, arXiv 2603.13749). `"mean"`: their mean; `"concat"`:
            all in one vector (GenRep, arXiv 2409.05035).
        backend (`str`, defaults to `"knn"`):
            `"knn"`, `"density"`, `"mahalanobis"` or `"pca"`, see [`make_backend`].
        num_neighbors (`int`, defaults to 1):
            Neighbors of `"knn"` and `"density"`, at most as many as a bank has.

    Raises:
        [`UsageError`]: for a choice that is not known, or fewer neighbors than one.
    """

    layers: tuple[int, ...]
    pooling: TimePooling = "mean"
    bands: Bands = "separate"
    backend: BackendName = "knn"
    num_neighbors: int = 1

    def __post_init__(self):
        choices: tuple[tuple[str, Any], ...] = (("pooling", TimePooling), ("bands", Bands), ("backend", BackendName))
        for name, known in choices:
            if (value := getattr(self, name)) not in get_args(known):
                raise UsageError(f"`{name}` is {value!r}: choose {', '.join(get_args(known))}.")
        if not isinstance(self.num_neighbors, int) or self.num_neighbors < 1:
            raise UsageError(f"`num_neighbors` must be a whole number of at least 1, got {self.num_neighbors!r}.")


def check_num_clips(number: int, domain: str = "", machine: str = "") -> None:
    """Raises a [`BeatsError`] if a domain of a machine has too few normal clips for a bank."""
    if number < MIN_CLIPS:
        of = " of ".join(filter(None, (domain, machine)))
        raise BeatsError(
            f"There are {number} different normal clips{of and f' ({of})'}, and {MIN_CLIPS} are needed at least: add "
            "more."
        )


__all__ = [
    "GEM_POWER",
    "MIN_CLIPS",
    "RDP_POWER",
    "SUFFIX",
    "BackendName",
    "Bands",
    "DetectorSettings",
    "TimePooling",
    "check_num_clips",
]
