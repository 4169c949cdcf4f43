# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Lock of an output directory, so that two runs do not write to it at once."""

import errno
import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UsageError, first_line
from .messages import note


if TYPE_CHECKING:
    from filelock import FileLock

LOCK, HOLDER = ".lock", ".lock.json"
# Before a process says that it waits: what others write in passing takes less.
WAIT_SECONDS = 5.0
# Not every file system has locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def hold(directory: Path, wait: bool = False, is_needed: bool = True) -> Generator[None, None, None]:
    """
    Locks a directory, which is made, for this process. A process that is killed leaves no lock behind. With `wait`, it
    waits for another process to end its work there, and says so; the file `.lock` stays. Unless the lock `is_needed`,
    a file system without locks does without.

    Raises:
        [`UsageError`]: if another run has it; the message names its host, process and start.
    """
    from filelock import FileLock, Timeout

    lock, holder = FileLock(directory / LOCK), directory / HOLDER
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _acquire(lock, holder, wait)
    except Timeout:
        raise UsageError(
            f"{directory}: another run writes here ({_describe(holder)}): wait for its end, or choose another output."
        ) from None
    except (OSError, NotImplementedError) as error:
        has_locks = not isinstance(error, NotImplementedError) and error.errno not in NO_LOCKS
        if not has_locks and not is_needed:
            (directory / LOCK).unlink(missing_ok=True)
            yield
            return
        raise UsageError(f"{directory}: cannot be locked: {first_line(error)}") from error
    try:
        started = datetime.now().isoformat(" ", timespec="seconds")
        holder.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "started": started}))
        yield
    finally:
        # Before others can take it.
        holder.unlink(missing_ok=True)
        if not wait:
            # Of those that wait, one could lock the file that is gone, and the next a new one.
            (directory / LOCK).unlink(missing_ok=True)
        lock.release()


def is_held(directory: Path) -> bool:
    """Returns whether another run has locked a directory."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(directory / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def _acquire(lock: "FileLock", holder: Path, wait: bool) -> None:
    from filelock import Timeout

    try:
        lock.acquire(timeout=WAIT_SECONDS if wait else 0)
    except Timeout:
        if not wait:
            raise
        note(f"{holder.parent}: waits for {_describe(holder)}.")
        lock.acquire()


def _describe(holder: Path) -> str:
    """Returns text that says who holds a lock."""
    try:
        values = json.loads(holder.read_text())
        return f"process {values['process']} on {values['host']}, since {values['started']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "it does not say which"
