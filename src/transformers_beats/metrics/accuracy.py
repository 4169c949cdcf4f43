# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Accuracy: the share of clips whose class is predicted."""

from typing import Any

import datasets
import evaluate
import numpy as np
from evaluate.utils.file_utils import add_start_docstrings
from sklearn.metrics import accuracy_score


_DESCRIPTION = """
The share of clips whose class is predicted, as scikit-learn's `accuracy_score`. A value that is no class index is an
error.
"""

ARGUMENTS = """
Args:
    predictions (sequence of `int` of length `num_clips`):
        Predicted class indices.
    references (sequence of `int` of length `num_clips`):
        True class indices.
    num_labels (`int`, *optional*):
        Number of classes. If given, an index of `num_labels` or above is an error.

Returns:
    `dict[str, float]`:"""

_KWARGS_DESCRIPTION = f"""{ARGUMENTS} `accuracy`, in [0, 1].

Example:

    >>> metric.compute(predictions=[0, 1, 2, 2], references=[0, 1, 1, 2])
    {{'accuracy': 0.75}}
"""


def check_class_indices(predictions: Any, references: Any, num_labels: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns both as int64; raises a `ValueError` for other values, and if there are not as many of both."""
    checked = []
    for name, values in (("predictions", predictions), ("references", references)):
        indices = np.asarray(values, dtype=np.float64)
        if indices.ndim != 1 or not indices.size:
            raise ValueError(f"{name} must be the class indices of at least one clip, got shape {indices.shape}.")
        limit = np.inf if num_labels is None else num_labels
        is_index = (indices >= 0) & (indices < limit) & (indices == np.floor(indices))
        if not is_index.all():
            clip = int(np.flatnonzero(~is_index)[0])
            bound = "and not negative" if num_labels is None else f"from 0 to {num_labels - 1}"
            raise ValueError(f"{name} must be whole numbers {bound}, got {indices[clip]:g} for clip {clip}.")
        checked.append(indices.astype(np.int64))
    predicted, true = checked
    if len(predicted) != len(true):
        raise ValueError(f"There are {len(predicted)} predictions for {len(true)} references.")
    return predicted, true


def info_of_class_indices(description: str, inputs_description: str, page: str) -> evaluate.MetricInfo:
    """Returns the description of a metric of class indices."""
    # Not integers: 1.7 would silently become 1.
    features = datasets.Features({name: datasets.Value("float64") for name in ("predictions", "references")})
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description=inputs_description,
        features=features,
        reference_urls=[page],
    )


def compute_accuracy(predictions: Any, references: Any, num_labels: int | None = None) -> dict[str, float]:
    """
    Computes the accuracy; see the description of [`Accuracy`].

    Raises:
        `ValueError`: if a value is no class index, or there are more predictions than references or fewer.
    """
    predicted, true = check_class_indices(predictions, references, num_labels)
    return {"accuracy": float(accuracy_score(true, predicted))}


@add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Accuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        page = "https://scikit-learn.org/stable/modules/generated/sklearn.metrics.accuracy_score.html"
        return info_of_class_indices(_DESCRIPTION, _KWARGS_DESCRIPTION, page)

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs) -> dict[str, float]:
        return compute_accuracy(predictions, references, **kwargs)
