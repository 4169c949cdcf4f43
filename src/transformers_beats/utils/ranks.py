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
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from .errors import UsageError
from .files import replace_file
from .lock import hold, is_held


T = TypeVar("T")
# Variables of the environment: number of a process, and how many there are; on its machine, its number.
NUMBER, COUNT, LOCAL_NUMBER = "RANK", "WORLD_SIZE", "LOCAL_RANK"
# In the directory of the part of a rank: names of files that could not be used, once it has tried its share.
SKIPPED_FILES = "skipped.json"


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
    return output.with_name(f".{output.name}.ranks")


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
    directory: Path, rank: Rank | None, begin: Callable[[Path | None], T], merge: Callable[[list[Path]], bool]
) -> Generator[T, None, None]:
    """
    Locks the share of a rank, as a context. After it, whoever finds no other rank at work joins the parts.

    Args:
        directory (`Path`):
            Directory for locks and parts, see [`ranks_directory`].
        rank ([`Rank`], *optional*):
            This process; for none, there is no lock and nothing to join.
        begin (`Callable`):
            Called with the directory of the rank's part, or None, while no other rank begins or ends. The context is
            what it returns.
        merge (`Callable`):
            Called with the directories of all parts; returns whether all is done. The parts are removed then.

    Raises:
        [`UsageError`]: if another process of this rank is at work, or the directory cannot be locked.
    """
    if rank is None:
        yield begin(None)
        return
    own = directory / f"rank-{rank.number}"
    with ExitStack() as stack:
        with hold(directory, wait=True):
            stack.enter_context(hold(own))
            (own / SKIPPED_FILES).unlink(missing_ok=True)
            begun = begin(own)
        yield begun
    with hold(directory, wait=True):
        parts = parts_in(directory)
        # There are none if another rank has joined them meanwhile.
        if parts and not any(is_held(part) for part in parts) and merge(parts):
            for part in parts:
                shutil.rmtree(part)
