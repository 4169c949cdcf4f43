# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Converts and publishes all checkpoints of a manifest, such as the 19 files of Microsoft's release."""

import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from transformers_beats.utils.files import replace_file

from .checkpoint import CheckpointError, sha256
from .convert import convert
from .model_card import KINDS, TASKS, CardDetails
from .publishing import PublishingError, check_account, publish


MANIFEST = Path(__file__).with_name("official_checkpoints.yaml")
# The figures of a card come from one source here.
CARD_KEYS = ({field.name for field in fields(CardDetails)} - {"results"}) | {"paper"}
FAILED = ("missing", "refused", "failed")


@dataclass
class Entry:
    """A line of the manifest; `official_checkpoints.yaml` explains the keys."""

    file: str
    repository: str
    kind: str
    card: CardDetails
    sha256: str | None = None


@dataclass
class Outcome:
    """What became of an entry: `published`, `unchanged`, `checked` (dry run), or one of `FAILED`, and why."""

    file: str
    repository: str
    status: str
    detail: str = ""
    sha256: str | None = None
    commit: str | None = None
    seconds: float = 0.0


def read_manifest(path: Path, namespace: str) -> list[Entry]:
    """
    The entries of a manifest, each checked.

    Raises:
        `ValueError`: naming the entry and the key that is missing, unknown or wrong.
    """
    contents = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(contents, dict) or not isinstance(contents.get("checkpoints"), list):
        raise ValueError(f"{path}: must have a list `checkpoints`.")
    defaults = contents.get("defaults") or {}
    entries = []
    for number, values in enumerate(contents["checkpoints"], start=1):
        where = f"{path}, checkpoint {number}"
        if not isinstance(values, dict) or not isinstance(defaults, dict):
            raise ValueError(f"{where}: it and `defaults` must have keys and values.")
        entries.append(read_entry({**defaults, **values}, namespace, where))
    repositories = [entry.repository for entry in entries]
    if twice := {name for name in repositories if repositories.count(name) > 1}:
        raise ValueError(f"{path}: several checkpoints for {', '.join(sorted(twice))}.")
    return entries


def read_entry(values: dict[str, Any], namespace: str, where: str) -> Entry:
    """One entry, with the repositories under `namespace`."""
    required, known = {"file", "repository", "kind"}, {"file", "repository", "kind", "sha256"} | CARD_KEYS
    if missing := required - values.keys():
        raise ValueError(f"{where}: lacks {', '.join(sorted(missing))}.")
    if unknown := values.keys() - known:
        raise ValueError(f"{where}: unknown keys {', '.join(sorted(unknown))}.")
    for name, value in values.items():
        expected = {"datasets": list, "paper": dict}.get(name, str)
        if not isinstance(value, expected):
            raise ValueError(f"{where}: `{name}` must be a {expected.__name__}, is {value!r}.")
    if values["kind"] not in KINDS:
        raise ValueError(f"{where}: `kind` is {values['kind']!r}, must be one of {', '.join(KINDS)}.")
    card = {name: value for name, value in values.items() if name in CARD_KEYS}
    card["results"] = card.pop("paper", {})
    if unknown := card["results"].keys() - TASKS.keys():
        raise ValueError(f"{where}: `paper` has unknown tasks {', '.join(sorted(unknown))}.")
    if "base_model" in card:
        card["base_model"] = f"{namespace}/{card['base_model']}"
    return Entry(
        file=values["file"],
        repository=f"{namespace}/{values['repository']}",
        kind=values["kind"],
        card=CardDetails(**card),
        sha256=values.get("sha256"),
    )


def process(entry: Entry, source_dir: Path, private: bool, dry_run: bool, checked: str | None = None) -> Outcome:
    """
    Checks, converts and publishes one entry. What goes wrong with it ends up in the outcome. `checked` is the commit
    that an earlier run compared.
    """
    outcome, start = Outcome(entry.file, entry.repository, "failed"), time.monotonic()
    source = source_dir / entry.file
    try:
        if not source.is_file():
            outcome.status, outcome.detail = "missing", f"no such file: {source}"
            return outcome
        with tempfile.TemporaryDirectory() as work:
            outcome.sha256 = sha256(source)
            if entry.sha256 not in (None, outcome.sha256):
                raise CheckpointError(f"has SHA-256 {outcome.sha256}, but the manifest says {entry.sha256}.")
            output_dir = Path(work) / "model"
            kind = convert(source, output_dir, repo_id=entry.repository, details=entry.card).kind
            if kind != entry.kind:
                raise CheckpointError(f"is {kind}, but the manifest says {entry.kind}.")
            if dry_run:
                outcome.status, outcome.detail = "checked", kind
                return outcome
            publication = publish(output_dir, entry.repository, private, checked=checked)
        outcome.status = "published" if publication.is_new else "unchanged"
        outcome.commit = publication.commit
    except CheckpointError as error:
        outcome.status, outcome.detail = "refused", str(error)
    except (PublishingError, OSError) as error:
        outcome.detail = str(error) or type(error).__name__
    finally:
        outcome.seconds = round(time.monotonic() - start, 1)
    return outcome


def read_report(path: Path | None) -> dict[str, Outcome]:
    """The outcomes of an earlier run by repository, none without a report."""
    if path is None or not path.is_file():
        return {}
    try:
        outcomes = [Outcome(**outcome) for outcome in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError):
        raise ValueError(f"{path}: is no report of this command; name another file.") from None
    return {outcome.repository: outcome for outcome in outcomes}


def print_line(console: Console, *parts: str, style: str | None = None) -> None:
    """One line, whole also where a terminal is narrower or there is none."""
    console.print(*parts, style=style, markup=False, highlight=False, soft_wrap=True)


def show(outcomes: list[Outcome], console: Console) -> None:
    """A line for each outcome, in columns."""
    width = max((len(outcome.repository) for outcome in outcomes), default=0)
    for outcome in outcomes:
        what = outcome.commit or outcome.detail
        style = "red" if outcome.status in FAILED else None
        print_line(console, f"{outcome.repository:{width}}  {outcome.status:9}  {what}", style=style)


def main(
    source_dir: Annotated[Path, typer.Option(help="Directory with the source files.")],
    namespace: Annotated[str, typer.Option(help="Account or organisation on the Hub.")],
    manifest: Annotated[Path, typer.Argument(help="List of checkpoints.")] = MANIFEST,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and convert; publish nothing, no network.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="New repositories are private.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only this repository; may be given several times.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of the outcomes. What it has as published and has not changed is not downloaded again."
        ),
    ] = None,
) -> None:
    """
    Convert and publish every checkpoint of MANIFEST. A repository that holds the same already gets no new commit, so
    that an interrupted run is simply started again. One that fails does not stop the others.
    """
    # So that an ended run cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    try:
        entries = read_manifest(manifest, namespace)
        if unknown := set(only or []) - {entry.repository.partition("/")[2] for entry in entries}:
            raise ValueError(f"{manifest}: no repository {', '.join(sorted(unknown))}.")
        entries = [entry for entry in entries if not only or entry.repository.partition("/")[2] in only]
        known = read_report(report)
        if report is not None:
            report.parent.mkdir(parents=True, exist_ok=True)
        if not dry_run:
            check_account(f"{namespace}/name")
    except (ValueError, TypeError, yaml.YAMLError, PublishingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(code=1) from None
    outcomes = []
    for number, entry in enumerate(entries, start=1):
        print_line(console, f"[{number}/{len(entries)}] {entry.file} -> {entry.repository}")
        checked = known[entry.repository].commit if entry.repository in known else None
        outcomes.append(process(entry, source_dir, private, dry_run, checked))
        print_line(console, f"    {outcomes[-1].status} {outcomes[-1].detail}")
        if report is not None and not dry_run:
            known[entry.repository] = outcomes[-1]
            with replace_file(report) as temporary:
                temporary.write_text(json.dumps([asdict(outcome) for outcome in known.values()], indent=2) + "\n")
    show(outcomes, console)
    if any(outcome.status in FAILED for outcome in outcomes):
        raise typer.Exit(code=1)


if __name__ == "__main__":
    typer.run(main)
