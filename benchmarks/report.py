# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Rows of results, and the tables, the JSON and the plot that are made of them."""

import json
import textwrap
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from transformers_beats.utils.errors import BeatsError
from transformers_beats.utils.files import replace_file
from transformers_beats.utils.machine import in_a_line


# Okabe and Ito's colours: told apart with any colour vision.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
# Name of this package among its peers.
OURS = "ours"
# What decides how fast a machine is, of its description.
SAME = ("device", "cpu", "cores", "threads", "instruction_sets")
# How the values of a unit are printed.
FORMATS = {"ms": "{:,.1f} ms", "MiB": "{:,.0f} MiB", "%": "{:.1f} %", "relative": "{:.1e}"}


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
        audio_seconds (`float`, *optional*):
            How much audio `ours` and `peers`, in milliseconds, compute; only in the settings that the plot shows.
    """

    part: str
    setting: str
    ours: float
    peers: dict[str, float]
    unit: str = "ms"
    roofline: float | None = None
    details: dict[str, float] = field(default_factory=dict)
    audio_seconds: float | None = None

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as much each peer costs."""
        return {name: value / self.ours for name, value in self.peers.items()}

    @property
    def minutes_an_hour(self) -> dict[str, float]:
        """Minutes that an hour of audio takes with this package (`OURS`) and with each peer."""
        if self.audio_seconds is None:
            raise ValueError(f"{self.part}, {self.setting}: `audio_seconds` is not known.")
        return {name: 0.06 * value / self.audio_seconds for name, value in ({OURS: self.ours} | self.peers).items()}


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
        details.add_row(row.setting, *(describe_detail(row.details.get(name)) for name in names))
    return [table, details]


def describe_detail(value: float | None) -> str:
    """Returns a value as text, empty if it is not known."""
    if value is None:
        return ""
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.6g}"


def choose_drawn(rows: list[Row]) -> list[Row]:
    """The quickest of ours of each part in float32, the precision of the peers, where the amount of audio is known."""
    timed = [row for row in rows if row.audio_seconds is not None and "bf16" not in row.setting]
    parts = groupby(timed, key=lambda row: row.part)
    return [min(group, key=lambda row: row.minutes_an_hour[OURS]) for _, group in parts]


def draw(rows: list[Row], machine: dict[str, Any]) -> Figure:
    """Minutes that an hour of audio takes, as bars: a group for each part, ours above its peers."""
    bars = [(row, name, minutes) for row in choose_drawn(rows) for name, minutes in row.minutes_an_hour.items()]
    figure = Figure(figsize=(8, 1.4 + 0.3 * len(bars)), layout="constrained")
    panel = figure.subplots()
    # A gap before each group.
    groups = [name == OURS for _, name, _ in bars]
    positions = [index + 0.7 * sum(groups[: index + 1]) for index in range(len(bars))]
    colors = [COLORS[0] if is_ours else "#999999" for is_ours in groups]
    drawn = panel.barh(positions, [minutes for *_, minutes in bars], color=colors)
    texts = [
        f"{minutes:.2g} min" + ("" if is_ours else f", {row.ratios[name]:.2f} times as long")
        for (row, name, minutes), is_ours in zip(bars, groups)
    ]
    panel.bar_label(drawn, texts, padding=3, fontsize=8)
    labels = [f"{row.part.replace('_', ' ')}: this package" if name == OURS else name for row, name, _ in bars]
    panel.set_yticks(positions, labels=labels, fontsize=8)
    panel.invert_yaxis()
    panel.margins(x=0.3, y=0.02)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel("minutes for an hour of audio, float32")
    figure.suptitle(textwrap.fill(in_a_line(machine), 110), fontsize=8)
    return figure


def check_machine(machine: dict[str, Any], earlier: dict[str, Any], path: Path) -> None:
    """
    Raises:
        [`BeatsError`]: if two runs are of machines that compute at different speeds.
    """
    other = [name for name in SAME if machine.get(name) != earlier.get(name)]
    if other:
        values = ", ".join(f"{name} {earlier.get(name)!r}, here {machine.get(name)!r}" for name in other)
        raise BeatsError(
            f"{path} is of another machine ({values}): measure both on one, and compare ratios between two."
        )


def compare(rows: list[Row], earlier: list[dict[str, Any]]) -> Table:
    """Returns a table of how many times as long an earlier run took in the same settings, and its peers."""
    found = {(row["part"], row["setting"]): row for row in earlier}
    table = Table("part", "setting", "ours", "earlier", "earlier / ours", "its peers, earlier / now", title="compared")
    for row in rows:
        then = found.get((row.part, row.setting))
        if then is None or then["unit"] != row.unit:
            continue
        style = FORMATS[row.unit]
        peers = (
            f"{name} {then['peers'][name] / value:.2f}" for name, value in row.peers.items() if name in then["peers"]
        )
        ratio = f"{then['ours'] / row.ours:.2f}"
        table.add_row(
            row.part, row.setting, style.format(row.ours), style.format(then["ours"]), ratio, ", ".join(peers)
        )
    return table


def draw_published(row: Row, machine: dict[str, Any]) -> Figure:
    """Draws published accuracy on AudioSet against the milliseconds of a clip, a point for each model."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    panel = figure.subplots()
    for color, (name, value) in zip(COLORS, ({OURS: row.ours} | row.peers).items()):
        accuracy = row.details[f"mAP, {name}"]
        panel.scatter(value, accuracy, s=60, color=color)
        label = "BEATs iter3+, this package" if name == OURS else name
        panel.annotate(label, (value, accuracy), xytext=(7, 4), textcoords="offset points", fontsize=9)
    panel.set_xscale("log")
    panel.margins(x=0.25, y=0.15)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set(xlabel=f"milliseconds for a clip, {row.setting}", ylabel="published mAP on AudioSet, %")
    figure.suptitle(textwrap.fill(in_a_line(machine), 100), fontsize=8)
    return figure


def write(output: Path, rows: list[Row], machine: dict[str, Any], options: dict[str, Any]) -> None:
    """Writes `benchmark.json`, `benchmark.png` and, where that part was measured, `published.png`."""
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
    for row in rows:
        if row.part == "published":
            with replace_file(output / "published.png") as path:
                draw_published(row, machine).savefig(path, format="png", dpi=120)
