# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The two trainers, and the commands that use them, in one process."""

import copy
import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_recipe, make_sounds
from transformers.trainer_callback import TrainerCallback, TrainerState
from worker import NoiseOfTheClip, run_iterate

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForPreTraining,
    BeatsModel,
    BeatsRandomProjectionTokenizer,
    BeatsRandomProjectionTokenizerConfig,
    BeatsTokenizerForPreTraining,
    BeatsTokenizerModel,
)
from transformers_beats.training.compute_codes import load_codes, tokenize
from transformers_beats.training.config import arguments as arguments_module
from transformers_beats.training.config.arguments import (
    PRETRAIN_ARGUMENTS,
    TOKENIZE_ARGUMENTS,
    TRAIN_TOKENIZER_ARGUMENTS,
    BeatsTrainingArguments,
)
from transformers_beats.training.config.iterations import IterateArguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.data import streams
from transformers_beats.training.data.sources import DataArguments, open_row
from transformers_beats.training.iterate import iterate
from transformers_beats.training.pretrain import pretrain
from transformers_beats.training.stages import training_settings
from transformers_beats.training.train_tokenizer import train_tokenizer
from transformers_beats.training.trainers import checkpoints as checkpoints_module
from transformers_beats.training.trainers.checkpoints import complete_checkpoints
from transformers_beats.training.trainers.pretraining import (
    BeatsPreTrainer,
    CodebookCollapseError,
    teacher_outputs,
)
from transformers_beats.training.trainers.streaming import EpochOfStream, read_positions
from transformers_beats.utils.errors import DivergenceError, UsageError
from transformers_beats.utils.resume import check_settings


def history_of(directory: Path, *names: str) -> list[dict]:
    """What was logged in each step."""
    history = json.loads((directory / "log_history.json").read_text())
    return [{name: entry[name] for name in names} for entry in history if "loss" in entry]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Sounds for all tests of this module, as codes are those of a directory."""
    return make_sounds(tmp_path_factory.mktemp("once") / "sounds")


@pytest.fixture(scope="module")
def made_once(sounds, cache_of_the_module) -> Path:
    """The directory of a run with a first iteration."""
    run = sounds.with_name("run")
    iterate(IterateArguments(**make_recipe(sounds, run), num_iterations=1))
    return run


@pytest.fixture
def one_iteration(recipe, made_once) -> Path:
    """The directory of a first iteration, for the test alone."""
    return Path(shutil.copytree(made_once, recipe["output_dir"])) / "iteration-1"


def stage_values(recipe: dict, stage: str, **values) -> dict:
    return IterateArguments(**recipe).stage_values(stage, **values)


# The feature extractor


@pytest.fixture
def statistics(tmp_path) -> str:
    """The directory of a feature extractor with statistics of its own."""
    BeatsFeatureExtractor(fbank_mean=9.0, fbank_std=3.0).save_pretrained(tmp_path / "statistics")
    return str(tmp_path / "statistics")


def mean_of(directory: Path) -> float:
    return BeatsFeatureExtractor.from_pretrained(directory).fbank_mean


def test_every_stage_reads_the_fbank_of_the_model_before(recipe, statistics):
    run = iterate(IterateArguments(**recipe, feature_extractor=statistics, num_iterations=1)).parent
    assert mean_of(run / "tokenizer") == mean_of(run / "model") == 9.0
    # The stages on their own, without a word on the feature extractor.
    given = {"data": recipe["data"], "output_dir": recipe["output_dir"]}
    values = stage_values({**recipe, **given}, "tokenizer", teacher=str(run / "model"), output_dir=str(run / "next"))
    train_tokenizer(*build_arguments(TRAIN_TOKENIZER_ARGUMENTS, values))
    assert mean_of(run / "next") == 9.0
    values = stage_values(recipe, "tokenize", tokenizer=str(run / "next"), output_dir=str(run / "next-codes"))
    tokenize(*build_arguments(TOKENIZE_ARGUMENTS, values))
    for name, kind in (("codes", "next-codes"), ("tokenizer", "next")):
        place = run / f"model-of-{name}"
        values = stage_values(recipe, "model", **{name: str(run / kind)}, output_dir=str(place))
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
        assert mean_of(place) == 9.0


@pytest.mark.parametrize("stage", ["tokenizer", "tokenize", "codes", "model"])
def test_the_fbank_of_another_model_is_refused(recipe, one_iteration, statistics, tmp_path, stage):
    command, owners, name, source = {
        "tokenizer": (train_tokenizer, TRAIN_TOKENIZER_ARGUMENTS, "teacher", "model"),
        "tokenize": (tokenize, TOKENIZE_ARGUMENTS, "tokenizer", "tokenizer"),
        "codes": (pretrain, PRETRAIN_ARGUMENTS, "codes", "codes"),
        "model": (pretrain, PRETRAIN_ARGUMENTS, "tokenizer", "tokenizer"),
    }[stage]
    values = stage_values(recipe, "model" if stage == "codes" else stage, output_dir=str(tmp_path / "new"))
    values |= {name: str(one_iteration / source), "feature_extractor": statistics}
    with pytest.raises(ValueError, match=r"reads an fbank of `fbank_mean` 15\.41663, and .* of 9\.0:"):
        command(*build_arguments(owners, values))
    assert not (tmp_path / "new").exists()


# What is logged


@pytest.fixture
def trainer(recipe, tmp_path):
    """A trainer whose dataset holds two features with the codes 0 to 23, and two with 0 to 7."""
    config = BeatsConfig(**recipe["model"]["model_config"], codebook_size=32)
    generator = torch.Generator().manual_seed(0)
    items = [
        {
            "input_values": torch.randn(48, 128, generator=generator),
            "attention_mask": torch.ones(48, dtype=torch.long),
            "labels": (torch.arange(24) % num_codes).reshape(3, 8),
        }
        for num_codes in (24, 24, 8, 8)
    ]
    torch.manual_seed(0)
    arguments = BeatsTrainingArguments(
        output_dir=str(tmp_path / "out"), per_device_eval_batch_size=2, disable_tqdm=True
    )
    return BeatsPreTrainer(
        BeatsForPreTraining(config), arguments, eval_dataset=items, feature_extractor=BeatsFeatureExtractor()
    )


def test_evaluation_measures_codes_and_hides_the_same_patches_every_time(trainer):
    first, second = trainer.evaluate(), trainer.evaluate()
    for name in ("eval_loss", "eval_accuracy"):
        assert first[name] == second[name]
    # 8 codes appear 2 x 1 + 2 x 3 times, 16 twice, of 96 labels.
    entropy = -8 * 8 / 96 * math.log(8 / 96) - 16 * 2 / 96 * math.log(2 / 96)
    (logged,) = {entry["eval_code_entropy"] for entry in trainer.state.log_history}
    assert logged == pytest.approx(entropy, abs=1e-5)
    assert trainer.state.log_history[0]["eval_code_perplexity"] == pytest.approx(math.exp(entropy), abs=1e-3)
    assert trainer.state.log_history[0]["eval_codes_alive"] == 24 / 32


def test_evaluation_leaves_the_random_numbers_of_training_alone(trainer):
    batch = {name: value[None] for name, value in trainer.eval_dataset[0].items()}
    state = torch.get_rng_state()
    trainer.prediction_step(trainer.model.eval(), batch, prediction_loss_only=True)
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_without_codes_need_a_tokenizer(trainer):
    for item in trainer.eval_dataset:
        del item["labels"]
    with pytest.raises(ValueError, match="pass `codes` from `tokenize`, or a `tokenizer`"):
        trainer.evaluate()


def test_deepspeeds_precision_is_not_that_of_the_audio(trainer):
    trainer.is_deepspeed_enabled = True
    batch = {"waveforms": torch.rand(1, 16000) / 3, "num_samples": torch.tensor([16000])}
    prepared = trainer._prepare_inputs(batch | {"labels": torch.zeros(1, 6, 8, dtype=torch.long)})
    (expected,) = trainer.feature_extractor(batch["waveforms"].numpy(), sampling_rate=16000)["input_values"]
    assert prepared["input_values"].dtype == torch.float32
    torch.testing.assert_close(prepared["input_values"][0], torch.as_tensor(expected))


# Pre-training


def test_codes_computed_on_the_fly_are_those_computed_before(recipe, one_iteration, tmp_path):
    values = stage_values(
        recipe, "model", tokenizer=str(one_iteration / "tokenizer"), output_dir=str(tmp_path / "fly")
    )
    pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    names = ("loss", "accuracy", "code_perplexity", "codes_alive")
    assert history_of(tmp_path / "fly", *names) == history_of(one_iteration / "model", *names)


def test_streamed_audio_is_tokenized_on_the_fly(recipe, one_iteration, tmp_path):
    values = stage_values(
        recipe, "model", tokenizer=str(one_iteration / "tokenizer"), output_dir=str(tmp_path / "new"), streaming=True
    )
    pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    assert len(history_of(tmp_path / "new", "loss")) == 6


class SaveThird(TrainerCallback):
    """Asks for a checkpoint after the callbacks of the trainer, as a user's may."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = state.global_step == 3


def test_a_checkpoint_that_a_callback_asks_for_has_the_positions_of_the_stream(
    recipe, one_iteration, tmp_path, monkeypatch
):
    save_checkpoint, found = BeatsPreTrainer._save_checkpoint, []

    def save(self, *args):
        save_checkpoint(self, *args)
        found.append(read_positions(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", 0))

    monkeypatch.setattr(BeatsPreTrainer, "_save_checkpoint", save)
    add_callback = BeatsPreTrainer.add_callback

    def add_both(self, callback):
        add_callback(self, callback)
        if isinstance(callback, EpochOfStream):
            add_callback(self, SaveThird())

    monkeypatch.setattr(BeatsPreTrainer, "add_callback", add_both)
    values = stage_values(
        recipe, "model", tokenizer=str(one_iteration / "tokenizer"), output_dir=str(tmp_path / "new"), streaming=True
    )
    pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values | {"max_steps": 4}))
    assert found[0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_goes_on_where_it_was(recipe, one_iteration, tmp_path, monkeypatch, num_workers):
    # With everything that is drawn at random, and with crops of a clip that are in two batches.
    random = dict.fromkeys(("hidden_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"), 0.2)
    recipe["model"]["model_config"] |= random
    recipe["model"] |= {"dataloader_num_workers": num_workers, "gradient_accumulation_steps": 2, "max_steps": 10}
    values = stage_values(recipe, "model", tokenizer=str(one_iteration / "tokenizer"))
    values |= {"streaming": True, "crop_seconds": 0.4, "num_crops": 3, "shuffle_buffer_size": 5}
    pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values | {"output_dir": str(tmp_path / "one-go")}))
    save_to_json = TrainerState.save_to_json

    def save_or_stop(self, path):
        if "checkpoint-6" in path:
            raise KeyboardInterrupt
        save_to_json(self, path)

    values |= {"output_dir": str(tmp_path / "interrupted")}
    with monkeypatch.context() as patch:
        patch.setattr(TrainerState, "save_to_json", save_or_stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    with pytest.raises(ValueError, match=r"begun with another `readers` \(\[1, ., \d+\], now \[1, 3, \d+\]\)"):
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values | {"dataloader_num_workers": 3}))
    opened = []
    monkeypatch.setattr(streams, "open_row", lambda row, rate: opened.append(row) or open_row(row, rate))
    pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    names = ("step", "epoch", "loss", "accuracy", "grad_norm")
    expected = history_of(tmp_path / "one-go", *names)
    assert history_of(tmp_path / "interrupted", *names) == expected
    assert [entry["step"] for entry in expected] == [*range(1, 11)]
    # 80 crops are more than two epochs of 36.
    assert expected[-1]["epoch"] >= 1
    if num_workers == 0:
        # From the checkpoint of step 4 on there are 48 crops, of 16 or 17 clips.
        assert len(opened) in (16, 17)


@pytest.mark.parametrize("name", ["save_strategy", "logging_strategy"])
def test_the_end_of_an_epoch_of_a_stream_is_not_waited_for(recipe, one_iteration, tmp_path, name):
    values = stage_values(recipe, "model", tokenizer=str(one_iteration / "tokenizer"))
    values |= {"streaming": True, "output_dir": str(tmp_path / "new"), name: "epoch"}
    with pytest.raises(ValueError, match=f"`{name}`: a stream has no end of an epoch"):
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))


def test_datasets_with_shares_are_learned_from_with_their_codes(recipe, sounds, tmp_path):
    folders = [tmp_path / "few", tmp_path / "many"]
    for index, path in enumerate(sorted(sounds.iterdir())):
        target = folders[index >= 3] / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    recipe |= {"num_iterations": 1, "data": recipe["data"] | {"dataset": [*map(str, folders)]}}
    recipe["data"]["dataset_weights"] = [1, 1]
    (trainer,) = run_iterate(recipe)
    # Each clip with its own codes, of as many columns as its crop has.
    run = Path(recipe["output_dir"]) / "iteration-1"
    assert len(load_codes(str(run / "codes"), DataArguments(**recipe["data"]))[0]) == 12
    drawn = [index for index, _ in trainer.get_train_dataloader().batch_sampler.sampler]
    assert sum(index < 3 for index in drawn) == 6
    for index in set(drawn):
        item = trainer.train_dataset[index]
        assert len(item["labels"]) == (1 + (len(item["waveform"]) - 400) // 160) // 16
    assert len(history_of(run / "model", "loss")) == 6


def test_accumulated_batches_learn_what_one_batch_learns(recipe, tmp_path):
    # All crops have the same number of patches.
    recipe["data"]["crop_seconds"] = 0.4
    recipe["num_iterations"] = 1
    runs = {"at-once": 4, "accumulated": 2}
    for name, clips in runs.items():
        values = copy.deepcopy(recipe) | {"output_dir": str(tmp_path / name)}
        values["model"] |= {"batch_seconds": 1.6, "per_device_train_batch_size": clips}
        (trainer,) = run_iterate(values, NoiseOfTheClip)
        assert trainer.args.gradient_accumulation_steps == 4 // clips
    at_once, accumulated = (history_of(tmp_path / name / "iteration-1/model", "loss", "accuracy") for name in runs)
    for expected, actual in zip(at_once, accumulated, strict=True):
        assert actual == pytest.approx(expected, abs=1e-5)


def test_a_model_of_another_size_is_not_gone_on_from(recipe, one_iteration, tmp_path):
    values = stage_values(recipe, "model", codes=str(one_iteration / "codes"), output_dir=str(tmp_path / "more"))
    values |= {"model_name_or_path": str(one_iteration / "model"), "model_config": {"intermediate_size": 64}}
    with pytest.raises(ValueError, match=r"weights of a BeatsForPreTraining have another shape \(.*fc1"):
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))


@pytest.mark.parametrize("is_new", [False, True])
def test_training_goes_on_from_a_model(recipe, one_iteration, tmp_path, is_new):
    before = BeatsForPreTraining.from_pretrained(one_iteration / "model")
    values = stage_values(recipe, "model", codes=str(one_iteration / "codes"), output_dir=str(tmp_path / "more"))
    values |= {"model_name_or_path": str(one_iteration / "model"), "model_config": None, "learning_rate": 0.0}
    pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values | {"new_label_predictor": is_new}))
    after = BeatsForPreTraining.from_pretrained(tmp_path / "more").state_dict()
    others = {name for name, value in before.state_dict().items() if not torch.equal(after[name], value)}
    assert {name.partition(".")[0] for name in others} == ({"label_predictor"} if is_new else set())
    assert ("label_predictor.classifier.weight" in others) == is_new


def test_an_existing_result_is_never_overwritten(recipe, one_iteration):
    values = stage_values(recipe, "model", codes=str(one_iteration / "codes"), output_dir=str(one_iteration / "model"))
    with pytest.raises(ValueError, match="model exists already"):
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))


def test_a_model_with_fewer_codes_than_the_tokenizer_is_refused(recipe, one_iteration, tmp_path):
    values = stage_values(recipe, "model", codes=str(one_iteration / "codes"), output_dir=str(tmp_path / "new"))
    values["model_config"] = values["model_config"] | {"codebook_size": 31}
    with pytest.raises(ValueError, match="is 31, but the tokenizer has 32 codes"):
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))


@pytest.mark.parametrize(
    ("stage", "precision", "logging_steps", "message"),
    [
        ("model", "bf16", 2, "at step 2 the loss is nan"),
        ("model", None, 100, "at step 6 weights are not finite"),
        ("tokenizer", None, 2, "at step 2 the loss is nan"),
        ("tokenizer", "bf16", 100, "at step 6 weights are not finite"),
    ],
)
def test_a_training_that_diverges_writes_no_model(
    recipe, one_iteration, tmp_path, monkeypatch, stage, precision, logging_steps, message
):
    monkeypatch.setattr(arguments_module, "is_bf16_slow", lambda: False)
    values = {"output_dir": str(tmp_path / "new"), "learning_rate": 1e30, "max_grad_norm": 0.0}
    values |= {"logging_steps": logging_steps} | ({} if precision is None else {precision: True})
    inputs = {"model": {"codes": str(one_iteration / "codes")}, "tokenizer": {"teacher": str(one_iteration / "model")}}
    values = stage_values(recipe, stage, **values, **inputs[stage])
    run, types = {
        "model": (pretrain, PRETRAIN_ARGUMENTS),
        "tokenizer": (train_tokenizer, TRAIN_TOKENIZER_ARGUMENTS),
    }[stage]
    for _ in range(2):
        with pytest.raises(DivergenceError, match=message) as caught:
            run(*build_arguments(types, values))
        assert str(caught.value).endswith("or leave `bf16` out." if precision else "set a lower `learning_rate`.")
        assert not (tmp_path / "new").exists()


# Tokenizers


def tokenizer_arguments(recipe: dict, teacher: Path, output_dir: Path, **values):
    values = stage_values(recipe, "tokenizer", teacher=str(teacher), output_dir=str(output_dir), **values)
    return build_arguments(TRAIN_TOKENIZER_ARGUMENTS, values)


def test_a_collapsed_codebook_ends_the_run(recipe, one_iteration, tmp_path):
    # 16 codes cannot have a perplexity of 20.
    # In the second case no step is logged.
    for step, logging_steps in ((1, 1), (6, 100)):
        output_dir = tmp_path / f"tokenizer-{step}"
        values = {"min_perplexity": 20.0, "logging_steps": logging_steps}
        message = rf"at step {step} the codes have a perplexity of \d+\.\d\d,"
        # The same command again does not write it either.
        for _ in range(2):
            with pytest.raises(CodebookCollapseError, match=message):
                train_tokenizer(*tokenizer_arguments(recipe, one_iteration / "model", output_dir, **values))
            assert not output_dir.exists()


def test_a_fine_tuned_teacher_is_asked_for_its_logits(recipe, one_iteration, tmp_path):
    teacher = BeatsForAudioClassification.from_pretrained(one_iteration / "model", num_labels=5).eval()
    teacher.save_pretrained(tmp_path / "teacher")
    input_values = torch.randn(2, 64, 128)
    attention_mask = torch.ones(2, 64, dtype=torch.long)
    outputs = teacher_outputs(teacher, input_values, attention_mask)
    assert outputs.shape == (2, 32, 5)
    torch.testing.assert_close(outputs.mean(dim=1), teacher(input_values, attention_mask=attention_mask).logits)

    train_tokenizer(*tokenizer_arguments(recipe, tmp_path / "teacher", tmp_path / "tokenizer"))
    assert BeatsTokenizerForPreTraining.from_pretrained(tmp_path / "tokenizer").estimator.head.out_features == 5
    losses = [entry["distillation_loss"] for entry in history_of(tmp_path / "tokenizer", "distillation_loss")]
    assert losses[-1] < losses[0]


def test_a_tokenizer_is_no_teacher(recipe, one_iteration, tmp_path):
    tokenizer = one_iteration / "tokenizer"
    with pytest.raises(ValueError, match="holds a BeatsRandomProjectionTokenizer, not a BEATs model"):
        train_tokenizer(*tokenizer_arguments(recipe, tokenizer, tmp_path / "new"))


def test_a_tokenizer_can_start_from_its_teacher(recipe, one_iteration, tmp_path):
    arguments = tokenizer_arguments(
        recipe, one_iteration / "model", tmp_path / "tokenizer", initialize_from_teacher=True, learning_rate=0.0
    )
    train_tokenizer(*arguments)
    expected = BeatsModel.from_pretrained(one_iteration / "model").state_dict()
    actual = BeatsTokenizerModel.from_pretrained(tmp_path / "tokenizer").beats.state_dict()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


# Codes


def test_tokenizing_goes_on_where_it_was_interrupted(recipe, one_iteration):
    codes = one_iteration / "codes"
    data = DataArguments(**recipe["data"])
    expected = load_codes(str(codes), data)[0]["codes"]
    assert len(expected) == 12
    (codes / "codes.json").unlink()
    shutil.rmtree(codes / "shard-00001")
    with pytest.raises(ValueError, match="holds no complete codes"):
        load_codes(str(codes), data)
    kept = (codes / "shard-00000").stat().st_mtime_ns
    values = stage_values(recipe, "tokenize", tokenizer=str(one_iteration / "tokenizer"), output_dir=str(codes))
    tokenize(*build_arguments(TOKENIZE_ARGUMENTS, values))
    assert load_codes(str(codes), data)[0]["codes"] == expected
    assert (codes / "shard-00000").stat().st_mtime_ns == kept


def test_unfinished_codes_of_another_tokenizer_are_not_mixed(recipe, one_iteration):
    codes = one_iteration / "codes"
    (codes / "codes.json").rename(codes / "unfinished-codes.json")
    BeatsRandomProjectionTokenizer(
        BeatsRandomProjectionTokenizerConfig(**recipe["random_projection"], seed=1)
    ).save_pretrained(one_iteration / "other")
    values = stage_values(recipe, "tokenize", tokenizer=str(one_iteration / "other"), output_dir=str(codes))
    with pytest.raises(ValueError, match="codes: was begun with another `tokenizer`"):
        tokenize(*build_arguments(TOKENIZE_ARGUMENTS, values))


def test_codes_of_other_files_are_refused(recipe, one_iteration, sounds, tmp_path):
    values = stage_values(recipe, "model", codes=str(one_iteration / "codes"), output_dir=str(tmp_path / "new"))
    (sounds / "00.wav").rename(sounds / "99.wav")
    try:
        with pytest.raises(ValueError, match="computed from other files than"):
            pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    finally:
        (sounds / "99.wav").rename(sounds / "00.wav")


def test_codes_of_other_crops_are_refused(recipe, one_iteration):
    with pytest.raises(ValueError, match=r"codes: was begun with another `crop_seconds` \(1\.0, now 0\.5\)"):
        load_codes(str(one_iteration / "codes"), DataArguments(**recipe["data"] | {"crop_seconds": 0.5}))


# Interruptions


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path):
    assert complete_checkpoints(tmp_path) == []
    for step, state in ((8, '{"global_step": 8}'), (10, '{"global_step": 10}'), (12, '{"global_'), (14, None)):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        if state is not None:
            (checkpoint / "trainer_state.json").write_text(state)
    assert complete_checkpoints(tmp_path) == [tmp_path / "checkpoint-8", tmp_path / "checkpoint-10"]


def test_a_run_killed_after_its_last_step_does_no_step_more(recipe, tmp_path, monkeypatch):
    # Five steps end within the second epoch of three.
    recipe["num_iterations"] = 1
    recipe["model"] |= {"max_steps": 5, "save_steps": 5}
    in_one_go = copy.deepcopy(recipe) | {"output_dir": str(tmp_path / "one-go")}
    iterate(IterateArguments(**in_one_go))
    monkeypatch.setattr(checkpoints_module, "replace_directory", lambda *args: sys.exit("killed"))
    with pytest.raises(SystemExit, match="killed"):
        iterate(IterateArguments(**recipe))
    monkeypatch.undo()
    iterate(IterateArguments(**recipe))
    model, expected = (Path(run["output_dir"]) / "iteration-1/model" for run in (recipe, in_one_go))
    assert history_of(model, "step", "loss") == history_of(expected, "step", "loss")
    weights = BeatsForPreTraining.from_pretrained(expected).state_dict()
    for name, value in BeatsForPreTraining.from_pretrained(model).state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_an_interrupted_training_does_not_go_on_with_other_settings(recipe, one_iteration, tmp_path, monkeypatch):
    values = stage_values(recipe, "model", codes=str(one_iteration / "codes"), output_dir=str(tmp_path / "new"))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "replace_directory", lambda *args: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    with pytest.raises(ValueError, match=r"was begun with another `learning_rate` \(0\.001, now 0\.01\)"):
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values | {"learning_rate": 0.01}))
    # The same result, if asked for again, is computed again.
    pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    (tmp_path / "new").rename(tmp_path / "first")
    pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values | {"seed": 1}))
    assert history_of(tmp_path / "new", "loss") != history_of(tmp_path / "first", "loss")


def move_weights(directory: Path) -> None:
    """Trains a model anew, under the name that it has."""
    path = directory / "model.safetensors"
    weights = load_file(path)
    save_file({name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}, path)


@pytest.mark.parametrize("read", ["codes", "tokenizer", "teacher"])
def test_an_interrupted_training_does_not_go_on_with_another_model(recipe, one_iteration, tmp_path, monkeypatch, read):
    places = {"output_dir": str(tmp_path / "new")}
    model, codes = one_iteration / "model", one_iteration / "codes"
    if read == "teacher":
        train, parsed = train_tokenizer, TRAIN_TOKENIZER_ARGUMENTS
        values = stage_values(recipe, "tokenizer", teacher=str(model), **places)
    else:
        train, parsed = pretrain, PRETRAIN_ARGUMENTS
        reads = {"codes": str(codes)} if read == "codes" else {"tokenizer": str(one_iteration / "tokenizer")}
        values = stage_values(recipe, "model", **reads, **places)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "replace_directory", lambda *args: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            train(*build_arguments(parsed, values))
    if read == "codes":
        description = json.loads((codes / "codes.json").read_text())
        (codes / "codes.json").write_text(json.dumps(description | {"tokenizer": 40 * "0"}))
    else:
        move_weights(model if read == "teacher" else one_iteration / "tokenizer")
    kind = "teacher" if read == "teacher" else "tokenizer"
    with pytest.raises(UsageError, match=f"was begun with another `{kind}_fingerprint`"):
        train(*build_arguments(parsed, values))


def test_an_interrupted_training_does_not_go_on_with_other_clips(recipe, one_iteration, sounds, tmp_path, monkeypatch):
    copied = shutil.copytree(sounds, tmp_path / "copied")
    recipe = {**recipe, "data": {**recipe["data"], "dataset": str(copied)}}
    values = stage_values(
        recipe, "model", tokenizer=str(one_iteration / "tokenizer"), output_dir=str(tmp_path / "model")
    )
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "replace_directory", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))
    (copied / "00.wav").rename(copied / "99.wav")
    with pytest.raises(ValueError, match=r"begun with another `clips` \(.12 clips, digest "):
        pretrain(*build_arguments(PRETRAIN_ARGUMENTS, values))


@pytest.mark.parametrize("command", ["pretrain", "compute-codes"])
def test_two_runs_do_not_write_to_one_directory(recipe, one_iteration, tmp_path, command):
    place = tmp_path / "new"
    directory = place if command == "compute-codes" else checkpoints_module.training_directory(place)
    stage, run, owners = ("tokenize", tokenize, TOKENIZE_ARGUMENTS)
    if command == "pretrain":
        stage, run, owners = ("model", pretrain, PRETRAIN_ARGUMENTS)
    values = stage_values(recipe, stage, tokenizer=str(one_iteration / "tokenizer"), output_dir=str(place))
    code = f"""
import sys, time
from pathlib import Path
from transformers_beats.utils.lock import hold
with hold(Path({str(directory)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"another run writes here \\(process {other.pid} on .*, since 20"):
            run(*build_arguments(owners, values))
        other.kill()
    # Of a run that was killed nothing is left.
    run(*build_arguments(owners, values))
    assert not list(directory.rglob(".lock*"))


def test_how_the_data_are_read_may_change_after_an_interruption(tmp_path):
    training = BeatsTrainingArguments(str(tmp_path), use_cpu=True)
    as_begun = training_settings(training, DataArguments("sounds"))
    assert training_settings(training, DataArguments("sounds", cache_audio=True, num_proc=4)) == as_begun
    assert training_settings(training, DataArguments("sounds", precompute_fbank=True)) == as_begun
    assert training_settings(training, DataArguments("sounds", crop_seconds=3.0)) != as_begun
    # An epoch that has a crop again has another one, unless it is an fbank from disk.
    mixed = DataArguments(["speech", "music"], dataset_weights=[1.0, 2.0])
    with_fbanks = dataclasses.replace(mixed, precompute_fbank=True)
    assert training_settings(training, mixed) != training_settings(training, with_fbanks)


@pytest.mark.parametrize(
    "changes",
    [
        {"data_seed": 1},
        {"optim_args": "momentum_decay=1"},
        {"optim_target_modules": ["fc1"]},
        {"bf16": True},
        {"fp16": True},
    ],
)
def test_what_decides_the_result_may_not_change_after_an_interruption(tmp_path, monkeypatch, changes):
    monkeypatch.setattr(arguments_module, "is_bf16_slow", lambda: False)
    data = DataArguments("sounds")
    as_begun = training_settings(BeatsTrainingArguments(str(tmp_path)), data)
    (name,) = changes
    settings = training_settings(BeatsTrainingArguments(str(tmp_path), **changes), data)
    with pytest.raises(UsageError, match=f"another `{name}`"):
        check_settings(as_begun, settings, "run")


def test_runs_that_were_killed_learn_what_a_run_in_one_go_learns(recipe, tmp_path):
    for stage in ("model", "tokenizer"):
        recipe[stage]["model_config"] = recipe[stage]["model_config"] | {"hidden_dropout": 0.1, "layerdrop": 0.1}
    # What draws random numbers, changes targets, or reads checkpoints.
    recipe["random_projection"] |= {"num_codebooks": 2}
    recipe["model"] |= {"mixture_probability": 0.5, "average_checkpoints": 2}
    recipe["model"]["model_config"]["mask_block_size"] = 2
    recipe["tokenizer"] |= {"teacher_layers": [1, 2], "teacher_normalization": "layer_norm"}
    in_one_go = copy.deepcopy(recipe) | {"output_dir": str(tmp_path / "one-go")}
    iterate(IterateArguments(**in_one_go))
    worker = Path(__file__).parents[1] / "worker.py"
    for kill_at in ("iteration-1/model.training/checkpoint-4", "iteration-2/tokenizer.training/checkpoint-6"):
        (tmp_path / "tasks.json").write_text(json.dumps([("run_until_killed", recipe | {"kill_at": kill_at})]))
        command = [sys.executable, str(worker), str(tmp_path / "tasks.json")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=570, env=os.environ)
        assert result.returncode == -signal.SIGKILL, result.stderr[-3000:]
        checkpoint = Path(recipe["output_dir"]) / kill_at
        assert (checkpoint / "model.safetensors").exists()
        assert not (checkpoint / "trainer_state.json").exists()
    iterate(IterateArguments(**recipe))
    for stage in ("iteration-1/model", "iteration-2/tokenizer", "iteration-2/model"):
        names = ("step", "loss", "grad_norm", "learning_rate", "code_perplexity")
        expected = history_of(tmp_path / "one-go" / stage, *names)
        # Not to the last digit: the processes may compute with another number of threads.
        for actual, entry in zip(history_of(Path(recipe["output_dir"]) / stage, *names), expected, strict=True):
            assert actual == pytest.approx(entry, rel=1e-5)
        assert [entry["step"] for entry in expected] == [1, 2, 3, 4, 5, 6]


def test_what_is_done_is_not_done_again(recipe, one_iteration):
    files = {path: path.stat().st_mtime_ns for path in one_iteration.rglob("*") if path.is_file()}
    iterate(IterateArguments(**recipe, num_iterations=1))
    assert files == {path: path.stat().st_mtime_ns for path in one_iteration.rglob("*") if path.is_file()}
