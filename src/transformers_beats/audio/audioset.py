# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Classes of AudioSet (Gemmeke et al., 2017).

`AUDIOSET_LABELS` maps the machine ids of the 527 classes to their names, in the order of the official list. It is read
from `audioset_labels.tsv` on first use.
"""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    AUDIOSET_LABELS: dict[str, str]


@cache
def _read_labels() -> dict[str, str]:
    lines = files("transformers_beats.audio").joinpath("audioset_labels.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def __getattr__(name: str) -> dict[str, str]:
    if name != "AUDIOSET_LABELS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _read_labels()
