# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Text for messages, tables and pictures."""

from collections.abc import Sequence


def name_some(names: Sequence[object], limit: int = 5) -> str:
    """Returns the first names in quotes, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


def shorten(text: str, length: int) -> str:
    """Returns at most `length` characters of a text, an ellipsis in the place of the rest."""
    return text if len(text) <= length else text[: length - 1] + "…"


__all__ = ["name_some", "shorten"]
