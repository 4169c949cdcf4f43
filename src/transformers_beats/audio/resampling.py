# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Resampling block by block, in which digital silence stays digital silence."""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import soxr


# Half of the filter, in samples at the lower of both rates: what is farther away changes a sample by less than a
# millionth. The resampler holds back more than that.
REACH = 96


class _Run(NamedTuple):
    """Equal samples from `start` to before `end`, and their value."""

    start: float
    end: float
    value: np.float32


def resample(blocks: Iterable[np.ndarray], rate: float, sampling_rate: int) -> Iterator[np.ndarray]:
    """
    Resamples a waveform block by block, with the result that soxr gives for the whole.

    Only where all samples that a sample depends on are equal, it is equal to them. There, soxr leaves rounding errors
    of what is near, or a ripple of the filter, which the fbank does not take for silence; and before the beginning and
    after the end, it takes the waveform to be 0, which is a step if the samples are not.
    """
    if rate == sampling_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, sampling_rate, num_channels=1, dtype="float32", quality="HQ")
    runs = _Runs(rate, sampling_rate)
    # The empty block gets what the filter has held back.
    parts = itertools.chain(zip(blocks, itertools.repeat(False)), [(np.zeros(0, dtype=np.float32), True)])
    for block, is_last in parts:
        runs.add(block)
        yield runs.restore(resampler.resample_chunk(block, last=is_last), is_last)


class _Runs:
    """Equal samples in a waveform that comes block by block, for what is resampled of it."""

    def __init__(self, rate: float, sampling_rate: int):
        self.ratio = rate / sampling_rate
        self.reach = REACH * max(1.0, self.ratio)
        # Those that have ended, and the start of the one that has not; at the beginning, any samples came before.
        self.ended: list[_Run] = []
        self.start, self.last = -math.inf, np.float32(np.nan)
        # Samples that have come, and that were made of them.
        self.num_read = self.num_made = 0

    def add(self, block: np.ndarray) -> None:
        """Takes the samples that follow."""
        if len(block) == 0:
            return
        changes = np.flatnonzero(block[1:] != block[:-1]) + 1
        if self.num_read > 0 and block[0] != self.last:
            changes = np.concatenate([[0], changes])
        edges = np.concatenate([[self.start], self.num_read + changes])
        values = np.concatenate([[self.last], block])[changes]
        long = np.flatnonzero(np.diff(edges) > 2 * self.reach)
        self.ended += [_Run(edges[index], edges[index + 1], values[index]) for index in long]
        self.start, self.last = edges[-1], block[-1]
        self.num_read += len(block)

    def restore(self, resampled: np.ndarray, is_last: bool) -> np.ndarray:
        """Returns the resampled samples that follow, with the values of runs where they depend on nothing else."""
        begin, self.num_made = self.num_made, self.num_made + len(resampled)
        current = _Run(self.start, math.inf if is_last else self.num_read, self.last)
        for run in (*self.ended, current):
            first, last = ((edge / self.ratio - begin) for edge in (run.start + self.reach, run.end - self.reach))
            if first < len(resampled) and last >= 0:
                resampled[max(0, math.ceil(max(first, 0))) : math.floor(min(last, len(resampled))) + 1] = run.value
        self.ended = [run for run in self.ended if run.end - self.reach >= self.num_made * self.ratio]
        return resampled
