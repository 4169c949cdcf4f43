# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Folds of a cross-validation."""

from dataclasses import dataclass

import datasets
import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import BeatsError, name_some, one_line

from .labels import Labels
from .tables import label_name, list_columns, read_column


@dataclass
class FoldArguments:
    """Cross-validation: one training for each fold, which is left out of it and evaluated on."""

    fold_column: str | None = argument("Column of the fold of each clip.", None)
    num_folds: int | None = argument(
        "Number of folds to draw without such a column, with equal shares of classes if a clip has one.", None, min=2
    )
    folds: list | None = argument("Folds to evaluate on. Default: all.", None)
    final: bool = argument(
        "After the folds, train one model on all clips: for as many epochs as the median of the folds has kept.", False
    )

    def __post_init__(self):
        if self.fold_column is not None and self.num_folds is not None:
            raise BeatsError("`fold_column` and `num_folds` exclude each other.")
        check_numbers(self)
        if self.folds is not None and not self.is_given:
            raise BeatsError("`folds` chooses among the folds of `fold_column` or `num_folds`: set one of them.")
        if self.final and not self.is_given:
            raise BeatsError("`final` trains on all clips after the folds of `fold_column` or `num_folds`: set one.")

    @property
    def is_given(self) -> bool:
        return self.fold_column is not None or self.num_folds is not None


@dataclass
class Fold:
    """Fold of a cross-validation: indices of the clips to learn from and to evaluate on."""

    name: str
    train: np.ndarray
    test: np.ndarray


def read_folds(
    dataset: datasets.Dataset,
    labels: Labels,
    arguments: FoldArguments,
    seed: int,
    digests: np.ndarray | None = None,
) -> list[Fold]:
    """
    Reads or draws the folds of a dataset; of folds that are drawn, clips of the same of `digests` are in one.

    Raises:
        [`BeatsError`]: if there is no such column or fold, a clip without one, only one fold, or a class with fewer
            clips than folds to draw; copies of a clip count as one.
    """
    if arguments.fold_column is not None:
        if arguments.fold_column not in (columns := list_columns(dataset)):
            raise BeatsError(f"There is no column {arguments.fold_column!r} of folds, only {', '.join(columns)}.")
        values = read_column(dataset, arguments.fold_column)
        if missing := sum(value is None or value == "" for value in values):
            raise BeatsError(f"{missing} of {len(values)} clips are in no fold: column {arguments.fold_column!r}.")
        of_clips = np.array([label_name(value) for value in values])
    else:
        of_clips = draw_folds(labels, int(arguments.num_folds or 0), seed, digests)
    names = sorted(set(of_clips.tolist()), key=lambda name: (len(name), name))
    if len(names) < 2:
        raise BeatsError(f"All clips are in fold {names[0]!r}: there is none to learn from.")
    wanted = names if arguments.folds is None else list(dict.fromkeys(map(label_name, arguments.folds)))
    if unknown := [name for name in wanted if name not in names]:
        raise BeatsError(f"`folds`: there is no fold {name_some(unknown)}, only {name_some(names)}.")
    return [Fold(name, np.flatnonzero(of_clips != name), np.flatnonzero(of_clips == name)) for name in wanted]


def distinct_clips(labels: Labels, digests: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """
    Returns one clip of each content, which has the same of `digests`, in the order of the clips, int64; and for each
    clip the place of that one among these, `(num_clips,)`. It is one that can be evaluated on, if there is any.
    """
    every = np.arange(len(labels))
    if digests is None:
        return every, every
    known = clips_to_test(labels)
    order = np.concatenate([known, np.setdiff1d(every, known)])
    _, first, content_of = np.unique(digests[order], return_index=True, return_inverse=True)
    clips = order[first]
    places = np.empty(len(clips), dtype=np.int64)
    places[np.argsort(clips)] = np.arange(len(clips))
    of_clips = np.empty(len(labels), dtype=np.int64)
    of_clips[order] = places[content_of.reshape(-1)]
    return np.sort(clips), of_clips


def draw_share(labels: Labels, share: float, seed: int, digests: np.ndarray | None = None) -> Fold:
    """
    Draws the share of the clips that is evaluated on, with equal shares of classes where a clip has one. It is one of
    the clips that can be evaluated on, whose events are known; all others are learned from, unless they have the same
    of `digests` as a clip of the share. Clips with the same of these count as one.

    Raises:
        [`BeatsError`]: if there are too few clips, in all or of a class.
    """
    clips, content_of = distinct_clips(labels, digests)
    distinct = labels.select(clips.tolist())
    try:
        _, drawn = train_test_split(
            clips_to_test(distinct),
            test_size=share,
            random_state=seed,
            stratify=distinct.as_array() if labels.task == "single_label" else None,
        )
    except ValueError as error:
        reason = (
            "" if len(clips) == len(labels) else f"of {len(labels)} clips, {len(clips)} have a content of their own: "
        )
        raise BeatsError(f"`eval_share` is {share:g}, which cannot be drawn: {reason}{one_line(error)}") from error
    is_drawn = np.isin(content_of, drawn)
    test = np.intersect1d(np.flatnonzero(is_drawn), clips_to_test(labels))
    return Fold("share", np.flatnonzero(~is_drawn), test)


def clips_to_test(labels: Labels) -> np.ndarray:
    """Returns the clips that can be evaluated on: of events, those whose events are known."""
    return np.flatnonzero([labels.knows(index) == "events" for index in range(len(labels))])


def draw_folds(labels: Labels, num_folds: int, seed: int, digests: np.ndarray | None = None) -> np.ndarray:
    """
    Draws the fold of each clip; names are numbers from 1, as text. Each has as many of the clips that can be evaluated
    on as any other, and of those that cannot. Clips of the same of `digests` are in one fold, and count as one.

    Raises:
        [`BeatsError`]: if there are fewer clips than folds, in all or of a class.
    """
    clips, content_of = distinct_clips(labels, digests)
    labels = labels.select(clips.tolist())
    distinct = "" if len(clips) == len(content_of) else " of different contents"
    known = clips_to_test(labels)
    if labels.task == "single_label":
        few = [name for name, count in zip(labels.names, labels.counts()) if count < num_folds]
        if few:
            raise BeatsError(f"`num_folds` is {num_folds}, but there are fewer clips{distinct} of {name_some(few)}.")
        splits = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
        parts = splits.split(np.zeros(len(labels)), labels.as_array())
    elif len(known) < num_folds:
        raise BeatsError(f"{len(known)} clips{distinct} do not make {num_folds} folds.")
    else:
        parts = KFold(num_folds, shuffle=True, random_state=seed).split(np.zeros(len(known)))
    # Other clips are dealt in turn.
    others = np.setdiff1d(np.arange(len(labels)), known)
    folds = np.zeros(len(labels), dtype=object)
    folds[others] = (np.arange(len(others)) % num_folds + 1).astype(str)
    for number, (_, test) in enumerate(parts, start=1):
        folds[known[test]] = str(number)
    return folds.astype(str)[content_of]
