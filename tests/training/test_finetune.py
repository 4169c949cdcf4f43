# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Fine-tuning and evaluation by command: what they learn, write, resume and refuse."""

import importlib.util
import io
import itertools
import json
import re
import shutil
import sys
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tiny import ENCODER

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForAudioFrameClassification,
    BeatsForPreTraining,
    BeatsModel,
)
from transformers_beats.training import classifiers as classifiers_module
from transformers_beats.training import evaluate as evaluate_module
from transformers_beats.training import finetune as finetune_module
from transformers_beats.training.classifiers import start_fingerprint
from transformers_beats.training.config import arguments as training_arguments
from transformers_beats.training.config.recipes import build_arguments
from transformers_beats.training.data.augmentation import AugmentationArguments, LengthSampler
from transformers_beats.training.data.folds import FoldArguments, draw_folds, draw_share, read_folds
from transformers_beats.training.data.labels import LabelArguments, Labels
from transformers_beats.training.data.sources import DataArguments
from transformers_beats.training.evaluate import EvaluateArguments, evaluate
from transformers_beats.training.finetune import FINETUNE_ARGUMENTS, Arguments, finetune
from transformers_beats.training.reports import report as reports
from transformers_beats.training.reports.scoring import clip_scores
from transformers_beats.training.trainers import checkpoints as checkpoints_module
from transformers_beats.training.trainers import classification as classification_module
from transformers_beats.utils.errors import BeatsError


CLASSES = {"high": 3000, "low": 200, "noise": None}
SECONDS = 0.6


def write_clip(path: Path, frequency: int | None, seed: int, seconds: float = SECONDS) -> None:
    generator = np.random.default_rng(seed)
    samples = 0.3 * generator.standard_normal(round(16000 * seconds))
    if frequency is not None:
        samples = 0.03 * samples + 0.5 * np.sin(np.arange(len(samples)) * 2 * np.pi * frequency / 16000)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(samples, -1, 1), 16000)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Eight clips of each of three classes, told apart by their pitch; with folds in a table."""
    rows = []
    for label, (name, frequency) in enumerate(CLASSES.items()):
        for number in range(8):
            path = Path(name) / f"{number}.wav"
            write_clip(tmp_path / "clips" / path, frequency, seed=10 * label + number)
            rows.append({"file_name": f"clips/{path}", "label": name, "fold": number % 2 + 1})
    datasets.Dataset.from_list(rows).to_csv(str(tmp_path / "clips.csv"))
    return tmp_path / "clips"


@pytest.fixture
def recipe(folder, tmp_path, no_pictures) -> dict:
    return {
        "dataset": str(folder),
        "crop_seconds": 1.0,
        "model_config": ENCODER,
        "output_dir": str(tmp_path / "classifier"),
        "max_steps": 12,
        "per_device_train_batch_size": 8,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "save_steps": 3,
        "disable_tqdm": True,
        # Whether a model has learned anything is seen best on what it has learned from.
        "allow_overlap": True,
    }


def run(recipe: dict, **values) -> dict:
    return finetune(Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | values)))


def evaluate_directory(model: Path, dataset: Path, output_dir: Path, **labels) -> dict:
    arguments = EvaluateArguments(model=str(model), output_dir=str(output_dir), batch_size=5)
    return evaluate(arguments, DataArguments(dataset=str(dataset), crop_seconds=1.0), LabelArguments(**labels))


# What is learned and written


@pytest.mark.parametrize("no_pictures", [False])
def test_a_classifier_learns_and_evaluate_finds_the_same(recipe, folder, tmp_path):
    metrics = run(recipe, eval_dataset=str(folder), max_steps=40)
    assert metrics["accuracy"] > 0.9
    output = Path(recipe["output_dir"])
    names = {"config.json", "model.safetensors", "preprocessor_config.json", "log_history.json", "evaluation"}
    assert names <= {path.name for path in output.iterdir()}
    assert BeatsForAudioClassification.from_pretrained(output).config.id2label == dict(enumerate(CLASSES))
    report = json.loads((output / "evaluation" / "metrics.json").read_text())
    assert report["metrics"] == metrics
    assert report["description"]["model"] == str(output)
    assert report["description"]["base_model"] == "random weights"
    assert not list(output.parent.glob("classifier.training/checkpoint-*"))

    again = evaluate_directory(output, folder, tmp_path / "report")
    assert again == pytest.approx(metrics, abs=1e-6)
    assert (tmp_path / "report" / "confusion_matrix.png").stat().st_size > 1000


def test_the_last_lines_name_what_was_written(recipe, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe | {"max_steps": 1}))
    model, report, folds = recipe["output_dir"], str(tmp_path / "report"), str(tmp_path / "folds")
    finetune_module.main(["--config", str(tmp_path / "recipe.yaml")])
    text = capsys.readouterr().out
    assert f"\nModel:  {model} (learned from 24 clips)\n" in text
    assert text.endswith(f"    transformers-beats evaluate --model {model} --dataset FOLDER --output_dir REPORT\n")
    evaluate_module.main(["--model", model, "--dataset", str(folder), "--output_dir", report])
    assert capsys.readouterr().out.endswith(f"\nReport: {report}/report.html\n")
    finetune_module.main(["--config", str(tmp_path / "recipe.yaml"), "--num_folds", "2", "--output_dir", folds])
    text = capsys.readouterr().out
    assert f"\nModel:  {folds}/fold-* (fold-1, fold-2: each learned from the other folds)\n" in text
    assert "the same command with --final" in text
    assert text.endswith(f"    transformers-beats tag RECORDING.wav --model {folds}/fold-1\n")
    assert "bootstrap over clips" in text
    assert "worst classes" in text
    # But for places, all lines fit.
    assert all(len(line) <= 80 or folds in line for line in text.splitlines())


def test_the_final_model_learns_from_all_clips_for_as_long_as_the_folds(recipe, capsys):
    values = {"num_folds": 2, "max_steps": -1, "num_train_epochs": 4, "save_strategy": "epoch", "learning_rate": 1e-2}
    values |= {"early_stopping_patience": 1, "early_stopping_threshold": 10.0}
    first = run(recipe, **values)
    output = Path(recipe["output_dir"])
    before = (output / "fold-1" / "model.safetensors").stat().st_mtime_ns
    assert run(recipe, **values, final=True) == first
    assert (output / "fold-1" / "model.safetensors").stat().st_mtime_ns == before
    # No epoch is better than the first by as much as 10: the folds stop after two of four epochs.
    log = json.loads((output / "final" / "log_history.json").read_text())
    assert [entry["epoch"] for entry in log if "train_loss" in entry] == [2.0]
    assert len(np.load(output / "final" / "training_clips.npy")) == 24
    card = ModelCard.load(output / "final" / "README.md")
    assert "2 (the median of those of the folds: 2)" in card.text
    assert "The epoch of the weights was chosen by the clips that they are evaluated on" in card.text
    assert {result.metric_type for result in card.data.eval_results} == {"accuracy", "f1"}
    assert (output / "final" / "confusion_matrix.png").exists()
    assert "to epoch 2: the median of the folds (2))\nUse " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("num_folds", "batch_size", "steps", "in_card", "on_screen"),
    [
        # Of 12 clips, two steps an epoch; of all 24, three.
        (2, 8, 6, "2 (the median of those of the folds: 2)", "to epoch 2: the median of the folds (2))"),
        # Of 16 clips, one step an epoch; of all 24, two, the second of which has fewer clips.
        (3, 16, 6, "3 (those of the folds: 4)", "to epoch 3 (the folds: 4))"),
    ],
)
def test_steps_of_the_final_model_are_for_as_many_epochs(
    recipe, capsys, num_folds, batch_size, steps, in_card, on_screen
):
    values = {"num_folds": num_folds, "max_steps": 4, "per_device_train_batch_size": batch_size}
    run(recipe, **values, save_strategy="no", final=True)
    final = Path(recipe["output_dir"]) / "final"
    log = json.loads((final / "log_history.json").read_text())
    assert log[-1]["step"] == steps
    assert f"epoch: {in_card}\n" in ModelCard.load(final / "README.md").text
    assert on_screen in capsys.readouterr().out


@pytest.mark.parametrize("no_pictures", [False])
def test_folds_have_one_report_with_all_clips(recipe):
    run(recipe, num_folds=2, max_steps=-1, num_train_epochs=2)
    report = Path(recipe["output_dir"]) / "evaluation"
    content = json.loads((report / "metrics.json").read_text())
    assert (content["num_clips"], content["description"]["split"]) == (24, "2 folds")
    low, high = content["intervals"]["accuracy"]
    assert low <= content["metrics"]["accuracy"] <= high
    page = (report / "report.html").read_text()
    assert page.count("<audio") == 12
    assert "Learning curves" in page
    assert (report / "learning_curve.png").exists()


def test_an_evaluation_follows_every_epoch(recipe, folder):
    run(recipe, eval_dataset=str(folder), max_steps=-1, num_train_epochs=2)
    log = json.loads((Path(recipe["output_dir"]) / "log_history.json").read_text())
    assert [entry["epoch"] for entry in log if "eval_accuracy" in entry] == [1.0, 2.0]
    assert (Path(recipe["output_dir"]) / "evaluation" / "learning_curve.png").exists()
    values = {"eval_strategy": "no", "output_dir": f"{recipe['output_dir']}-without"}
    run(recipe, eval_dataset=str(folder), max_steps=1, **values)
    log = json.loads((Path(values["output_dir"]) / "log_history.json").read_text())
    assert not any("eval_accuracy" in entry for entry in log)


def test_a_new_classifier_is_no_news(recipe, tmp_path, caplog):
    BeatsForPreTraining(BeatsConfig(**ENCODER)).save_pretrained(tmp_path / "pretrained")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "pretrained")
    run(recipe, model_name_or_path=str(tmp_path / "pretrained"), model_config={}, max_steps=1)
    assert not any("LOAD REPORT" in record.getMessage() for record in caplog.records)


def test_a_classifier_starts_from_a_pretrained_encoder(recipe, tmp_path):
    torch.manual_seed(1)
    BeatsForPreTraining(BeatsConfig(**ENCODER)).save_pretrained(tmp_path / "pretrained")
    BeatsFeatureExtractor(fbank_mean=12.0).save_pretrained(tmp_path / "pretrained")
    run(recipe, model_name_or_path=str(tmp_path / "pretrained"), model_config={}, max_steps=1, learning_rate=1e-9)
    expected = load_file(tmp_path / "pretrained" / "model.safetensors")
    actual = load_file(Path(recipe["output_dir"]) / "model.safetensors")
    name = "beats.encoder.layers.0.self_attn.q_proj.weight"
    (name,) = [key for key in expected if key.endswith("layers.0.attention.q_proj.weight")] or [name]
    torch.testing.assert_close(actual[name], expected[name])
    assert BeatsFeatureExtractor.from_pretrained(recipe["output_dir"]).fbank_mean == 12.0


def test_the_classifier_of_other_classes_is_not_kept(recipe, folder, tmp_path):
    run(recipe, max_steps=1)
    values = {"model_name_or_path": recipe["output_dir"], "model_config": {}, "max_steps": 1, "learning_rate": 1e-9}
    run(recipe, **values, output_dir=str(tmp_path / "same"))
    (folder / "noise").rename(folder / "wind")
    run(recipe, **values, output_dir=str(tmp_path / "other"))
    key = "classifier.weight"
    first, same, other = (
        load_file(path / "model.safetensors")[key]
        for path in (Path(recipe["output_dir"]), tmp_path / "same", tmp_path / "other")
    )
    torch.testing.assert_close(same, first)
    assert (other - first).abs().max() > 1e-3


def test_audio_that_is_decoded_once_is_the_same(recipe, folder):
    results = []
    for cache in (False, True):
        values = {"cache_audio": cache, "output_dir": f"{recipe['output_dir']}-{cache}"}
        results.append(run(recipe, **values, dataset=str(folder.with_suffix(".csv")), fold_column="fold", roll=True))
    assert results[0] == results[1]


def test_statistics_of_the_recipe_take_the_place_of_the_models(recipe):
    run(recipe, fbank_mean=11.0, fbank_std=10.0, max_steps=1)
    extractor = BeatsFeatureExtractor.from_pretrained(recipe["output_dir"])
    expected = BeatsFeatureExtractor(fbank_mean=11.0, fbank_std=10.0)
    for name in ("fbank_mean", "fbank_std", "padding_value"):
        assert getattr(extractor, name) == getattr(expected, name)


def test_folds_leave_each_clip_out_once(recipe, folder):
    result = run(recipe, dataset=str(folder.with_suffix(".csv")), fold_column="fold")
    assert list(result["folds"]) == ["1", "2"]
    accuracies = [metrics["accuracy"] for metrics in result["folds"].values()]
    assert result["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert result["std"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert json.loads((Path(recipe["output_dir"]) / "folds.json").read_text()) == result
    for fold in (1, 2):
        text = (Path(recipe["output_dir"]) / f"fold-{fold}" / "evaluation" / "predictions.csv").read_text()
        assert sorted({int(name) % 2 + 1 for name in re.findall(r"^clips/\w+/(\d)\.wav", text, re.M)}) == [fold]


def test_folds_that_are_there_are_not_trained_again(recipe, monkeypatch):
    recipe |= {"num_folds": 2, "folds": [2], "max_steps": 1}
    first = run(recipe)
    monkeypatch.setattr(finetune_module, "finetune_once", None)
    assert run(recipe) == first


def test_folds_can_begin_with_other_settings_after_a_failure_before_the_first(recipe, tmp_path):
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(ValueError, match=r"nowhere: is no directory of a model"):
        run(recipe, num_folds=2, model_name_or_path=str(tmp_path / "nowhere"))
    assert list(run(recipe, num_folds=2, max_steps=1)["folds"]) == ["1", "2"]


def test_folds_have_the_batch_of_the_others(recipe):
    recipe |= {"num_folds": 2, "folds": [1], "max_steps": 1}
    run(recipe, batch_seconds=4.0)
    with pytest.raises(ValueError, match=r"was begun with another `batch_size` \(\d+, now \d+\)"):
        run(recipe, batch_seconds=2.0, folds=[1, 2])
    assert list(run(recipe, batch_seconds=4.0, folds=[1, 2])["folds"]) == ["1", "2"]


def test_folds_start_from_the_same_weights_and_filter_bank(recipe, tmp_path):
    base = tmp_path / "base"
    config = BeatsConfig(**ENCODER)
    BeatsModel(config).save_pretrained(base)
    BeatsFeatureExtractor().save_pretrained(base)
    recipe |= {"num_folds": 2, "folds": [1], "max_steps": 1, "model_name_or_path": str(base), "model_config": None}
    run(recipe)
    for change in (
        lambda: BeatsFeatureExtractor(fbank_mean=9.0).save_pretrained(base),
        lambda: (BeatsFeatureExtractor().save_pretrained(base), BeatsModel(config).save_pretrained(base)),
    ):
        change()
        with pytest.raises(ValueError, match="was begun with another `start_fingerprint`"):
            run(recipe, folds=[1, 2])


def save_without_head(directory: Path) -> str:
    """Writes an encoder whose configuration names a classifier."""
    BeatsForAudioClassification(BeatsConfig(**ENCODER, num_labels=3)).save_pretrained(directory)
    weights = load_file(directory / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier.")}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
    BeatsFeatureExtractor().save_pretrained(directory)
    return str(directory)


@pytest.mark.parametrize("freeze", [False, True])
def test_folds_start_from_what_one_training_starts_from(recipe, tmp_path, freeze):
    start = save_without_head(tmp_path / "base")
    recipe |= {"max_steps": 1, "model_name_or_path": start, "model_config": None, "freeze": freeze}
    run(recipe, output_dir=str(tmp_path / "one"))
    recipe["num_folds"] = 2
    assert list(run(recipe, folds=[1])["folds"]) == ["1"]
    # New weights are no reason to begin anew, nor is a random state.
    torch.manual_seed(123)
    assert list(run(recipe, folds=[1, 2])["folds"]) == ["1", "2"]


def test_folds_leave_the_random_state_as_it_is(recipe, tmp_path):
    recipe |= {"model_name_or_path": save_without_head(tmp_path / "base"), "model_config": None}
    arguments = Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe))
    labels = Labels("single_label", ["a", "b"], [[0], [1]])
    state = torch.get_rng_state()
    first = start_fingerprint(arguments, labels)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert start_fingerprint(arguments, labels) == first


def test_folds_of_an_earlier_version_get_a_final_model(recipe, tmp_path):
    recipe |= {"max_steps": 1, "model_name_or_path": save_without_head(tmp_path / "base"), "model_config": None}
    run(recipe, num_folds=2)
    settings = Path(recipe["output_dir"]) / "settings.json"
    # It did not say what the folds started from.
    values = json.loads(settings.read_text())
    assert values.pop("start_fingerprint")
    settings.write_text(json.dumps(values))
    run(recipe, num_folds=2, final=True)
    assert (Path(recipe["output_dir"]) / "final" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        # Epochs of three steps.
        ({}, [3, 6, 9, 12, 15, 16]),
        ({"eval_strategy": "steps", "eval_steps": 5}, [5, 10, 15, 16]),
        ({"load_best_model_at_end": True}, [3, 6, 9, 12, 15, 16]),
    ],
)
def test_a_final_model_saves_where_the_folds_look_for_the_best(recipe, monkeypatch, values, steps):
    recipe |= {"num_folds": 2, "save_strategy": "best", "save_total_limit": 10, "max_steps": 8} | values
    run(recipe)
    found, original = [], finetune_module.finish_training

    def look(final, **others):
        found.extend(path.name for path in checkpoints_module.complete_checkpoints(final.parent))
        original(final, **others)

    monkeypatch.setattr(finetune_module, "finish_training", look)
    # Not shortened to the epoch of the folds.
    monkeypatch.setattr(finetune_module, "kept_epochs", lambda *_: {})
    run(recipe, final=True)
    assert found == [f"checkpoint-{step}" for step in steps]


def test_folds_of_another_training_are_not_taken_for_this_one(recipe, folder):
    recipe |= {"num_folds": 2, "folds": [1], "max_steps": 1}
    run(recipe)
    with pytest.raises(ValueError, match=r"was begun with another `learning_rate` \(0.003, now 1e-05\)"):
        run(recipe, learning_rate=1e-5)
    # Another fold of the same training is welcome.
    assert list(run(recipe, folds=[1, 2])["folds"]) == ["1", "2"]
    # Other audio under a name, as long as before; and one more clip.
    kept = (folder / "noise" / "0.wav").read_bytes()
    write_clip(folder / "noise" / "0.wav", None, seed=99)
    with pytest.raises(ValueError, match="was begun with another `clips`"):
        run(recipe, folds=[2])
    (folder / "noise" / "0.wav").write_bytes(kept)
    write_clip(folder / "noise" / "new.wav", None, seed=99)
    with pytest.raises(ValueError, match="was begun with another `clips`"):
        run(recipe, folds=[2])


def test_clips_without_a_fold_are_refused(recipe, folder):
    table = folder.with_suffix(".csv")
    table.write_text(table.read_text().replace("low,2", "low,"))
    with pytest.raises(ValueError, match="4 of 24 clips are in no fold"):
        run(recipe, dataset=str(table), fold_column="fold")


def test_folders_of_splits_are_splits(recipe, folder, tmp_path, monkeypatch):
    (tmp_path / "splits").mkdir()
    shutil.copytree(folder, tmp_path / "splits" / "train")
    for name in CLASSES:
        (tmp_path / "splits" / "test" / name).mkdir(parents=True)
        (tmp_path / "splits" / "train" / name / "0.wav").rename(tmp_path / "splits" / "test" / name / "0.wav")
    values = {"dataset": str(tmp_path / "splits"), "eval_split": "test", "allow_overlap": False}
    run(recipe, **values, max_steps=1)
    report = json.loads((Path(recipe["output_dir"]) / "evaluation" / "metrics.json").read_text())
    assert report["num_clips"] == 3


def test_a_split_of_any_name_is_not_learned_from(recipe, folder, tmp_path):
    for name in CLASSES:
        for split, number in (("unseen", 0), ("train", 1), ("train", 2)):
            path = tmp_path / "root" / split / name / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name / f"{number}.wav", path)
    values = {"dataset": str(tmp_path / "root"), "allow_overlap": False, "max_steps": 1}
    run(recipe, **values, eval_split="unseen")
    report = json.loads((Path(recipe["output_dir"]) / "evaluation" / "metrics.json").read_text())
    assert [entry["label"] for entry in report["per_class"]] == list(CLASSES)
    assert report["num_clips"] == 3
    # Here the folder is a part of the training set.
    values |= {"eval_dataset": str(tmp_path / "root" / "unseen"), "output_dir": str(tmp_path / "other")}
    values |= {"label_folder": "last"}
    with pytest.raises(BeatsError, match="3 of 3 clips to evaluate on are also in the training set: metrics will be"):
        run(recipe, **values)


def test_clips_that_are_learned_from_and_judged_are_an_error_unless_asked_for(recipe, monkeypatch, folder):
    messages = []
    monkeypatch.setattr(classifiers_module.logger, "warning", messages.append)
    values = {"dataset": str(folder.with_suffix(".csv")), "eval_select": {"fold": 1}, "max_steps": 1}
    with pytest.raises(BeatsError, match="12 of 12 clips to evaluate on are also in the training set"):
        run(recipe, **values, allow_overlap=False)
    assert not Path(recipe["output_dir"]).exists()
    run(recipe, **values)
    assert any("12 of 12 clips to evaluate on are also in the training set" in message for message in messages)


def test_a_clip_in_two_folds_is_an_overlap(recipe, folder):
    table = folder.with_suffix(".csv")
    table.write_text(table.read_text() + "clips/low/0.wav,low,2\n")
    with pytest.raises(BeatsError, match="1 of 12 clips to evaluate on are also in the training set"):
        run(recipe, dataset=str(table), fold_column="fold", allow_overlap=False)


def test_a_copy_under_another_name_is_an_overlap(recipe, folder, tmp_path, monkeypatch):
    for number, name in enumerate(CLASSES):
        write_clip(tmp_path / "others" / name / "new.wav", CLASSES[name], seed=100 + number)
    shutil.copy(folder / "low" / "3.wav", tmp_path / "others" / "low" / "copy.wav")
    values = {"eval_dataset": str(tmp_path / "others"), "max_steps": 1}
    message = (
        "1 of 4 clips to evaluate on are also in the training set: metrics will be optimistic. Files of the same "
    )
    with pytest.raises(BeatsError, match=message + "content: 'low/copy.wav'. Choose other clips"):
        run(recipe, **values, allow_overlap=False)
    # `evaluate` tells the same.
    messages = []
    monkeypatch.setattr(evaluate_module.logger, "warning", messages.append)
    run(recipe, **values)
    evaluate_directory(Path(recipe["output_dir"]), tmp_path / "others", tmp_path / "report")
    assert any(text.startswith("1 of 4 clips are among those that this model has learned from") for text in messages)


@pytest.mark.parametrize("values", [{"eval_share": 0.25}, {"num_folds": 2}])
def test_copies_are_drawn_together(recipe, folder, values):
    for name in CLASSES:
        for number in range(4):
            shutil.copy(folder / name / f"{number}.wav", folder / name / f"copy {number}.wav")
    # An error otherwise.
    run(recipe, **values, allow_overlap=False, max_steps=1)


def test_drawn_parts_have_all_copies_of_a_clip():
    digests = np.arange(40) // 2
    labels = Labels("single_label", ["a", "b"], [[index // 20] for index in range(40)])
    for seed in range(3):
        fold = draw_share(labels, 0.25, seed, digests)
        assert sorted([*fold.train, *fold.test]) == list(range(40))
        assert not {*digests[fold.train]} & {*digests[fold.test]}
        folds = read_folds(datasets.Dataset.from_dict({}), labels, FoldArguments(num_folds=2), seed, digests)
        assert [len({*digests[each.train]} & {*digests[each.test]}) for each in folds] == [0, 0]
        assert sorted(index for each in folds for index in each.test) == list(range(40))
        # Without copies, they are as drawn.
        expected, found = draw_share(labels, 0.25, seed), draw_share(labels, 0.25, seed, np.arange(40))
        assert (found.train.tolist(), found.test.tolist()) == (expected.train.tolist(), expected.test.tolist())
    with pytest.raises(
        BeatsError, match=r"`eval_share` is 0\.25, which cannot be drawn: of 40 clips, 1 have a content of their own"
    ):
        draw_share(labels, 0.25, 0, np.zeros(40, dtype=np.int64))


def test_every_fold_learns_from_every_class():
    labels = Labels("single_label", ["a", "b"], [[0]] * 10 + [[1]] * 10)
    # Ten copies of the first class, and five contents, two of each, of the second one.
    digests = np.array([7] * 10 + [*np.arange(10) // 2 + 10])
    for seed in range(3):
        with pytest.raises(
            BeatsError, match="`num_folds` is 5, but there are fewer clips of different contents of 'a'"
        ):
            draw_folds(labels, 5, seed, digests)
        with pytest.raises(BeatsError, match=r"`eval_share` is 0\.25, which cannot be drawn: of 20 clips, 6 have a"):
            draw_share(labels, 0.25, seed, digests)
        several = np.where(np.arange(20) < 10, np.arange(20) % 5, digests)
        folds = draw_folds(labels, 5, seed, several)
        assert [sorted({*folds[:10]}), sorted({*folds[10:]})] == [list("12345")] * 2
        assert all(len({*folds[several == each]}) == 1 for each in several)
        fold = draw_share(labels, 0.4, seed, several)
        # Of five contents, two of each class.
        assert [int((fold.test < 10).sum()), int((fold.test >= 10).sum())] == [4, 4]
    lists = Labels("multi_label", ["a", "b"], [[0], [1]] * 3)
    with pytest.raises(BeatsError, match="2 clips of different contents do not make 5 folds"):
        draw_folds(lists, 5, 0, np.array([7, 8] * 3))


def test_clips_of_one_name_and_content_in_two_archives_are_an_overlap(recipe, folder, tmp_path):
    for split, numbers in (("train", (0, 1)), ("test", (1, 2))):
        (tmp_path / "shards" / split).mkdir(parents=True)
        with tarfile.open(tmp_path / "shards" / split / "0.tar", "w") as archive:
            for name, number in itertools.product(CLASSES, numbers):
                # The clips 2 of the one archive and 0 of the other have the same name, but are not the same.
                key = f"{name}-{number % 2}"
                archive.add(folder / name / f"{number}.wav", arcname=f"{key}.wav")
                entry = tarfile.TarInfo(f"{key}.cls")
                entry.size = len(name)
                archive.addfile(entry, io.BytesIO(name.encode()))
    values = {"dataset": str(tmp_path / "shards"), "eval_split": "test"}
    with pytest.raises(BeatsError, match="3 of 6 clips to evaluate on are also in the training set"):
        run(recipe, **values, allow_overlap=False)


def test_a_fold_has_its_own_pretrained_model(recipe, tmp_path):
    for fold in (1, 2):
        torch.manual_seed(fold)
        BeatsForPreTraining(BeatsConfig(**ENCODER)).save_pretrained(tmp_path / f"fold{fold}")
    values = {"model_name_or_path": str(tmp_path / "fold{fold}"), "model_config": {}, "num_folds": 2}
    run(recipe, **values, max_steps=1, learning_rate=1e-9)
    for fold in (1, 2):
        expected = load_file(tmp_path / f"fold{fold}" / "model.safetensors")
        actual = load_file(Path(recipe["output_dir"]) / f"fold-{fold}" / "model.safetensors")
        shared = [name for name in expected if name in actual and name.endswith("fc1.weight")]
        assert shared
        for name in shared:
            torch.testing.assert_close(actual[name], expected[name])


def test_a_linear_probe_trains_the_classifier_only(recipe, folder, tmp_path):
    torch.manual_seed(0)
    BeatsForPreTraining(BeatsConfig(**ENCODER)).save_pretrained(tmp_path / "pretrained")
    values = {"model_name_or_path": str(tmp_path / "pretrained"), "model_config": {}, "freeze": True}
    metrics = run(recipe, **values, eval_dataset=str(folder))
    assert metrics["accuracy"] > 0.9
    expected = load_file(tmp_path / "pretrained" / "model.safetensors")
    actual = load_file(Path(recipe["output_dir"]) / "model.safetensors")
    for name, value in actual.items():
        if name.startswith("beats."):
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    assert not list(Path(recipe["output_dir"]).parent.glob("*.training"))
    # The classifier that was trained on standardised embeddings is an ordinary one.
    again = evaluate_directory(Path(recipe["output_dir"]), folder, tmp_path / "report")
    assert again["accuracy"] == metrics["accuracy"]


def test_low_rank_adapters_are_merged_into_an_ordinary_model(recipe, folder, tmp_path):
    pytest.importorskip("peft")
    metrics = run(recipe, lora={"r": 4}, learning_rate=0.02, max_steps=30, eval_dataset=str(folder))
    output = Path(recipe["output_dir"])
    assert (output / "adapter" / "adapter_model.safetensors").exists()
    assert BeatsConfig.from_pretrained(output / "adapter").id2label == dict(enumerate(CLASSES))
    assert not any("lora" in name for name in load_file(output / "model.safetensors"))
    again = evaluate_directory(output, folder, tmp_path / "report")
    assert again == pytest.approx(metrics, abs=1e-5)
    assert metrics["accuracy"] > 0.6


@pytest.mark.parametrize("pooling", ["attention", "prototypes"])
def test_adapters_come_with_the_whole_head(recipe, folder, tmp_path, pooling):
    pytest.importorskip("peft")
    recipe["model_config"] = recipe["model_config"] | {"classifier_pooling": pooling, "use_weighted_layer_sum": True}
    metrics = run(recipe, lora={"r": 4}, learning_rate=0.02, max_steps=6, eval_dataset=str(folder))
    output = Path(recipe["output_dir"])
    saved, adapter = (
        load_file(path) for path in (output / "model.safetensors", output / "adapter" / "adapter_model.safetensors")
    )
    for name in ("layer_average.weight", "pooling.query" if pooling == "attention" else "pooling.prototypes"):
        (key,) = (key for key in adapter if key.endswith(name))
        assert torch.equal(saved[name], adapter[key])
        assert saved[name].any()
    assert evaluate_directory(output, folder, tmp_path / "report") == pytest.approx(metrics, abs=1e-5)


def test_without_peft_the_message_says_what_to_install(recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"`lora` needs PEFT: pip install 'transformers-beats\[training\]'"):
        run(recipe, lora={"r": 4})


def test_the_last_checkpoints_are_averaged(recipe, tmp_path, monkeypatch):
    kept = {}
    original = finetune_module.average_checkpoints

    def keep(model, directory, num_checkpoints):
        for path in directory.glob("checkpoint-*"):
            kept[path.name] = load_file(path / "model.safetensors")
        original(model, directory, num_checkpoints)

    monkeypatch.setattr(finetune_module, "average_checkpoints", keep)
    run(recipe, average_checkpoints=3)
    assert sorted(kept) == ["checkpoint-12", "checkpoint-6", "checkpoint-9"]
    actual = load_file(Path(recipe["output_dir"]) / "model.safetensors")
    for name, value in actual.items():
        expected = torch.stack([checkpoint[name].double() for checkpoint in kept.values()]).mean(dim=0).float()
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-7)


def test_mixed_clips_are_learned_with_binary_cross_entropy(recipe, folder):
    values = {"mixup_alpha": 0.8, "roll": True, "time_mask_ratio": 0.1, "freq_mask_bins": 8}
    metrics = run(recipe, **values, eval_dataset=str(folder), max_steps=25)
    config = BeatsConfig.from_pretrained(recipe["output_dir"])
    assert config.problem_type == "multi_label_classification"
    # Clips of one class are judged by it all the same.
    assert metrics["accuracy"] > 0.6


def test_several_classes_are_learned_and_judged_by_average_precision(recipe, folder, tmp_path):
    table = datasets.load_dataset("csv", data_files=str(folder.with_suffix(".csv")), split="train")
    table = table.map(lambda row: {"labels": "sound" if row["label"] == "noise" else f"sound,{row['label']}"})
    table.remove_columns("label").to_csv(str(tmp_path / "several.csv"))
    values = {"dataset": str(tmp_path / "several.csv"), "label_separator": ",", "eval_select": {"fold": 1}}
    metrics = run(recipe, **values, select={"fold": 2}, balanced_sampling=True, max_steps=30)
    assert metrics["mAP"] > 0.8
    config = BeatsConfig.from_pretrained(recipe["output_dir"])
    assert (config.problem_type, config.num_labels) == ("multi_label_classification", 3)


@pytest.mark.parametrize("pooling", ["mean", "sequence"])
def test_events_are_learned_for_each_column(pooling, recipe, tmp_path):
    recipe["model_config"] = ENCODER | {"frame_pooling": pooling}
    rows = []
    for number in range(16):
        path = tmp_path / "events" / f"{number}.wav"
        onset = 0.16 * (number % 4)
        generator = np.random.default_rng(number)
        samples = 0.01 * generator.standard_normal(16000)
        first, last = round(16000 * onset), round(16000 * (onset + 0.32))
        samples[first:last] += 0.5 * np.sin(np.arange(last - first) * 2 * np.pi * 1000 / 16000)
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, 16000)
        event = {"label": "tone", "onset": onset, "offset": onset + 0.32}
        rows.append({"file_name": path.name, "events": [event]})
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "events" / "metadata.parquet"))
    values = {"dataset": str(tmp_path / "events"), "label_column": "events"}
    metrics = run(recipe, **values, eval_dataset=str(tmp_path / "events"), max_steps=40)
    assert isinstance(
        BeatsForAudioFrameClassification.from_pretrained(recipe["output_dir"]), BeatsForAudioFrameClassification
    )
    assert metrics["mAP"] > 0.8
    if importlib.util.find_spec("sed_scores_eval"):
        assert metrics["segment_f1"] > 0.8
        assert 0 < metrics["psds1"] <= metrics["psds2"] <= 1
    again = evaluate_directory(
        Path(recipe["output_dir"]), tmp_path / "events", tmp_path / "report", label_column="events"
    )
    assert again == pytest.approx(metrics, abs=1e-6)


def test_long_clips_are_evaluated_in_windows(recipe, folder, tmp_path):
    run(recipe, max_steps=40)
    write_clip(tmp_path / "long" / "low" / "a.wav", 200, seed=1, seconds=2.3)
    write_clip(tmp_path / "long" / "high" / "b.wav", 3000, seed=2, seconds=0.7)
    metrics = evaluate_directory(Path(recipe["output_dir"]), tmp_path / "long", tmp_path / "report")
    assert metrics["accuracy"] == 1.0
    assert len((tmp_path / "report" / "predictions.csv").read_text().splitlines()) == 3


def test_clips_of_one_length_come_together(recipe, folder, monkeypatch):
    for path in list(folder.rglob("[0-3].wav")):
        write_clip(path, 500, seed=3, seconds=0.3)
    asked = []

    class Recorder(LengthSampler):
        def __init__(self, batch_size, lengths, seed):
            asked.append((batch_size, lengths))
            super().__init__(batch_size, lengths, seed)

    monkeypatch.setattr(classification_module, "LengthSampler", Recorder)
    values = {"train_sampling_strategy": "group_by_length", "gradient_accumulation_steps": 2}
    run(recipe, **values, per_device_train_batch_size=4, max_steps=1, crop_seconds=0.5)
    # Half of the clips last 0.3 s, of the others 0.5 s are heard.
    assert asked == [(8, 3 * (4 * [4800] + 4 * [8000]))]


def test_layer_wise_decay_changes_what_early_layers_learn(recipe):
    weights = {}
    for name, values in {"none": {}, "decay": {"layer_wise_learning_rate_decay": 0.1}}.items():
        output = Path(recipe["output_dir"]).with_name(name)
        run(recipe | {"output_dir": str(output)}, **values, max_steps=2)
        weights[name] = load_file(output / "model.safetensors")
    start = BeatsForAudioClassification
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(CLASSES)), "problem_type": "single_label_classification"}
    initial = start(BeatsConfig(**ENCODER, **labels)).state_dict()
    (first,) = [name for name in initial if "layers.0" in name and name.endswith("fc1.weight")]
    changes = {name: (values[first] - initial[first]).abs().max().item() for name, values in weights.items()}
    assert changes["decay"] == pytest.approx(0.01 * changes["none"], rel=0.05)


def test_recipes_for_full_fine_tuning_serve_probes_and_adapters(recipe, monkeypatch):
    messages = []
    monkeypatch.setattr(training_arguments.logger, "warning", messages.append)
    recipe |= {"roll": True, "layer_wise_learning_rate_decay": 0.5}
    probe = Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | {"freeze": True}))
    assert probe.augmentation == AugmentationArguments()
    adapters = Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | {"lora": {}}))
    assert adapters.tuning.layer_wise_learning_rate_decay == 1
    assert adapters.augmentation.roll
    assert messages == [
        "`freeze` does not use layer_wise_learning_rate_decay, roll: left out.",
        "`lora` does not use layer_wise_learning_rate_decay: left out.",
    ]


# What a model has seen


def test_an_evaluation_on_what_was_learned_says_so(recipe, folder, tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(evaluate_module.logger, "warning", messages.append)
    for name, values in (("whole", {"num_folds": 2, "folds": [1]}), ("probe", {"freeze": True, "eval_dataset": None})):
        run(recipe, **values, max_steps=1, output_dir=str(tmp_path / name))
    # A copy is known as well, whatever it is called.
    shutil.copytree(folder, tmp_path / "copy" / "clips")
    for path in sorted((tmp_path / "copy").rglob("*.wav")):
        path.rename(path.with_name(f"copy-{path.name}"))
    for model, expected in (("whole/fold-1", 12), ("probe", 24)):
        messages.clear()
        evaluate_directory(tmp_path / model, tmp_path / "copy" / "clips", tmp_path / f"report-{expected}")
        assert messages == [
            f"{expected} of 24 clips are among those that this model has learned from: metrics will be optimistic."
        ]
        report = json.loads((tmp_path / f"report-{expected}" / "metrics.json").read_text())
        assert report["description"]["clips_in_training_set"] == expected
    messages.clear()
    for name, frequency in CLASSES.items():
        write_clip(tmp_path / "new" / name / "0.wav", frequency, seed=77)
    evaluate_directory(tmp_path / "probe", tmp_path / "new", tmp_path / "report")
    assert messages == []


def test_predictions_tell_clips_of_one_name_apart(recipe, folder, tmp_path):
    run(recipe, max_steps=1, eval_dataset=str(folder))
    lines = (Path(recipe["output_dir"]) / "evaluation" / "predictions.csv").read_text().splitlines()[1:]
    names = [line.partition(",")[0] for line in lines]
    assert sorted(names) == sorted(f"{name}/{number}.wav" for name in CLASSES for number in range(8))
    # Of several folders, from where they part.
    shutil.copytree(folder / "low", tmp_path / "more" / "low")
    run(recipe, max_steps=1, eval_dataset=[str(folder), str(tmp_path / "more")], output_dir=str(tmp_path / "both"))
    lines = (tmp_path / "both" / "evaluation" / "predictions.csv").read_text().splitlines()[1:]
    assert {"clips/low/0.wav", "more/low/0.wav"} <= {line.partition(",")[0] for line in lines}


# Interruption


def test_a_training_that_was_cut_off_goes_on_and_learns_the_same(recipe, monkeypatch):
    def cut_off(*args, **kwargs):
        raise KeyboardInterrupt

    values = recipe | {"roll": True, "mixup_alpha": 0.5}
    run(values, output_dir=str(Path(recipe["output_dir"]).with_name("whole")))
    monkeypatch.setattr(finetune_module, "finish_training", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(values)
    checkpoints = Path(recipe["output_dir"] + ".training")
    shutil.rmtree(checkpoints / "checkpoint-12")
    monkeypatch.undo()
    run(values)
    logs = [
        [entry["loss"] for entry in json.loads((directory / "log_history.json").read_text()) if "loss" in entry]
        for directory in (Path(recipe["output_dir"]), Path(recipe["output_dir"]).with_name("whole"))
    ]
    assert len(logs[0]) == 12
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def test_the_best_checkpoint_is_kept_when_the_end_was_cut_off(recipe, folder, monkeypatch):
    def cut_off(*args, **kwargs):
        raise KeyboardInterrupt

    values = {"eval_dataset": str(folder), "eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": True}
    # So that the first checkpoint, whose loss is the largest, is the best.
    values |= {"metric_for_best_model": "loss", "greater_is_better": True}
    monkeypatch.setattr(finetune_module, "finish_training", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, **values)
    training = Path(recipe["output_dir"] + ".training")
    state = json.loads((training / "checkpoint-12" / "trainer_state.json").read_text())
    best = load_file(Path(state["best_model_checkpoint"]) / "model.safetensors")
    last = load_file(training / "checkpoint-12" / "model.safetensors")
    assert any(not torch.equal(best[name], last[name]) for name in best)
    monkeypatch.undo()
    run(recipe, **values)
    for name, value in load_file(Path(recipe["output_dir"]) / "model.safetensors").items():
        assert torch.equal(value, best[name])


def test_scores_without_all_windows_are_refused():
    with pytest.raises(ValueError, match="logits of 2 windows, but 3 windows"):
        clip_scores(np.zeros((2, 3)), np.array([0, 0, 1]), "single_label_classification")


def test_an_evaluation_has_its_last_clips(recipe, folder):
    run(recipe, eval_dataset=str(folder), dataloader_drop_last=True, per_device_eval_batch_size=10, max_steps=1)
    report = json.loads((Path(recipe["output_dir"]) / "evaluation" / "metrics.json").read_text())
    assert report["num_clips"] == 24


# Bad input


def test_corrupt_and_silent_clips_do_no_harm(recipe, folder, caplog):
    (folder / "high" / "broken.wav").write_bytes(b"RIFF no audio")
    soundfile.write(folder / "low" / "silent.wav", np.zeros(9600), 16000)
    metrics = run(recipe, eval_dataset=str(folder), max_steps=2)
    assert np.isfinite(list(metrics.values())).all()
    report = json.loads((Path(recipe["output_dir"]) / "evaluation" / "metrics.json").read_text())
    assert report["num_clips"] == 25
    for value in load_file(Path(recipe["output_dir"]) / "model.safetensors").values():
        assert torch.isfinite(value).all()


def test_a_class_with_one_clip_is_named(recipe, folder, monkeypatch):
    write_clip(folder / "rare" / "a.wav", 1000, seed=5)
    messages = []
    monkeypatch.setattr(classifiers_module.logger, "warning", messages.append)
    run(recipe, max_steps=1)
    assert any("1 class has a single clip to learn from: 'rare'" in message for message in messages)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_folds": 9}, "`num_folds` is 9, but there are fewer clips of 'high', 'low', 'noise'"),
        ({"fold_column": "session"}, "There is no column 'session' of folds"),
        ({"num_folds": 2, "folds": [3]}, "there is no fold '3', only '1', '2'"),
        ({"num_folds": 2, "eval_split": "test"}, "Folds say what is evaluated"),
        ({"select": {"file_name": "nothing"}}, "`select` leaves none"),
        ({"streaming": True}, "Fine-tuning reads audio from disk"),
        ({"dataset": ["a", "b"], "dataset_weights": [1, 2]}, "`dataset_temperature` are for pre-training"),
        ({"freeze": True, "lora": {}}, "`freeze` and `lora` exclude each other"),
        ({"eval_split": "test"}, "has no folder 'test'"),
        ({"final": True}, "`final` trains on all clips after the folds"),
        ({"num_folds": 2, "push_to_hub": True}, "`push_to_hub` publishes one model: set `final: true`"),
        ({"num_folds": 2, "final": True, "model_name_or_path": "m-{fold}"}, "needs a `model_name_or_path` without"),
        ({"eval_strategy": "epoch"}, "There is nothing to evaluate on: set `num_folds`, `eval_share`"),
        ({"average_checkpoints": 5, "save_steps": 3}, "`average_checkpoints` is 5, but 4 checkpoint"),
        # Every clip lasts 0.6 s: three crops of 0.2 s make 72 of 24 clips, and nine steps.
        (
            {"average_checkpoints": 4, "save_steps": 3, "max_steps": -1, "num_train_epochs": 1, "crop_seconds": 0.2},
            "`average_checkpoints` is 4, but 3 checkpoint",
        ),
        (
            {"model_config": ENCODER | {"problem_type": "regression"}},
            "`model_config.problem_type` is regression, but the labels",
        ),
        ({"average_checkpoints": 2, "save_strategy": "no"}, "but 0 checkpoint"),
        ({"bf16_full_eval": True}, "would change the model that is saved"),
        ({"resume_from_checkpoint": "somewhere"}, "goes on from its last checkpoint by itself"),
        ({"save_only_model": True}, "`save_only_model`: an interrupted training could not go on"),
        ({"ignore_data_skip": True}, "`ignore_data_skip`: an interrupted training would hear"),
        ({"prediction_loss_only": True}, "`prediction_loss_only`: metrics and reports need"),
        ({"eval_do_concat_batches": False}, "`eval_do_concat_batches`: metrics and reports need"),
        ({"batch_eval_metrics": True}, "`batch_eval_metrics`: metrics are of all clips"),
        ({"remove_unused_columns": True}, "`remove_unused_columns`: the collator reads what"),
        ({"train_sampling_strategy": "batch_rebalance"}, "is 'batch_rebalance': choose random, sequential or group"),
        ({"eval_steps": 5}, "`eval_steps` is read with `eval_strategy: steps` only: set this, or leave it out"),
        (
            {"balanced_sampling": True, "train_sampling_strategy": "group_by_length"},
            "`balanced_sampling` draws the clips: leave it out, or `train_sampling_strategy`",
        ),
        ({"save_strategy": "best"}, "There is nothing to evaluate on: set `num_folds`, `eval_share`"),
        ({"save_strategy": "best", "eval_strategy": "no"}, "`save_strategy: best` needs evaluations"),
        ({"freeze": True, "model_config": ENCODER | {"use_weighted_layer_sum": True}}, "which `probe` sets"),
        ({"lora": {"rank": 4}}, "`lora`: .*unexpected keyword argument 'rank'"),
        ({"mixup_probability": 1.5}, r"`mixup_probability` must be at most 1, got 1\.5"),
        ({"layer_wise_gradient_decay_ratio": 0}, "`layer_wise_gradient_decay_ratio` must be positive, got 0"),
        ({"model_name_or_path": "/nowhere/at-all"}, "nowhere"),
    ],
)
def test_what_cannot_be_done_is_refused(recipe, values, message):
    with pytest.raises((ValueError, OSError), match=message):
        run(recipe, **values)
    assert not Path(recipe["output_dir"]).exists()


def test_reports_that_cannot_be_drawn_are_an_error_before_the_training(recipe, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"Reports need matplotlib: pip install 'transformers-beats\[training\]'"):
        run(recipe, eval_dataset=str(folder))
    with pytest.raises(ValueError, match=r"Reports need matplotlib: pip install 'transformers-beats\[training\]'"):
        evaluate_directory(tmp_path / "model", folder, tmp_path / "report")


def test_a_label_that_the_model_does_not_have_is_refused(recipe, folder, tmp_path):
    run(recipe, max_steps=1)
    write_clip(tmp_path / "others" / "bird" / "a.wav", 1000, seed=5)
    with pytest.raises(ValueError, match="labels that are not among the classes: 'bird'"):
        evaluate_directory(Path(recipe["output_dir"]), tmp_path / "others", tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_model_of_regression_cannot_be_evaluated(folder, tmp_path):
    settings = ({"num_labels": 1}, {"num_labels": 3, "problem_type": "regression"})
    kinds = (BeatsForAudioClassification, BeatsForAudioFrameClassification)
    for number, (values, kind) in enumerate(itertools.product(settings, kinds)):
        model = tmp_path / f"regression-{number}"
        kind(BeatsConfig(**ENCODER, **values)).save_pretrained(model)
        BeatsFeatureExtractor().save_pretrained(model)
        with pytest.raises(BeatsError, match="is a model of regression, and an evaluation needs a classifier"):
            evaluate_directory(model, folder, tmp_path / "report")
        assert not (tmp_path / "report").exists()


def test_a_model_without_a_classifier_cannot_be_evaluated(folder, tmp_path):
    BeatsForPreTraining(BeatsConfig(**ENCODER)).save_pretrained(tmp_path / "pretrained")
    BeatsFeatureExtractor().save_pretrained(tmp_path / "pretrained")
    with pytest.raises(ValueError, match="holds a BeatsModel, no fine-tuned classifier"):
        evaluate_directory(tmp_path / "pretrained", folder, tmp_path / "report")


def test_checkpoints_are_counted_by_crops(recipe):
    # 72 crops of 24 clips are nine steps.
    values = {"crop_seconds": 0.2, "max_steps": -1, "num_train_epochs": 1, "save_steps": 3}
    run(recipe, **values, average_checkpoints=3)
    assert json.loads((Path(recipe["output_dir"]) / "log_history.json").read_text())[-1]["step"] == 9


def write_events(folder: Path, has_events: list[bool]) -> None:
    """Clips of a tone, which is an event, or of noise, with the fold of each in a table."""
    rows = []
    for number, has_event in enumerate(has_events):
        write_clip(folder / f"{number}.wav", 1000 if has_event else None, seed=number)
        events = [{"label": "tone", "onset": 0.0, "offset": 0.5}] if has_event else []
        rows.append({"file_name": f"{number}.wav", "events": events, "fold": number % 2 + 1})
    datasets.Dataset.from_list(rows).to_parquet(str(folder / "metadata.parquet"))


def test_a_fold_without_a_positive_clip_is_written_without_its_metrics(recipe, tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(reports.logger, "warning", messages.append)
    write_events(tmp_path / "events", [True, False] * 4)
    values = {"dataset": str(tmp_path / "events"), "label_column": "events", "fold_column": "fold", "max_steps": 1}
    for task in ("multi_label", "frames"):
        output = tmp_path / task
        result = run(recipe, **values, task=task, output_dir=str(output))
        assert result["folds"]["2"]["mAP"] is None
        assert result["mean"]["mAP"] == result["folds"]["1"]["mAP"]
        assert result["std"]["mAP"] is None
        assert json.loads((output / "folds.json").read_text()) == result
        for fold in (1, 2):
            assert (output / f"fold-{fold}" / "model.safetensors").exists()
            report = json.loads((output / f"fold-{fold}" / "evaluation" / "metrics.json").read_text())
            assert report["metrics"] == result["folds"][str(fold)]
    assert "Undefined for these 4 clips: mAP, auc, d_prime, lwlrap." in messages


def test_a_report_that_cannot_be_written_does_not_cost_the_model(recipe, folder, monkeypatch):
    def fail(*args):
        raise RuntimeError("no report")

    monkeypatch.setattr(reports, "write_json", fail)
    for name, values in (("whole", {}), ("probe", {"freeze": True})):
        output = Path(recipe["output_dir"]).with_name(name)
        run(recipe, **values, eval_dataset=str(folder), max_steps=1, output_dir=str(output))
        assert (output / "model.safetensors").exists()
        assert not (output / "evaluation").exists()
