# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Writing without leaving anything half-written."""

import tempfile
from pathlib import Path


def replace_directory(new: Path, target: Path) -> None:
    """
    Moves the directory `new` to `target` on the same disk. An older `target` goes only once `new` is in its place; if
    the move fails or is interrupted, it comes back.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".old-") as trash:
        old = Path(trash) / target.name
        try:
            if target.exists():
                target.rename(old)
            new.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
