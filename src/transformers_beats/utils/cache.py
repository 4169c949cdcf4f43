# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Directory of what is computed once and kept, and its cleaning."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path


# What is kept of each kind in the cache.
NUM_KEPT, SECONDS_KEPT = 3, 30 * 24 * 3600


def cache_directory() -> Path:
    """Returns the directory of this package in the cache of `datasets` (`HF_DATASETS_CACHE`), which is made."""
    from datasets import config

    directory = Path(config.HF_DATASETS_CACHE) / "transformers_beats"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def mark_used(*paths: Path) -> None:
    """Sets the time of files of the cache, by which [`remove_unused`] judges them."""
    for path in paths:
        with suppress(OSError):
            os.utime(path)


def remove_unused(name: str) -> None:
    """
    Removes files or directories of the cache whose path is `name`, with anything in place of `{}`, and which nothing
    has used for thirty days; never the last three that were used. A run reads what it began with to its end.
    """
    found = []
    for path in cache_directory().glob(name.format("*")):
        with suppress(OSError):
            found.append((path.stat().st_mtime, path))
    for used, path in sorted(found, reverse=True)[NUM_KEPT:]:
        # It may be another user's.
        with suppress(OSError):
            if time.time() - used > SECONDS_KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
