# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Command lines and mappings into dataclasses, and the defaults of training."""

import math
import shlex
import sys
from dataclasses import MISSING, dataclass, field, fields
from typing import ClassVar, Literal

import pytest
import torch
from torch import distributed

from transformers_beats import BeatsConfig
from transformers_beats.training.config import arguments as arguments_module
from transformers_beats.training.config.arguments import (
    PRETRAIN_ARGUMENTS,
    TRAIN_TOKENIZER_ARGUMENTS,
    BeatsTrainingArguments,
    FineTuningArguments,
    PreTrainingModelArguments,
    TokenizeArguments,
    TokenizerModelArguments,
)
from transformers_beats.training.config.batch_plan import BatchArguments, plan_batch
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments, find_settings, parse_arguments, read_line
from transformers_beats.training.data.augmentation import AugmentationArguments
from transformers_beats.training.data.folds import FoldArguments
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.evaluate import EvaluateArguments
from transformers_beats.training.fbank_statistics import StatisticsArguments
from transformers_beats.utils.errors import UsageError, run_command


@dataclass
class Sound:
    """A sound.

    More about it.
    """

    _sections: ClassVar[dict[str, tuple[type, ...]]] = {"model_config": (BeatsConfig,)}

    path: str = field(metadata={"help": "Where it is."})
    gain: float = field(default=1.0, metadata={"help": "How loud it is."})
    count: int = 1
    name: str | None = None
    mono: bool = True
    is_long: bool = False
    kind: Literal["speech", "music"] = "speech"
    folds: list | None = None
    select: dict | None = None
    model_config: dict | None = None


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
    (sound,) = parse_arguments((Sound,), ["--path", "a.wav", *words])
    return sound


def test_later_recipes_and_values_win_and_mappings_are_merged(recipe):
    first = recipe("path: a.wav\ngain: 2.0\nselect: {fold: [1, 2], split: train}\n", "first.yaml")
    second = recipe("gain: 3.0\nselect:\n  fold: [4]\nmodel_config:\n  hidden_size: 24\n", "second.yaml")
    words = ["--config", first, "--config", second, "--count", "4", "--room", "attic", "--model_config.layerdrop", "0"]
    sound, place = parse_arguments((Sound, Place), words)
    assert (sound.path, sound.gain, sound.count, place.room) == ("a.wav", 3.0, 4, "attic")
    assert sound.select == {"fold": [4], "split": "train"}
    assert sound.model_config == {"hidden_size": 24, "layerdrop": 0.0}


@pytest.mark.parametrize(
    ("words", "steps", "epochs"),
    [
        ([], 100, 3),
        (["--num_train_epochs", "5"], -1, 5),
        (["--max_steps", "7"], 7, 3),
        (["--num_train_epochs", "5", "--max_steps", "-1"], -1, 5),
        (["--config", "epochs.yaml"], -1, 9),
        (["--config", "epochs.yaml", "--max_steps", "7"], 7, 9),
        (["--max_steps", "7", "--config", "epochs.yaml"], 7, 9),
        (["--config", "epochs.yaml", "--config", "steps.yaml"], 100, 9),
    ],
)
def test_epochs_take_the_place_of_the_steps_of_a_recipe(recipe, words, steps, epochs):
    first = recipe("max_steps: 100\noutput_dir: run\n", "steps.yaml")
    later = recipe("num_train_epochs: 9\n", "epochs.yaml")
    words = [{"steps.yaml": first, "epochs.yaml": later}.get(word, word) for word in words]
    (training,) = parse_arguments((BeatsTrainingArguments,), ["--config", first, *words])
    assert (training.max_steps, training.num_train_epochs) == (steps, epochs)


def test_epochs_take_the_place_of_the_steps_of_a_stage(recipe):
    words = ["--config", recipe("model: {max_steps: 100}\ntokenizer: {max_steps: 100}\n")]
    words += ["--model.num_train_epochs", "5", "--output_dir", "run", "--data.dataset", "audio"]
    (arguments,) = parse_arguments((IterateArguments,), words)
    assert (arguments.model, arguments.tokenizer) == ({"num_train_epochs": 5}, {"max_steps": 100})


@pytest.mark.parametrize(
    ("text", "words", "warmup"),
    [
        ("max_steps: 100\nwarmup_steps: 20", ["--num_train_epochs", "5"], 0.2),
        ("max_steps: 100\nwarmup_steps: 20", ["--config", "epochs.yaml"], 0.2),
        ("max_steps: 100\nwarmup_steps: 20", ["--num_train_epochs", "5", "--warmup_steps", "7"], 7),
        ("max_steps: 100\nwarmup_steps: 20", ["--max_steps", "50"], 20),
        ("max_steps: 100\nwarmup_steps: 0.1", ["--num_train_epochs", "5"], 0.1),
        ("max_steps: 100\nwarmup_steps: 1", ["--num_train_epochs", "5"], 1),
        # That of no training.
        ("max_steps: 100\nwarmup_steps: 200", ["--num_train_epochs", "5"], 200),
        ("warmup_steps: 20", ["--num_train_epochs", "5"], 20),
    ],
)
def test_the_warm_up_of_a_recipe_keeps_its_share_where_epochs_take_the_place_of_steps(recipe, text, words, warmup):
    first = recipe(f"{text}\noutput_dir: run\n")
    later = recipe("num_train_epochs: 9\n", "epochs.yaml")
    words = [{"epochs.yaml": later}.get(word, word) for word in words]
    (training,) = parse_arguments((BeatsTrainingArguments,), ["--config", first, *words])
    assert training.warmup_steps == warmup


def test_the_warm_up_of_a_stage_keeps_its_share(recipe):
    words = ["--config", recipe("model: {max_steps: 100, warmup_steps: 20}\ntokenizer: {max_steps: 5}\n")]
    words += ["--model.num_train_epochs", "5", "--output_dir", "run", "--data.dataset", "audio"]
    (arguments,) = parse_arguments((IterateArguments,), words)
    assert arguments.model == {"num_train_epochs": 5, "warmup_steps": 0.2}


KEPT = ["--early_stopping_patience", "3"]


@pytest.mark.parametrize("kept", [KEPT, ["--load_best_model_at_end"]])
@pytest.mark.parametrize(
    ("text", "words", "saves"),
    [
        ("save_steps: 5000", ["--eval_strategy", "steps", "--eval_steps", "100"], ("steps", 100)),
        ("save_steps: 200", ["--eval_strategy", "steps", "--eval_steps", "100"], ("steps", 100)),
        ("save_strategy: epoch", ["--eval_strategy", "steps", "--eval_steps", "100"], ("steps", 100)),
        ("save_strategy: steps\nsave_steps: 50", ["--eval_strategy", "epoch"], ("epoch", 50)),
        ("save_strategy: epoch", ["--config", "later.yaml"], ("steps", 100)),
        ("save_strategy: best", ["--eval_strategy", "steps", "--eval_steps", "100"], ("best", 500)),
        # How often is not said: as often as it saves.
        ("save_steps: 5000", ["--eval_strategy", "steps"], ("steps", 5000)),
        ("eval_strategy: steps\neval_steps: 10", ["--eval_steps", "100"], ("steps", 100)),
    ],
)
def test_what_a_recipe_saves_gives_way_to_evaluations_of_the_best(recipe, kept, text, words, saves):
    first = recipe(f"{text}\noutput_dir: run\n")
    later = recipe("eval_strategy: steps\neval_steps: 100\n", "later.yaml")
    words = ["--config", first, *({"later.yaml": later}.get(word, word) for word in words)]
    (training,) = parse_arguments((BeatsTrainingArguments,), [*words, *kept])
    assert (training.save_strategy, training.save_steps) == saves


def test_what_a_recipe_saves_gives_way_in_a_section(recipe):
    given = {"early_stopping_patience": "3", "eval_strategy": "steps", "eval_steps": "100"}
    words = ["--config", recipe("supervised_teacher: {save_strategy: epoch, bf16: true}\n")]
    words += [f"--supervised_teacher.{name}={value}" for name, value in given.items()]
    settings = find_settings((IterateArguments,))
    assert read_line(words, settings) == {"supervised_teacher": given | {"bf16": True}}
    assert read_line([*words, "--supervised_teacher", "null"], settings) == {"supervised_teacher": None}


def test_what_a_recipe_saves_stays_where_no_best_model_is_kept(recipe):
    words = ["--config", recipe("save_steps: 5000\noutput_dir: run\n"), "--eval_strategy", "steps"]
    (training,) = parse_arguments((BeatsTrainingArguments,), [*words, "--eval_steps", "100"])
    assert (training.save_steps, training.eval_steps) == (5000, 100)


def test_what_the_command_line_saves_is_no_mistake_of_a_recipe():
    words = [*KEPT, "--eval_strategy", "steps", "--eval_steps", "100", "--save_steps", "50", "--output_dir", "run"]
    with pytest.raises(UsageError, match="`save_steps` is 50 and `eval_steps` 100: set both alike"):
        parse_arguments((BeatsTrainingArguments,), words)


@pytest.mark.parametrize("text", ["max_steps: 5\nnum_train_epochs: 3", "model: {num_train_epochs: 3, max_steps: 5}"])
def test_steps_and_epochs_of_one_recipe_are_refused(recipe, text):
    name = recipe(text)
    with pytest.raises(UsageError, match=f"^{name}: both `max_steps` and `num_train_epochs` are given: leave one"):
        parse_arguments((IterateArguments,), ["--config", name])


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("names", [("max_steps", "num_train_epochs"), ("num_train_epochs", "max_steps")])
def test_steps_and_epochs_of_one_command_line_are_refused(prefix, names):
    words = [f"--{prefix}{name}=5" for name in names]
    with pytest.raises(UsageError, match=r"^both `max_steps` and `num_train_epochs` are given: leave one"):
        parse_arguments((IterateArguments,), words)


def test_k_means_says_that_it_has_the_weights_of_the_teacher_anyway(caplog):
    TokenizerModelArguments("teacher", method="k_means", initialize_from_teacher=True)
    assert "`initialize_from_teacher` changes nothing" in caplog.text


def test_a_value_wins_over_a_recipe_that_follows_it(recipe):
    assert parse("--gain", "2", "--config", recipe("gain: 3.0\n")).gain == 2.0
    name = recipe("model_config: {layerdrop: 0.5, hidden_size: 24}\n")
    sound = parse("--model_config.layerdrop", "0", "--config", name)
    assert sound.model_config == {"hidden_size": 24, "layerdrop": 0.0}
    # A null takes away what the recipe has, and what follows it begins anew.
    words = ("--model_config", "null", "--model_config.layerdrop", "0", "--config", name)
    assert parse(*words).model_config == {"layerdrop": 0.0}


def test_the_command_line_is_read_by_default(monkeypatch):
    monkeypatch.setattr("sys.argv", ["command", "--room", "attic"])
    assert parse_arguments((Place,)) == (Place("attic"),)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--gain 5e-4", "gain", 5e-4),
        ("--gain=5e-4", "gain", 5e-4),
        ("--gain 2", "gain", 2.0),
        ("--gain -2", "gain", -2.0),
        ("--count 10", "count", 10),
        ("--mono no", "mono", False),
        ("--mono false", "mono", False),
        ("--is_long", "is_long", True),
        ("--is-long", "is_long", True),
        ("--is-long --gain 2", "is_long", True),
        ("--is_long true", "is_long", True),
        ("--name 5e-4", "name", "5e-4"),
        ("--name 007", "name", "007"),
        ("--name no", "name", "no"),
        ("--name ,", "name", ","),
        ("--name |", "name", "|"),
        ("--name :", "name", ":"),
        ("--name -", "name", "-"),
        ("--name=--", "name", "--"),
        ("--name '#'", "name", "#"),
        ("--name ~", "name", "~"),
        ("--name ' '", "name", " "),
        ("--name=", "name", ""),
        ("--name {fold}", "name", "{fold}"),
        ("--name 2026-13-01", "name", "2026-13-01"),
        ("--name a=b", "name", "a=b"),
        ("--name null", "name", None),
        ("--path null", "path", "null"),
        ("--path 007", "path", "007"),
        ("--kind music", "kind", "music"),
        ("--folds [1,2]", "folds", [1, 2]),
        ("--folds [01,a]", "folds", ["01", "a"]),
        ("--select '{fold: [1, 2]}'", "select", {"fold": [1, 2]}),
        ("--select.fold [1,2]", "select", {"fold": [1, 2]}),
        ("--select.fold 3", "select", {"fold": 3}),
        ("--select.label 007", "select", {"label": "007"}),
        ("--select.label no", "select", {"label": "no"}),
        ("--select.my-column 2026-01-02", "select", {"my-column": "2026-01-02"}),
        ("--model_config.hidden_size 192", "model_config", {"hidden_size": 192}),
        ("--model-config.hidden-size 192", "model_config", {"hidden_size": 192}),
        ("--model_config.layer_norm_eps 1e-6", "model_config", {"layer_norm_eps": 1e-6}),
        (
            "--model_config '{hidden_size: 192}' --model_config.layerdrop 0",
            "model_config",
            {"hidden_size": 192, "layerdrop": 0.0},
        ),
        ("--model_config.layerdrop 0 --model_config null", "model_config", None),
        ("--model_config {}", "model_config", {}),
    ],
)
def test_values_get_the_type_of_their_field(words, name, value):
    parsed = getattr(parse(*shlex.split(words)), name)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("gain: 5e-4", "gain", 5e-4),
        ("gain: 2", "gain", 2.0),
        ("mono: no", "mono", False),
        ("name: 007", "name", "007"),
        ("name: no", "name", "no"),
        ("name: null", "name", None),
        ("name: 2026-01-02", "name", "2026-01-02"),
        ("name: 12:30", "name", "12:30"),
        ("name: '#'", "name", "#"),
        ("select: {rate: 1e-3, label: 01, fold: 2}", "select", {"rate": 1e-3, "label": "01", "fold": 2}),
        ("model_config: null", "model_config", None),
    ],
)
def test_scalars_of_recipes_are_those_of_json(recipe, text, name, value):
    assert getattr(parse("--config", recipe(f"{text}\n")), name) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gian 2", "unknown key `gian`: did you mean `gain`?"),
        ("--gian", "unknown key `gian`: did you mean `gain`?"),
        (
            "--model_config.hidden_sise 2",
            "unknown key `model_config.hidden_sise`: did you mean `model_config.hidden_size`",
        ),
        ("--hidden_size 2", "unknown key `hidden_size`: did you mean `model_config.hidden_size`?"),
        ("--xyz 2", "unknown key `xyz`"),
        ("--gain loud", "`gain` must be float, got 'loud'"),
        ("--gain true", "`gain` must be float, got 'true'"),
        ("--count 2.5", "`count` must be int, got '2.5'"),
        ("--count=", "`count` must be int, got ''"),
        ("--mono 1", "`mono` must be bool, got '1'"),
        ("--kind noise", "`kind` must be Literal['speech', 'music'], got 'noise'"),
        ("--gain.loud 2", "`gain` must be float, got {'loud': 2}"),
        ("--model_config 2", "`model_config` must be dict | None, got 2"),
        ("--model_config.hidden_size wide", "`model_config.hidden_size` must be int, got 'wide'"),
        ("--select {fold", "--select {fold: the value is not YAML"),
        ("--folds " + 2000 * "[", "--folds [[["),
        ("--folds 1", "`folds` must be list | None, got 1"),
        ("--gain", "--gain: its value is missing"),
        ("--gain --count 2", "--gain: its value is missing"),
        ("--select.fold --count 2", "--select.fold: its value is missing"),
        ("--model_config.wings --count 2", "unknown key `model_config.wings`"),
        ("--config", "--config: its value is missing"),
        ("--", "--: a value too many"),
        ("count=2", "count=2: a value too many; settings are written --key value"),
        ("--count 2 3", "3: a value too many"),
        ("recipe.yaml", "recipe.yaml: recipes are given as --config RECIPE"),
    ],
)
def test_mistakes_are_explained_in_one_line(words, message):
    with pytest.raises(UsageError) as caught:
        parse(*shlex.split(words))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_recipe_has_no_number_in_the_place_of_text(recipe):
    with pytest.raises(UsageError, match=r"`name` must be str \| None, got 7"):
        parse("--config", recipe("name: 7\n"))
    assert parse("--config", recipe("name: '7'\n")).name == "7"


@pytest.mark.parametrize(
    "text", ["gain: [1", "- 1\n- 2\n", "", "gain: 1\n\tcount: 2\n", "name: !!int x\n", 2000 * "["]
)
def test_malformed_recipes_are_named(recipe, text):
    path = recipe(text)
    with pytest.raises(UsageError) as caught:
        parse("--config", path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "sound.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="is not YAML"):
        parse("--config", str(tmp_path / "sound.yaml"))


def test_a_missing_value_is_named_with_its_meaning():
    with pytest.raises(UsageError, match=r"`path` is missing: Where it is\."):
        parse_arguments((Sound,), [])


def test_an_unknown_key_is_named_before_the_one_that_is_missing():
    with pytest.raises(UsageError, match=r"^unknown key `pth`: did you mean `path`\?$"):
        parse_arguments((Sound,), ["--pth", "a.wav"])


def test_two_dataclasses_with_one_field_are_a_programming_error():
    with pytest.raises(TypeError, match="Sound and Sound both have `path`"):
        parse_arguments((Sound, Sound), [])


def print_help(capsys, dataclass_types: tuple[type, ...], *words: str) -> list[str]:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(dataclass_types, [*words], "Trains a model.\n\nExample:\n\n    command --config RECIPE\n")
    assert caught.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_one_line_for_each_key(capsys, monkeypatch, flag):
    monkeypatch.setenv("COLUMNS", "100")
    lines = print_help(capsys, PRETRAIN_ARGUMENTS, "--config", "absent", flag)
    assert lines[:3] == ["Trains a model.", "", "Arguments: [--config RECIPE ...] [--key value ...]"]
    assert lines[-3:] == ["Example:", "", "    command --config RECIPE"]
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 61
    keys = [line.split()[0] for line in lines if line.startswith("  --")]
    assert len(keys) == len(set(keys))
    assert {"--batch_seconds", "--codes", "--learning_rate", "--bf16"} <= {*keys}
    assert "--hub_token" not in keys
    assert "  and all other fields of transformers.TrainingArguments: --help-all shows them." in lines
    assert "  --save_total_limit                [2] Number of checkpoints that are kept." in lines
    assert "  --bf16                            [false] " in "\n".join(lines)


def test_help_on_everything_has_all_keys_in_whole_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = print_help(capsys, PRETRAIN_ARGUMENTS, "--help-all")
    assert any(line.startswith("  --hub_token ") for line in lines)
    (section,) = [line for line in lines if line.startswith("  --model_config ")]
    assert section.endswith("Keys: --model_config.KEY, of BeatsConfig.")


def test_help_says_what_is_required(capsys):
    lines = print_help(capsys, TRAIN_TOKENIZER_ARGUMENTS, "--help")
    assert any(line.startswith("  --teacher                         [required] Name, directory") for line in lines)


def test_commands_end_with_one_line_and_the_status_of_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: parse("--gian", "2"))
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: unknown key `gian`: did you mean `gain`?\n"


def test_other_value_errors_keep_their_traceback(capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: int("x"))
    assert caught.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "error: invalid literal for int() with base 10: 'x'"


def test_an_error_of_a_file_has_no_traceback(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run_command((tmp_path / "none" / "x").touch)
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: [Errno 2] No such file or directory: ")


def test_without_standard_error_messages_do_not_go_among_the_results(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit):
        run_command(lambda: parse("--gian", "2"))
    assert capsys.readouterr().out == ""


def test_an_error_of_the_package_is_one_line(capsys):
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
        (
            PreTrainingModelArguments,
            {"codes": "a", "model_config": {"hidden_size": 7}},
            "must divide `hidden_size` (7)",
        ),
        (
            TokenizerModelArguments,
            {"teacher": "a", "model_config": {"codebook_dim": 0}},
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
            {"output_dir": "a", "data": {"dataset": "b"}, "tokenizer": {"model_config": {"hidden_size": 7}}},
            "must divide `hidden_size` (7)",
        ),
        (IterateArguments, {"output_dir": "a", "data": {"datset": "b"}}, "unknown key `data.datset`"),
        (IterateArguments, {"output_dir": "a", "data": {}}, "data: `dataset` is missing"),
    ],
)
def test_impossible_arguments_are_refused(dataclass_type, kwargs, message):
    with pytest.raises(UsageError) as caught:
        build_arguments((dataclass_type,), kwargs)
    assert message in str(caught.value)


def test_what_differs_from_a_loaded_model_is_not_checked_against_the_defaults():
    arguments = PreTrainingModelArguments(codes="a", model_name_or_path="b", model_config={"num_attention_heads": 5})
    assert arguments.model_config == {"num_attention_heads": 5}


def test_sections_of_iterate_take_the_keys_of_their_stages():
    words = ["--output_dir=run", "--data.dataset=audio", "--model.learning_rate=5e-4"]
    words += ["--tokenizer.model_config.codebook_size=256"]
    (arguments,) = parse_arguments((IterateArguments,), words)
    assert arguments.model == {"learning_rate": 5e-4}
    assert arguments.tokenizer == {"model_config": {"codebook_size": 256}}
    for word, message in [
        ("--model.learning_rat=1", "unknown key `model.learning_rat`: did you mean `model.learning_rate`?"),
        ("--max_steps=1", "unknown key `max_steps`: did you mean `model.max_steps` or `tokenizer.max_steps`"),
        ("--model.max_steps=few", "`model.max_steps` must be int, got 'few'"),
    ]:
        with pytest.raises(UsageError) as caught:
            parse_arguments((IterateArguments,), [*words, word])
        assert str(caught.value).startswith(message)


def test_a_stage_of_iterate_is_a_flat_recipe(tmp_path):
    arguments = IterateArguments(
        output_dir="run",
        data={"dataset": "audio", "crop_seconds": 5.0},
        random_projection={"codebook_size": 256},
        model={"max_steps": 7, "model_config": {"codebook_size": 256}},
        tokenizer={"model_config": {"codebook_size": 128}},
        feature_extractor="user/extractor",
    )
    values = arguments.stage_values("model", codes="codes", output_dir=str(tmp_path))
    model, data, _, training = build_arguments(PRETRAIN_ARGUMENTS, values)
    assert (model.codes, model.feature_extractor) == ("codes", "user/extractor")
    assert model.model_config == {"codebook_size": 256}
    assert (data.dataset, data.crop_seconds) == ("audio", 5.0)
    assert (training.max_steps, training.output_dir) == (7, str(tmp_path))


BASE = {"output_dir": "run", "data": {"dataset": "audio", "crop_seconds": 10.0}}


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("tokenizer", {"min_perplexity": 0}, "tokenizer: `min_perplexity` must be at least 1, got 0"),
        ("tokenizer", {"batch_seconds": 1}, "tokenizer: `batch_seconds` is 1, but one clip of 10 s"),
        (
            "tokenizer",
            {"batch_seconds": 80, "gradient_accumulation_steps": 2},
            "tokenizer: `batch_seconds` determines",
        ),
        ("tokenizer", {"learning_rate": math.nan}, "tokenizer: `learning_rate` must be finite, got nan"),
        ("tokenizer", {"resume_from_checkpoint": "a"}, "`tokenizer.resume_from_checkpoint` is set by `iterate`"),
        ("tokenizer", {"model_config": {"codebook_dim": 0}}, "tokenizer: `codebook_dim` must be at least 1"),
        ("tokenizer", {"model_config": {"codebook_size": 40_000}}, "`tokenizer.model_config.codebook_size` must be"),
        ("tokenizer", {"max_stps": 1}, "unknown key `tokenizer.max_stps`: did you mean `tokenizer.max_steps`?"),
        ("tokenize", {"batch_size": 0}, "tokenize: `batch_size` must be at least 1, got 0"),
        ("tokenize", {"num_workers": -1}, "tokenize: `num_workers` must not be negative, got -1"),
        ("model", {"batch_seconds": 1}, "model: `batch_seconds` is 1, but one clip of 10 s"),
        ("model", {"per_device_train_batch_size": 0}, "model: `per_device_train_batch_size` must be at least 1"),
        ("model", {"model_config": {"hidden_size": 7}}, "model: `num_attention_heads` (12) must divide"),
        ("model", {"model_config": {"codebook_size": 512}}, "`model.model_config.codebook_size` is 512, but"),
        ("model", {"push_to_hub": True}, "model: `push_to_hub` is for `finetune`"),
        ("tokenizer", {"eval_strategy": "epoch"}, "tokenizer: `eval_strategy`: there are no clips to evaluate on"),
        ("tokenizer", {"eval_steps": 5}, "tokenizer: `eval_steps` is read with `eval_strategy: steps` only"),
        ("model", {"early_stopping_patience": 2}, "model: `early_stopping_patience`: there are no clips to evaluate"),
        ("model", {"load_best_model_at_end": True}, "model: `load_best_model_at_end`: there are no clips to evaluate"),
        ("model", {"save_strategy": "best"}, "model: `save_strategy: best`: there are no clips to evaluate on"),
        ("model", {"metric_for_best_model": "loss"}, "model: `metric_for_best_model`: there are no clips to evaluate"),
        ("model", {"train_sampling_strategy": "group_by_length"}, "model: `train_sampling_strategy`: without labels"),
        ("model", {"save_only_model": True}, "model: `save_only_model`: an interrupted training could not go on"),
        ("model", {"save_steps": 0}, "model: `save_steps` must be positive, got 0"),
        ("tokenizer", {"max_steps": -5}, "tokenizer: `max_steps` must be at least -1, got -5"),
        ("model", {"report_to": "abacus"}, "model: `report_to` names trackers that are not known or not"),
        ("model", {"model_name_or_path": "/no/model"}, "/no/model: no such directory"),
        ("feature_extractor", "/no/extractor", "/no/extractor: no such directory"),
        ("random_projection", {"codebook_size": 40_000}, "`random_projection.codebook_size` must be at most 32768"),
        ("random_projection", {"codebook_size": 0}, "`codebook_size` must be at least 1"),
        ("data", {"dataset": "audio", "crop_seconds": math.inf}, "data: `crop_seconds` must be finite, got inf"),
        ("data", {"dataset": "audio", "streaming": True}, "tokenizer: Codes belong to the items of a dataset"),
    ],
)
def test_iterate_refuses_at_once_what_a_later_stage_would(section, values, message):
    with pytest.raises(UsageError) as caught:
        build_arguments((IterateArguments,), BASE | {section: values})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("command", [PRETRAIN_ARGUMENTS, TRAIN_TOKENIZER_ARGUMENTS])
def test_the_directory_of_a_model_is_asked_for_and_is_text(command):
    values = {"codes": "c", "dataset": "d"} if command is PRETRAIN_ARGUMENTS else {"teacher": "t", "dataset": "d"}
    with pytest.raises(UsageError, match="`output_dir` is missing"):
        build_arguments(command, values)
    words = [word for key, value in values.items() for word in (f"--{key}", value)]
    assert parse_arguments(command, [*words, "--output_dir", "null"])[-1].output_dir == "null"


def test_iterate_checks_arguments_made_in_python():
    with pytest.raises(UsageError, match="model: unknown key `max_stps`: did you mean `max_steps`"):
        IterateArguments(**BASE, model={"max_stps": 1})


@pytest.mark.parametrize(
    ("make", "name", "value", "problem"),
    [
        (DataArguments, "crop_seconds", math.inf, "be finite, got inf"),
        (DataArguments, "crop_seconds", 1e-5, "be at least 0.025, got 1e-05"),
        (DataArguments, "crop_seconds", "10", "be a number, got '10'"),
        (DataArguments, "crop_seconds", None, "be a number, got None"),
        (DataArguments, "min_seconds", math.nan, "be finite, got nan"),
        (DataArguments, "min_seconds", -1.0, "not be negative, got -1.0"),
        (DataArguments, "num_crops", 0, "be at least 1, got 0"),
        (DataArguments, "num_crops", 2.5, "be an integer, got 2.5"),
        (DataArguments, "shuffle_buffer_size", 0, "be at least 1, got 0"),
        (DataArguments, "crop_seed", -1, "not be negative, got -1"),
        (DataArguments, "num_proc", 0, "be at least 1, got 0"),
        (TokenizeArguments, "batch_size", 2.5, "be an integer, got 2.5"),
        (TokenizeArguments, "batch_size", True, "be an integer, got True"),
        (TokenizeArguments, "shard_size", 0, "be at least 1, got 0"),
        (EvaluateArguments, "batch_size", 2.5, "be an integer, got 2.5"),
        (EvaluateArguments, "num_workers", -1, "not be negative, got -1"),
        (StatisticsArguments, "num_clips", 0, "be at least 1, got 0"),
        (TokenizerModelArguments, "min_perplexity", math.inf, "be finite, got inf"),
        (FineTuningArguments, "fbank_mean", math.inf, "be finite, got inf"),
        (FineTuningArguments, "fbank_std", 0.0, "be positive, got 0.0"),
        (FineTuningArguments, "average_checkpoints", 1.5, "be an integer, got 1.5"),
        (FineTuningArguments, "layer_wise_learning_rate_decay", 1.5, "be at most 1, got 1.5"),
        (FineTuningArguments, "layer_wise_gradient_decay_ratio", 0.0, "be positive, got 0.0"),
        (FoldArguments, "num_folds", 1, "be at least 2, got 1"),
        (AugmentationArguments, "mixup_alpha", math.nan, "be finite, got nan"),
        (AugmentationArguments, "mixup_probability", 1.5, "be at most 1, got 1.5"),
        (AugmentationArguments, "num_time_masks", 1.5, "be an integer, got 1.5"),
        (AugmentationArguments, "freq_mask_bins", -1, "not be negative, got -1"),
        (BatchArguments, "batch_seconds", math.inf, "be finite, got inf"),
        (BatchArguments, "batch_seconds", 0.0, "be positive, got 0.0"),
        (IterateArguments, "num_iterations", 1.5, "be an integer, got 1.5"),
        (BeatsTrainingArguments, "per_device_train_batch_size", 2.5, "be an integer, got 2.5"),
        (BeatsTrainingArguments, "per_device_train_batch_size", 0, "be at least 1, got 0"),
        (BeatsTrainingArguments, "per_device_eval_batch_size", 0, "be at least 1, got 0"),
        (BeatsTrainingArguments, "learning_rate", math.inf, "be finite, got inf"),
        (BeatsTrainingArguments, "max_steps", 1.5, "be an integer, got 1.5"),
        (BeatsTrainingArguments, "num_train_epochs", 0.0, "be positive, got 0.0"),
        (BeatsTrainingArguments, "save_total_limit", 0, "be at least 1, got 0"),
        (BeatsTrainingArguments, "warmup_steps", -1, "not be negative, got -1"),
    ],
)
def test_numbers_of_all_arguments_are_checked(make, name, value, problem):
    required = {entry.name: "a" for entry in fields(make) if entry.default is entry.default_factory is MISSING}
    values = BASE if make is IterateArguments else required
    with pytest.raises(UsageError) as caught:
        make(**values | {name: value})
    assert str(caught.value) == f"`{name}` must {problem}."


def test_without_tensorboard_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(arguments_module, "get_available_reporting_integrations", lambda: ["wandb"])
    with pytest.raises(UsageError, match=r"pip install 'transformers-beats\[training\]'"):
        BeatsTrainingArguments(output_dir="output", report_to="tensorboard")


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


def test_no_as_a_strategy_is_not_false(recipe):
    path = recipe("output_dir: run\nsave_strategy: no\n")
    (arguments,) = parse_arguments((BeatsTrainingArguments,), ["--config", path, "--logging_strategy", "no"])
    assert (arguments.save_strategy, arguments.logging_strategy) == ("no", "no")


@pytest.mark.parametrize(("is_supported", "is_used"), [(True, True), (False, False)])
def test_bf16_on_a_cpu_depends_on_its_instructions(training, monkeypatch, is_supported, is_used):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: is_supported)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert training(bf16=True).bf16 is is_used
    assert TokenizeArguments(tokenizer="a", output_dir="b", bf16=True).bf16 is is_used


def test_warm_up_may_be_a_share_of_the_steps():
    words = ["--output_dir=run", "--warmup_steps=0.08", "--max_steps=1000"]
    (arguments,) = parse_arguments((BeatsTrainingArguments,), words)
    assert arguments.get_warmup_steps(1000) == 80


def test_what_training_arguments_refuse_is_one_line():
    with pytest.raises(UsageError, match=r"linaer'? is not a valid SchedulerType") as caught:
        parse_arguments((BeatsTrainingArguments,), ["--output_dir=run", "--lr_scheduler_type=linaer"])
    assert "\n" not in str(caught.value)
