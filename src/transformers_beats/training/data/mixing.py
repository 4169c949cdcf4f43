# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Shares of several datasets in a training."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from transformers_beats.utils.errors import BeatsError, name_some

from .crops import CropDataset, FbankDataset
from .sources import DataArguments
from .tables import CORPUS_COLUMN


def dataset_shares(counts: Sequence[int] | np.ndarray, arguments: DataArguments) -> np.ndarray:
    """
    Returns the shares of the datasets in an epoch, which sum to 1, float64: `dataset_weights`, or in proportion to
    n^(1/T) for n items and `dataset_temperature` T, by default 1 (Arivazhagan et al., 2019, arXiv 1907.05019).

    Args:
        counts (`Sequence[int]`):
            Items of each dataset.
        arguments ([`DataArguments`]):
            Arguments of the data.
    """
    if arguments.dataset_weights is not None:
        weights = np.array(arguments.dataset_weights, dtype=np.float64)
    else:
        weights = np.asarray(counts, dtype=np.float64) ** (1 / (arguments.dataset_temperature or 1))
    return weights / weights.sum()


def dataset_quotas(num_items: int, shares: np.ndarray) -> np.ndarray:
    """
    Returns the items of each dataset in an epoch of `num_items`: the shares, rounded by largest remainders, so that
    their sum is `num_items`.
    """
    exact = shares * num_items
    quotas = np.floor(exact).astype(np.int64)
    rest = num_items - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[:rest]] += 1
    return quotas


class MixtureSampler(Sampler[tuple[int, int]]):
    """
    Sampler of items of several datasets in given shares. An epoch has as many items as all datasets together. Of a
    dataset with more items than its share, some are drawn, each at most once; one with fewer is repeated, and the rest
    of its share is drawn. An index is an item and the number of its repetition, from 0. The items of an epoch depend
    on the seed and the number of the epoch only, so that all processes agree and an interrupted training goes on with
    the items that it would have seen.

    Args:
        datasets (`np.ndarray` of shape `(num_items,)`):
            Number of the dataset of each item.
        shares (`np.ndarray` of shape `(num_datasets,)`):
            Shares of the datasets, which sum to 1.
        seed (`int`):
            Seed of the draws.
    """

    def __init__(self, datasets: np.ndarray, shares: np.ndarray, seed: int):
        self.items = [np.flatnonzero(datasets == number) for number in range(len(shares))]
        self.quotas = dataset_quotas(len(datasets), shares)
        self.num_items, self.seed, self.epoch = len(datasets), seed, 0

    def __len__(self) -> int:
        return self.num_items

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; `Trainer` calls it, through accelerate, before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        drawn, repetitions = [], []
        for items, quota in zip(self.items, self.quotas.tolist()):
            num_whole, num_rest = divmod(quota, len(items))
            drawn += [items] * num_whole + [generator.permutation(items)[:num_rest]]
            repetitions.append(np.arange(quota) // len(items))
        order = generator.permutation(self.num_items)
        pairs = zip(np.concatenate(drawn)[order], np.concatenate(repetitions)[order])
        return ((int(item), int(repetition)) for item, repetition in pairs)


def corpus_of_items(crops: CropDataset) -> np.ndarray:
    """Returns the number of the dataset of each crop, `(num_crops,)`, of several: see [`load_audio_dataset`]."""
    return np.repeat(np.asarray(crops.clips.dataset[CORPUS_COLUMN][:]), np.diff(crops.offsets))


def mixture_sampler(dataset: CropDataset | FbankDataset, seed: int) -> MixtureSampler | None:
    """
    Returns the sampler of items that have shares of datasets; None without shares.

    Raises:
        [`BeatsError`]: if a dataset has a share and no clip.
    """
    crops = dataset.crops if isinstance(dataset, FbankDataset) else dataset
    arguments = crops.arguments
    if not arguments.mixes:
        return None
    of_items = corpus_of_items(crops)
    counts = np.bincount(of_items, minlength=len(arguments.sources))
    if empty := [source for source, count in zip(arguments.sources, counts) if count == 0]:
        raise BeatsError(f"{name_some(empty)}: has a share of the epoch, and no clip that can be used: leave it out.")
    return MixtureSampler(of_items, dataset_shares(counts, arguments), seed)
