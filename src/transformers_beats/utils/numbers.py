# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Numbers as text: the one format of metrics, scores and shares, on the console, in pictures, reports and cards."""

from collections.abc import Sequence


def format_number(value: object) -> str:
    """
    Returns a value as text: floats with three decimals, integers in groups of three digits, None, which stands for
    what is undefined, as a dash.
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def format_interval(interval: Sequence[float] | None) -> str:
    """Returns both ends of an interval as text, or a dash if there is none."""
    return "-" if interval is None else " to ".join(map(format_number, interval))
