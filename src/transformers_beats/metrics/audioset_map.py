# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Mean average precision of AudioSet, with area under the ROC curve and d-prime."""

from typing import Any

import datasets
import evaluate
import numpy as np
from evaluate.utils.file_utils import add_start_docstrings
from scipy.special import ndtri
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, roc_auc_score


_DESCRIPTION = """
Measures of multi-label classification as papers on AudioSet report them, by scikit-learn: the mean over classes of the
average precision (mAP) and of the area under the ROC curve (AUC), and d-prime, sqrt(2) times the quantile of the
standard normal distribution at the mean AUC. Classes without positive clips have no average precision and are left out
of the mAP; classes without positive or without negative clips are left out of the AUC. The label-weighted
label-ranking average precision (lwlrap) of DCASE 2019 ranks the classes within each clip instead. With `known`,
clips that were not labelled for a class are left out of its values, and the class of the ranks within these clips.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`float` table of shape `(num_clips, num_labels)`):
        Scores, probabilities or logits: only their order counts, within a class or, for lwlrap, within a clip.
    references (table of shape `(num_clips, num_labels)`):
        1 where the clip has the label, 0 elsewhere.
    per_class (`bool`, defaults to `False`):
        Whether to add the values of each class.
    known (`bool` table of shape `(num_clips, num_labels)`, *optional*):
        Whether a clip was labelled for a class; elsewhere its reference does not count. By default all were.

Returns:
    `dict[str, Any]`:
        - `mAP` (`float`), in [0, 1], or None if no class has a positive clip;
        - `lwlrap` (`float`), in [0, 1], or None if no clip has a label;
        - `auc` (`float`), in [0, 1], or None if no class has both positive and negative clips;
        - `d_prime` (`float`), or None if there is no AUC, or it is 0 or 1, where d-prime is infinite;
        - `num_classes_without_positives`, `num_classes_without_negatives` (`int`);
        - with `per_class`: `per_class_ap` and `per_class_auc` (`list[float | None]` of length `num_labels`) and
          `support` (`list[int]`), the number of positive clips.

Example:

    >>> result = metric.compute(predictions=[[0.9, 0.2], [0.4, 0.3], [0.5, 0.1]], references=[[1, 0], [1, 1], [0, 0]])
    >>> round(result["mAP"], 4), round(result["auc"], 4), round(result["d_prime"], 4)
    (0.9167, 0.75, 0.9539)
"""

_CITATION = """
@inproceedings{gemmeke2017audioset,
  title     = {Audio Set: An ontology and human-labeled dataset for audio events},
  author    = {Gemmeke, Jort F. and Ellis, Daniel P. W. and Freedman, Dylan and Jansen, Aren and Lawrence, Wade and
               Moore, R. Channing and Plakal, Manoj and Ritter, Marvin},
  booktitle = {ICASSP},
  year      = {2017}
}
"""


def check_table(values: Any, name: str) -> np.ndarray:
    """Returns the values as a finite float64 table, not empty; raises a `ValueError` for any other."""
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a table of numbers, (num_clips, num_labels): {error}") from error
    if table.ndim != 2 or not table.size:
        raise ValueError(f"{name} must have the shape (num_clips, num_labels), not empty, got {table.shape}.")
    if not np.isfinite(table).all():
        clip, label = np.argwhere(~np.isfinite(table))[0]
        raise ValueError(f"{name} must be finite, got {table[clip, label]} for clip {clip}, label {label}.")
    return table


def check_known(known: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a table of booleans, by default all true; raises a `ValueError` for another shape or type."""
    table = np.ones(shape, dtype=bool) if known is None else np.asarray(known)
    if table.shape != shape or table.dtype != bool:
        raise ValueError(f"known must be booleans (num_clips, num_labels), {shape}, got {table.dtype} {table.shape}.")
    return table


def compute_audioset_map(
    predictions: Any, references: Any, per_class: bool = False, known: Any = None
) -> dict[str, Any]:
    """
    Computes the measures; see the description of [`AudiosetMap`].

    Raises:
        `ValueError`: if the tables are empty, of different shapes or not finite, or a reference is neither 0 nor 1.
    """
    scores, labels = check_table(predictions, "predictions"), check_table(references, "references")
    if scores.shape != labels.shape:
        raise ValueError(f"predictions have the shape {scores.shape}, references {labels.shape}: they must be equal.")
    is_known = check_known(known, labels.shape)
    is_binary = (labels == 0) | (labels == 1)
    if not is_binary.all():
        clip, label = np.argwhere(~is_binary)[0]
        raise ValueError(f"references must be 0 or 1, got {labels[clip, label]:g} for clip {clip}, label {label}.")
    support = (is_known & (labels == 1)).sum(axis=0)
    has_positives, has_negatives = support > 0, support < is_known.sum(axis=0)
    ap: list[float | None] = [None] * len(support)
    auc: list[float | None] = [None] * len(support)
    for label in np.flatnonzero(has_positives):
        rows = is_known[:, label]
        ap[label] = float(average_precision_score(labels[rows, label], scores[rows, label]))
        if has_negatives[label]:
            auc[label] = float(roc_auc_score(labels[rows, label], scores[rows, label]))
    mean_auc = _mean(auc)
    result: dict[str, Any] = {
        "mAP": _mean(ap),
        "auc": mean_auc,
        "d_prime": d_prime(mean_auc),
        # A class that is not known in a clip ranks below all others there.
        "lwlrap": lwlrap(np.where(is_known, labels, 0.0), np.where(is_known, scores, scores.min() - 1)),
        "num_classes_without_positives": int((~has_positives).sum()),
        "num_classes_without_negatives": int((~has_negatives).sum()),
    }
    if per_class:
        result |= {"per_class_ap": ap, "per_class_auc": auc, "support": support.tolist()}
    return result


def lwlrap(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """
    Computes the label-weighted label-ranking average precision of DCASE 2019 (Fonseca et al., 2019): the mean over all
    labels of all clips of the share of labels among the classes that score no less; None without a label.
    """
    weights = labels.sum(axis=1)
    has_labels = weights > 0
    if not has_labels.any():
        return None
    return float(
        label_ranking_average_precision_score(
            labels[has_labels], scores[has_labels], sample_weight=weights[has_labels]
        )
    )


def separation(auc: Any) -> Any:
    """
    Returns the distance, in standard deviations, of two normal distributions with this AUC; of an array, one for each
    of its values. It is infinite for an AUC of 0 or 1.
    """
    return np.sqrt(2) * ndtri(auc)


def d_prime(auc: float | None) -> float | None:
    """Returns the [`separation`] of an AUC; None if infinite."""
    return float(separation(auc)) if auc is not None and 0 < auc < 1 else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


@add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class AudiosetMap(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # Not integers for the references: 0.5 would silently become 0.
        row = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=["https://research.google.com/audioset/"],
        )

    def _compute(self, *, predictions: Any = None, references: Any = None, **kwargs) -> dict[str, Any]:
        return compute_audioset_map(predictions, references, **kwargs)
