# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Shares of one work for several processes, on one machine or many, which see the same files.

Nothing is sent between them. Each knows its number from the environment that torchrun and `accelerate launch` set,
takes every so-many-th file, and holds a lock while it works. Whoever ends and finds no other at work joins what is
there. A process that is started again goes on with its share, also after the others have ended.
"""

import json
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from .errors import UsageError
from .files import make_directory, replace_file
from .lock import LOCK, hold, is_held


T = TypeVar("T")
# Variables of the environment: number of a process, and how many there are; on its machine, its number.
NUMBER, COUNT, LOCAL_NUMBER = "RANK", "WORLD_SIZE", "LOCAL_RANK"
# In the directory of the part of a rank: names of files that could not be used, once it has tried its share.
SKIPPED_FILES = "skipped.json"
# Directory, among those of the ranks, that a process without a rank locks.
ALONE = "alone"


class Rank(NamedTuple):
    """Number of a process, from 0, and how many there are."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"share {self.number + 1} of {self.count}"


def current_rank() -> Rank | None:
    """
    Returns the rank of this process; None if it is alone.

    Raises:
        [`UsageError`]: if `RANK` and `WORLD_SIZE` are no such numbers.
    """
    words = [os.environ.get(name, "") for name in (NUMBER, COUNT)]
    if not all(words):
        return None
    try:
        number, count = map(int, words)
    except ValueError:
        number, count = -1, 0
    if not 0 <= number < count:
        raise UsageError(
            f"{NUMBER}={words[0]} and {COUNT}={words[1]} in the environment: expected 0 <= RANK < WORLD_SIZE."
        )
    return Rank(number, count) if count > 1 else None


def ranks_directory(output: Path) -> Path:
    """Returns the hidden directory beside an output for the locks and parts of ranks."""
    # The current directory has no name of its own.
    named = output if output.name else output.absolute()
    return named.with_name(f".{named.name}.ranks")


def lock_of(output: Path) -> Path:
    """Returns the hidden directory that a process without a rank locks while it writes a file."""
    return ranks_directory(output) / ALONE


def parts_in(directory: Path) -> list[Path]:
    """Returns the directories of the parts of all ranks, in the order of their numbers."""
    return sorted(directory.glob("rank-*"), key=lambda path: (len(path.name), path.name))


def write_skipped(part: Path, names: list[str]) -> None:
    """Writes the addresses of files that a rank could not use, once it has tried its share."""
    with replace_file(part / SKIPPED_FILES) as temporary:
        temporary.write_text(json.dumps(names), encoding="utf-8")


def read_skipped(parts: list[Path]) -> set[str]:
    """Returns the addresses of files that ranks could not use; none of those that have not tried their whole share."""
    files = [part / SKIPPED_FILES for part in parts]
    return {name for file in files if file.exists() for name in json.loads(file.read_text(encoding="utf-8"))}


@contextmanager
def take_share(
    directory: Path,
    rank: Rank | None,
    begin: Callable[[Path | None], T],
    merge: Callable[[list[Path]], bool],
    alone: Sequence[Path] = (),
) -> Generator[T, None, None]:
    """
    Locks the share of a rank, as a context. After it, whoever finds no other rank at work joins the parts.

    A process without a rank locks the directories `alone`: while it is at work, no rank begins or joins, and the other
    way round.

    Args:
        directory (`Path`):
            Directory for locks and parts, see [`ranks_directory`].
        rank ([`Rank`], *optional*):
            This process; for none, there is nothing to join.
        begin (`Callable`):
            Called with the directory of the rank's part, or None, while no other rank begins or ends. The context is
            what it returns.
        merge (`Callable`):
            Called with the directories of all parts; returns whether all is done. The parts are removed then.
        alone (`Sequence[Path]`, *optional*):
            Directories of results, or [`lock_of`] a file; by default nothing is locked without a rank.

    Raises:
        [`UsageError`]: if another process of this rank is at work, or one without a rank, or the directory cannot be
            locked.
    """
    if rank is None:
        with hold_alone(directory, alone):
            yield begin(None)
        return
    own = directory / f"rank-{rank.number}"
    with ExitStack() as stack:
        with hold(directory, wait=True):
            stack.enter_context(hold(own))
            check_free(alone)
            (own / SKIPPED_FILES).unlink(missing_ok=True)
            begun = begin(own)
        yield begun
    with hold(directory, wait=True):
        parts = parts_in(directory)
        # There are none if another rank has joined them meanwhile.
        if parts and not any(is_held(part) for part in (*parts, *find_locks(alone))) and merge(parts):
            for part in parts:
                shutil.rmtree(part)


@contextmanager
def hold_alone(directory: Path, places: Sequence[Path]) -> Generator[None, None, None]:
    """
    Locks directories for a process without a rank; a directory that is named twice is one. No rank whose part is in
    `directory` may be at work.
    """
    with ExitStack() as stack:
        for place in {os.path.realpath(place): place for place in places}.values():
            if place == directory / ALONE:
                stack.callback(_remove_if_empty, place)
            else:
                make_directory(place)
            stack.enter_context(hold(place, is_needed=False))
        if places and (directory / LOCK).exists():
            # A rank that begins now finds the locks above.
            with hold(directory, wait=True):
                check_free(parts_in(directory))
        yield


def check_free(places: Sequence[Path]) -> None:
    """Raises a [`UsageError`] if another run has locked one of some directories."""
    for place in find_locks(places):
        # Its message says which run it is.
        with hold(place):
            pass


def find_locks(places: Sequence[Path]) -> list[Path]:
    """Returns those of some directories that have the file of a lock, which may be that of a killed run."""
    return [place for place in places if (place / LOCK).exists()]


def _remove_if_empty(place: Path) -> None:
    """Removes the directory of [`lock_of`] and, if no rank has been there, the one above."""
    with suppress(OSError):
        place.rmdir()
        place.parent.rmdir()
