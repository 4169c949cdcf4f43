# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Macro F1: the mean over classes of the harmonic mean of precision and recall."""

from typing import Any

import datasets
import evaluate
import numpy as np
from evaluate.utils.file_utils import add_start_docstrings
from sklearn.metrics import f1_score


_DESCRIPTION = """
F1 of each class that appears among the references or the predictions, averaged with equal weights, as scikit-learn's
`f1_score(average="macro")`. What is no class index is an error.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (sequence of `int` of length `num_clips`):
        Predicted class indices.
    references (sequence of `int` of length `num_clips`):
        True class indices.
    num_labels (`int`, *optional*):
        Number of classes. If given, an index of `num_labels` or above is an error. Classes that appear nowhere do not
        count in either case.

Returns:
    `dict[str, float]`: `macro_f1`, in [0, 1].

Example:

    >>> metric.compute(predictions=[0, 1, 1], references=[0, 0, 1])
    {'macro_f1': 0.6666666666666666}
"""


def check_class_indices(values: Any, name: str, num_labels: int | None) -> np.ndarray:
    """
    The values as int64, if all are class indices.

    Raises:
        `ValueError`: if there are none, or one is no whole number, negative, or not below `num_labels`.
    """
    indices = np.asarray(values, dtype=np.float64)
    if indices.ndim != 1 or not indices.size:
        raise ValueError(f"{name} must be the class indices of at least one clip, got shape {indices.shape}.")
    limit = np.inf if num_labels is None else num_labels
    is_index = (indices >= 0) & (indices < limit) & (indices == np.floor(indices))
    if not is_index.all():
        clip = int(np.flatnonzero(~is_index)[0])
        bound = "and not negative" if num_labels is None else f"from 0 to {num_labels - 1}"
        raise ValueError(f"{name} must be whole numbers {bound}, got {indices[clip]:g} for clip {clip}.")
    return indices.astype(np.int64)


def compute_macro_f1(predictions: Any, references: Any, num_labels: int | None = None) -> dict[str, float]:
    """
    See the description of [`MacroF1`].

    Raises:
        `ValueError`: if something is no class index, or there are more predictions than references or fewer.
    """
    predicted = check_class_indices(predictions, "predictions", num_labels)
    true = check_class_indices(references, "references", num_labels)
    if len(predicted) != len(true):
        raise ValueError(f"There are {len(predicted)} predictions for {len(true)} references.")
    # A class that is only predicted, or only true, has an F1 of 0.
    return {"macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0))}


@add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MacroF1(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # Not integers: 1.7 would silently become 1.
        features = datasets.Features({name: datasets.Value("float64") for name in ("predictions", "references")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=features,
            reference_urls=["https://scikit-learn.org/stable/modules/generated/sklearn.metrics.f1_score.html"],
        )

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs) -> dict[str, float]:
        return compute_macro_f1(predictions, references, **kwargs)
