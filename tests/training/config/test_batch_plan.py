# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The batch in seconds, and the launch of a training."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_beats.training.config.arguments import BeatsTrainingArguments
from transformers_beats.training.config.batch_plan import BatchArguments, apply_batch_plan, check_launch, plan_batch


@pytest.fixture
def training(tmp_path):
    def build(**kwargs) -> BeatsTrainingArguments:
        return BeatsTrainingArguments(output_dir=str(tmp_path), **kwargs)

    return build


@pytest.mark.parametrize(
    ("batch_seconds", "crop_seconds", "world_size", "max_clips", "expected"),
    [
        (5600, 10, 8, 70, (70, 1, 5600)),
        (5600, 10, 8, 32, (23, 3, 5520)),
        (5600, 10, 1, 64, (62, 9, 5580)),
        (1400, 10, 8, 32, (18, 1, 1440)),
        (320, 5, 1, 64, (64, 1, 320)),
        # A clip more than fits is no reason for a second step, half as many are.
        (650, 10, 1, 64, (64, 1, 640)),
        (960, 10, 1, 64, (48, 2, 960)),
        (10, 10, 1, 64, (1, 1, 10)),
    ],
)
def test_a_batch_in_seconds_is_spread_over_devices_and_steps(
    batch_seconds, crop_seconds, world_size, max_clips, expected
):
    plan = plan_batch(batch_seconds, crop_seconds, world_size, max_clips)
    assert (plan.per_device_train_batch_size, plan.gradient_accumulation_steps, plan.seconds) == expected


@given(st.floats(1, 10000), st.floats(0.1, 30), st.integers(1, 64), st.integers(1, 256))
def test_no_device_takes_more_clips_than_it_may(batch_seconds, crop_seconds, world_size, max_clips):
    clip_each = crop_seconds * world_size
    if batch_seconds < clip_each:
        with pytest.raises(ValueError, match="`batch_seconds` is"):
            plan_batch(batch_seconds, crop_seconds, world_size, max_clips)
        return
    plan = plan_batch(batch_seconds, crop_seconds, world_size, max_clips)
    assert 1 <= plan.per_device_train_batch_size <= max_clips
    # One clip more or less in each step changes more than what is missed.
    half_a_clip_in_each_step = plan.gradient_accumulation_steps * clip_each / 2
    assert abs(plan.seconds - batch_seconds) <= half_a_clip_in_each_step + clip_each / 2
    fewer = (plan.gradient_accumulation_steps - 1) * max_clips * clip_each
    assert fewer < batch_seconds


def test_a_batch_of_less_than_a_clip_for_each_device_is_refused():
    message = r"`batch_seconds` is 50, but one clip of 10 s on each of 8 device\(s\) makes 80"
    with pytest.raises(ValueError, match=message):
        plan_batch(50, 10, 8, 8)


def test_the_plan_is_put_into_the_training_arguments(training):
    arguments = training(per_device_train_batch_size=32, use_cpu=True)
    plan = apply_batch_plan(arguments, BatchArguments(batch_seconds=960), 10)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (32, 3)
    assert plan.seconds == 960


def test_without_seconds_the_plan_is_what_the_training_arguments_say(training):
    arguments = training(per_device_train_batch_size=6, gradient_accumulation_steps=2, use_cpu=True)
    plan = apply_batch_plan(arguments, BatchArguments(), 5)
    assert (plan.per_device_train_batch_size, plan.gradient_accumulation_steps, plan.seconds) == (6, 2, 60)


def test_accumulation_is_given_only_once(training):
    with pytest.raises(ValueError, match="leave one of them out"):
        apply_batch_plan(training(gradient_accumulation_steps=2), BatchArguments(batch_seconds=960), 10)


def use_deepspeed(arguments: BeatsTrainingArguments, config: dict) -> BeatsTrainingArguments:
    """Arguments as on a GPU with DeepSpeed, without which no plugin can be made."""
    arguments.use_cpu, arguments.deepspeed_plugin = False, SimpleNamespace(deepspeed_config=config)
    return arguments


def test_zero_stage_3_is_refused(training):
    check_launch(use_deepspeed(training(), {"zero_optimization": {"stage": 2}}))
    check_launch(use_deepspeed(training(), {}))
    with pytest.raises(ValueError, match="ZeRO stage 3 splits"):
        check_launch(use_deepspeed(training(), {"zero_optimization": {"stage": 3}}))


def test_what_accelerate_leaves_out_on_a_cpu_is_refused(training):
    with pytest.raises(ValueError, match="no FSDP on CPUs"):
        check_launch(training(use_cpu=True, fsdp=True))
    arguments = training(use_cpu=True)
    arguments.deepspeed_plugin = SimpleNamespace(deepspeed_config={})
    with pytest.raises(ValueError, match="no DeepSpeed on CPUs"):
        check_launch(arguments)
