# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Verification of released weights: fetched, converted, compared with the published equations, heard and timed."""

import datetime
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformers_beats.conversion.names import use_of
from transformers_beats.utils.errors import (
    FOREIGN_ERRORS,
    BeatsError,
    UsageError,
    first_line,
    name_some,
)
from transformers_beats.utils.files import check_absent
from transformers_beats.utils.machine import describe_machine, in_a_line
from transformers_beats.utils.messages import next_command, note


# torch and transformers are imported in the functions, so that --help comes at once.
if TYPE_CHECKING:
    from transformers_beats import BeatsFeatureExtractor
    from transformers_beats.conversion.released import Entry

    from .checks import Check


def verify(
    name: str, source_dir: Path | None = None, esc50: Path | None = None, device: str = "auto"
) -> Iterator["Check"]:
    """
    Fetches and converts a released checkpoint, unless it is there, and yields the result of each check.

    Args:
        name (`str`):
            Name of the checkpoint, such as `"beats-iter3"`.
        source_dir (`Path`, *optional*):
            Folder with files of the release. One that is there is neither fetched nor kept in the cache.
        esc50 (`Path`, *optional*):
            Folder of ESC-50, for a linear probe.
        device (`str`, defaults to `"auto"`):
            Where speed is measured; outputs are compared on the CPU.

    Raises:
        [`BeatsError`]: if the checkpoint cannot be had or read.
    """
    from transformers_beats.conversion import released
    from transformers_beats.conversion.convert import convert
    from transformers_beats.inference.loading import choose_device, load

    from . import checks
    from .plain import LayoutError

    entry, target = released.find(name), choose_device(device)
    with tempfile.TemporaryDirectory() as work:
        own = None if source_dir is None else source_dir / entry.file
        is_own = own is not None and own.is_file()
        advice = f"A folder that has {entry.file} is named with --source-dir"
        source = own if is_own else released.fetch(entry, advice=advice)
        check = checks.check_hash(source, entry.sha256)
        yield check
        if not check.passed:
            # Another file is not read.
            return
        directory = Path(work) / "model"
        if is_own:
            convert(source, directory, details=entry)
        else:
            directory = released.get(name)
        model, extractor = load(directory, "cpu", "float32")
        if entry.num_parameters is not None:
            count = model.num_parameters()
            yield checks.Check("Parameters", f"{count:,}", count == entry.num_parameters)
        try:
            yield from _compare(entry, source, model, extractor)
        except LayoutError as error:
            # A manifest of one's own may have any file that `convert` reads.
            yield checks.Check("Comparison with the file", str(error), False)
        yield checks.measure_speed(model.to(target), extractor)
        if esc50 is not None:
            yield checks.probe_folds(directory, esc50)


def _compare(entry: "Entry", source: Path, model: Any, extractor: "BeatsFeatureExtractor") -> Iterator["Check"]:
    """Yields the checks of a model against its file, which must be in Microsoft's layout."""
    from . import checks
    from .plain import read_file

    contents = read_file(source)
    if entry.cfg:
        yield checks.check_cfg(contents["cfg"], entry.cfg)
    if entry.kind == "finetuned":
        yield checks.check_labels(contents.get("label_dict"), model)
    yield from checks.check_outputs(contents, model, extractor)


def report(title: str, results: Sequence["Check"], machine: str) -> str:
    """Returns a section in Markdown for `docs/results.md`: date, versions, machine, and a row for each check."""
    from transformers_beats import __version__

    day = datetime.datetime.now(datetime.timezone.utc).date()
    return "\n".join(
        [
            f"### {title}\n",
            f"{day}, transformers-beats {__version__}; {machine}.\n",
            "| check | result |",
            "| --- | --- |",
            *(f"| {result.name} | {'' if result.passed else '**failed**: '}{result.result} |" for result in results),
        ]
    )


def main(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Released checkpoints; see `transformers-beats models`.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All released encoders and classifiers, if none is named.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Markdown file that the report is added to.")] = None,
    source_dir: Annotated[
        Path | None, typer.Option(help="Folder with files of the release, under their own names; others are fetched.")
    ] = None,
    esc50: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="ESC-50: a linear probe is trained on its five folds.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where speed is measured; a GPU if there is one by default.")] = "auto",
) -> None:
    """
    Prove that released weights compute here what the paper says.

    Fetches a checkpoint, checks its hash and settings, converts it, compares it with a plain implementation of the
    published equations, and looks whether a classifier recognises some clips. Prints a table in Markdown. The exit
    status is 1 if a check fails, as the comparison does for a file in another layout than Microsoft's.
    """
    from transformers_beats.conversion import released

    if not names and not every:
        raise UsageError("Name a checkpoint, or pass --all.")
    if source_dir is not None and not source_dir.is_dir():
        raise UsageError(f"{source_dir}: no such folder.")
    if names:
        entries = {name: released.find(name) for name in names}
    else:
        entries = {name: entry for name, entry in released.read_manifest().items() if entry.kind != "tokenizer"}
    # What cannot be used is refused before these import torch.
    from transformers_beats.inference.loading import choose_device

    from .checks import find_table

    if esc50 is not None:
        find_table(esc50)
    if output is not None and not output.is_file():
        check_absent(output, overwrite=True)
    elif output is not None and not os.access(output, os.W_OK):
        raise UsageError(f"{output}: is closed to writing, and the report is added to it.")
    failures, machine = [], in_a_line(describe_machine(str(choose_device(device))))
    for name in entries:
        typer.echo(f"{name} ...", err=True)
        results, problems = [], []
        try:
            for result in verify(name, source_dir, esc50, device):
                typer.echo(f"  {'ok    ' if result.passed else 'FAILED'} {result.name}: {result.result}", err=True)
                results.append(result)
        except FOREIGN_ERRORS as error:
            # The other checkpoints are still verified.
            typer.echo(f"  FAILED {first_line(error)}", err=True)
            problems.append("not verified")
        problems += [result.name for result in results if not result.passed]
        failures += [f"{name}: {problem}" for problem in problems]
        if results:
            text = report(f"{name}, failed" if problems else name, results, machine)
            typer.echo(text)
            if output is not None:
                output.parent.mkdir(parents=True, exist_ok=True)
                with output.open("a", encoding="utf-8") as file:
                    file.write(f"{text}\n\n")
    if failures:
        raise BeatsError(f"{len(failures)} failed, for the reasons above: {name_some(failures)}.")
    if output is not None:
        note(f"Report: {output}")
    name, entry = list(entries.items())[-1]
    note(next_command(*use_of(entry.kind, name)))
