# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Keys of fine-tuning, each by its effect: early stopping, weights of classes, averages, unfreezing, search, share."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from tiny import ENCODER
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import TrainerState, TrainingArguments

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
)
from transformers_beats.training import finetune as finetune_module
from transformers_beats.training.classifiers import load_training_clips
from transformers_beats.training.config.arguments import BeatsTrainingArguments, EvaluationDataArguments
from transformers_beats.training.config.checks import SEARCHABLE
from transformers_beats.training.config.recipes import build_arguments, find_settings, read_line
from transformers_beats.training.data.labelled import LabelledClips, TrainingCrops
from transformers_beats.training.data.labels import Labels
from transformers_beats.training.finetune import FINETUNE_ARGUMENTS, Arguments, finetune
from transformers_beats.training.probes.embeddings import Embeddings
from transformers_beats.training.probes.regression import fit_classifier
from transformers_beats.training.probes.selection import predict
from transformers_beats.training.probes.settings import Settings
from transformers_beats.training.reports.report import Predictions, compute_metrics
from transformers_beats.training.reports.scoring import metric_names
from transformers_beats.training.stages import training_settings
from transformers_beats.training.trainers import layerwise as layerwise_module
from transformers_beats.training.trainers import pretraining as pretraining_module
from transformers_beats.training.trainers import search as search_module
from transformers_beats.training.trainers.averaging import AVERAGE, WeightAverage
from transformers_beats.training.trainers.checkpoints import train_and_save
from transformers_beats.training.trainers.classification import ClassificationTrainer
from transformers_beats.training.trainers.layerwise import UnfreezeByEpoch
from transformers_beats.training.trainers.losses import class_weights, weigh_classes, weighted_loss
from transformers_beats.utils.errors import BeatsError, DivergenceError, UsageError


@pytest.fixture
def folder(tmp_path) -> Path:
    """Eight clips of each of two classes, noise and a tone."""
    generator = np.random.default_rng(0)
    for name in ("noise", "tone"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for number in range(8):
            samples = 0.1 * generator.standard_normal(6400)
            if name == "tone":
                samples += 0.5 * np.sin(np.arange(6400) * 2 * np.pi * 1000 / 16000)
            soundfile.write(tmp_path / "clips" / name / f"{number}.wav", samples, 16000)
    return tmp_path / "clips"


@pytest.fixture
def recipe(folder, tmp_path, no_pictures) -> dict:
    """Four epochs of two steps, evaluated on a quarter of the clips."""
    return {
        "dataset": str(folder),
        "crop_seconds": 1.0,
        "model_config": ENCODER,
        "output_dir": str(tmp_path / "classifier"),
        "num_train_epochs": 4,
        "per_device_train_batch_size": 6,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "save_strategy": "epoch",
        "save_total_limit": 10,
        "eval_share": 0.25,
        "disable_tqdm": True,
    }


def run(recipe: dict, **values) -> dict:
    return finetune(Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | values)))


def log_of(recipe: dict) -> list[dict]:
    return json.loads((Path(recipe["output_dir"]) / "log_history.json").read_text())


def initial_model() -> BeatsForAudioClassification:
    torch.manual_seed(0)
    values = {"num_labels": 2, "problem_type": "single_label_classification"}
    return BeatsForAudioClassification(BeatsConfig(**ENCODER, **values))


# Share of the clips


def test_a_share_of_the_clips_is_evaluated_on_and_not_learned_from(recipe, monkeypatch):
    seen = {}
    original = finetune_module.finetune_once

    def look(arguments, train, evaluation, *others):
        seen.update(train=train, evaluation=evaluation)
        return original(arguments, train, evaluation, *others)

    monkeypatch.setattr(finetune_module, "finetune_once", look)
    run(recipe, num_train_epochs=1)
    train, evaluation = seen["train"], seen["evaluation"]
    assert (train[1].counts().tolist(), evaluation[1].counts().tolist()) == ([6, 6], [2, 2])
    assert not {*train[0].names} & {*evaluation[0].names}
    report = json.loads((Path(recipe["output_dir"]) / "evaluation" / "metrics.json").read_text())
    assert (report["num_clips"], report["description"]["split"]) == (4, "0.25, drawn with seed 0")


def test_a_share_that_cannot_be_drawn_is_refused(recipe):
    with pytest.raises(BeatsError, match=r"`eval_share` is 0\.01, which cannot be drawn"):
        run(recipe, eval_share=0.01)
    with pytest.raises(UsageError, match="`eval_share` draws clips: leave"):
        EvaluationDataArguments(eval_share=0.1, eval_split="test")


# Early stopping


def run_until_third_evaluation(monkeypatch, recipe: dict, **values) -> None:
    """Trains, and is interrupted where the third epoch would be evaluated."""
    original = ClassificationTrainer.evaluate

    def cut_off(self, *args, **kwargs):
        if self.state.epoch == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTrainer, "evaluate", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, **values)


def test_a_training_that_gets_no_better_stops_and_keeps_the_best(recipe):
    # The loss at a learning rate of 0 never changes.
    run(recipe, early_stopping_patience=2, learning_rate=0.0, num_train_epochs=20)
    log = log_of(recipe)
    assert [entry["epoch"] for entry in log if "eval_loss" in entry] == [1, 2, 3]
    assert max(entry["epoch"] for entry in log) == 3


@pytest.mark.parametrize(
    ("values", "saves", "evaluates"),
    [
        ({}, "epoch", "epoch"),
        ({"save_steps": 5000}, "epoch", "epoch"),
        ({"save_strategy": "steps", "save_steps": 4}, "steps", "steps"),
        ({"eval_strategy": "epoch"}, "epoch", "epoch"),
        ({"eval_strategy": "steps", "eval_steps": 250}, "steps", "steps"),
        ({"save_strategy": "best"}, "best", "epoch"),
    ],
)
def test_early_stopping_evaluates_every_epoch_by_default(recipe, values, saves, evaluates):
    del recipe["save_strategy"]
    arguments = Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | values | {"early_stopping_patience": 1}))
    assert (arguments.training.save_strategy, arguments.training.eval_strategy) == (saves, evaluates)
    plain = Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe))
    assert (plain.training.save_strategy, plain.training.eval_strategy) == ("steps", "epoch")


@pytest.mark.parametrize("kept", [{"early_stopping_patience": 1}, {"load_best_model_at_end": True}])
@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({"eval_strategy": "steps", "eval_steps": 4}, 4),
        ({"eval_strategy": "steps"}, 1),
        ({"eval_strategy": "steps", "save_steps": 3}, 3),
        ({"save_strategy": "steps", "eval_steps": 0.25}, 0.25),
        ({"save_strategy": "steps"}, 500),
    ],
)
def test_the_best_model_is_saved_at_every_evaluation(recipe, kept, values, steps):
    del recipe["save_strategy"]
    training = Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | values | kept)).training
    assert (training.save_strategy, training.save_steps) == (training.eval_strategy, training.eval_steps)
    assert (training.eval_strategy, training.eval_steps) == ("steps", steps)


@pytest.mark.parametrize("kept", [{"early_stopping_patience": 9}, {"load_best_model_at_end": True}])
def test_the_weights_and_the_epoch_are_those_of_the_best_evaluation(recipe, kept):
    del recipe["save_strategy"]
    # The validation loss rises: the clips are few.
    run(recipe, eval_strategy="steps", eval_steps=3, learning_rate=1e-2, **kept)
    evaluated = {entry["epoch"]: entry["eval_loss"] for entry in log_of(recipe) if "eval_loss" in entry}
    best = min(evaluated, key=evaluated.__getitem__)
    assert best < max(evaluated)
    output = Path(recipe["output_dir"])
    report = json.loads((output / "evaluation" / "metrics.json").read_text())
    assert report["description"]["epoch"] == best
    assert report["notes"] == [finetune_module.CHOSEN_BY_EVALUATION]
    # Trained until then, it is the same.
    short = recipe | {"output_dir": f"{output}-short", "eval_strategy": "no", "learning_rate": 1e-2}
    original = finetune_module.finetune_once

    def stop(*args, **others):
        return original(*args, **others, stop_epoch=best)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_module, "finetune_once", stop)
        run(short)
    expected = load_file(Path(short["output_dir"]) / "model.safetensors")
    for name, value in load_file(output / "model.safetensors").items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eval_strategy": "steps", "eval_steps": 2, "save_steps": 4}, "`save_steps` is 4 and `eval_steps` 2"),
        ({"eval_strategy": "steps", "save_strategy": "epoch"}, "`save_strategy` is epoch and `eval_strategy` steps"),
        ({"save_strategy": "steps", "eval_strategy": "epoch"}, "`save_strategy` is steps and `eval_strategy` epoch"),
        ({"eval_strategy": "no"}, "needs evaluations"),
        ({"save_strategy": "no"}, "needs checkpoints"),
    ],
)
@pytest.mark.parametrize("kept", [{"early_stopping_patience": 1}, {"load_best_model_at_end": True}])
def test_what_would_not_keep_the_best_model_is_refused(recipe, kept, values, message):
    del recipe["save_strategy"]
    with pytest.raises(UsageError, match=message) as caught:
        build_arguments(FINETUNE_ARGUMENTS, recipe | values | kept)
    assert str(caught.value).startswith(f"`{next(iter(kept))}` needs ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{"eval_strategy": "steps", "eval_steps": 2}, {"eval_delay": 1}])
def test_a_choice_of_the_best_goes_on_with_the_same_evaluations(recipe, monkeypatch, values):
    del recipe["save_strategy"]
    run_until_third_evaluation(monkeypatch, recipe, load_best_model_at_end=True)
    name = next(iter(values))
    with pytest.raises(UsageError, match=rf"was begun with another `(eval_steps|{name})`"):
        run(recipe, load_best_model_at_end=True, **values)


@pytest.mark.parametrize(("strategy", "names"), [("epoch", ["save_steps"]), ("steps", ["save_steps", "eval_steps"])])
def test_numbers_of_steps_decide_the_best_only_where_they_are_read(strategy, names, tmp_path):
    values = {"output_dir": str(tmp_path), "load_best_model_at_end": True}
    values |= {"save_strategy": strategy, "eval_strategy": strategy}
    first, second = (
        training_settings(BeatsTrainingArguments(**values | dict.fromkeys(names, steps))) for steps in (1, 2)
    )
    assert (first == second) == (strategy == "epoch")


@pytest.mark.parametrize(
    ("values", "num_notes"),
    [
        ({"early_stopping_patience": 1, "num_train_epochs": 2}, 1),
        # One checkpoint is no choice.
        ({"early_stopping_patience": 1, "num_train_epochs": 1}, 0),
        ({"num_train_epochs": 2}, 0),
    ],
)
def test_a_choice_by_the_clips_of_the_evaluation_is_noted(recipe, values, num_notes):
    del recipe["save_strategy"]
    run(recipe, **values)
    notes = json.loads((Path(recipe["output_dir"]) / "evaluation" / "metrics.json").read_text())["notes"]
    assert notes == [finetune_module.CHOSEN_BY_EVALUATION] * num_notes
    assert sum("eval_loss" in entry for entry in log_of(recipe)) == values["num_train_epochs"]


def test_patience_goes_on_after_an_interruption(recipe, monkeypatch):
    values = {"early_stopping_patience": 2, "learning_rate": 0.0, "num_train_epochs": 20}
    run_until_third_evaluation(monkeypatch, recipe, **values)
    run(recipe, **values)
    assert max(entry["epoch"] for entry in log_of(recipe)) == 3


def cut_off_before_the_end(monkeypatch, recipe: dict, **values) -> None:
    """Trains, and is interrupted after the last step, before the model is written."""

    def cut_off(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune_module, "finish_training", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, **values)


def test_a_stopped_training_that_was_cut_off_before_its_end_is_not_trained_on(recipe, monkeypatch):
    values = {"early_stopping_patience": 2, "learning_rate": 0.0, "num_train_epochs": 20}
    cut_off_before_the_end(monkeypatch, recipe, **values)
    monkeypatch.setattr(ClassificationTrainer, "train", None)
    run(recipe, **values)
    assert max(entry["epoch"] for entry in log_of(recipe)) == 3


@pytest.mark.parametrize("ends", ["after the last step", "before"])
def test_the_best_checkpoint_is_found_in_a_directory_that_was_moved(recipe, monkeypatch, tmp_path, ends):
    # With a greater loss as the better one, the first evaluation is the best.
    values = {"early_stopping_patience": 9, "metric_for_best_model": "loss", "greater_is_better": True}
    run(recipe, **values)
    moved = recipe | {"output_dir": str(tmp_path / "first")}
    (cut_off_before_the_end if ends == "after the last step" else run_until_third_evaluation)(
        monkeypatch, moved, **values
    )
    (tmp_path / "first.training").rename(tmp_path / "second.training")
    run(recipe, **values, output_dir=str(tmp_path / "second"))
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("classifier", "second"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    losses = [entry["eval_loss"] for entry in log_of(recipe) if "eval_loss" in entry]
    assert losses[0] == max(losses)


def test_a_best_checkpoint_that_is_gone_is_an_error(recipe, monkeypatch):
    values = {"early_stopping_patience": 9, "metric_for_best_model": "loss", "greater_is_better": True}
    cut_off_before_the_end(monkeypatch, recipe, **values)
    directory = Path(f"{recipe['output_dir']}.training")
    shutil.rmtree(min(directory.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2])))
    with pytest.raises(BeatsError, match=r"checkpoint-2: the best checkpoint of this training is gone"):
        run(recipe, **values)


def test_a_checkpoint_that_was_cut_off_is_not_averaged(recipe, monkeypatch):
    values = {"average_checkpoints": 2}
    cut_off_before_the_end(monkeypatch, recipe, **values)
    checkpoint = Path(f"{recipe['output_dir']}.training") / "checkpoint-99"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"cut off")
    run(recipe, **values)
    assert (Path(recipe["output_dir"]) / "model.safetensors").exists()


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_processes_expect_parameters_that_are_still_frozen(recipe, monkeypatch, gradient_checkpointing):
    def cut_off(self, *args, **kwargs):
        assert self.accelerator.ddp_handler.find_unused_parameters is True
        raise KeyboardInterrupt

    monkeypatch.setattr(ClassificationTrainer, "train", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, unfreeze_epoch=1, gradient_checkpointing=gradient_checkpointing)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"save_strategy": "no"}, "`early_stopping_patience` needs checkpoints"),
        ({"eval_share": None}, "There is nothing to evaluate on"),
        ({"average_checkpoints": 2}, "`average_checkpoints` excludes `load_best_model_at_end`"),
    ],
)
def test_early_stopping_needs_checkpoints_and_clips(recipe, values, message):
    with pytest.raises(UsageError, match=message):
        run(recipe, early_stopping_patience=1, **values)


@pytest.mark.parametrize("values", [{"save_strategy": "best"}, {"eval_strategy": "epoch"}])
def test_a_probe_leaves_the_choice_of_a_checkpoint_out(recipe, caplog, values):
    values = {"freeze": True, "eval_share": None, **values}
    training = Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | values)).training
    assert f"`freeze` does not use {next(reversed(values))}: left out." in caplog.text
    assert (training.save_strategy != "best", training.eval_strategy) == (True, "no")


# Metric of the best model


@pytest.fixture
def without_positives(recipe, folder, tmp_path) -> dict:
    """A recipe with several classes a clip, whose clips to evaluate on have none."""
    rows = []
    for number, path in enumerate(sorted(folder.rglob("*.wav"))):
        part = "test" if number % 4 == 0 else "train"
        rows.append(f"{path},{path.parent.name if part == 'train' else ''},{part}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["file_name,label,part", *rows, ""]))
    values = {"dataset": str(table), "select": {"part": "train"}, "eval_select": {"part": "test"}, "eval_share": None}
    return recipe | values | {"label_separator": ";", "task": "multi_label", "num_train_epochs": 4}


@pytest.mark.parametrize("space", [None, {"learning_rate": [1e-3]}])
@pytest.mark.parametrize("name", ["nonsense", "eval_mAP", "runtime"])
def test_a_metric_that_there_is_not_is_refused_before_the_first_step(recipe, monkeypatch, name, space):
    if space is not None:
        pytest.importorskip("optuna")
    monkeypatch.setattr(ClassificationTrainer, "training_step", None)
    message = rf"^`metric_for_best_model` is '{name}': choose loss, accuracy or macro_f1\.$"
    with pytest.raises(UsageError, match=message):
        run(recipe, metric_for_best_model=name, search_space=space)


def test_names_of_metrics_are_those_of_an_evaluation():
    scores, several = np.array([[0.2, 0.7], [0.6, 0.1]]), Labels("multi_label", ["a", "b"], [[1], [0]])
    for labels in (several, Labels("single_label", ["a", "b"], [[1], [0]])):
        found = compute_metrics(Predictions(["1", "2"], scores, labels.as_array(), labels.names))
        assert metric_names(labels) == tuple(found)
    assert metric_names(Labels("frames", ["a", "b"], [])) == metric_names(several)


def test_a_metric_that_is_undefined_is_not_better(without_positives):
    run(without_positives, early_stopping_patience=2, metric_for_best_model="mAP")
    log = log_of(without_positives)
    # Of the first evaluation, nothing is known either.
    assert [entry["epoch"] for entry in log if "eval_loss" in entry] == [1, 2, 3]
    assert not any("eval_mAP" in entry for entry in log)
    report = json.loads((Path(without_positives["output_dir"]) / "evaluation" / "metrics.json").read_text())
    assert (report["description"]["epoch"], report["notes"]) == (3, [])


def test_a_search_by_a_metric_that_is_undefined_says_so(without_positives):
    pytest.importorskip("optuna")
    values = {"search_space": {"learning_rate": [1e-3]}, "num_trials": 2, "num_train_epochs": 1}
    with pytest.raises(UsageError, match="`metric_for_best_model` is mAP, which is undefined for the clips"):
        run(without_positives, **values, metric_for_best_model="mAP")
    assert not Path(without_positives["output_dir"]).exists()
    run(without_positives, **values, metric_for_best_model="loss")


# Divergence


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"logging_steps": 2, "eval_share": None}, "at step 2 the loss is nan"),
        ({"logging_steps": 100, "eval_share": None}, "at step 12 weights are not finite"),
        ({"logging_steps": 100}, "logits are not finite: the training has diverged"),
        ({"logging_steps": 100, "eval_strategy": "no", "ema_decay": 0.5}, "at step 8 weights are not finite"),
    ],
)
def test_a_training_that_diverges_writes_no_model(recipe, values, message):
    for _ in range(2):
        with pytest.raises(DivergenceError, match=message):
            run(recipe, **values, learning_rate=1e30, max_grad_norm=0.0)
        assert not Path(recipe["output_dir"]).exists()


# By the loss of a step, or by the evaluation.
@pytest.mark.parametrize("logging_steps", [1, 100])
def test_a_search_goes_on_after_a_trial_that_diverges(recipe, caplog, logging_steps):
    pytest.importorskip("optuna")
    values = {"logging_steps": logging_steps, "max_grad_norm": 0.0, "num_train_epochs": 1}
    run(recipe, search_space={"learning_rate": [1e30, 3e-3]}, num_trials=4, **values)
    assert "Best of 4 trials: learning_rate 0.003 (eval_loss" in caplog.text
    report = json.loads((Path(recipe["output_dir"]) / "evaluation" / "metrics.json").read_text())
    assert report["notes"] == [finetune_module.CHOSEN_BY_SEARCH]


def test_a_search_in_which_every_trial_diverges_says_so(recipe):
    pytest.importorskip("optuna")
    with pytest.raises(DivergenceError, match="all 2 trials have diverged"):
        run(recipe, search_space={"learning_rate": [1e30]}, num_trials=2, max_grad_norm=0.0, num_train_epochs=1)
    assert not Path(recipe["output_dir"]).exists()


# Weights of classes


def test_balanced_weights_follow_the_numbers_of_clips():
    single = Labels("single_label", ["a", "b", "c"], [[0], [0], [0], [1]])
    single_weights = class_weights(single, "balanced", "single_label_classification")
    # scikit-learn's rule; "c" has no clip.
    assert single_weights.tolist() == pytest.approx([4 / 9, 4 / 3, 1])
    several = Labels("multi_label", ["a", "b", "c"], [[0], [0], [0, 1], []])
    weights = class_weights(several, "balanced", "multi_label_classification")
    assert weights.tolist() == pytest.approx([1 / 3, 3, 1])
    assert class_weights(single, {"b": 5}, "single_label_classification").tolist() == [1, 5, 1]


def test_numbers_as_names_have_weights():
    labels = Labels("single_label", ["1", "2"], [[0], [1]])
    assert class_weights(labels, {1: 0.5}, "single_label_classification").tolist() == [0.5, 1]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("even", r"`class_weights` must be balanced or \{class: weight\}, got 'even'"),
        ({"dog": 1}, "there is no class 'dog', only 'a', 'b'"),
        ({"a": 0}, r"`class_weights\.a` must be a positive number, got 0"),
        ({"a": float("nan")}, "must be a positive number, got nan"),
        ({"a": "2"}, "must be a positive number, got '2'"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(wanted, message):
    with pytest.raises(BeatsError, match=message):
        class_weights(Labels("single_label", ["a", "b"], [[0], [1]]), wanted, "single_label_classification")


def test_balanced_weights_of_events_are_refused():
    events = Labels("frames", ["a", "b"], [[(0, 1.0, 1.5)], [(1, 0.0, 9.0)]])
    with pytest.raises(BeatsError, match=r"counts clips, but the loss of events is that of moments"):
        class_weights(events, "balanced", "multi_label_classification")
    assert class_weights(events, {"b": 2}, "multi_label_classification").tolist() == [1, 2]


def test_the_weight_of_a_clip_does_not_depend_on_its_batch():
    config = BeatsConfig(num_labels=2, problem_type="single_label_classification")
    logits, targets, weights = torch.randn(4, 2), torch.tensor([0, 1, 1, -100]), torch.tensor([0.1, 10.0])
    whole = weighted_loss(targets, logits, config, weights)
    alone = [weighted_loss(targets[i : i + 1], logits[i : i + 1], config, weights) for i in range(4)]
    torch.testing.assert_close(torch.stack(alone[:3]).mean(), whole)
    assert alone[3] == 0


def test_a_training_without_a_step_is_an_error(recipe):
    values = {"per_device_train_batch_size": 1000, "dataloader_drop_last": True, "save_strategy": "no"}
    for max_steps in (-1, 4):
        with pytest.raises(UsageError, match=r"has no step, .* `dataloader_drop_last: false`"):
            run(recipe, **values, max_steps=max_steps)
    assert not Path(recipe["output_dir"]).exists()


def test_a_training_needs_a_batch_for_each_process(tmp_path):
    for world_size, splits, message in ((2, False, "has no step"), (2, True, "reached"), (1, False, "reached")):
        arguments = SimpleNamespace(train_batch_size=7, world_size=world_size, dataloader_drop_last=True)
        accelerator = SimpleNamespace(split_batches=splits)
        trainer: Any = SimpleNamespace(train_dataset=range(12), args=arguments, accelerator=accelerator)
        # What comes next.
        trainer.is_world_process_zero = lambda: pytest.fail("reached")
        with pytest.raises((UsageError, pytest.fail.Exception), match=message):
            train_and_save(trainer, tmp_path / "model", {})


def test_the_loss_has_the_weights():
    torch.manual_seed(0)
    labels = Labels("single_label", ["a", "b"], [[0], [1]])
    values = torch.randn(3, 32, 128)
    weights = torch.tensor([1.0, 7.0])
    for problem_type, targets in (
        ("single_label_classification", torch.tensor([0, 1, 1])),
        ("multi_label_classification", torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])),
    ):
        model = BeatsForAudioClassification(BeatsConfig(**ENCODER, num_labels=2, problem_type=problem_type)).eval()
        plain = model(values, labels=targets).loss
        weigh_classes(model, labels, {"b": 7})
        output = model(values, labels=targets)
        expected = (
            (cross_entropy(output.logits, targets, reduction="none") * weights[targets]).mean()
            if targets.ndim == 1
            else binary_cross_entropy_with_logits(output.logits, targets, pos_weight=weights)
        )
        torch.testing.assert_close(output.loss, expected)
        assert (output.loss - plain).abs() > 1e-3
    frames = BeatsForAudioFrameClassification(BeatsConfig(**ENCODER, num_labels=2)).eval()
    frames.config.problem_type = "multi_label_classification"
    targets = torch.ones(3, 2, 2)
    plain = frames(values, labels=targets).loss
    weigh_classes(frames, labels, {"a": 7, "b": 7})
    torch.testing.assert_close(frames(values, labels=targets).loss, 7 * plain)


def test_a_heavy_class_is_predicted(recipe):
    scores = {}
    for name, values in (("full", {}), ("probe", {"freeze": True})):
        for weight in (1.0, 1000.0):
            output = Path(recipe["output_dir"]).with_name(f"{name}-{weight:g}")
            run(recipe, **values, class_weights={"tone": weight}, output_dir=str(output), max_steps=4)
            lines = (output / "evaluation" / "predictions.csv").read_text().splitlines()
            column = lines[0].split(",").index("score tone")
            scores[name, weight] = np.mean([float(line.split(",")[column]) for line in lines[1:]])
    assert scores["full", 1000.0] > scores["full", 1.0] + 0.1
    assert scores["probe", 1000.0] > scores["probe", 1.0]


def test_the_logistic_regression_has_the_weights():
    generator = np.random.default_rng(0)
    values = generator.standard_normal((40, 2)).astype(np.float32)
    clips = Embeddings(values, np.arange(40), [str(clip) for clip in range(40)])
    names, rows = ["a", "b"], [[int(clip >= 30)] for clip in range(40)]
    single, several = Labels("single_label", names, rows), Labels("multi_label", names, rows)
    scores = {}
    for labels in (single, several):
        for weights in (None, np.array([1.0, 3.0]), np.array([1.0, 1000.0])):
            settings = Settings(f"{labels.task}_classification", weights=weights)
            predictions = predict(fit_classifier(clips, labels, settings), clips, labels)
            scores[labels.task, None if weights is None else weights[1]] = predictions.scores[:, 1]
    for task in ("single_label", "multi_label"):
        assert scores[task, None].mean() < 0.3 < scores[task, 3.0].mean() < 0.7 < scores[task, 1000.0].mean()
    # As if each clip of the class were three.
    thrice = np.concatenate([np.arange(40), np.repeat(np.arange(30, 40), 2)])
    mean, std = values.mean(axis=0), values.std(axis=0)
    classifier = LogisticRegression(max_iter=2000).fit((values[thrice] - mean) / std, (thrice >= 30).astype(int))
    expected = classifier.predict_proba((values - mean) / std)[:, 1]
    np.testing.assert_allclose(scores["single_label", 3.0], expected, atol=1e-3)


# Average of the weights


def test_the_average_is_that_of_all_steps(recipe, monkeypatch):
    seen = []
    original = WeightAverage.on_step_end

    def record(self, args, state, control, *, model, **kwargs):
        seen.append({name: value.detach().clone() for name, value in model.named_parameters()})
        original(self, args, state, control, model=model, **kwargs)

    monkeypatch.setattr(WeightAverage, "on_step_end", record)
    run(recipe, ema_decay=0.5)
    torch.manual_seed(0)
    start = BeatsForAudioClassification(
        BeatsConfig(**ENCODER, num_labels=2, problem_type="single_label_classification")
    )
    written = load_file(Path(recipe["output_dir"]) / "model.safetensors")
    assert len(seen) == 8
    for name, value in start.named_parameters():
        expected = value.detach()
        for step, weights in enumerate(seen, start=1):
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * weights[name]
        torch.testing.assert_close(written[name], expected, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(written[name], seen[-1][name]) for name in written if name in seen[-1])


def test_the_average_goes_on_after_an_interruption(recipe, monkeypatch):
    values = recipe | {"ema_decay": 0.5, "early_stopping_patience": 9}
    run(values, output_dir=str(Path(recipe["output_dir"]).with_name("whole")))
    run_until_third_evaluation(monkeypatch, values)
    run(values)
    expected = load_file(Path(recipe["output_dir"]).with_name("whole") / "model.safetensors")
    for name, value in load_file(Path(recipe["output_dir"]) / "model.safetensors").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_a_checkpoint_is_complete_once_it_has_the_average(recipe, monkeypatch):
    """The state of `Trainer` is the sign of a complete checkpoint."""
    original, checkpoints = TrainerState.save_to_json, []

    def look(self, path):
        checkpoint = Path(path).parent
        if checkpoint.name.startswith("checkpoint-"):
            checkpoints.append((checkpoint / AVERAGE).exists())
        original(self, path)

    monkeypatch.setattr(TrainerState, "save_to_json", look)
    run(recipe, ema_decay=0.5, num_train_epochs=2)
    assert checkpoints == [True, True]


def test_a_model_is_evaluated_with_the_average_and_trained_without(recipe):
    model = torch.nn.Linear(2, 2)
    own = model.weight.detach().clone()
    average = WeightAverage(0.9)
    with average.applied(model):
        assert torch.equal(model.weight, own)
    average.values = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    with average.applied(model):
        assert not model.weight.any()
    assert torch.equal(model.weight, own)


# Going on after an interruption


def test_a_training_does_not_go_on_with_other_labels(recipe, folder, tmp_path, monkeypatch):
    table = tmp_path / "table.csv"
    rows = [f"{path},{path.parent.name}" for path in sorted(folder.rglob("*.wav"))]
    table.write_text("\n".join(["file_name,label", *rows, ""]))
    recipe["dataset"] = str(table)
    run_until_third_evaluation(monkeypatch, recipe)
    # In the same order as before.
    table.write_text(table.read_text().replace(",tone", ",tune"))
    with pytest.raises(UsageError, match="was begun with another `labels`"):
        run(recipe)


def test_a_training_does_not_go_on_with_other_clips_to_evaluate_on(recipe, folder, tmp_path, monkeypatch):
    recipe |= {"eval_share": None, "eval_dataset": str(shutil.copytree(folder, tmp_path / "others"))}
    run_until_third_evaluation(monkeypatch, recipe, allow_overlap=True)
    next((tmp_path / "others").rglob("*.wav")).unlink()
    with pytest.raises(UsageError, match="was begun with another `test_clips`"):
        run(recipe, allow_overlap=True)


@pytest.mark.parametrize(
    "values",
    [
        {"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "balanced_sampling": True},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"dataloader_num_workers": 2}, marks=pytest.mark.slow),
        pytest.param(
            {"train_sampling_strategy": "group_by_length", "gradient_accumulation_steps": 2}, marks=pytest.mark.slow
        ),
    ],
    ids=["workers that live on, balanced", "one process", "workers", "by length, accumulated"],
)
def test_an_interrupted_training_is_the_one_in_one_go(values, recipe, monkeypatch):
    dropout = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "layerdrop": 0.2}
    augmentation = {"roll": True, "mixup_alpha": 0.5, "time_mask_ratio": 0.2, "freq_mask_bins": 8}
    values = recipe | augmentation | values
    values |= {"crop_seconds": 0.2, "num_crops": 2, "model_config": ENCODER | dropout, "num_train_epochs": 3}
    values |= {"per_device_train_batch_size": 3, "save_strategy": "steps", "save_steps": 1}
    whole = values | {"output_dir": str(Path(recipe["output_dir"]).with_name("whole"))}
    run(whole)
    expected = [entry["loss"] for entry in log_of(whole) if "loss" in entry]
    assert len(expected) == (24 if values.get("gradient_accumulation_steps") is None else 12)
    original = ClassificationTrainer.training_step
    # In the middle of an epoch, and at its end.
    for step in (2, len(expected) // 3 * 2):

        def cut_off(self, *args, step=step, **kwargs):
            if self.state.global_step == step:
                raise KeyboardInterrupt
            return original(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(ClassificationTrainer, "training_step", cut_off)
            with pytest.raises(KeyboardInterrupt):
                run(values)
    run(values)
    assert [entry["loss"] for entry in log_of(recipe) if "loss" in entry] == pytest.approx(expected, rel=1e-6)


def test_a_crop_that_is_repeated_in_an_epoch_is_another_one(folder, recipe):
    arguments = Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | {"crop_seconds": 0.1}))
    clips, labels = load_training_clips(arguments)
    targets = LabelledClips(labels, True, BeatsFeatureExtractor(), BeatsConfig())
    crops = TrainingCrops(clips, targets, arguments.data, seed=3)
    first, second, again = (crops[pair]["waveform"] for pair in ((5, 0), (5, 1), (5, 1)))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, again)
    np.testing.assert_array_equal(first, crops[5]["waveform"])
    crops.set_epoch(1)
    assert not np.array_equal(first, crops[5]["waveform"])


# Unfreezing


@pytest.mark.parametrize("plugin", ["fsdp", "deepspeed"])
def test_an_average_of_divided_weights_is_refused(plugin, recipe, monkeypatch):
    original = ClassificationTrainer.create_accelerator_and_postprocess

    def pretend(self):
        original(self)
        setattr(self, f"is_{plugin}_enabled", True)

    monkeypatch.setattr(ClassificationTrainer, "create_accelerator_and_postprocess", pretend)
    arguments = TrainingArguments(recipe["output_dir"], use_cpu=True, report_to="none")
    with pytest.raises(BeatsError, match="`ema_decay` is not for FSDP and DeepSpeed"):
        ClassificationTrainer(
            torch.nn.Linear(2, 2),
            arguments,
            feature_extractor=BeatsFeatureExtractor(),
            weight_average=WeightAverage(0.9),
        )


def test_the_layers_begin_to_learn_by_epochs(recipe, monkeypatch):
    seen = {}
    original = UnfreezeByEpoch.on_epoch_begin

    def record(self, args, state, control, *, model, **kwargs):
        original(self, args, state, control, model=model, **kwargs)
        learning = {name for name, value in model.named_parameters() if value.requires_grad}
        parts = {"classifier": "classifier.", "1": "layers.1.", "0": "layers.0.", "patches": "patch_embedding"}
        seen[round(state.epoch or 0)] = [
            part for part, text in parts.items() if any(text in name for name in learning)
        ]

    monkeypatch.setattr(UnfreezeByEpoch, "on_epoch_begin", record)
    run(recipe, unfreeze_epoch=1, unfreeze_layers=1)
    assert seen == {
        0: ["classifier"],
        1: ["classifier", "1"],
        2: ["classifier", "1", "0"],
        3: ["classifier", "1", "0", "patches"],
    }


@pytest.mark.parametrize(
    ("values", "is_warned"),
    [
        ({"unfreeze_epoch": 4}, True),
        ({"unfreeze_epoch": 3}, False),
        # Two steps are an epoch.
        ({"unfreeze_epoch": 2, "max_steps": 4}, True),
        ({"unfreeze_epoch": 1, "max_steps": 4}, False),
    ],
)
def test_an_encoder_that_never_learns_is_warned_of(recipe, monkeypatch, values, is_warned):
    said = []
    monkeypatch.setattr(layerwise_module.logger, "warning_once", said.append)
    run(recipe, **values)
    expected = [f"`unfreeze_epoch` is {values['unfreeze_epoch']}"] if is_warned else []
    assert [message.split(",")[0] for message in said] == expected


@pytest.mark.parametrize(
    ("values", "is_warned"),
    [
        ({"warmup_steps": 5, "max_steps": 4}, True),
        ({"warmup_steps": 4, "max_steps": 4}, False),
        ({"warmup_steps": 0.5, "max_steps": 4}, False),
        # Two steps are an epoch.
        ({"warmup_steps": 3, "num_train_epochs": 1}, True),
        ({"warmup_steps": 3, "num_train_epochs": 1, "lr_scheduler_type": "constant"}, False),
    ],
)
def test_a_warm_up_that_is_longer_than_the_training_is_warned_of(recipe, monkeypatch, values, is_warned):
    said = []
    monkeypatch.setattr(pretraining_module.logger, "warning_once", said.append)
    run(recipe, **values)
    assert len(said) == is_warned
    assert all(message.startswith(f"`warmup_steps` is {values['warmup_steps']}, but the tra") for message in said)


def test_what_is_frozen_keeps_its_weights(recipe):
    run(recipe, unfreeze_epoch=4, weight_decay=0.5)
    torch.manual_seed(0)
    start = BeatsForAudioClassification(
        BeatsConfig(**ENCODER, num_labels=2, problem_type="single_label_classification")
    )
    written = load_file(Path(recipe["output_dir"]) / "model.safetensors")
    for name, value in start.state_dict().items():
        assert torch.equal(written[name], value) == name.startswith("beats."), name
    output = Path(recipe["output_dir"]).with_name("later")
    run(recipe, unfreeze_epoch=3, output_dir=str(output))
    name = "beats.encoder.layers.0.fc1.weight"
    (name,) = [key for key in written if "layers.0." in key and key.endswith("fc1.weight")] or [name]
    assert not torch.equal(load_file(output / "model.safetensors")[name], start.state_dict()[name])


def test_keys_that_exclude_each_other_are_refused(recipe):
    for values, message in (
        ({"lora": {}, "unfreeze_epoch": 1}, "`lora` never trains the encoder"),
        ({"average_checkpoints": 2, "ema_decay": 0.9}, "`average_checkpoints` and `ema_decay` exclude each other"),
        ({"search_space": {"learning_rate": [1e-4]}, "freeze": True}, "`search_space` needs full fine-tuning"),
        ({"search_space": {"learning_rate": [1e-4]}, "eval_share": None}, "`search_space` needs .* clips to evaluate"),
    ):
        with pytest.raises(UsageError, match=message):
            run(recipe, **values)


# Search


def test_all_processes_of_a_search_have_the_best_values(recipe, monkeypatch):
    pytest.importorskip("optuna")
    # As transformers, on all processes but the first.
    trainer = SimpleNamespace(hyperparameter_search=lambda **options: None)
    found = {"num_trials": 2, "values": {"learning_rate": 0.5}, "objective": 1.0}
    answers = iter([None, found])
    monkeypatch.setattr(search_module, "broadcast_object_list", lambda objects: [next(answers)])
    arguments = Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | {"search_space": {"learning_rate": [0.5, 1]}}))
    search_module.search_hyperparameters(arguments.training, arguments.tuning, lambda training: trainer, {})
    assert arguments.training.learning_rate == 0.5


def test_a_search_trains_with_the_best_values(recipe, monkeypatch):
    pytest.importorskip("optuna")
    tried = []
    original = ClassificationTrainer._get_train_sampler

    def record(self, *args, **kwargs):
        tried.append(self.args.learning_rate)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ClassificationTrainer, "_get_train_sampler", record)
    space = {"learning_rate": [0.0, 3e-3], "num_train_epochs": {"low": 2, "high": 6}}
    run(recipe, search_space=space, num_trials=4, metric_for_best_model="loss")
    assert len(tried) == 5
    assert {*tried[:4]} == {0.0, 3e-3}
    assert tried[-1] == 3e-3
    # Again, the same values.
    run({**recipe, "output_dir": f"{recipe['output_dir']}-again"}, search_space=space, num_trials=4)
    assert tried[5:9] == tried[:4]
    # An interrupted training goes on with what was found.
    output, train = f"{recipe['output_dir']}-later", ClassificationTrainer.train

    def stop(self, *args, **kwargs):
        if self.args.save_strategy != "no":
            raise KeyboardInterrupt
        return train(self, *args, **kwargs)

    monkeypatch.setattr(ClassificationTrainer, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        run({**recipe, "output_dir": output}, search_space=space, num_trials=4)
    monkeypatch.setattr(ClassificationTrainer, "train", train)
    number = len(tried)
    run({**recipe, "output_dir": output}, search_space=space, num_trials=4)
    assert tried[number:] == [3e-3]
    # Nothing is left of it.
    assert not list(Path(output).parent.glob("*.training"))
    assert not list(Path(recipe["output_dir"]).parent.glob(".search-*"))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "`search_space` is empty"),
        ({"learning_rat": [1]}, "holds 'learning_rat', which is no training argument; did you mean learning_rate"),
        ({"label_smoothing_factor": [0.0, 0.1]}, "holds 'label_smoothing_factor', by which trials would not differ"),
        ({"early_stopping_patience": [1, 3]}, "holds 'early_stopping_patience', by which trials would not differ"),
        ({"metric_for_best_model": ["accuracy", "loss"]}, "choose learning_rate, .* or optim_args"),
        ({"save_steps": [1, 3]}, "by which trials would not differ"),
        ({"bf16": [True, False]}, "by which trials would not differ"),
        ({"num_train_epochs": [1, 2]}, "holds 'num_train_epochs', but `max_steps` counts: leave it out"),
        ({"learning_rate": 1e-4}, r"`search_space\.learning_rate` must be a list or \{low"),
        ({"learning_rate": {"low": 1e-4}}, r"`search_space\.learning_rate` must be a list or \{low"),
    ],
)
def test_search_spaces_that_cannot_be_used_are_refused(recipe, space, message):
    with pytest.raises(UsageError, match=message):
        # Before the first clip is read.
        Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | {"search_space": space, "max_steps": 4}))


VALUES_TO_TRY = {
    "learning_rate": [1e-3, 2e-3],
    "lr_scheduler_type": ["linear", "cosine"],
    "lr_scheduler_kwargs": [{"num_cycles": 0.5}, {"num_cycles": 2.0}],
    "warmup_steps": [0.25, 0.75],
    "num_train_epochs": [1, 2],
    "max_steps": [1, 3],
    "per_device_train_batch_size": [2, 5],
    "gradient_accumulation_steps": [1, 2],
    "weight_decay": [0.0, 0.5],
    "max_grad_norm": [0.01, 1],
    "adam_beta1": [0.1, 0.9],
    "adam_beta2": [0.5, 0.9],
    "adam_epsilon": [1e-2, 1e-8],
    "optim": ["sgd", "adamw_torch"],
    "optim_args": ["momentum=0.1", "momentum=0.9"],
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("warmup_steps", "optim") else pytest.mark.slow)
        for name in VALUES_TO_TRY
    ],
)
def test_a_trial_reads_what_can_be_searched_as_the_training_does(recipe, monkeypatch, name):
    grid = pytest.importorskip("optuna").samplers.GridSampler({name: VALUES_TO_TRY[name]})
    assert {*VALUES_TO_TRY} == {*SEARCHABLE}
    # Each once.
    monkeypatch.setattr("optuna.samplers.TPESampler", lambda seed: grid)
    trained = []
    original = ClassificationTrainer.train

    def record(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        trained.append({key: value.clone() for key, value in self.model.state_dict().items()})
        return result

    monkeypatch.setattr(ClassificationTrainer, "train", record)
    others = {"num_train_epochs": 2, "lr_scheduler_type": "cosine", "max_grad_norm": 0.1}
    others |= {"optim": "sgd"} if name == "optim_args" else {}
    run(recipe | others, search_space={name: VALUES_TO_TRY[name]}, num_trials=2)
    first, second, last = trained
    is_same = [all(torch.equal(value, last[key]) for key, value in trial.items()) for trial in (first, second)]
    assert sorted(is_same) == [False, True]


def test_without_optuna_the_message_says_what_to_install(recipe, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BeatsError, match=r"`search_space` needs Optuna: pip install 'transformers-beats\[search\]'"):
        run(recipe, search_space={"learning_rate": [1e-4]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"label_smoothing_factor": 0.1, "class_weights": "balanced"},
            "`label_smoothing_factor` is for one class",
        ),
        ({"label_smoothing_factor": 0.1, "mixup_alpha": 0.5}, "`label_smoothing_factor` is for one class"),
        ({"mixup_alpha": 0.5, "per_device_train_batch_size": 1}, "`mixup_alpha` mixes clips of a batch"),
        ({"mixup_alpha": 0.5, "batch_seconds": 1.0}, "`mixup_alpha` mixes clips of a batch"),
    ],
)
def test_what_would_have_no_effect_is_refused(recipe, values, message):
    with pytest.raises(UsageError, match=message):
        run(recipe, **values)


# On the command line


def test_lists_and_mappings_may_stand_where_a_text_may():
    settings = find_settings(FINETUNE_ARGUMENTS)
    for text, expected in (("my sounds", "my sounds"), ("007", "007"), ("[a, '7']", ["a", "7"]), ("a: b", "a: b")):
        assert read_line(["--dataset", text], settings) == {"dataset": expected}
    assert read_line(["--class_weights", "balanced"], settings) == {"class_weights": "balanced"}
    assert read_line(["--class_weights", "{dog: 2}"], settings) == {"class_weights": {"dog": 2}}
    assert read_line(["--class_weights.dog", "2"], settings) == {"class_weights": {"dog": 2}}
    assert read_line(["--label_separator", "|"], settings) == {"label_separator": "|"}
    for separator in (",", "|", ":", "-", "#", "&", "*", "%", "@", ">", "~", "?", "!", "\t", " "):
        values = read_line([f"--label_separator={separator}"], settings)
        values |= {"dataset": "x", "output_dir": "y"}
        (labels,) = [part for part in build_arguments(FINETUNE_ARGUMENTS, values) if hasattr(part, "label_separator")]
        assert labels.label_separator == separator
