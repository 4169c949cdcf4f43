# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""
Classes of AudioSet (Gemmeke et al., 2017; Hershey et al., 2021).

`AUDIOSET_LABELS` maps the machine ids of the 527 classes to their names, in the order of the official list;
`AUDIOSET_STRONG_LABELS` those of the 447 classes of the training events of AudioSet-Strong, in the order of
PretrainedSED (that of their names). 376 of the latter are among the former, 11 of them under another name. They are
read from `audioset_labels.tsv` and `audioset_strong_labels.tsv` on first use.
"""

import math
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    AUDIOSET_LABELS: dict[str, str]
    AUDIOSET_STRONG_LABELS: dict[str, str]

NAMES = ("AUDIOSET_LABELS", "AUDIOSET_STRONG_LABELS")
YTID = re.compile(r"[\w-]{11}", re.ASCII)
NUMBER = r"\d+(?:\.\d+)?"
# Name of a clip without its suffix: an id after `Y`, or an id with a start. A name fits one of them at most.
CLIP_NAME = re.compile(rf"Y?(?P<ytid>{YTID.pattern})(?:_(?P<start>{NUMBER})(?:[_-]{NUMBER})?)?", re.ASCII)


@cache
def _read_labels(name: str) -> dict[str, str]:
    lines = files("transformers_beats.audio").joinpath(f"{name.lower()}.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def __getattr__(name: str) -> dict[str, str]:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _read_labels(name)


def is_start(stated: float, start_seconds: float) -> bool:
    """Returns whether a number in a name is the start of a segment: in seconds, whole seconds or milliseconds."""
    readings = (start_seconds, math.floor(start_seconds), 1000 * start_seconds)
    return any(math.isclose(stated, reading, abs_tol=1e-3) for reading in readings)
