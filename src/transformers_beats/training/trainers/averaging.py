# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Averages of checkpoints."""

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy
from transformers.utils import SAFE_WEIGHTS_NAME


def check_saves(training: TrainingArguments, num_checkpoints: int, num_clips: int) -> None:
    """
    Raises `ValueError` if a training on `num_clips` clips, one crop of each in an epoch, writes fewer checkpoints than
    are to be averaged.
    """
    if not num_checkpoints:
        return
    per_step = training.train_batch_size * training.gradient_accumulation_steps * training.world_size
    steps_per_epoch = math.ceil(num_clips / per_step)
    num_steps = training.max_steps if training.max_steps > 0 else training.num_train_epochs * steps_per_epoch
    save_steps = training.save_steps if training.save_steps >= 1 else training.save_steps * num_steps
    num_saves = {
        SaveStrategy.STEPS: math.ceil(num_steps / save_steps),
        SaveStrategy.EPOCH: math.ceil(num_steps / steps_per_epoch),
    }.get(SaveStrategy(training.save_strategy), 0)
    if num_saves < num_checkpoints:
        raise ValueError(
            f"`average_checkpoints` is {num_checkpoints}, but {num_saves} checkpoint(s) would be written: save more "
            "often (`save_strategy`, `save_steps`)."
        )


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
