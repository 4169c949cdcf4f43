# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Page of a diagnosis of codes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transformers_beats.plotting.figures import make_figure

from .codes import CODES, K_MEANS, TEMPLATE, CodeSample
from .page import make_environment
from .pictures import BAR_COLOR, MEAN_COLOR, SVG_HEIGHT, SVG_WIDTH, as_svg


COLORS = {CODES: BAR_COLOR, K_MEANS: MEAN_COLOR}
ABOUT = {"class": "class", "band": "band (frequency)", "position": "position (time)"}


def render_diagnosis(found: Mapping[str, Any], sample: CodeSample) -> str:
    """Returns the page of a diagnosis, with a row for the codes and one for k-means on the teacher's outputs."""
    rows = {CODES: found["codes"]} | ({K_MEANS: found["k_means"]} if found["k_means"] else {})
    figures = [
        as_svg(draw_information(rows), "information"),
        as_svg(draw_shares(sample), "shares"),
        as_svg(draw_bands(rows), "bands"),
    ]
    description = {key: value for key, value in found["description"].items() if value is not None}
    return (
        make_environment()
        .get_template(TEMPLATE)
        .render(
            title=f"Codes of {description.get('tokenizer', 'a tokenizer')}",
            description=description,
            notes=found["notes"],
            rows=rows,
            about={key: name for key, name in ABOUT.items() if key in found["codes"]["information"]},
            size=description["codebook_size"],
            has_probe=found["codes"]["probe"] is not None,
            agreement=found["agreement"],
            figures=figures,
        )
    )


def _axes(figure: Figure) -> Axes:
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def draw_information(rows: Mapping[str, Any]) -> Figure:
    """Draws what the codes say about class, band and position, less what they would say by chance."""
    figure = make_figure(SVG_WIDTH, SVG_HEIGHT)
    axes = _axes(figure)
    names = [name for name in ABOUT if name in rows[CODES]["information"]]
    places, height = np.arange(len(names)), 0.8 / len(rows)
    for number, (row, values) in enumerate(rows.items()):
        excess = [values["information"][name] - values["by_chance"][name] for name in names]
        axes.barh(places + number * height, excess, height, color=COLORS[row], label=row)
    axes.set_yticks(places + 0.4 - height / 2, labels=[ABOUT[name] for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("Mutual information, less that by chance (nats)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_shares(sample: CodeSample) -> Figure:
    """Draws the share of each code, the most frequent first."""
    figure = make_figure(SVG_WIDTH, SVG_HEIGHT)
    axes = _axes(figure)
    for codes in sample.flat.T:
        counts = np.sort(np.bincount(codes, minlength=sample.codebook_size))[::-1]
        shares = counts[counts > 0] / len(codes)
        axes.plot(np.arange(1, len(shares) + 1), shares, color=BAR_COLOR, linewidth=1.2)
    axes.axhline(1 / sample.codebook_size, color=MEAN_COLOR, linestyle="--", linewidth=1)
    axes.set_yscale("log")
    axes.set_xlim(0, sample.codebook_size)
    axes.set_xlabel("Code, by frequency (dashed: if all were as frequent)")
    axes.set_ylabel("Share of the patches")
    return figure


def draw_bands(rows: Mapping[str, Any]) -> Figure:
    """Draws the perplexity of the codes in each band."""
    figure = make_figure(SVG_WIDTH, SVG_HEIGHT)
    axes = _axes(figure)
    width = 0.8 / len(rows)
    for number, (row, values) in enumerate(rows.items()):
        heights = values["perplexity_by_band"]
        axes.bar(
            np.arange(1, len(heights) + 1) + (number - 0.5 * (len(rows) - 1)) * width,
            heights,
            width,
            color=COLORS[row],
        )
    axes.set_xticks(np.arange(1, len(rows[CODES]["perplexity_by_band"]) + 1))
    axes.set_xlabel("Band, from low to high frequencies")
    axes.set_ylabel("Perplexity of its codes")
    return figure
