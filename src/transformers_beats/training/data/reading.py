# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Reading of clips during a training: with a time limit, again after a failure, and without those that are lost."""

import math
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
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
# Standard deviations by which the number of lost items of a stream may exceed its share.
NUM_DEVIATIONS = 4


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


def attempt(
    arguments: DataArguments,
    read: Callable[[], Item],
    pauses_after: Callable[[], bool] | None = None,
    prepare: Callable[[], None] | None = None,
) -> Item:
    """
    Calls `read` until it succeeds, `read_attempts` times at most and each with the time limit `read_seconds`. There
    is a pause before each further attempt, if `pauses_after` is not given or returns True after the failure; then
    `prepare` is called, which has no limit.

    Raises:
        [`AudioError`], `OSError`: that of the last attempt that says more than the time; [`ReadTimeoutError`] if none
            has ended in time.
    """
    failures: list[Exception] = []
    for number in range(arguments.read_attempts):
        try:
            if number and prepare is not None:
                prepare()
            return within(arguments.read_seconds, read)
        except (AudioError, OSError) as error:
            failures.append(error)
            if number + 1 < arguments.read_attempts and (pauses_after is None or pauses_after()):
                time.sleep(FIRST_PAUSE * 4**number)
    others = [failure for failure in failures if not isinstance(failure, ReadTimeoutError)]
    raise (others or failures)[-1]


class Losses:
    """
    Count of the clips that one process, such as a worker of a `DataLoader`, has lost. It is not kept in checkpoints.

    Args:
        arguments ([`DataArguments`]):
            With `read_attempts`, `read_seconds` and `max_lost_share`.
        what (`str`):
            Beginning of the error after the number, such as "clips cannot be read".
        then (`str`):
            Beginning of the line about each that is lost.
        max_items (`int`, *optional*):
            Number of items, if it is known: the share is not taken of more.
        advice (`str`, defaults to `""`):
            End of the error, if a larger share would avoid it.
    """

    def __init__(self, arguments: DataArguments, what: str, then: str, max_items: int | None = None, advice: str = ""):
        self.arguments, self.max_items = arguments, max_items
        self.what, self.then, self.advice = what, then, advice
        self.num_asked = self.num_lost = self.num_in_a_row = 0

    def read(
        self, read: Callable[[], Item], name_of: Callable[[], str], pauses_after: Callable[[], bool] | None = None
    ) -> Item | None:
        """
        Returns what [`attempt`] does; None, with a line that names it, for an item that is lost.

        Raises:
            [`BeatsError`]: if more than `max_lost_share` of the items that were asked for (`num_asked`, counted by
                the caller), rounded up, are lost; if their number is not known, more than can be by chance where that
                share of all is damaged. Or if ten in a row are lost.
        """
        try:
            found = attempt(self.arguments, read, pauses_after)
        except (AudioError, OSError) as error:
            is_slow = isinstance(error, ReadTimeoutError)
            self._add(AudioError(f"{name_of()}: {error} (`read_seconds`).") if is_slow else error)
            return None
        self.num_in_a_row = 0
        return found

    def _add(self, error: Exception) -> None:
        self.num_lost += 1
        self.num_in_a_row += 1
        share, counted = self.arguments.max_lost_share, max(self.num_asked, MIN_COUNTED)
        if self.max_items is None:
            # Of many readers of a stream, some find more than their share.
            most = math.ceil(share * counted + NUM_DEVIATIONS * math.sqrt(share * counted))
        else:
            counted = min(counted, self.max_items)
            most = min(math.ceil(share * counted), self.max_items - 1)
        are_in_a_row = self.num_in_a_row >= MAX_LOST_IN_A_ROW
        if self.num_lost <= most and not are_in_a_row:
            logger.warning(f"{self.then}, {self.num_lost} so far: {error}")
            return
        limit, advice = "", self.advice
        if are_in_a_row:
            limit, advice = f", the last {self.num_in_a_row} in a row", ""
        elif share:
            limit = f", more than `max_lost_share` ({share:g}) of {counted}"
            limit += "" if self.max_items is not None else " can be by chance"
        raise BeatsError(f"{self.num_lost} {self.what}{limit}: {error}{advice}") from error


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
        self.losses = Losses(
            arguments,
            "clips that could be read before cannot be read now",
            "Another clip takes the place of one that is lost",
            max_items=num_items,
        )

    def read(self, read_item: Callable[[int], Item], index: int) -> Item:
        """
        Returns `read_item(index)`, or what it returns for the item in its place.

        Raises:
            [`BeatsError`]: if more than `max_lost_share` of the items that this process was asked for, rounded up, are
                lost, or ten in a row.
        """
        generator = np.random.default_rng([self.arguments.crop_seed, index])
        self.losses.num_asked += 1
        while True:
            if index not in self.lost:
                item = self.losses.read(partial(read_item, index), partial(self.name_of, index))
                if item is not None:
                    return item
                self.lost.add(index)
            index = int(generator.integers(self.num_items))
