# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats models`, `get`, `info` and `recipes`: released models, and what is known of a model."""

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from transformers_beats.conversion.names import Kind, use_of
from transformers_beats.utils.errors import name_some
from transformers_beats.utils.messages import next_command, note

from .options import Json
from .writers import write_standard_output


TITLES: dict[Kind, str] = {
    "pretrained": "Encoders, pre-trained without labels",
    "finetuned": "Classifiers of clips",
    "event-classifier": "Classifiers of events",
    "tokenizer": "Acoustic tokenizers",
}
FIGURES = ("AS-2M", "AS-20K", "ESC-50")
NOTES = """\
AS-2M, AS-20K (mAP), ESC-50 (accuracy): the paper's, fine-tuned, in per cent.
hub: uploads by others that are known. A file is taken if its SHA-256 is that of
the release{exceptions}.
Without an upload, take the file from its publisher{pages}
and name it in: transformers-beats convert FILE"""


def models(
    cache_dir: Annotated[
        Path | None, typer.Option(help="Cache of converted models.", show_default="HF_HOME/transformers-beats")
    ] = None,
    json: Json = False,
) -> None:
    """
    List the released models, and which of them are here.

    Kind, size of the file, the paper's figures, and where it can be had.

    `tag -m NAME` and all other commands take the names, and fetch a model that is not here.
    """
    from transformers_beats.conversion import released

    entries = released.read_manifest().values()
    if json:
        for entry in entries:
            directory = released.cache_directory(entry, cache_dir)
            record = {name: getattr(entry, name) for name in ("name", "kind", "file", "bytes", "paper", "mirrors")}
            record["directory"] = str(directory) if released.is_complete(directory) else None
            write_standard_output(json_format.dumps(record) + "\n")
        return
    row = "{:42}  {:>3}  {:>5} {:>6} {:>6}  {:4} {}".format
    for kind, title in TITLES.items():
        of_kind = [entry for entry in entries if entry.kind == kind]
        if not of_kind:
            continue
        typer.echo(f"{title}\n{row('', 'MB', *FIGURES, 'hub', 'here').rstrip()}")
        for entry in of_kind:
            size = "" if entry.bytes is None else round(entry.bytes / 1e6)
            is_here = released.is_complete(released.cache_directory(entry, cache_dir))
            figures = (entry.paper.get(task, "") for task in FIGURES)
            typer.echo(row(entry.name, size, *figures, len(entry.mirrors) or "-", "yes" if is_here else "").rstrip())
        typer.echo()
    unknown = [entry.name for entry in entries if entry.sha256 is None]
    exceptions = f"; none is known of the\n{name_some(unknown, 2)}" if unknown else ""
    pages = "".join(f",\n{page}" for page in dict.fromkeys(entry.page for entry in entries if entry.page))
    typer.echo(NOTES.format(exceptions=exceptions, pages=pages))


def get(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of `models`.")],
    cache_dir: Annotated[
        Path | None, typer.Option(help="Cache of converted models.", show_default="HF_HOME/transformers-beats")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no network.")] = False,
) -> None:
    """
    Fetch, verify and convert released models.

    Prints their directories. Those that are here already are not fetched again.
    """
    from transformers_beats.conversion import released

    # All names are checked before the first download.
    for name in names:
        released.find(name)
    for name in names:
        typer.echo(released.get(name, cache_dir, offline=offline or None))
    entry = released.find(names[-1])
    # A name means the default cache.
    model = entry.name if cache_dir is None else str(released.cache_directory(entry, cache_dir))
    note(next_command(*use_of(entry.kind, model)))


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name (see `models`), directory, or Hub id.")],
    labels: Annotated[bool, typer.Option("--labels", help="Print the labels, and nothing else.")] = False,
    json: Json = False,
) -> None:
    """Print the kind, size, labels and filter bank of a model."""
    from transformers_beats.inference.loading import check_model, describe, labels_of, load

    check_model(model)
    loaded, extractor = load(model, "cpu")
    if json:
        record = {"model": model, **({} if labels else describe(loaded, extractor))}
        write_standard_output(json_format.dumps({**record, "labels": list(labels_of(loaded).values())}) + "\n")
        return
    if labels:
        print(*(f"{index}\t{label}" for index, label in labels_of(loaded).items()), sep="\n")
        return
    for name, value in describe(loaded, extractor).items():
        print(f"{name + ':':<16}{value}")


def recipes() -> None:
    """List the recipes that come with the package, for --config NAME."""
    from transformers_beats.training.config.recipes import list_recipes

    found = list_recipes()
    width = max(map(len, found))
    for name, purpose in found.items():
        print(f"{name:{width}}  {purpose}")
