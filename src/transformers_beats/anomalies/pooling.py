# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Vectors of a clip for each layer and frequency band, from the hidden states of its time columns."""

from collections.abc import Iterable

import numpy as np

from .choices import GEM_POWER, RDP_POWER, Bands, TimePooling


def deviation_weights(values: np.ndarray, power: float = RDP_POWER) -> np.ndarray:
    """
    Returns the weights of relative deviation pooling (Wilkinghoff, Yadav and Tan, 2026, arXiv 2603.04605, section
    III-E): with the distance d of a column from the mean over time, (1 + d / max d)^power, scaled to the sum 1. Each
    layer and band has weights of its own. They are equal where all columns are, and for a power of 0.

    Args:
        values (`np.ndarray` of shape `(num_columns, ..., hidden_size)`):
            Hidden states.
        power (`float`, defaults to 4.0):
            Emphasis on columns that deviate.

    Returns:
        `np.ndarray` of shape `(num_columns, ...)`, float64
    """
    distances = np.linalg.norm(values - values.mean(axis=0, dtype=np.float64), axis=-1)
    largest = distances.max(axis=0)
    relative = np.divide(distances, largest, out=np.zeros_like(distances), where=largest > 0)
    weights = (1 + relative) ** power
    return weights / weights.sum(axis=0)


def pool_time(values: np.ndarray, pooling: TimePooling = "mean") -> np.ndarray:
    """
    Pools the columns of a clip.

    - `"mean"`: their mean.
    - `"gem"`: the generalised mean (mean of x^3)^(1/3), with negative values taken for 0 as in arXiv 2603.04605,
      section III-D.
    - `"rdp"`: the mean with the weights of [`deviation_weights`].
    - `"rdp-gem"`: the generalised mean with these weights (section III-F).

    Args:
        values (`np.ndarray` of shape `(num_columns, ..., hidden_size)`):
            Hidden states, at least of one column.
        pooling (`str`, defaults to `"mean"`):
            Kind of pooling.

    Returns:
        `np.ndarray` of shape `(..., hidden_size)`, float32
    """
    return pool_blocks([values], pooling)


def pool_blocks(blocks: Iterable[np.ndarray], pooling: TimePooling = "mean") -> np.ndarray:
    """
    Pools the columns of a clip that come in blocks, as [`pool_time`] does. For `"rdp"`, whose weights depend on the
    mean over time, all columns are held; for other kinds, one block.
    """
    if "rdp" in pooling:
        values = np.concatenate([*blocks])
        total, count = (deviation_weights(values)[..., None] * _to_power(values, pooling)).sum(axis=0), 1
    else:
        total, count = np.zeros(()), 0
        for values in blocks:
            total, count = total + _to_power(values, pooling).sum(axis=0), count + len(values)
    mean = total / count
    return (mean ** (1 / GEM_POWER) if "gem" in pooling else mean).astype(np.float32)


def _to_power(values: np.ndarray, pooling: TimePooling) -> np.ndarray:
    """Returns what is averaged, in float64."""
    return np.maximum(values, 0, dtype=np.float64) ** GEM_POWER if "gem" in pooling else values.astype(np.float64)


def arrange_bands(pooled: np.ndarray, bands: Bands = "separate") -> np.ndarray:
    """
    Returns the bands `(..., num_bands, hidden_size)` of pooled clips as they are, or with `"mean"` and `"concat"` as
    one: `(..., 1, hidden_size)` or `(..., 1, num_bands * hidden_size)`.
    """
    if bands == "mean":
        return pooled.mean(axis=-2, keepdims=True)
    if bands == "concat":
        return pooled.reshape(*pooled.shape[:-2], 1, -1)
    return pooled


__all__ = ["arrange_bands", "deviation_weights", "pool_blocks", "pool_time"]
