# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""`transformers-beats info`: the properties of a model."""

from typing import Annotated

import typer


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Directory of a model, or its id on the Hub.")],
    labels: Annotated[bool, typer.Option("--labels", help="Print the labels, and nothing else.")] = False,
) -> None:
    """Print the kind, size, labels and filter bank of a model."""
    from transformers_beats.inference.loading import describe, labels_of, load

    loaded, extractor = load(model, "cpu")
    if labels:
        print(*(f"{index}\t{label}" for index, label in labels_of(loaded).items()), sep="\n")
        return
    for name, value in describe(loaded, extractor).items():
        print(f"{name + ':':<16}{value}")
