# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Parts of the score of a clip: its bands, and its moments, by leaving them out."""

from typing import NamedTuple

import numpy as np

from transformers_beats.inference.results import Columns

from .bank import MemoryBank
from .choices import DetectorSettings
from .embedding import to_vectors


# Moments that a long clip is divided into at most.
MAX_MOMENTS = 100


class Explanation(NamedTuple):
    """
    Parts of the score of a clip.

    Args:
        score (`float`):
            The score.
        domain (`str`):
            Domain whose normal clips the clip is most like; `""` if there are no domains.
        bands (`np.ndarray` of shape `(num_bands,)`):
            Standardised score of each band, from low to high frequencies; the score is their mean.
        moments (`np.ndarray` of shape `(num_moments, num_bands)`):
            By how much the score of the band is higher than without the moment.
        moment_seconds (`float`):
            Time from one moment to the next; the last may be shorter.
    """

    score: float
    domain: str
    bands: np.ndarray
    moments: np.ndarray
    moment_seconds: float


def explain(columns: Columns, bank: MemoryBank, settings: DetectorSettings) -> Explanation:
    """
    Explains the score of a clip by occlusion: it is pooled again without each moment, a column of 160 ms or, of a clip
    of more than 100 columns, several. What is left when a clip has a single moment is nothing, so that the moment has
    the whole score.

    Args:
        columns ([`Columns`] with values `(num_columns, num_layers, num_bands, hidden_size)`):
            Hidden states of the clip, from [`read_columns`].
        bank ([`MemoryBank`]):
            Normal clips of the machine.
        settings ([`DetectorSettings`]):
            Those of the bank.

    Returns:
        [`Explanation`]
    """
    values = columns.values
    step = -(-len(values) // MAX_MOMENTS)
    starts = range(0, len(values), step)
    (domain,), (parts,) = bank.closest(to_vectors(values, settings)[None])
    bands = parts.mean(axis=0)
    if len(starts) == 1:
        moments = bands[None]
    else:
        rests = [np.concatenate([values[:start], values[start + step :]]) for start in starts]
        occluded = bank.parts(np.stack([to_vectors(rest, settings) for rest in rests]))[domain]
        moments = bands - occluded.mean(axis=1)
    return Explanation(float(bands.mean()), domain, bands, moments, step * columns.column_seconds)


__all__ = ["Explanation", "explain"]
