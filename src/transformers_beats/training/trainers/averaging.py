# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Averages of checkpoints."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from transformers_beats.utils.errors import BeatsError


def average_checkpoints(model: nn.Module, directory: Path, num_checkpoints: int) -> None:
    """
    Sets the weights of a model to the mean of those in the last `checkpoint-STEP` that `Trainer` wrote to `directory`.

    Raises:
        [`BeatsError`]: if there are fewer.
    """
    found = [path for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if (path / SAFE_WEIGHTS_NAME).exists()]
    last = sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))[-num_checkpoints:]
    if len(last) < num_checkpoints:
        raise BeatsError(
            f"`average_checkpoints` is {num_checkpoints}, but {directory} holds {len(last)}: save more often."
        )
    own = model.state_dict()
    sums: dict[str, Any] = {}
    for path in last:
        for name, value in load_file(str(path / SAFE_WEIGHTS_NAME)).items():
            # Buffers that count are taken from the last checkpoint.
            sums[name] = sums.get(name, 0) + value.double() if value.is_floating_point() else value
    averages = {name: value / len(last) if own[name].is_floating_point() else value for name, value in sums.items()}
    model.load_state_dict({name: value.to(own[name].dtype) for name, value in averages.items()})
