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
# So many items of which none can be read are no loss of items: the place of all of them is gone.
MAX_LOST_IN_A_ROW = 10
# The share of lost items is taken of at least so many: of the first few, one would be a large one.
MIN_COUNTED = 200


class ReadTimeoutError(TimeoutError):
    """Error of a call that has not ended within its time limit; one of the system's has another class."""


def within(seconds: float, function: Callable[..., Item], *args: Any) -> Item:
    """
    Calls a function with a time limit. A call that does not end, such as a read from a server that is gone, cannot be
    stopped: it is left behind in a thread.

    Raises:
        [`ReadTimeoutError`]: if it has not ended in time.
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
        raise ReadTimeoutError(f"took longer than {seconds:g} s") from None
    if not succeeded:
        raise result
    return result


class ItemReader:
    """
    Reader of the items of a dataset, in one process, such as a worker of a `DataLoader`. An item that cannot be read
    is tried again after a pause. Then another one, which depends on the seed and the item only, takes its place as
    long as the process lives.

    Args:
        arguments ([`DataArguments`]):
            With `read_attempts`, `read_seconds`, `max_lost_share` and `crop_seed`.
        num_items (`int`):
            Number of items.
        name_of (`Callable[[int], str]`):
            Returns the name of an item for messages.
    """

    def __init__(self, arguments: DataArguments, num_items: int, name_of: Callable[[int], str]):
        self.arguments, self.num_items, self.name_of = arguments, num_items, name_of
        self.lost: set[int] = set()
        self.num_asked = 0

    def read(self, read_item: Callable[[int], Item], index: int) -> Item:
        """
        Returns `read_item(index)`, or what it returns for the item in its place.

        Raises:
            [`BeatsError`]: if more than `max_lost_share` of the items that this process was asked for, rounded up, are
                lost, or ten in a row.
        """
        generator = np.random.default_rng([self.arguments.crop_seed, index])
        self.num_asked += 1
        num_lost_before = len(self.lost)
        while True:
            if index not in self.lost:
                try:
                    return self._try(read_item, index)
                except (AudioError, OSError) as error:
                    self.lost.add(index)
                    self._check(error, len(self.lost) - num_lost_before)
            index = int(generator.integers(self.num_items))

    def _try(self, read_item: Callable[[int], Item], index: int) -> Item:
        for attempt in range(self.arguments.read_attempts - 1):
            try:
                return within(self.arguments.read_seconds, read_item, index)
            except (AudioError, OSError):
                time.sleep(FIRST_PAUSE * 4**attempt)
        try:
            return within(self.arguments.read_seconds, read_item, index)
        except ReadTimeoutError as error:
            raise AudioError(f"{self.name_of(index)}: {error} (`read_seconds`).") from error

    def _check(self, error: Exception, num_in_a_row: int) -> None:
        share, num_lost = self.arguments.max_lost_share, len(self.lost)
        counted = min(max(self.num_asked, MIN_COUNTED), self.num_items)
        if num_lost <= min(math.ceil(share * counted), self.num_items - 1) and num_in_a_row < MAX_LOST_IN_A_ROW:
            logger.warning(f"Another clip takes the place of one that is lost, {num_lost} so far: {error}")
            return
        limit = ""
        if num_in_a_row >= MAX_LOST_IN_A_ROW:
            limit = f", the last {num_in_a_row} in a row"
        elif share:
            limit = f", more than `max_lost_share` ({share:g}) of {counted}"
        raise BeatsError(f"{num_lost} clips that could be read before cannot be read now{limit}: {error}") from error
