# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Time of the stages of a command, by the clock: each second counts for one stage, the innermost."""

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from .table import format_table


T = TypeVar("T")
# Stages in the order of their work.
STAGES = ("find files", "decode", "fbank", "model", "join", "write")
OTHER = "start and end"


class StageTimes:
    """Seconds of each stage of a command, from now on, in one thread."""

    def __init__(self):
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.begin = self.last = time.perf_counter()
        self.running: list[str] = []
        # Processes that decode at the same time, and their seconds together.
        self.num_decoders, self.decoder_seconds = 0, 0.0

    def _count(self) -> None:
        now = time.perf_counter()
        if self.running:
            self.seconds[self.running[-1]] += now - self.last
        self.last = now

    def enter(self, name: str) -> None:
        """Begins a stage, within which the one around it does not count."""
        self._count()
        self.running.append(name)

    def leave(self) -> None:
        """Ends the innermost stage."""
        self._count()
        self.running.pop()

    def rows(self) -> list[tuple[str, float, float]]:
        """Returns name, seconds and share of each stage, of the rest, and of all."""
        total = time.perf_counter() - self.begin
        rest = max(0.0, total - sum(self.seconds.values()))
        rows = [*self.seconds.items(), (OTHER, rest), ("total", total)]
        return [(name, seconds, seconds / total) for name, seconds in rows]

    def describe(self, width: int) -> str:
        """Returns a table, and a line about decoders in other processes, if there were any."""
        cells = [[name, f"{seconds:.2f}", f"{100 * share:.1f}"] for name, seconds, share in self.rows()]
        table = format_table(["Stage", "Seconds", "Share (%)"], cells, width)
        if not self.num_decoders:
            return table
        return (
            f"{table}\nDecoding took {self.decoder_seconds:.2f} s in {self.num_decoders} other processes; `decode` is "
            "the time that was waited for it."
        )


class _Stage:
    """Context of a stage; does nothing if no times are taken."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        if _state["times"] is not None:
            _state["times"].enter(self.name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _state["times"] is not None:
            _state["times"].leave()


_state: dict[str, StageTimes | None] = {"times": None}


@contextmanager
def take_times() -> Generator[StageTimes, None, None]:
    """Takes the times of [`stage`] and [`timed`] in this process."""
    _state["times"] = times = StageTimes()
    try:
        yield times
    finally:
        _state["times"] = None


def current_times() -> StageTimes | None:
    """Returns the times that are taken, if they are."""
    return _state["times"]


def stage(name: str) -> _Stage:
    """Returns a context whose time counts for a stage, one of `STAGES`."""
    return _Stage(name)


def timed(name: str, items: Iterable[T]) -> Iterator[T]:
    """Passes on items; the time that they take to come counts for a stage."""
    iterator = iter(items)
    while True:
        with stage(name):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
