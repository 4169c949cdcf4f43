# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Recipes of the package: each is found by its name and parses, and each value has a source."""

import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from tiny import ENCODER

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsRandomProjectionTokenizerConfig,
    BeatsTokenizerConfig,
)
from transformers_beats.training.config.arguments import (
    FINETUNE_ARGUMENTS,
    PRETRAIN_ARGUMENTS,
    TOKENIZE_ARGUMENTS,
    TRAIN_TOKENIZER_ARGUMENTS,
    Arguments,
    BeatsTrainingArguments,
)
from transformers_beats.training.config.batch_plan import apply_batch_plan
from transformers_beats.training.config.checks import check_config
from transformers_beats.training.config.distillation import DISTILL_ARGUMENTS, check_views
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import RECIPES, build_arguments, list_recipes, parse_arguments
from transformers_beats.utils.errors import UsageError


FLAT = {"audioset_pretrain": PRETRAIN_ARGUMENTS, "audioset_tokenizer": TRAIN_TOKENIZER_ARGUMENTS}
# Learning rate, and seconds of audio in a step.
FINE_TUNING = {
    "audioset2m_finetune": (1e-4, 10000),
    "audioset20k_finetune": (3e-5, 800),
    "audioset_strong_events": (1e-4, 2560),
    "desed_events": (1e-4, 4680),
    "esc10_finetune": (1e-3, 160),
    "esc50_finetune": (3e-5, 300),
    "folder_events": (1e-4, 160),
    "folder_finetune": (1e-4, 160),
    "iemocap_finetune": (3e-5, 320),
    "speech_commands_v1_finetune": (3e-5, 128),
    "speech_commands_v2_finetune": (3e-5, 128),
}
PROBES = ["folder_probe"]
# Seconds of audio in a step.
DISTILL = {"esc10_distill": 160, "folder_distill": 1280}
ITERATE = ["audioset_iterate", "esc10_iterate", "folder_iterate"]
# Recipes that stand after one of these and change it.
CHANGES = ["iterate_large", "iterate_supervised"]
ALL = [*FLAT, *FINE_TUNING, *PROBES, *DISTILL, *ITERATE, *CHANGES]
SOURCE = re.compile(
    r"#.*\b(paper|CED|Microsoft|ESPnet|OpenBEATs|PretrainedSED|CP-JKU|appendix|our choice)\b", re.IGNORECASE
)


@pytest.fixture(params=[True, False], ids=["with bf16", "without bf16"])
def has_bf16(request, monkeypatch) -> bool:
    """Whether the CPU, which is the device, reports instructions for bfloat16."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: request.param)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return request.param


def recipe(name: str) -> str:
    return str(RECIPES / f"{name}.yaml")


def values_without_source(lines: list[str]) -> list[str]:
    """Lines with a value that have no source of their own, nor in the comment above."""
    missing, above = [], ""
    for line in lines:
        if line.strip().startswith("#"):
            above += line
            continue
        opens_section = re.fullmatch(r"\s*\w+:\s*", line)
        if line.strip() and not opens_section and not SOURCE.search(line) and not SOURCE.search(above):
            missing.append(line)
        above = ""
    return missing


def test_all_recipes_are_known():
    assert sorted(path.stem for path in RECIPES.iterdir()) == sorted(ALL)


def test_recipes_are_listed_with_what_they_train():
    recipes = list_recipes()
    assert sorted(recipes) == sorted(ALL)
    assert (
        recipes["folder_finetune"] == "A classifier of your own clips, from a pre-trained model, on one GPU or a CPU"
    )


def test_a_recipe_is_found_by_its_path_as_well():
    by_path = parse_arguments((IterateArguments,), ["--config", recipe("esc10_iterate")])
    assert by_path == parse_arguments((IterateArguments,), ["--config", "esc10_iterate"])


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("folder_finetun", "folder_finetune"),
        ("recipes/esc10_iterate.yaml", "esc10_iterate"),
        ("z" * 300, ", ".join(sorted(ALL))),
        ("zzz", ", ".join(sorted(ALL))),
    ],
)
def test_an_unknown_recipe_has_others_named(name, names):
    with pytest.raises(UsageError) as caught:
        parse_arguments((IterateArguments,), ["--config", name])
    assert str(caught.value).startswith(f"{name}: no such file, and no recipe of that name: did you mean {names}")


@pytest.mark.parametrize("name", ALL)
def test_headers_name_their_recipe(name):
    header = Path(recipe(name)).read_text(encoding="utf-8").split("\n\n")[0]
    assert re.search(
        rf"^#   .*(transformers-beats \S+|training\.\w+) (--config \S+ )?--config {name}\b", header, re.MULTILINE
    )


@pytest.mark.parametrize("name", ALL)
def test_every_value_has_a_source(name):
    assert values_without_source(Path(recipe(name)).read_text(encoding="utf-8").splitlines()) == []


def test_a_value_without_source_is_found():
    lines = ["# the paper", "a: 1", "b: 2", "c:", "  d: 3  # because", "  # ESPnet", "", "  e: 4"]
    assert values_without_source(lines) == ["b: 2", "  d: 3  # because", "  e: 4"]


@pytest.mark.parametrize("name", ALL)
def test_no_key_appears_twice(name):
    """YAML would silently take the later one."""
    node = yaml.compose(Path(recipe(name)).read_text(encoding="utf-8"))
    pending = [node]
    while pending:
        mapping = pending.pop()
        keys = [key.value for key, _ in mapping.value]
        assert len(keys) == len(set(keys))
        pending += [value for _, value in mapping.value if isinstance(value, yaml.MappingNode)]


@pytest.mark.parametrize("name", PROBES)
def test_recipes_of_probes_leave_nothing_out(name, caplog):
    arguments = Arguments(*parse_arguments(FINETUNE_ARGUMENTS, ["--config", name]))
    assert arguments.tuning.freeze
    assert (arguments.folds.num_folds, arguments.tuning.probe_c) == (5, 1.0)
    assert "left out" not in caplog.text


@pytest.mark.parametrize("name", DISTILL)
def test_recipes_of_distillation_parse(name):
    words = ["--config", name, "--teacher", "teacher"]
    _, data, augmentation, batch, training = parse_arguments(DISTILL_ARGUMENTS, words)
    plan = apply_batch_plan(training, batch, data.crop_seconds)
    check_views(augmentation, data, training)
    assert plan.seconds == DISTILL[name]


@pytest.mark.parametrize("name", FLAT)
def test_flat_recipes_parse(name):
    model, data, batch, training = parse_arguments(FLAT[name], ["--config", name])
    assert training.max_steps == 400000
    assert training.get_warmup_steps(training.max_steps) == 32000
    assert (training.adam_beta1, training.adam_beta2, training.weight_decay) == (0.9, 0.98, 0.01)
    expected = {"audioset_pretrain": (5600, 5e-4), "audioset_tokenizer": (1400, 5e-5)}[name]
    assert (batch.batch_seconds, training.learning_rate) == expected
    config_class = BeatsConfig if name == "audioset_pretrain" else BeatsTokenizerConfig
    assert config_class(**model.model_config).codebook_size == 1024
    assert data.crop_seconds == 10


@pytest.mark.parametrize("name", FINE_TUNING)
def test_fine_tuning_recipes_parse(name):
    arguments = Arguments(*parse_arguments(FINETUNE_ARGUMENTS, ["--config", name]))
    check_config(BeatsConfig, arguments.tuning.model_config)
    plan = apply_batch_plan(arguments.training, arguments.batch, arguments.data.crop_seconds)
    learning_rate, seconds = FINE_TUNING[name]
    assert arguments.training.learning_rate == learning_rate
    assert plan.seconds == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize("name", FINE_TUNING)
def test_fine_tuning_recipes_keep_the_best_of_evaluations_every_so_many_steps(name):
    words = ["--config", name, "--early_stopping_patience", "3", "--eval_strategy", "steps", "--eval_steps", "100"]
    (*_, training, _) = parse_arguments(FINETUNE_ARGUMENTS, words)
    assert (training.save_strategy, training.save_steps) == (training.eval_strategy, training.eval_steps)
    assert (training.eval_strategy, training.eval_steps) == ("steps", 100)


@pytest.mark.parametrize("name", [*FINE_TUNING, *FLAT])
def test_a_training_of_other_epochs_has_the_share_of_the_warm_up(name):
    types = FLAT.get(name, FINETUNE_ARGUMENTS)

    def parse(*words: str) -> BeatsTrainingArguments:
        parts = parse_arguments(types, ["--config", name, *words])
        return next(part for part in parts if isinstance(part, BeatsTrainingArguments))

    whole, short = parse(), parse("--num_train_epochs", "1")
    assert short.max_steps == -1
    assert parse("--num_train_epochs", "1", "--max_steps", "-1").warmup_steps == short.warmup_steps
    if whole.max_steps > 0:
        assert short.get_warmup_steps(1000) == math.ceil(1000 * (whole.warmup_steps / whole.max_steps))


@pytest.mark.parametrize("name", ITERATE)
def test_iterate_recipes_parse_with_all_their_stages(name, tmp_path, has_bf16):
    (arguments,) = parse_arguments((IterateArguments,), ["--config", name])
    BeatsRandomProjectionTokenizerConfig(**arguments.random_projection)

    values = arguments.stage_values("model", codes="codes", output_dir=str(tmp_path))
    model, data, batch, training = build_arguments(PRETRAIN_ARGUMENTS, values)
    BeatsConfig(**model.model_config)
    plan = apply_batch_plan(training, batch, data.crop_seconds)
    assert plan.seconds == pytest.approx(batch.batch_seconds, rel=0.02)

    values = arguments.stage_values("tokenizer", teacher="teacher", output_dir=str(tmp_path))
    tokenizer, data, batch, training = build_arguments(TRAIN_TOKENIZER_ARGUMENTS, values)
    BeatsTokenizerConfig(**tokenizer.model_config)
    plan = apply_batch_plan(training, batch, data.crop_seconds)
    assert plan.seconds == pytest.approx(batch.batch_seconds, rel=0.04)

    values = arguments.stage_values("tokenize", tokenizer="tokenizer", output_dir=str(tmp_path))
    tokenize, _ = build_arguments(TOKENIZE_ARGUMENTS, values)
    assert tokenize.bf16 is has_bf16


def test_the_flat_audioset_recipes_agree_with_the_iterations():
    (arguments,) = parse_arguments((IterateArguments,), ["--config", "audioset_iterate"])
    for name, section in [("audioset_pretrain", arguments.model), ("audioset_tokenizer", arguments.tokenizer)]:
        flat = yaml.safe_load(Path(recipe(name)).read_text(encoding="utf-8"))
        flat["learning_rate"] = float(flat["learning_rate"])
        if name == "audioset_pretrain":
            # `iterate` takes it from the tokenizer.
            del flat["model_config"]["codebook_size"]
        shared = {**arguments.data, **section}
        assert {key: flat[key] for key in shared} == shared


@pytest.mark.parametrize("changed", ITERATE)
@pytest.mark.parametrize("name", CHANGES)
def test_recipes_that_change_others_fit_all_of_them(changed, name):
    (plain,) = parse_arguments((IterateArguments,), ["--config", changed])
    (arguments,) = parse_arguments((IterateArguments,), ["--config", changed, "--config", name])
    assert arguments.tokenizer == plain.tokenizer
    assert arguments.data == plain.data
    assert (arguments.supervised_teacher is None) == (name == "iterate_large")
    assert (arguments.model == plain.model) == (name == "iterate_supervised")


def test_a_mapping_of_recipes_may_become_something_else(tmp_path):
    # Of a teacher that is trained, and of one that is given.
    (tmp_path / "mine.yaml").write_text("supervised_teacher: {dataset: labelled, num_train_epochs: 3}\n")
    recipes = ["folder_iterate", "iterate_supervised", str(tmp_path / "mine.yaml")]
    words = [word for recipe in recipes for word in ("--config", recipe)]
    words += ["--data.dataset", "sounds", "--output_dir", str(tmp_path / "run")]
    classifier = str(tmp_path / "classifier")
    BeatsForAudioClassification(BeatsConfig(**ENCODER)).save_pretrained(classifier)
    BeatsFeatureExtractor().save_pretrained(classifier)
    (arguments,) = parse_arguments((IterateArguments,), [*words, "--supervised_teacher", classifier])
    assert arguments.supervised_teacher == classifier
    with pytest.raises(UsageError):
        parse_arguments(
            (IterateArguments,), ["--config", "audioset_iterate", "--config", "iterate_large", "--model", "null"]
        )


def test_steps_of_a_recipe_give_way_to_epochs_of_evaluation(tmp_path):
    text = "eval_strategy: steps\neval_steps: 200\nearly_stopping_patience: 3\neval_share: 0.2\n"
    (tmp_path / "mine.yaml").write_text(text + "dataset: sounds\noutput_dir: run\nnum_train_epochs: 3\n")
    parts = parse_arguments(FINETUNE_ARGUMENTS, ["--config", str(tmp_path / "mine.yaml"), "--eval_strategy", "epoch"])
    training = next(part for part in parts if isinstance(part, BeatsTrainingArguments))
    assert (training.eval_strategy, training.save_strategy) == ("epoch", "epoch")
