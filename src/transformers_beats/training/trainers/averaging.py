# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Averages of weights: of checkpoints, and over the steps of a training."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from transformers_beats.training.config.checks import check_saves
from transformers_beats.utils.errors import BeatsError

from .checkpoints import complete_checkpoints


# In a checkpoint: the moving average of the weights.
AVERAGE = "weight_average.safetensors"


class WeightAverage(TrainerCallback):
    """
    Exponential moving average of the weights, in float32: after each step, `decay` of it is kept. In the first steps
    it is less, (1 + step) / (10 + step), so that the initial weights are forgotten. Checkpoints hold it.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.values: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args, state, control, *, model: nn.Module, **kwargs):  # ty: ignore[incompatible-method-override]
        if state.global_step:
            self.load(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
        else:
            self.values = {name: value.detach().float().clone() for name, value in model.named_parameters()}

    def on_step_end(self, args, state, control, *, model: nn.Module, **kwargs):  # ty: ignore[incompatible-method-override]
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        for name, value in model.named_parameters():
            average = self.values[name] = self.values[name].to(value.device)
            average.lerp_(value.detach().float(), 1 - decay)

    def save(self, checkpoint: Path) -> None:
        """Writes the average to the directory of a checkpoint, which is made if it is missing."""
        checkpoint.mkdir(parents=True, exist_ok=True)
        save_file(self.values, checkpoint / AVERAGE)

    def load(self, checkpoint: Path) -> None:
        """Reads the average of a checkpoint; raises a [`BeatsError`] if it has none."""
        if not (checkpoint / AVERAGE).exists():
            raise BeatsError(f"{checkpoint}: has no average of the weights, so it was cut off: remove it.")
        self.values = load_file(checkpoint / AVERAGE)

    def copy_to(self, model: nn.Module) -> None:
        """Sets the weights of a model to the average."""
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(self.values[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Generator[None, None, None]:
        """Gives a model the average for a while, once there is one."""
        own = {name: value.detach().clone() for name, value in model.named_parameters()} if self.values else {}
        if own:
            self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in model.named_parameters() if own else ():
                    value.copy_(own[name])


class CheckpointCounter(TrainerCallback):
    """Refuses, before its first step, a training that would write fewer checkpoints than are to be averaged."""

    def __init__(self, num_checkpoints: int):
        self.num_checkpoints = num_checkpoints

    def on_train_begin(self, args, state, control, **kwargs):
        check_saves(
            self.num_checkpoints, args.save_strategy, state.save_steps, state.max_steps, state.num_train_epochs
        )


def prepare_average(trainer: Trainer, num_checkpoints: int) -> None:
    """
    Adds a [`CheckpointCounter`] to a trainer whose last checkpoints are to be averaged.

    Raises:
        [`BeatsError`]: with FSDP. DeepSpeed's stages 1 and 2 leave the weights whole, and its stage 3 is refused.
    """
    if trainer.is_fsdp_enabled:
        raise BeatsError(
            "`average_checkpoints` is not for FSDP, which divides the weights among devices: leave it out."
        )
    trainer.add_callback(CheckpointCounter(num_checkpoints))


def keep_checkpoints(training: TrainingArguments, num_checkpoints: int) -> None:
    """Lets so many checkpoints be kept that those to be averaged are there at the end."""
    training.save_total_limit = max(training.save_total_limit or 0, num_checkpoints) or None


def average_checkpoints(model: nn.Module, directory: Path, num_checkpoints: int) -> None:
    """
    Sets the weights of a model to the mean of those in the last complete checkpoints of a `directory`.

    Raises:
        [`BeatsError`]: if there are fewer.
    """
    last = [path for path in complete_checkpoints(directory) if (path / SAFE_WEIGHTS_NAME).exists()][-num_checkpoints:]
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
