# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Rows of results, and the tables, the JSON and the plot that are made of them."""

import json
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from transformers_beats.utils.files import replace_file
from transformers_beats.utils.machine import in_a_line


# Okabe and Ito's colours: told apart with any colour vision.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
# How the values of a unit are printed.
FORMATS = {"ms": "{:,.1f} ms", "MiB": "{:,.0f} MiB", "%": "{:.1f} %"}


@dataclass
class Row:
    """
    What was measured in one setting; smaller is better.

    Args:
        part (`str`):
            Part of the benchmark.
        setting (`str`):
            What was computed, in which precision and by which implementation.
        ours (`float`):
            What it costs with this package, in `unit`.
        peers (`dict[str, float]`):
            What it costs with each peer, measured in turns with ours.
        unit (`str`, defaults to `"ms"`):
            A key of `FORMATS`.
        roofline (`float`, *optional*):
            Which fraction of the rate of the machine's best matrix product ours reaches, counting the operations that
            the model needs.
        details (`dict[str, float]`):
            What else is known of ours.
    """

    part: str
    setting: str
    ours: float
    peers: dict[str, float]
    unit: str = "ms"
    roofline: float | None = None
    details: dict[str, float] = field(default_factory=dict)

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as much each peer costs."""
        return {name: value / self.ours for name, value in self.peers.items()}


def describe_size(batch_size: int, seconds: float) -> str:
    return f"{batch_size} x {seconds:g} s"


def milliseconds(times: dict[str, float], names: list[str]) -> dict[str, float]:
    """Those of some calls, given in seconds."""
    return {name: 1000 * times[name] for name in names}


def make_tables(part: str, rows: list[Row]) -> list[Table]:
    """A table of a part, a line for each peer, and one of what else is known of ours."""
    table = Table(title=part, title_justify="left")
    for header in ("setting", "ours", "peer", "the peer's", "peer / ours", "roofline"):
        table.add_column(header, justify="left" if header in ("setting", "peer") else "right", no_wrap=True)
    for row in rows:
        style = FORMATS[row.unit]
        ours = [row.setting, style.format(row.ours)]
        roofline = "" if row.roofline is None else f"{row.roofline:.0%}"
        for peer, value in row.peers.items():
            table.add_row(*ours, peer, style.format(value), f"{row.ratios[peer]:.2f}", roofline)
            # What is ours stands there once.
            ours, roofline = ["", ""], ""
        if len(row.peers) > 1:
            table.add_section()
    if not any(row.details for row in rows):
        return [table]
    details = Table(title="more of ours", title_justify="left")
    details.add_column("setting", no_wrap=True)
    names = list(dict.fromkeys(name for row in rows for name in row.details))
    for name in names:
        details.add_column(name, justify="right")
    for row in rows:
        details.add_row(row.setting, *(_describe_detail(row.details.get(name)) for name in names))
    return [table, details]


def _describe_detail(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.6g}"


def draw(rows: list[Row], machine: dict[str, Any]) -> Figure:
    """The ratios as bars, a panel for each part, a colour for each peer."""
    parts = {part: list(group) for part, group in groupby(rows, key=lambda row: row.part)}
    heights = [sum(len(row.peers) for row in group) for group in parts.values()]
    figure = Figure(figsize=(10, 1.2 + 0.28 * sum(heights) + 0.9 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), height_ratios=[height + 1 for height in heights], squeeze=False)[:, 0]
    for panel, (part, group) in zip(panels, parts.items()):
        names = list(dict.fromkeys(peer for row in group for peer in row.peers))
        bars = [(row, peer) for row in group for peer in row.peers]
        for index, peer in enumerate(names):
            own = [(position, row.ratios[peer]) for position, (row, name) in enumerate(bars) if name == peer]
            drawn = panel.barh(*zip(*own), color=COLORS[index % len(COLORS)], label=peer)
            panel.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)
        # Named once for all its peers.
        firsts = [position for position, (row, peer) in enumerate(bars) if peer == next(iter(row.peers))]
        panel.set_yticks(firsts, labels=[bars[position][0].setting for position in firsts], fontsize=8)
        panel.invert_yaxis()
        panel.margins(x=0.1, y=0.02)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_title(part, loc="left", fontsize=10)
        panel.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("peer / ours: how many times as much the peer costs")
    figure.suptitle(in_a_line(machine), fontsize=8)
    return figure


def write(output: Path, rows: list[Row], machine: dict[str, Any], options: dict[str, Any]) -> None:
    """Writes `benchmark.json` and `benchmark.png`."""
    output.mkdir(parents=True, exist_ok=True)
    values = {
        "machine": machine,
        "options": options,
        "rows": [asdict(row) | {"ratios": row.ratios} for row in rows],
    }
    with replace_file(output / "benchmark.json") as path:
        path.write_text(json.dumps(values, indent=1) + "\n")
    with replace_file(output / "benchmark.png") as path:
        draw(rows, machine).savefig(path, format="png", dpi=120)
