# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Batches of windows of several recordings."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from transformers_beats.configuration_beats import BeatsConfig
from transformers_beats.feature_extraction_beats import BeatsFeatureExtractor

from .windows import count_steps


# Number of batches held at once to put windows of similar length together, if not all are of full length. They have at
# most as many columns as one batch of full windows, or 11 minutes of audio.
BATCHES_PER_POOL, COLUMNS_PER_POOL = 8, 4096
# Largest ratio of the lengths of two windows of a batch: on a CPU, more padding costs more than small batches do.
MOST_PADDING = 1.25
# In the messages of the allocators of CPUs, and of accelerators that have no class for it.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory")


# From `input_values` and `attention_mask` (none where there is no padding) to the result of each window.
Function: TypeAlias = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


class Cut(NamedTuple):
    """
    A window before it is computed: number and name of its recording, its first column, its number of columns and of
    those that are in no earlier window, and samples `(num_samples,)`; or the `error` of reading further.
    """

    recording: int
    name: str
    first: int = 0
    num_columns: int = 0
    num_new: int = 0
    waveform: np.ndarray | None = None
    error: Exception | None = None


class Compute(NamedTuple):
    """
    Function of windows, whether its results are of steps that are shorter than a column, and whether they depend on
    the number of these.
    """

    function: Function
    is_of_steps: bool = False
    reads_steps: bool = False

    def length(self, cut: Cut, config: BeatsConfig, extractor: BeatsFeatureExtractor) -> tuple[int, int]:
        """Returns columns and, if they matter, steps of a window: windows that differ need a mask in a batch."""
        return cut.num_columns, self._replace(is_of_steps=self.reads_steps).count_rows(cut, config, extractor)

    def count_rows(self, cut: Cut, config: BeatsConfig, extractor: BeatsFeatureExtractor) -> int:
        """Returns the number of columns or steps of a window."""
        if not self.is_of_steps or cut.waveform is None:
            return cut.num_columns
        return count_steps(len(cut.waveform), config, extractor)


def fill_pool(cuts: Iterator[Cut], batch_size: int, window_columns: int) -> list[Cut]:
    """
    Takes the windows to compute next: a batch if all are of full length, `window_columns`, otherwise several batches;
    none at the end.
    """
    pool, num_columns, size = [], 0, batch_size
    max_columns = max(batch_size * window_columns, COLUMNS_PER_POOL)
    for cut in cuts:
        pool.append(cut)
        num_columns += cut.num_columns
        if cut.error is None and cut.num_columns < window_columns:
            size = batch_size * BATCHES_PER_POOL
        if len(pool) >= size or num_columns >= max_columns:
            break
    return pool


def make_batches(pool: list[Cut], batch_size: int, can_pad: bool) -> Iterator[list[int]]:
    """
    Sorts windows into batches of similar length or, without `can_pad`, of the same number of columns: yields numbers
    of at most `batch_size` windows of the pool, the shortest first, without errors.
    """

    def length(index: int) -> int:
        return pool[index].num_columns

    batch: list[int] = []
    longest = math.inf
    for index in sorted((index for index, cut in enumerate(pool) if cut.error is None), key=length):
        if batch and (len(batch) == batch_size or length(index) > longest):
            yield batch
            batch = []
        if not batch:
            longest = length(index) * (MOST_PADDING if can_pad else 1)
        batch.append(index)
    if batch:
        yield batch


def name_lack_of_memory(error: Exception, name: str, seconds: float) -> Exception:
    """
    Turns an out-of-memory error into a `MemoryError` that names the recording and the length of the window in seconds;
    returns any other as it is.
    """
    is_known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if not is_known and not any(words in str(error) for words in OUT_OF_MEMORY):
        return error
    return MemoryError(
        f"{name}: a window of {seconds:g} s needs more memory than there is, even alone in its batch: choose shorter "
        "windows."
    )
