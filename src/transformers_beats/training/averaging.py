# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Averages of checkpoints."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME


def average_checkpoints(model: nn.Module, directory: Path, num_checkpoints: int) -> None:
    """
    Gives a model the mean weights of the last checkpoints of its training.

    Args:
        model (`nn.Module`):
            The trained model.
        directory (`Path`):
            Where `Trainer` wrote `checkpoint-STEP`.
        num_checkpoints (`int`):
            How many to average.

    Raises:
        `ValueError`: if there are fewer.
    """
    found = [path for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if (path / SAFE_WEIGHTS_NAME).exists()]
    last = sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))[-num_checkpoints:]
    if len(last) < num_checkpoints:
        raise ValueError(
            f"`average_checkpoints` is {num_checkpoints}, but the training wrote {len(last)}: save more often "
            "(`save_strategy`, `save_steps`)."
        )
    sums: dict[str, torch.Tensor] = {}
    for path in last:
        for name, value in load_file(str(path / SAFE_WEIGHTS_NAME)).items():
            value = value.double() if value.is_floating_point() else value
            sums[name] = sums[name] + value if name in sums and value.is_floating_point() else value
    own = model.state_dict()
    # Buffers that count are taken from the last checkpoint.
    averages = {
        name: (value / len(last)).to(own[name].dtype) if value.is_floating_point() else value
        for name, value in sums.items()
    }
    model.load_state_dict(averages)


__all__ = ["average_checkpoints"]
