# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Joins what the stages of `gpu.sh` have found into `gpu.json` and a Markdown table, `gpu.md`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.report import FORMATS, describe_detail
from transformers_beats.utils.files import replace_file
from transformers_beats.utils.machine import in_a_line


HEADERS = ("stage", "part", "setting", "ours", "peer", "the peer's", "peer / ours", "of the roofline", "more of ours")
# The status of `timeout` for a command that it has stopped, by its signal and by the one that cannot be refused.
STOPPED = (124, 137)


def read_stage(place: Path) -> dict[str, Any]:
    """Returns the name of a stage, how it ended, the machine and its rows; both are empty if it found nothing."""
    result, status = place / "benchmark.json", int((place / "status").read_text())
    found = json.loads(result.read_text()) if result.exists() else {"machine": {}, "rows": []}
    ended = "finished" if status == 0 else "stopped at its limit" if status in STOPPED else f"failed ({status})"
    return {"stage": place.name, "ended": ended} | found


def make_lines(stage: dict[str, Any]) -> list[str]:
    """Returns the lines of a stage in the table: one for each peer of each row, and one if it did not finish."""
    cells = []
    for row in stage["rows"]:
        style = FORMATS[row["unit"]]
        roofline = "" if row["roofline"] is None else f"{row['roofline']:.0%}"
        details = ", ".join(f"{name} {describe_detail(value)}" for name, value in row["details"].items())
        for number, (peer, value) in enumerate(row["peers"].items()):
            first = number == 0
            cells.append(
                [
                    stage["stage"] if first else "",
                    row["part"] if first else "",
                    row["setting"] if first else "",
                    style.format(row["ours"]) if first else "",
                    peer,
                    style.format(value),
                    f"{row['ratios'][peer]:.2f}",
                    roofline if first else "",
                    details if first else "",
                ]
            )
    if stage["ended"] != "finished" or not cells:
        reason = stage["ended"] if stage["ended"] != "finished" else "nothing to measure on this machine"
        cells.append([stage["stage"], "", reason, *[""] * (len(HEADERS) - 3)])
    return [f"| {' | '.join(line)} |" for line in cells]


def main(output: Annotated[Path, typer.Argument(help="The folder of `gpu.sh`")]) -> None:
    """Writes `gpu.json` and `gpu.md` for the stages that have ended, in their order."""
    places = sorted(output.glob("*/status"), key=lambda path: path.stat().st_mtime_ns)
    stages = [read_stage(path.parent) for path in places]
    machine = next((stage["machine"] for stage in stages if stage["machine"]), {})
    title = in_a_line(machine) if machine else "No stage found anything."
    lines = [title, "", f"| {' | '.join(HEADERS)} |", f"|{' --- |' * len(HEADERS)}"]
    lines += [line for stage in stages for line in make_lines(stage)]
    with replace_file(output / "gpu.json") as path:
        path.write_text(json.dumps({"machine": machine, "stages": stages}, indent=1) + "\n")
    with replace_file(output / "gpu.md") as path:
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
