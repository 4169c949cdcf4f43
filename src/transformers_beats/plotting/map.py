# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Map of embeddings: a point for each recording or moment, coloured by its group."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .figures import add_legend, make_figure, save_figure, shorten


# Groups that have a colour and a shape of their own: the largest. More could not be told apart.
MAX_GROUPS = 20
SHAPES = "os"
OTHERS = "0.75"
TITLE_LENGTH = 70


def draw_map(
    points: np.ndarray, groups: Sequence[str], path: Path, title: str = "", shares: np.ndarray | None = None
) -> None:
    """
    Writes a PNG of points in two dimensions, coloured by group.

    Args:
        points (`np.ndarray` of shape `(num_points, 2)`):
            Coordinates, such as on two principal components.
        groups (`Sequence[str]`):
            Name of the group of each point, such as its folder. The 20 largest have colours; others are grey.
        path (`Path`):
            The file to write or replace, in a directory that exists. It is never seen half-written.
        title (`str`, *optional*):
            Title, such as the name of the index.
        shares (`np.ndarray` of shape `(2,)`, *optional*):
            Shares of the variance along both axes.

    Raises:
        `ImportError`: if matplotlib is not installed.
    """
    figure = make_figure(8, 6)
    from matplotlib import colormaps

    axes = figure.add_subplot()
    counts = Counter(groups)
    # Those of the same size in the order of their names.
    chosen = sorted(sorted(counts), key=lambda group: -counts[group])[:MAX_GROUPS]
    names = np.array(groups, dtype=object)
    # Many points would hide one another.
    size, opacity = (24, 0.85) if len(points) <= 2000 else (6, 0.5)
    others = ~np.isin(names, chosen)
    handles, labels = [], []
    if others.any():
        handles.append(axes.scatter(*points[others].T, s=size, color=OTHERS, linewidths=0))
        labels.append(f"{len(counts) - len(chosen)} others")
    palette = colormaps["tab10"](np.arange(10))
    for number, group in enumerate(sorted(chosen)):
        shape = SHAPES[number // len(palette)]
        color = palette[number % len(palette)]
        of_group = points[names == group].T
        handles.append(axes.scatter(*of_group, s=size, color=color, marker=shape, alpha=opacity, linewidths=0))
        labels.append(shorten(group))
    for set_label, number in ((axes.set_xlabel, 0), (axes.set_ylabel, 1)):
        share = "" if shares is None else f" ({shares[number]:.0%} of the variance)"
        set_label(f"Principal component {number + 1}{share}")
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    add_legend(figure, handles, labels, loc="outside right upper", markerscale=1.5)
    axes.set_title(shorten(title, TITLE_LENGTH, keep_end=True), loc="left", fontweight="bold", parse_math=False)
    save_figure(figure, path)
