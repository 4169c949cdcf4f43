# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Grains of embeddings, from one vector for a recording to one for each patch; without torch."""

from typing import Any, Literal, TypeAlias, get_args

from transformers_beats.utils.errors import UsageError


# One vector for a recording, for each frequency band, for each time column, or for each patch.
Grain: TypeAlias = Literal["clip", "band", "column", "patch"]
# The bands of a clip or of a column: their mean, or one after another in one vector.
Pooling: TypeAlias = Literal["mean", "concat"]


def check_grain(grain: Any, pooling: Any) -> None:
    """Raises a [`UsageError`] for a grain or a pooling that is not known, or has no use for the other."""
    for name, value, known in (("grain", grain, get_args(Grain)), ("pooling", pooling, get_args(Pooling))):
        if value not in known:
            raise UsageError(f"`{name}` is {value!r}: choose {', '.join(known[:-1])} or {known[-1]}.")
    if pooling == "concat" and grain not in ("clip", "column"):
        raise UsageError(f"`pooling` joins the bands of a clip or a column: with `grain` {grain!r}, leave it out.")


__all__ = ["Grain", "Pooling", "check_grain"]
