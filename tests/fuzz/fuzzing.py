# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
How many cases a property is tried with: few and always the same ones by default, many and new ones with the
environment variable `FUZZ=1`. With `FUZZ_COUNTS=FILE` a line with the name and the number of cases of each test is
appended to that file: the numbers of docs/reliability.md.
"""

import functools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy


IS_THOROUGH = os.environ.get("FUZZ") == "1"
COUNTS: Counter[str] = Counter()


def fuzz(quick: int, thorough: int, **strategies: SearchStrategy) -> Callable[[Callable], Callable]:
    """
    Makes a test a property.

    Args:
        quick (`int`): Cases by default.
        thorough (`int`): Cases with `FUZZ=1`.
        strategies: As in `hypothesis.given`.
    """

    def decorate(test: Callable) -> Callable:
        @functools.wraps(test)
        def counted(*args, **kwargs):
            COUNTS[test.__name__] += 1
            return test(*args, **kwargs)

        profile = settings(
            max_examples=thorough if IS_THOROUGH else quick,
            derandomize=not IS_THOROUGH,
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        return profile(given(**strategies)(counted))

    return decorate


def count(name: str, number: int = 1) -> None:
    """Counts cases of a test that is no property."""
    COUNTS[name] += number


@contextmanager
def at_most(mib: int) -> Iterator[None]:
    """Asserts that this process never has so much more memory than before. On other systems than Linux, nothing."""
    mark = Path("/proc/self/clear_refs")
    if not mark.exists():
        yield
        return
    # What earlier tests needed is forgotten.
    mark.write_text("5")
    before = _peak_mib()
    yield
    assert _peak_mib() < before + mib


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def damage(data: bytes, how: str, generator: np.random.Generator) -> bytes:
    """A file after `how` of: "cut", "flip" (bits), "zero" (a stretch), "noise" (a stretch), "insert", "drop"."""
    array = np.frombuffer(data, dtype=np.uint8).copy()
    if not len(array):
        return data
    # Half of the damage hits the headers.
    span = len(array) if generator.random() < 0.5 else min(len(array), 200)
    start = int(generator.integers(span))
    length = int(generator.integers(1, 64))
    if how == "cut":
        return data[:start]
    if how == "flip":
        places = generator.integers(span, size=int(generator.integers(1, 9)))
        array[places] ^= np.uint8(1) << generator.integers(8, size=len(places)).astype(np.uint8)
    elif how == "zero":
        array[start : start + length] = generator.choice([0, 255])
    elif how == "noise":
        part = array[start : start + length]
        part[:] = generator.integers(256, size=len(part))
    elif how == "insert":
        array = np.insert(array, start, generator.integers(256, size=length).astype(np.uint8))
    elif how == "drop":
        array = np.delete(array, slice(start, start + length))
    return array.tobytes()


DAMAGES = ("cut", "flip", "zero", "noise", "insert", "drop")


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Asserts that a case ends, in the main thread; a file that is read for ever would be no failure otherwise."""

    def fail(*_):
        raise AssertionError(f"has not ended within {seconds} s")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
