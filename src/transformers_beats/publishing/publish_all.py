# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Conversion and publication of all checkpoints of a manifest, such as the 19 files of Microsoft's release."""

import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from transformers_beats.conversion.convert import convert
from transformers_beats.conversion.names import use_of
from transformers_beats.conversion.released import Entry, read_manifest
from transformers_beats.utils.errors import (
    FAILURE,
    FOREIGN_ERRORS,
    BeatsError,
    UsageError,
    end_on_signals,
    errors_in_one_line,
    first_line,
    one_line,
)
from transformers_beats.utils.files import check_absent, replace_file
from transformers_beats.utils.messages import next_command, note


FAILED = ("missing", "refused", "failed")


@dataclass
class Outcome:
    """Outcome for an entry: `published`, `unchanged`, `checked` (dry run) or one of `FAILED`, with the reason."""

    file: str
    repository: str
    status: str
    detail: str = ""
    sha256: str | None = None
    commit: str | None = None
    seconds: float = 0.0


def process(
    entry: Entry, repo_id: str, source_dir: Path, private: bool, dry_run: bool, checked: str | None = None
) -> Outcome:
    """
    Checks, converts and publishes one entry. Its errors end up in the outcome. `checked` is the commit that an earlier
    run compared.
    """
    source = source_dir / entry.file
    if not source.is_file():
        return Outcome(entry.file, repo_id, "missing", f"no such file: {source}")
    from transformers_beats.conversion.reading import CheckpointError

    from .publish import publish

    outcome, start = Outcome(entry.file, repo_id, "failed"), time.monotonic()
    try:
        entry.check_file(source)
        with tempfile.TemporaryDirectory() as work:
            output_dir = Path(work) / "model"
            account = repo_id.partition("/")[0]
            details = replace(entry, base_model=entry.base_model and f"{account}/{entry.base_model}")
            checkpoint = convert(source, output_dir, repo_id=repo_id, details=details)
            outcome.sha256 = checkpoint.sha256
            if dry_run:
                outcome.status, outcome.detail = "checked", checkpoint.kind
                return outcome
            # The weights would otherwise be held twice while the download is checked.
            del checkpoint
            publication = publish(output_dir, repo_id, private, checked=checked)
        outcome.status = "published" if publication.is_new else "unchanged"
        outcome.commit = publication.commit
    except CheckpointError as error:
        outcome.status, outcome.detail = "refused", str(error)
    except (*FOREIGN_ERRORS, LookupError) as error:
        # The other checkpoints are still published.
        outcome.detail = one_line(error) if isinstance(error, BeatsError) else first_line(error)
    finally:
        outcome.seconds = round(time.monotonic() - start, 1)
    return outcome


def read_report(path: Path | None) -> dict[str, Outcome]:
    """Reads the outcomes of an earlier run, by repository; none without a report."""
    if path is None or not path.is_file():
        return {}
    try:
        outcomes = [Outcome(**outcome) for outcome in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError):
        raise UsageError(f"{path}: is no report of this command; name another file.") from None
    return {outcome.repository: outcome for outcome in outcomes}


def main(
    source_dir: Annotated[Path, typer.Option(help="Directory with the source files.")],
    namespace: Annotated[str, typer.Option(help="Account or organisation on the Hub.")],
    manifest: Annotated[Path | None, typer.Option(help="List of checkpoints. Default: Microsoft's release.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and convert, but publish nothing.")] = False,
    private: Annotated[bool, typer.Option("--private", help="New repositories are private.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only the model of this name; may be given several times.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of the outcomes. Repositories that it has as published and that have not changed are not "
            "downloaded again. A dry run checks that it can be written, and does not write it."
        ),
    ] = None,
) -> None:
    """
    Convert and publish all checkpoints of Microsoft's release, or of another manifest.

    A repository that holds the same already gets no new commit, so that an interrupted run is simply started again. A
    checkpoint that fails does not stop the others.
    """
    end_on_signals()
    with errors_in_one_line():
        if not source_dir.is_dir():
            raise UsageError(f"{source_dir}: no such folder.")
        entries = read_manifest(manifest)
        if unknown := set(only or []) - set(entries):
            raise UsageError(f"no model of the list has the name {', '.join(sorted(unknown))}.")
        chosen = {f"{namespace}/{name}": entry for name, entry in entries.items() if not only or name in only}
        if report is not None:
            check_absent(report, overwrite=True)
        known = read_report(report)
        if report is not None and not dry_run:
            report.parent.mkdir(parents=True, exist_ok=True)
        if not dry_run:
            from .publish import check_account

            check_account(f"{namespace}/name")
        outcomes = []
        for number, (repo_id, entry) in enumerate(chosen.items(), start=1):
            typer.echo(f"[{number}/{len(chosen)}] {entry.file} -> {repo_id}")
            checked = known[repo_id].commit if repo_id in known else None
            outcomes.append(process(entry, repo_id, source_dir, private, dry_run, checked))
            typer.echo(f"    {outcomes[-1].status} {outcomes[-1].detail}")
            if report is not None and not dry_run:
                known[repo_id] = outcomes[-1]
                with replace_file(report) as temporary:
                    temporary.write_text(json.dumps([asdict(outcome) for outcome in known.values()], indent=2) + "\n")
        width = max((len(outcome.repository) for outcome in outcomes), default=0)
        for outcome in outcomes:
            line = f"{outcome.repository:{width}}  {outcome.status:9}  {outcome.commit or outcome.detail}"
            typer.secho(line, fg="red" if outcome.status in FAILED else None)
        if any(outcome.status in FAILED for outcome in outcomes):
            note("Next: the same command again, once the reasons above are mended.")
            raise SystemExit(FAILURE)
        if dry_run:
            note("Next: the same command without --dry-run.")
        elif chosen:
            repo_id, entry = next(iter(chosen.items()))
            note(next_command(*use_of(entry.kind, repo_id)))
