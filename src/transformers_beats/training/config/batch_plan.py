# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Size of a batch: seconds of audio, spread over devices and accumulation steps."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from accelerate import DeepSpeedPlugin
from transformers import TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from transformers_beats.utils.arguments import argument, check_numbers
from transformers_beats.utils.errors import UsageError


@dataclass
class BatchArguments:
    """Size of a batch in seconds of audio, as the paper gives it."""

    batch_seconds: float | None = argument(
        "Seconds of audio in one step of the optimiser, over all devices. `per_device_train_batch_size` "
        "is then the most clips that a device takes at a time, and `gradient_accumulation_steps` is computed.",
        None,
        positive=True,
    )

    def __post_init__(self):
        check_numbers(self)


class BatchPlan(NamedTuple):
    """
    Spread of a batch: clips that a device takes at a time, how often it does so in one step of the optimiser, and
    seconds of audio in that step, over all devices.
    """

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    seconds: float


def plan_batch(batch_seconds: float, crop_seconds: float, world_size: int, max_clips_per_device: int) -> BatchPlan:
    """
    Spreads a batch of clips of `crop_seconds` over `world_size` devices: as near as possible to `batch_seconds` in one
    step of the optimiser, over all devices, with no more accumulation than `max_clips_per_device` asks for.

    Raises:
        [`UsageError`]: if the batch has less than a clip for each device.
    """
    seconds_per_clip_each = crop_seconds * world_size
    clips_wanted = batch_seconds / seconds_per_clip_each
    if clips_wanted < 1:
        raise UsageError(
            f"`batch_seconds` is {batch_seconds:g}, but one clip of {crop_seconds:g} s on each of {world_size} "
            f"device(s) makes {seconds_per_clip_each:g}."
        )
    options = []
    steps_wanted = clips_wanted / max_clips_per_device
    # A step less can be as near: for 65 clips where 64 fit, 64 at once rather than twice 32.
    for steps in (max(math.floor(steps_wanted), 1), math.ceil(steps_wanted)):
        clips = min(math.floor(clips_wanted / steps + 0.5), max_clips_per_device)
        options.append((abs(clips * steps - clips_wanted), steps, clips))
    _, steps, clips = min(options)
    return BatchPlan(clips, steps, clips * steps * seconds_per_clip_each)


def check_launch(training: TrainingArguments) -> None:
    """Raises `UsageError` if the training, as its processes were started, would not be what its arguments say."""
    # `DataParallel` would keep a codebook for each GPU, and lose all but one.
    if training.n_gpu > 1:
        raise UsageError(f"One process would drive {training.n_gpu} GPUs: start the command with `accelerate launch`.")
    deepspeed = training.deepspeed_plugin
    if training.use_cpu and (deepspeed is not None or training.fsdp):
        name = "FSDP" if deepspeed is None else "DeepSpeed"
        raise UsageError(f"accelerate has no {name} on CPUs, and would train without it: leave it out.")
    if deepspeed is None:
        return
    config = deepspeed.deepspeed_config
    if config.get("zero_optimization", {}).get("stage", 0) > 2:
        raise UsageError(
            "ZeRO stage 3 splits the frozen tokenizer or teacher as well, which then cannot be computed: "
            "use stage 1 or 2, or FSDP."
        )


def apply_batch_plan(training: TrainingArguments, batch: BatchArguments, crop_seconds: float) -> BatchPlan:
    """
    Sets batch size and accumulation of `training` from `batch.batch_seconds`, if that is given, and returns the plan
    that `training` then has, in either case.

    Raises:
        [`UsageError`]: see [`plan_batch`]; also if `gradient_accumulation_steps` was set as well.
    """
    num_devices = training.world_size
    clips, steps = training.per_device_train_batch_size, training.gradient_accumulation_steps
    if batch.batch_seconds is None:
        return BatchPlan(clips, steps, clips * steps * num_devices * crop_seconds)
    if steps != 1:
        raise UsageError(
            "`batch_seconds` determines `gradient_accumulation_steps`: leave one of them out. "
            "`per_device_train_batch_size` is the most clips that a device takes at a time."
        )
    plan = plan_batch(batch.batch_seconds, crop_seconds, num_devices, clips)
    training.per_device_train_batch_size = plan.per_device_train_batch_size
    training.gradient_accumulation_steps = plan.gradient_accumulation_steps
    if training.deepspeed:
        # As `Trainer` does when it searches for hyperparameters: `auto` has been filled in already.
        training.hf_deepspeed_config = HfTrainerDeepSpeedConfig(training.deepspeed)
        training.hf_deepspeed_config.trainer_config_process(training)
        training.deepspeed_plugin = DeepSpeedPlugin(hf_ds_config=training.hf_deepspeed_config)
    return plan
