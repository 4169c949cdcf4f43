# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Macro F1: the mean over classes of the harmonic mean of precision and recall."""

from typing import Any

import evaluate
from evaluate.utils.file_utils import add_start_docstrings
from sklearn.metrics import f1_score

from .accuracy import ARGUMENTS, check_class_indices, info_of_class_indices


_DESCRIPTION = """
F1 of each class that appears among the references or the predictions, averaged with equal weights, as scikit-learn's
`f1_score(average="macro")`. A value that is no class index is an error.
"""

_KWARGS_DESCRIPTION = f"""{ARGUMENTS} `macro_f1`, in [0, 1]. Classes that appear nowhere do not count.

Example:

    >>> metric.compute(predictions=[0, 1, 1], references=[0, 0, 1])
    {{'macro_f1': 0.6666666666666666}}
"""


def compute_macro_f1(predictions: Any, references: Any, num_labels: int | None = None) -> dict[str, float]:
    """
    Computes macro F1; see the description of [`MacroF1`].

    Raises:
        `ValueError`: if a value is no class index, or there are more predictions than references or fewer.
    """
    predicted, true = check_class_indices(predictions, references, num_labels)
    # A class that is only predicted, or only true, has an F1 of 0.
    return {"macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0))}


@add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MacroF1(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        page = "https://scikit-learn.org/stable/modules/generated/sklearn.metrics.f1_score.html"
        return info_of_class_indices(_DESCRIPTION, _KWARGS_DESCRIPTION, page)

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs) -> dict[str, float]:
        return compute_macro_f1(predictions, references, **kwargs)
