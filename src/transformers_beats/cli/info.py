# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats info` and `recipes`: properties of a model, and names of recipes."""

import json as json_format
from typing import Annotated

import typer

from .options import Json
from .writers import write_standard_output


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
        description = describe(loaded, extractor) | {"labels": list(labels_of(loaded).values())}
        write_standard_output(json_format.dumps({"model": model, **description}) + "\n")
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
