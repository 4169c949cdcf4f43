# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Recipes and command lines, the batch in seconds, the defaults of training."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import ClassVar, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed

from transformers_beats import BeatsConfig
from transformers_beats.training.config.arguments import (
    PRETRAIN_ARGUMENTS,
    TRAIN_TOKENIZER_ARGUMENTS,
    BatchArguments,
    BeatsTrainingArguments,
    IterateArguments,
    PreTrainingModelArguments,
    TokenizeArguments,
    TokenizerModelArguments,
    apply_batch_plan,
    check_launch,
    plan_batch,
)
from transformers_beats.training.config.recipes import RecipeError, build_arguments, parse_arguments, run_command


@dataclass
class Sound:
    _sections: ClassVar[dict[str, tuple[type, ...]]] = {"config": (BeatsConfig,)}

    path: str = field(metadata={"help": "Where it is."})
    gain: float = field(default=1.0, metadata={"help": "How loud it is."})
    count: int = 1
    name: str | None = None
    mono: bool = True
    kind: Literal["speech", "music"] = "speech"
    select: dict | None = None
    config: dict | None = None


@dataclass
class Place:
    room: str = "hall"


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe and returns its path."""

    def write(text: str, name: str = "recipe.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


@pytest.fixture
def training(tmp_path):
    def build(**kwargs) -> BeatsTrainingArguments:
        return BeatsTrainingArguments(output_dir=str(tmp_path), **kwargs)

    return build


def parse(*words: str) -> Sound:
    (sound,) = parse_arguments((Sound,), ["path=a.wav", *words])
    return sound


def test_later_recipes_and_words_win_and_mappings_are_merged(recipe):
    first = recipe("path: a.wav\ngain: 2.0\nselect: {fold: [1, 2], split: train}\n", "first.yaml")
    second = recipe("gain: 3.0\nselect:\n  fold: [4]\n", "second.yaml")
    sound, place = parse_arguments((Sound, Place), [first, second, "count=4", "room=attic"])
    assert (sound.path, sound.gain, sound.count, place.room) == ("a.wav", 3.0, 4, "attic")
    assert sound.select == {"fold": [4], "split": "train"}


def test_the_command_line_is_read_by_default(monkeypatch):
    monkeypatch.setattr("sys.argv", ["command", "room=attic"])
    assert parse_arguments((Place,)) == (Place("attic"),)


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("gain=5e-4", "gain", 5e-4),
        ("gain=2", "gain", 2.0),
        ("count=1e5", "count", 100000),
        ("mono=no", "mono", False),
        ("name=5e-4", "name", "5e-4"),
        ("name=null", "name", None),
        ("name=a=b", "name", "a=b"),
        ("kind=music", "kind", "music"),
        ("select={fold: [1, 2]}", "select", {"fold": [1, 2]}),
        ("select.fold=[1, 2]", "select", {"fold": [1, 2]}),
        ("config.hidden_size=192", "config", {"hidden_size": 192}),
        ("config.layer_norm_eps=1e-6", "config", {"layer_norm_eps": 1e-6}),
    ],
)
def test_values_get_the_type_of_their_field(word, name, value):
    parsed = getattr(parse(word), name)
    assert parsed == value
    assert type(parsed) is type(value)


def test_floats_in_recipes_may_be_written_as_in_python(recipe):
    assert parse(recipe("gain: 5e-4\n")).gain == 5e-4


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("gian=2", "unknown key `gian`: did you mean `gain`?"),
        ("config.hidden_sise=2", "unknown key `config.hidden_sise`: did you mean `config.hidden_size`"),
        ("hidden_size=2", "unknown key `hidden_size`: did you mean `config.hidden_size`?"),
        ("xyz=2", "unknown key `xyz`"),
        ("gain=loud", "`gain` must be a number, got 'loud'"),
        ("gain=true", "`gain` must be a number, got True"),
        ("count=2.5", "`count` must be an integer, got 2.5"),
        ("count=", "`count` must be an integer, got None"),
        ("mono=1", "`mono` must be true or false, got 1"),
        ("name=7", "`name` must be text or null, got 7 (to have it as text: name='\"7\"')"),
        ("kind=noise", "`kind` must be 'speech' or 'music', got 'noise'"),
        ("gain.loud=2", "`gain` must be a number, got {'loud': 2}"),
        ("config=2", "`config` must be a mapping or null, got 2"),
        ("config.hidden_size=wide", "`config.hidden_size` must be an integer, got 'wide'"),
        ("select={fold", "select={fold: the value is not YAML"),
        ("name=2026-13-01", "name=2026-13-01: the value is not YAML"),
        ("name=" + 2000 * "[", "name=[[["),
        ("--count=2", "--count=2: settings are written key=value; '--count' is no key"),
        ("--count", "--count: there are no options; settings are written key=value"),
        ("count", "count: cannot be read: No such file or directory; settings are written key=value"),
        ("absent.yaml", "absent.yaml: cannot be read: No such file or directory"),
    ],
)
def test_mistakes_are_explained_in_one_line(word, message):
    with pytest.raises(RecipeError) as caught:
        parse(word)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["gain: [1", "- 1\n- 2\n", "", "gain: 1\n\tcount: 2\n", "name: 2026-13-01\n", 2000 * "["]
)
def test_malformed_recipes_are_named(recipe, text):
    path = recipe(text)
    with pytest.raises(RecipeError) as caught:
        parse(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "sound.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(RecipeError, match="is not YAML"):
        parse(str(tmp_path / "sound.yaml"))


def test_a_missing_value_is_named_with_its_meaning():
    with pytest.raises(RecipeError, match=r"`path` is missing: Where it is\."):
        parse_arguments((Sound,), [])


def test_two_dataclasses_with_one_field_are_a_programming_error():
    with pytest.raises(TypeError, match="Sound and Sound both have `path`"):
        parse_arguments((Sound, Sound), [])


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_keys_with_defaults(capsys, flag):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(PRETRAIN_ARGUMENTS, ["absent.yaml", flag])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "batch_seconds (float | None, default: None)" in printed
    assert "Keys: config.NAME=value, fields of BeatsConfig." in " ".join(printed.split())
    assert "All fields of transformers.TrainingArguments. Other defaults here: " in printed
    assert "adam_beta2=0.98" in printed
    assert "hub_token" not in printed


def test_help_says_what_is_required(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(TRAIN_TOKENIZER_ARGUMENTS, ["-h"])
    assert "teacher (str, required)" in capsys.readouterr().out


def test_commands_end_with_one_line_and_an_exit_code(capsys):
    def main():
        parse("gian=2")

    with pytest.raises(SystemExit) as caught:
        run_command(main)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: unknown key `gian`: did you mean `gain`?\n"


def test_other_value_errors_keep_their_traceback(capsys):
    with pytest.raises(SystemExit):
        run_command(lambda: int("x"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "error: invalid literal for int() with base 10: 'x'"


def test_what_the_package_refuses_is_one_line(capsys):
    with pytest.raises(SystemExit):
        run_command(lambda: plan_batch(4.0, 10.0, 1, 8))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: `batch_seconds` is 4, but one clip of 10 s")


def test_other_exceptions_pass():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)


def test_commands_leave_no_process_group():
    # One left to the interpreter's end may abort the process: gloo's threads still hold tensors.
    def main():
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)

    run_command(main)
    assert not distributed.is_initialized()


@pytest.mark.parametrize(("given", "kwargs"), [("neither", {}), ("both", {"tokenizer": "a", "codes": "b"})])
def test_pre_training_needs_a_tokenizer_or_codes(given, kwargs):
    with pytest.raises(ValueError, match=f"`tokenizer` and `codes` is needed, got {given}"):
        PreTrainingModelArguments(**kwargs)


@pytest.mark.parametrize(
    ("dataclass_type", "kwargs", "message"),
    [
        (PreTrainingModelArguments, {"codes": "a", "config": {"hidden_size": 7}}, "must divide `hidden_size` (7)"),
        (
            TokenizerModelArguments,
            {"teacher": "a", "config": {"codebook_dim": 0}},
            "`codebook_dim` must be at least 1",
        ),
        (TokenizerModelArguments, {"teacher": "a", "min_perplexity": 0.5}, "`min_perplexity` must be at least 1"),
        (TokenizeArguments, {"tokenizer": "a", "output_dir": "b", "batch_size": 0}, "`batch_size` must be at least 1"),
        (IterateArguments, {"output_dir": "a", "data": {"dataset": "b"}, "num_iterations": 0}, "`num_iterations`"),
        (
            IterateArguments,
            {"output_dir": "a", "data": {"dataset": "b"}, "model": {"output_dir": "c"}},
            "`model.output_dir` is set by `iterate`",
        ),
        (
            IterateArguments,
            {"output_dir": "a", "data": {"dataset": "b"}, "tokenizer": {"config": {"hidden_size": 7}}},
            "must divide `hidden_size` (7)",
        ),
        (IterateArguments, {"output_dir": "a", "data": {"datset": "b"}}, "unknown key `data.datset`"),
        (IterateArguments, {"output_dir": "a", "data": {}}, "`data.dataset` is missing"),
    ],
)
def test_impossible_arguments_are_refused(dataclass_type, kwargs, message):
    with pytest.raises(RecipeError) as caught:
        build_arguments((dataclass_type,), kwargs)
    assert message in str(caught.value)


def test_what_differs_from_a_loaded_model_is_not_checked_against_the_defaults():
    arguments = PreTrainingModelArguments(codes="a", model_name_or_path="b", config={"num_attention_heads": 5})
    assert arguments.config == {"num_attention_heads": 5}


def test_sections_of_iterate_take_the_keys_of_their_stages():
    words = ["output_dir=run", "data.dataset=audio", "model.learning_rate=5e-4", "tokenizer.config.codebook_size=256"]
    (arguments,) = parse_arguments((IterateArguments,), words)
    assert arguments.model == {"learning_rate": 5e-4}
    assert arguments.tokenizer == {"config": {"codebook_size": 256}}
    for word, message in [
        ("model.learning_rat=1", "unknown key `model.learning_rat`: did you mean `model.learning_rate`?"),
        ("max_steps=1", "unknown key `max_steps`: did you mean `model.max_steps` or `tokenizer.max_steps`?"),
        ("model.max_steps=few", "`model.max_steps` must be an integer, got 'few'"),
    ]:
        with pytest.raises(RecipeError) as caught:
            parse_arguments((IterateArguments,), [*words, word])
        assert str(caught.value).startswith(message)


def test_a_stage_of_iterate_is_a_flat_recipe(tmp_path):
    arguments = IterateArguments(
        output_dir="run",
        data={"dataset": "audio", "crop_seconds": 5.0},
        model={"max_steps": 7, "config": {"codebook_size": 256}},
        feature_extractor="extractor",
    )
    values = arguments.stage_values("model", codes="codes", output_dir=str(tmp_path))
    model, data, _, training = build_arguments(PRETRAIN_ARGUMENTS, values)
    assert (model.codes, model.feature_extractor, model.config) == ("codes", "extractor", {"codebook_size": 256})
    assert (data.dataset, data.crop_seconds) == ("audio", 5.0)
    assert (training.max_steps, training.output_dir) == (7, str(tmp_path))


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


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 10, 1, 8), "`batch_seconds` must be positive, got 0"),
        ((float("nan"), 10, 1, 8), "`batch_seconds` must be positive, got nan"),
        ((100, -1, 1, 8), "`crop_seconds` must be positive, got -1"),
        ((100, 10, 1, 0), "`per_device_train_batch_size` must be positive, got 0"),
        ((50, 10, 8, 8), "`batch_seconds` is 50, but one clip of 10 s on each of 8 device(s) makes 80"),
    ],
)
def test_impossible_batches_are_refused(numbers, message):
    with pytest.raises(ValueError, match="`") as caught:
        plan_batch(*numbers)
    assert message in str(caught.value)


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


def test_training_defaults_are_those_of_the_project(training):
    arguments = training()
    assert (arguments.adam_beta1, arguments.adam_beta2, arguments.weight_decay) == (0.9, 0.98, 0.01)
    assert (arguments.max_grad_norm, arguments.lr_scheduler_type, arguments.seed) == (1.0, "linear", 0)
    assert (arguments.report_to, arguments.save_total_limit, arguments.logging_steps) == ([], 2, 50)
    assert arguments.remove_unused_columns is False


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_a_machine_without_an_accelerator_trains_on_the_cpu(training):
    arguments = training(bf16=True)
    assert arguments.use_cpu
    assert not arguments.dataloader_pin_memory


def test_accelerates_switch_to_the_cpu_counts(training, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    arguments = training(bf16=True)
    assert arguments.use_cpu
    assert arguments.device.type == "cpu"


@pytest.mark.parametrize("word", ["save_strategy=no", "save_strategy='no'"])
def test_no_as_a_strategy_is_not_false(word):
    (arguments,) = parse_arguments((BeatsTrainingArguments,), ["output_dir=run", word])
    assert arguments.save_strategy == "no"


def test_warm_up_may_be_a_share_of_the_steps():
    words = ["output_dir=run", "warmup_steps=0.08", "max_steps=1000"]
    (arguments,) = parse_arguments((BeatsTrainingArguments,), words)
    assert arguments.get_warmup_steps(1000) == 80


def test_what_training_arguments_refuse_is_one_line():
    with pytest.raises(RecipeError, match=r"linaer'? is not a valid SchedulerType") as caught:
        parse_arguments((BeatsTrainingArguments,), ["output_dir=run", "lr_scheduler_type=linaer"])
    assert "\n" not in str(caught.value)
