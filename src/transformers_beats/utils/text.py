# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Text for messages."""

from collections.abc import Sequence


def name_some(names: Sequence[object], limit: int = 5) -> str:
    """Returns the first names in quotes, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


__all__ = ["name_some"]
