# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Cross-validation: which clips are in which fold, and what all folds gave."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import KFold, StratifiedKFold

from transformers_beats.utils.checks import check_numbers
from transformers_beats.utils.files import replace_file

from .labels import Labels, is_nan, is_whole, name_some


FOLDS = "folds.json"


@dataclass
class FoldArguments:
    """Cross-validation: one training for each fold, which is left out of it and evaluated on."""

    fold_column: str | None = field(default=None, metadata={"help": "Column that says in which fold a clip is."})
    num_folds: int | None = field(
        default=None,
        metadata={"help": "Without such a column: how many folds to draw, with equal shares of classes.", "min": 2},
    )
    folds: list | None = field(default=None, metadata={"help": "Which folds are evaluated on. Default: all."})

    def __post_init__(self):
        if self.fold_column is not None and self.num_folds is not None:
            raise ValueError("`fold_column` and `num_folds` exclude each other.")
        check_numbers(self)
        if self.folds is not None and not self.is_given:
            raise ValueError("`folds` chooses among the folds of `fold_column` or `num_folds`: set one of them.")

    @property
    def is_given(self) -> bool:
        return self.fold_column is not None or self.num_folds is not None


@dataclass
class Fold:
    """
    One part of a cross-validation.

    Args:
        name (`str`):
            What it is called.
        train (`np.ndarray`):
            Indices of the clips to learn from.
        test (`np.ndarray`):
            Indices of the clips to evaluate on.
    """

    name: str
    train: np.ndarray
    test: np.ndarray


def read_folds(dataset: datasets.Dataset, labels: Labels, arguments: FoldArguments, seed: int) -> list[Fold]:
    """
    The folds of a data set.

    Raises:
        `ValueError`: if there is no such column or fold, a clip without one, only one fold, or a class with fewer
            clips than folds to draw.
    """
    if arguments.fold_column is not None:
        if arguments.fold_column not in dataset.column_names:
            columns = ", ".join(dataset.column_names)
            raise ValueError(f"There is no column {arguments.fold_column!r} of folds, only {columns}.")
        values = [int(value) if is_whole(value) else value for value in dataset[arguments.fold_column]]
        if missing := sum(value is None or value == "" or is_nan(value) for value in values):
            raise ValueError(f"{missing} of {len(values)} clips are in no fold: column {arguments.fold_column!r}.")
        of_clips = np.array([str(value) for value in values])
    else:
        of_clips = draw_folds(labels, int(arguments.num_folds or 0), seed)
    names = sorted(set(of_clips.tolist()), key=lambda name: (len(name), name))
    if len(names) < 2:
        raise ValueError(f"All clips are in fold {names[0]!r}: there is none to learn from.")
    wanted = names if arguments.folds is None else [str(name) for name in arguments.folds]
    if unknown := [name for name in wanted if name not in names]:
        raise ValueError(f"`folds`: there is no fold {name_some(unknown)}, only {name_some(names)}.")
    return [Fold(name, np.flatnonzero(of_clips != name), np.flatnonzero(of_clips == name)) for name in wanted]


def draw_folds(labels: Labels, num_folds: int, seed: int) -> np.ndarray:
    """The fold of each clip, as text, counted from 1."""
    if labels.task == "single_label":
        few = [name for name, count in zip(labels.names, labels.counts()) if count < num_folds]
        if few:
            raise ValueError(f"`num_folds` is {num_folds}, but there are fewer clips of {name_some(few)}.")
        splits = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
        parts = splits.split(np.zeros(len(labels)), labels.as_array())
    elif len(labels) < num_folds:
        raise ValueError(f"{len(labels)} clips do not make {num_folds} folds.")
    else:
        parts = KFold(num_folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)))
    of_clips = np.empty(len(labels), dtype=object)
    for number, (_, test) in enumerate(parts, start=1):
        of_clips[test] = str(number)
    return of_clips.astype(str)


def report_folds(output_dir: Path, folds: list[Fold], evaluation: str) -> dict[str, Any]:
    """
    Prints the metrics of each fold with mean and standard deviation, and writes them to `output_dir/folds.json`.

    Args:
        output_dir (`Path`):
            Holds `fold-NAME` for each.
        folds (`list[Fold]`):
            The folds.
        evaluation (`str`):
            Name of the directory of the report in each.

    Returns:
        `dict[str, Any]`: `folds`, `mean` and `std`; the standard deviation is that of a sample.
    """
    each = {}
    for fold in folds:
        text = (output_dir / f"fold-{fold.name}" / evaluation / "metrics.json").read_text(encoding="utf-8")
        each[fold.name] = json.loads(text)["metrics"]
    # An AUC, for instance, is undefined for a fold in which no class has clips of both kinds.
    first, *others = each.values()
    names = [name for name in first if all(name in metrics for metrics in others)]
    values = {name: np.array([metrics[name] for metrics in each.values()], dtype=float) for name in names}
    result = {
        "folds": each,
        "mean": {name: float(of_folds.mean()) for name, of_folds in values.items()},
        "std": {name: float(of_folds.std(ddof=1)) if len(each) > 1 else None for name, of_folds in values.items()},
    }
    table = Table(title=f"{len(each)} folds")
    table.add_column("", overflow="fold")
    for header in (*(f"fold {name}" for name in each), "mean", "standard deviation"):
        table.add_column(header, justify="right")
    for name in names:
        std = result["std"][name]
        row = [*values[name], result["mean"][name], *([] if std is None else [std])]
        table.add_row(name, *(f"{value:.4f}" for value in row))
    Console().print(table)
    with replace_file(output_dir / FOLDS) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


__all__ = ["Fold", "FoldArguments", "read_folds", "report_folds"]
