# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Fields of dataclasses of arguments: their help, their bounds, and the check of their values."""

import dataclasses
import math
from numbers import Integral, Real
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from .errors import UsageError


def argument(
    meaning: str, default: Any = dataclasses.MISSING, default_factory: Any = dataclasses.MISSING, **bounds: Any
) -> Any:
    """
    Returns a field of a dataclass of arguments. `meaning` is its text for `--help`; without `default` and
    `default_factory` it is required; `bounds` of a number, for [`check_numbers`], are `positive=True`, `min` and `max`
    (both included), and `or_zero=True`.
    """
    metadata = {"help": meaning, **bounds}
    return dataclasses.field(default=default, default_factory=default_factory, metadata=metadata)


def union_members(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union, such as `int` and `None` of `int | None`; otherwise the type alone."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def check_numbers(arguments: Any) -> None:
    """
    Checks that the integers of a dataclass are integers, its floats finite, and all within their bounds.

    Raises:
        [`UsageError`]: naming the field and its value.
    """
    hints = get_type_hints(type(arguments))
    for entry in dataclasses.fields(arguments):
        types = union_members(hints[entry.name])
        value = getattr(arguments, entry.name)
        # None, for example, is allowed where the field's type names it, and is not a number to check.
        if not entry.init or not {int, float} & {*types} or (type(value) in types and not isinstance(value, Real)):
            continue
        if isinstance(value, bool) and bool in types:
            continue
        if problem := find_problem(value, float in types, entry.metadata):
            raise UsageError(f"`{entry.name}` must {problem}, got {value!r}.")


def find_problem(value: Any, is_float: bool, bounds: Any) -> str | None:
    """Returns what a number must be and is not, or None."""
    if isinstance(value, bool) or not isinstance(value, Real if is_float else Integral):
        return "be a number" if is_float else "be an integer"
    if not math.isfinite(value):
        return "be finite"
    if bounds.get("or_zero") and value == 0:
        return None
    if bounds.get("positive") and value <= 0:
        return "be positive"
    minimum, maximum = bounds.get("min", value), bounds.get("max", value)
    if value < minimum:
        return "not be negative" if minimum == 0 else f"be at least {minimum}"
    return f"be at most {maximum}" if value > maximum else None
