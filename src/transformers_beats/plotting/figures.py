# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Helpers of all pictures: figures, files, texts and time axes."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_beats.utils.errors import install_command
from transformers_beats.utils.files import replace_file


if TYPE_CHECKING:
    from matplotlib.figure import Figure


DPI = 110
LABEL_LENGTH = 28
# Distances between ticks of a time axis, in seconds.
TIME_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
MAX_TIME_TICKS = 14


def check_matplotlib() -> None:
    """Raises an `ImportError` if there can be no pictures."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(f"Pictures need matplotlib: {install_command('demo')}") from error


def make_figure(width: float, height: float, layout: Any = "constrained") -> "Figure":
    """Makes an empty figure of a size in inches, independent of pyplot and of its backends."""
    check_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a PNG. The file is never seen half-written."""
    with replace_file(path) as temporary, warnings.catch_warnings():
        # Boxes stand for characters that the font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(temporary, format="png", dpi=DPI)


def shorten(text: str, length: int = LABEL_LENGTH, keep_end: bool = False) -> str:
    """
    Makes a text drawable: without line ends, control characters and undecodable bytes, and at most `length` characters
    long, the start being cut with `keep_end`, as for paths. Pass it to matplotlib with `parse_math=False`, since it
    may hold dollar signs.
    """
    text = "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)
    if len(text) <= length:
        return text
    return "…" + text[1 - length :] if keep_end else text[: length - 1] + "…"


def add_legend(figure: "Figure", handles: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """
    Adds a legend to a figure, with `names` as they are: matplotlib leaves out those that begin with `_`, and takes
    dollar signs for mathematics.
    """
    # Of a name that is set later, neither happens.
    legend = figure.legend(handles, [str(number) for number in range(len(names))], frameon=False, **options)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def set_time_axis(axes: Any, seconds: float) -> None:
    """Sets limits, ticks and label of an x axis from 0 to `seconds`, all ticks in the format that the label names."""
    from librosa.display import TimeFormatter
    from matplotlib.ticker import MultipleLocator

    unit, name = ("s", "s") if seconds <= 60 else ("m", "min:s") if seconds <= 3600 else ("h", "h:min:s")
    longest = math.ceil(seconds / MAX_TIME_TICKS / 3600) * 3600
    axes.set_xlim(0, seconds)
    axes.xaxis.set_major_locator(
        MultipleLocator(next((step for step in TIME_STEPS if seconds / step <= MAX_TIME_TICKS), longest))
    )
    axes.xaxis.set_major_formatter(TimeFormatter(unit=unit))
    axes.set_xlabel(f"Time ({name})")
