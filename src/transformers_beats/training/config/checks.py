# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Checks of a stage that `iterate` makes before its first one, too."""

import math
from typing import Any

import torch
from transformers.trainer_utils import SaveStrategy

from transformers_beats import BeatsModel
from transformers_beats.utils.errors import BeatsError


def check_saves(
    num_checkpoints: int, strategy: str, save_steps: float, max_steps: int, num_train_epochs: float
) -> None:
    """
    Raises a [`BeatsError`] if a training would write fewer than `num_checkpoints`. `save_steps` below 1 is a share of
    `max_steps`, and without positive `max_steps` the number of steps is not known.
    """
    num_saves: float = 0
    if strategy == SaveStrategy.STEPS:
        if max_steps <= 0:
            return
        step = math.ceil(max_steps * save_steps) if save_steps < 1 else save_steps
        num_saves = math.ceil(max_steps / step)
    elif strategy == SaveStrategy.EPOCH:
        num_saves = math.ceil(num_train_epochs)
    if num_saves < num_checkpoints:
        raise BeatsError(
            f"`average_checkpoints` is {num_checkpoints}, but {num_saves} checkpoint(s) would be written: "
            "save more often (`save_strategy`, `save_steps`)."
        )


def find_difference(first: Any, second: Any) -> str | None:
    """Returns the name of the first weight that encoders of two configurations do not share; None if all are alike."""
    # Nothing is allocated there.
    with torch.device("meta"):
        shapes = [
            {name: value.shape for name, value in BeatsModel(config).state_dict().items()}
            for config in (first, second)
        ]
    names = [*shapes[0], *shapes[1]]
    return next((name for name in names if shapes[0].get(name) != shapes[1].get(name)), None)
