# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Task 2 of DCASE, anomalous sounds of machines: the layout of its folders since 2020, and its official metrics.

A machine is a folder with the folders `train` and `test` (in 2021 `source_test` and `target_test`). Names of files are
`section_00_source_train_normal_0000_ATTRIBUTES.wav` since 2021 and `normal_id_00_00000000.wav` in 2020. Test clips
whose labels are not public are `section_00_0000.wav`, in 2021 `section_00_source_test_0000.wav` and in 2020
`id_00_00000000.wav`.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from transformers_beats.audio.machines import TARGET
from transformers_beats.utils.errors import UsageError


NAME = re.compile(
    r"section_(?P<section>\d+)_(?P<domain>source|target)_(?P<split>train|test)_(?P<label>normal|anomaly)_\d+(_.*)?"
)
NAME_OF_2020 = re.compile(r"(?P<label>normal|anomaly)_id_(?P<section>\d+)_\d+")
# Test clips of evaluation sets.
NAMES_WITHOUT_LABEL = (
    re.compile(r"section_(?P<section>\d+)(_(?P<domain>source|target)_test)?_\d+"),
    re.compile(r"id_(?P<section>\d+)_\d+"),
)
FOLDERS = {"train": "train", "test": "test", "source_test": "test", "target_test": "test"}
# Recordings of the machine alone or of noise alone, since 2025: they are neither normal clips nor test clips.
SUPPLEMENTAL = "supplemental"
# The partial AUC is that up to this rate of false alarms.
MAX_FALSE_ALARMS = 0.1


class DcaseClip(NamedTuple):
    """
    Meaning of a name: machine and section, such as `fan/section_00`; `"train"` or `"test"`; `"source"`, `"target"` or
    `""`; and whether the clip is anomalous, None where that is not public.
    """

    machine: str
    split: str
    domain: str
    is_anomalous: bool | None


def read_name(path: PurePath) -> DcaseClip | None:
    """Returns what the absolute path of a file says in the layout of DCASE's task 2; None for any other path."""
    split = FOLDERS.get(path.parent.name)
    for pattern in (NAME, NAME_OF_2020, *(NAMES_WITHOUT_LABEL if split == "test" else ())):
        if split is not None and (match := pattern.fullmatch(path.stem)) is not None:
            found = match.groupdict()
            label = found.get("label")
            return DcaseClip(
                f"{path.parent.parent.name}/section_{found['section']}",
                split,
                found.get("domain") or "",
                None if label is None else label == "anomaly",
            )
    return None


def read_names(paths: Sequence[PurePath]) -> list[DcaseClip | None] | None:
    """
    Returns what the absolute paths of files say, None for those of the folders `supplemental`; None if no file has
    such a name, so that the folder is none of DCASE's.

    Raises:
        [`UsageError`]: if only some have such names, since test clips would count as normal without the layout; or if
            clips of one section of one machine are in two places, which may be those of two years.
    """
    clips = [read_name(path) for path in paths]
    num_known = sum(clip is not None for clip in clips)
    if not num_known:
        return None
    places: dict[tuple[str, str], PurePath] = {}
    for path, clip in zip(paths, clips):
        if clip is None and path.parent.name != SUPPLEMENTAL:
            raise UsageError(
                f"{path}: is no name of DCASE's task 2, and {num_known} others are: move it out, or name the folder "
                "of one machine."
            )
        if clip is not None:
            folder = path.parent.parent
            if (other := places.setdefault((clip.machine, clip.split), folder)) != folder:
                raise UsageError(f"{other} and {folder} both have clips of {clip.machine}: name one of the two only.")
    return clips


class SectionMetrics(NamedTuple):
    """
    Metrics of a section of a machine, from 0 to 1; None where clips are lacking. In data without domains there is one
    AUC, `auc_source`.
    """

    auc_source: float | None
    auc_target: float | None
    partial_auc: float | None


def measure_section(labels: np.ndarray, scores: np.ndarray, domains: Sequence[str]) -> SectionMetrics:
    """
    Computes the official metrics of a section, as the organisers' evaluator of 2023 does
    (nttcslab/dcase2023_task2_evaluator): the AUC of a domain is that of its normal clips and the anomalous clips of
    *both* domains; the partial AUC is that of all clips up to a rate of false alarms of 0.1, scaled by McClish as in
    scikit-learn. Evaluators of other years may differ.

    Args:
        labels (`np.ndarray` of shape `(num_clips,)`):
            Whether each clip is anomalous.
        scores (`np.ndarray` of shape `(num_clips,)`):
            Scores, higher for what is less normal.
        domains (`Sequence[str]`):
            Domain of each clip, `"source"`, `"target"` or `""`, which counts as source.

    Returns:
        [`SectionMetrics`]

    Raises:
        [`UsageError`]: for labels, scores and domains of different lengths.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    if not len(labels) == len(scores) == len(domains):
        raise UsageError(f"There are {len(labels)} labels, {len(scores)} scores and {len(domains)} domains.")
    is_target = np.array([domain == TARGET for domain in domains], dtype=bool)

    def auc(chosen: np.ndarray, max_fpr: float | None = None) -> float | None:
        if len(set(labels[chosen].tolist())) < 2:
            return None
        return float(roc_auc_score(labels[chosen], scores[chosen], max_fpr=max_fpr))

    everything = np.ones(len(labels), dtype=bool)
    return SectionMetrics(auc(~is_target | labels), auc(is_target | labels), auc(everything, MAX_FALSE_ALARMS))


def official_score(metrics: Sequence[SectionMetrics]) -> float | None:
    """
    Returns the official score: the harmonic mean of the AUC of both domains and of the partial AUC over all sections
    of all machines (of what is known of them); None if nothing is.
    """
    from scipy.stats import hmean

    values = [value for section in metrics for value in section if value is not None]
    # As in the evaluator, whose mean is not 0 for a single 0.
    return float(hmean(np.maximum(values, np.finfo(np.float64).eps))) if values else None


__all__ = ["DcaseClip", "SectionMetrics", "measure_section", "official_score", "read_name", "read_names"]
