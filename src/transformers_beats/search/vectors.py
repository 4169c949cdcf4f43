# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Embeddings as vectors of length 1, whose products are cosines."""

from typing import Any

import numpy as np

from transformers_beats.utils.errors import BeatsError


# Of a product of two vectors of length 1 in float32, several times over.
ROUNDING = 1e-6


def to_unit(embedding: np.ndarray) -> np.ndarray:
    """
    Returns an embedding `(hidden_size,)`, scaled to the length 1, float64.

    Raises:
        [`BeatsError`]: if it is zero.
    """
    values = embedding.astype(np.float64)
    if not (length := np.linalg.norm(values)):
        raise BeatsError("An embedding is zero, so that there is no similarity: the model is not trained.")
    return values / length


def to_cosine(product: float) -> float:
    """Returns the product of two vectors of length 1 as a cosine, without what rounding has added."""
    return float(np.clip(product, -1.0, 1.0))


def reaches(similarity: Any, threshold: float) -> Any:
    """Returns whether cosines are a threshold or more, up to the rounding of float32: those of copies reach 1."""
    return similarity >= threshold - ROUNDING


__all__ = ["reaches", "to_cosine", "to_unit"]
