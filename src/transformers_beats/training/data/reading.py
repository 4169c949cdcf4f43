# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Reading of clips during a training: with a time limit, again after a failure, and without those that are lost."""

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from transformers.utils import logging

from transformers_beats.audio.decoding import AudioError
from transformers_beats.utils.errors import BeatsError

from .sources import DataArguments


logger = logging.get_logger(__name__)

Item = TypeVar("Item")

# Seconds before the second attempt to read a clip; each further pause is four times as long.
FIRST_PAUSE = 0.5


def within(seconds: float, function: Callable[..., Item], *args: Any) -> Item:
    """
    Calls a function with a time limit. A call that does not end, such as a read from a server that is gone, cannot be
    stopped: it is left behind in a thread.

    Raises:
        [`AudioError`]: if it has not ended in time.
    """
    results: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def call() -> None:
        try:
            results.put((True, function(*args)))
        except BaseException as error:  # for the thread that waits
            results.put((False, error))

    threading.Thread(target=call, daemon=True).start()
    try:
        succeeded, result = results.get(timeout=seconds)
    except queue.Empty:
        raise AudioError(f"reading took longer than `read_seconds` ({seconds:g} s).") from None
    if not succeeded:
        raise result
    return result


class ItemReader:
    """
    Reader of the items of a dataset, in one process. An item that cannot be read is tried again after a pause; then
    another one, which depends on the seed and the item only, takes its place for good.
    """

    def __init__(self, arguments: DataArguments, num_items: int):
        self.arguments, self.num_items = arguments, num_items
        self.lost: set[int] = set()

    def read(self, read_item: Callable[[int], Item], index: int) -> Item:
        """
        Returns `read_item(index)`, or what it returns for the item in its place.

        Raises:
            [`BeatsError`]: if more than `max_lost_share` of the items, rounded up, are lost.
        """
        generator = np.random.default_rng([self.arguments.crop_seed, index])
        while True:
            if index not in self.lost:
                try:
                    return self._try(read_item, index)
                except (AudioError, OSError) as error:
                    self._lose(index, error)
            index = int(generator.integers(self.num_items))

    def _try(self, read_item: Callable[[int], Item], index: int) -> Item:
        pause = FIRST_PAUSE
        for _ in range(self.arguments.read_attempts - 1):
            try:
                return within(self.arguments.read_seconds, read_item, index)
            except (AudioError, OSError):
                time.sleep(pause)
                pause *= 4
        return within(self.arguments.read_seconds, read_item, index)

    def _lose(self, index: int, error: Exception) -> None:
        self.lost.add(index)
        most = min(math.ceil(self.arguments.max_lost_share * self.num_items), self.num_items - 1)
        if len(self.lost) > most:
            raise BeatsError(
                f"{len(self.lost)} of {self.num_items} items could be read before and not now, more than "
                f"`max_lost_share` ({self.arguments.max_lost_share:g}). The last one: {error}"
            ) from error
        logger.warning(f"Another item takes the place of one that is lost, {len(self.lost)} so far: {error}")
