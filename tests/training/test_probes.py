# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Probes of a frozen encoder: what they fit, which layer they choose, and what few clips give."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import t, ttest_1samp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tiny import ENCODER, write_pitches

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForPreTraining,
    BeatsModel,
)
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.training.config.arguments import FINETUNE_ARGUMENTS, Arguments, FineTuningArguments
from transformers_beats.training.config.recipes import build_arguments, parse_arguments
from transformers_beats.training.data.labels import Labels
from transformers_beats.training.finetune import finetune
from transformers_beats.training.probes import selection
from transformers_beats.training.probes.embeddings import Embedded, Embeddings, PooledLayers
from transformers_beats.training.probes.few_shot import draw_episodes, mean_interval, write_shots
from transformers_beats.training.probes.regression import fit_classifier
from transformers_beats.training.probes.selection import choose, list_candidates, predict, split_clips
from transformers_beats.training.probes.settings import Settings
from transformers_beats.training.probing import describe_probe
from transformers_beats.utils.errors import BeatsError, UsageError


def clips_of(values: np.ndarray) -> Embeddings:
    return Embeddings(values.astype(np.float32), np.arange(len(values)), [str(clip) for clip in range(len(values))])


def draw(num_clips: int, num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings on very different scales, whose class can be told in part."""
    generator = np.random.default_rng(seed)
    targets = np.arange(num_clips) % num_classes
    values = generator.standard_normal((num_clips, 6))
    values[:, :num_classes] += 1.5 * np.eye(num_classes)[targets]
    return values * np.logspace(-3, 3, 6) + np.array([0, 5, 0, -70, 0, 0]), targets


def labels_of(targets: np.ndarray, num_classes: int) -> Labels:
    return Labels("single_label", [str(label) for label in range(num_classes)], [[int(label)] for label in targets])


def choose_layer(embeddings: Embeddings, labels: Labels, settings: Settings) -> tuple[int, list[float]]:
    """Position of the layer that a logistic regression chooses, and the log loss of each."""
    layers = list(range(embeddings.values.shape[1]))
    best, choices = choose(list_candidates(["linear"], layers), Embedded(layers, embeddings, {}), labels, settings)
    return best, [choice.loss for choice in choices]


@pytest.mark.parametrize(("num_classes", "c"), [(2, 1.0), (3, 1.0), (3, 0.01)])
def test_the_classifier_is_scikit_learns_regression_of_standardised_embeddings(num_classes, c):
    values, targets = draw(60, num_classes)
    labels = labels_of(targets, num_classes)
    settings = Settings("single_label_classification", c)
    found = predict(fit_classifier(clips_of(values), labels, settings), clips_of(values), labels)
    scaled = StandardScaler().fit_transform(values.astype(np.float32))
    expected = LogisticRegression(C=c, max_iter=2000).fit(scaled, targets).predict_proba(scaled)
    np.testing.assert_allclose(found.scores, expected, atol=2e-4)


def test_several_labels_have_a_regression_each():
    values, targets = draw(60, 3)
    rows = [sorted({int(label), int(label) // 2 + 1}) for label in targets]
    # The last class is that of every clip, the fourth of none.
    labels = Labels("multi_label", list("abcde"), [[*row, 4] for row in rows])
    settings = Settings("multi_label_classification")
    found = predict(fit_classifier(clips_of(values), labels, settings), clips_of(values), labels).scores
    scaled = StandardScaler().fit_transform(values.astype(np.float32))
    for label in range(3):
        column = np.array([label in row for row in rows])
        if column.all():
            continue
        expected = LogisticRegression(max_iter=2000).fit(scaled, column).predict_proba(scaled)[:, 1]
        np.testing.assert_allclose(found[:, label], expected, atol=2e-4)
    assert found[:, 3].max() < 1e-6
    assert found[:, 4].min() > 1 - 1e-6


def test_a_class_without_clips_has_no_chance():
    values, targets = draw(40, 2)
    labels = labels_of(2 * targets, 3)
    settings = Settings("single_label_classification")
    scores = predict(fit_classifier(clips_of(values), labels, settings), clips_of(values), labels).scores
    assert scores[:, 1].max() < 1e-9
    assert (scores.argmax(axis=1) == 2 * targets).mean() > 0.7


def test_the_layer_of_the_least_held_out_loss_is_chosen():
    values, targets = draw(60, 3)
    noise = np.random.default_rng(1).standard_normal(values.shape)
    # Many dimensions of noise fit the clips to learn from best, and the others worst.
    layers = np.stack([noise, values, values + 2 * noise * np.logspace(-3, 3, 6)], axis=1)
    position, losses = choose_layer(clips_of(layers), labels_of(targets, 3), Settings("single_label_classification"))
    assert position == 1
    assert losses[1] < losses[2] < losses[0]


@pytest.mark.parametrize("num_groups", [2, 4, 8])
@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_groups_are_never_on_both_sides_of_the_choice(num_groups, task):
    _, targets = draw(48, 3)
    labels = Labels(task, list("abc"), [[int(label)] for label in targets])
    groups = [f"recording {number // 3 % num_groups}" for number in range(48)]
    parts = list(split_clips(labels, 0, groups))
    assert len(parts) == min(5, num_groups)
    for train, held_out in parts:
        assert not {groups[index] for index in train} & {groups[index] for index in held_out}
        assert set(targets[held_out]) == {0, 1, 2}
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == list(range(48))


def test_one_group_alone_is_parted_at_random_with_a_warning(caplog):
    labels = labels_of(draw(12, 3)[1], 3)
    expected = list(split_clips(labels, 0))
    list(split_clips(labels, 0, [1, 2, 3] * 4))
    assert not caplog.text
    for found, (train, held_out) in zip(split_clips(labels, 0, [1] * 12), expected, strict=True):
        assert np.array_equal(found[0], train)
        assert np.array_equal(found[1], held_out)
    assert caplog.text.count("all of one fold: probes, layers and settings are chosen by random parts") == 1


def test_a_probe_without_a_choice_warns_of_no_random_parts(caplog):
    values, targets = draw(12, 3)
    means, settings = clips_of(values[:, None]), Settings("single_label_classification")
    embedded, labels = Embedded([0], means, {}), labels_of(targets, 3)
    choose(list_candidates(["linear"], [0]), embedded, labels, settings, [1] * 12)
    assert not caplog.text


def test_a_layer_that_knows_the_recording_is_not_chosen():
    values, targets = draw(60, 3)
    # A recording has clips of one class: a layer that tells recordings apart tells the classes of known ones.
    recording = 3 * (np.arange(60) // 15) + targets
    known = 8 * np.eye(12)[recording] + np.random.default_rng(1).standard_normal((60, 12))
    means = clips_of(np.stack([known, np.pad(values, ((0, 0), (0, 6)))], axis=1))
    labels, settings = labels_of(targets, 3), Settings("single_label_classification")
    candidates, embedded = list_candidates(["linear"], [0, 1]), Embedded([0, 1], means, {})
    assert choose(candidates, embedded, labels, settings)[0] == 0
    assert choose(candidates, embedded, labels, settings, np.arange(60) // 15)[0] == 1


def test_high_scores_of_wrong_classes_cost_where_classes_are_independent():
    values, targets = draw(60, 3)
    noise = np.random.default_rng(1).standard_normal(values.shape)
    layers = clips_of(np.stack([noise, values], axis=1))
    labels = labels_of(targets, 3)
    position, losses = choose_layer(layers, labels, Settings("multi_label_classification"))
    assert position == 1
    # Guessing by frequency costs this much for each clip and class.
    assert losses[1] < -(np.log(1 / 3) + 2 * np.log(2 / 3)) / 3 < losses[0]


def test_a_clip_of_several_windows_counts_as_several_and_is_held_out_whole():
    values, targets = draw(60, 3)
    labels = labels_of(targets, 3)
    windows = Embeddings(np.repeat(values, 3, axis=0)[:, None], np.repeat(np.arange(60), 3), [*map(str, range(60))])
    once = clips_of(values[:, None])
    # Three equal windows are three times the loss: that of a regularisation three times weaker.
    thrice = fit_classifier(windows.of_layer(0), labels, Settings("single_label_classification", 1.0))
    single = fit_classifier(once.of_layer(0), labels, Settings("single_label_classification", 3.0))
    np.testing.assert_allclose(thrice.logits(values), single.logits(values), atol=5e-3)
    _, losses = choose_layer(windows, labels, Settings("single_label_classification", 1.0))
    assert losses == pytest.approx(
        choose_layer(once, labels, Settings("single_label_classification", 3.0))[1], abs=1e-3
    )
    found = windows.select(np.array([1, 4]))
    assert (found.clip_of.tolist(), found.names) == ([0, 0, 0, 1, 1, 1], ["1", "4"])


@pytest.mark.parametrize("labels", [labels_of(np.array([0, 1]), 2), Labels("multi_label", ["a"], [[0]])])
def test_too_few_clips_choose_no_layer(labels):
    values = np.random.default_rng(0).standard_normal((len(labels), 2, 4))
    with pytest.raises(BeatsError, match="too few clips to choose a layer by cross-validation: name one"):
        choose_layer(clips_of(values), labels, Settings(f"{labels.task}_classification"))


def test_pooled_layers_leave_padding_out():
    torch.manual_seed(0)
    model, extractor = BeatsModel(BeatsConfig(**ENCODER)).eval(), BeatsFeatureExtractor()
    clips = [0.1 * np.random.default_rng(n).standard_normal(n).astype(np.float32) for n in (16000, 6000, 2000)]
    inputs = extractor(clips, sampling_rate=16000, return_tensors="pt")
    layers = [1, 0, ENCODER["num_hidden_layers"]]
    with torch.no_grad():
        found = PooledLayers(model, layers)(**inputs)["embeddings"].numpy()
    inference = WindowedInference(model, extractor)
    for clip, embeddings in zip(clips, found):
        np.testing.assert_allclose(embeddings, inference.embed(clip, 16000, layers), atol=1e-5)


def test_the_interval_of_a_mean_is_students():
    values = [0.5, 0.75, 0.6, 0.9]
    interval = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((interval.low, interval.high))
    assert mean_interval([0.5]) is None


def test_the_interval_of_a_mean_accuracy_is_of_accuracies():
    assert mean_interval([1.0, 0.9]) == (pytest.approx(0.95 - 0.05 * t.ppf(0.975, 1)), 1.0)
    assert mean_interval([0.0, 0.1, 0.0])[0] == 0
    assert mean_interval([1.0, 1.0, 1.0]) is None


def test_the_interval_of_several_folds_holds_what_varies_by_fold(tmp_path):
    generator = np.random.default_rng(0)
    num_right = 0
    for _ in range(200):
        # An accuracy of each fold, from which its episodes differ little.
        folds = 0.6 + 0.08 * generator.standard_normal(5)
        parts = [{5: (fold + 0.02 * generator.standard_normal(20)).tolist()} for fold in folds]
        write_shots(tmp_path, parts)
        entry = json.loads((tmp_path / "shots.json").read_text())["5"]
        assert entry["interval_over"] == "folds"
        low, high = entry["interval"]
        num_right += low <= 0.6 <= high
    assert 0.9 < num_right / 200 < 0.99
    assert entry["mean"] == pytest.approx(np.mean(entry["accuracies"]))
    assert entry["interval"] == pytest.approx(mean_interval([np.mean(part[5]) for part in parts]))
    write_shots(tmp_path, parts[:1])
    alone = json.loads((tmp_path / "shots.json").read_text())["5"]
    assert alone["interval_over"] == "episodes"
    assert alone["interval"] == pytest.approx(mean_interval(parts[0][5]))


def test_episodes_do_not_depend_on_the_other_numbers():
    values, targets = draw(60, 3)
    view, labels = clips_of(values), labels_of(targets, 3)
    (probe, _), *_ = list_candidates(["linear"], [0])
    settings = Settings("single_label_classification", seed=3)

    def episodes(shots):
        return draw_episodes(probe, view, view, labels, labels, shots, 3, settings, 1.0)

    every = episodes([1, 2, 5])
    assert every == {**episodes([5]), **episodes([2, 1])}
    assert every != draw_episodes(probe, view, view, labels, labels, [1, 2, 5], 3, settings._replace(seed=4), 1.0)


# Commands


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve clips of each of three classes, whose spectra differ."""
    return write_pitches(tmp_path / "clips", 12)


@pytest.fixture
def recipe(folder, tmp_path, no_pictures) -> dict:
    torch.manual_seed(0)
    BeatsForPreTraining(BeatsConfig(**ENCODER)).save_pretrained(tmp_path / "pretrained")
    values = {"model_name_or_path": str(tmp_path / "pretrained"), "dataset": str(folder), "freeze": True}
    return values | {"output_dir": str(tmp_path / "probe"), "num_folds": 3, "crop_seconds": 1.0, "disable_tqdm": True}


def run(recipe: dict, **values) -> dict:
    return finetune(Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | values)))


def test_layers_are_compared_and_the_chosen_one_is_in_the_model(recipe, folder, capsys):
    metrics = run(recipe, probe_layers="all", final=True)
    assert metrics["mean"]["accuracy"] > 0.6
    output = Path(recipe["output_dir"])
    report = json.loads((output / "layers.json").read_text())
    num_layers = ENCODER["num_hidden_layers"]
    assert [entry["layer"] for entry in report["layers"]] == list(range(num_layers + 1))
    assert {entry["probe"] for entry in report["layers"]} == {"linear"}
    assert report["metric"] == "accuracy"
    assert all(entry["interval"][0] <= entry["value"] <= entry["interval"][1] for entry in report["layers"])
    printed = capsys.readouterr().out
    assert "By layer" in printed
    assert str(output / "layers.png") in printed
    for number, chosen in enumerate(report["chosen"], start=1):
        fold = output / f"fold-{number}"
        own = json.loads((fold / "layers.json").read_text())
        least = min(own["layers"], key=lambda entry: entry["log_loss"])
        assert own["chosen"] == [chosen] == [least["layer"]]
        # The model, by its own forward pass, has the metric of that layer.
        of_fold = json.loads((fold / "evaluation" / "metrics.json").read_text())
        assert of_fold["metrics"]["accuracy"] == own["layers"][chosen]["value"]
        assert of_fold["description"]["trained"] == f"logistic regression on layer {chosen} of the frozen encoder"
        model = BeatsForAudioClassification.from_pretrained(fold)
        inference = WindowedInference(model, BeatsFeatureExtractor.from_pretrained(fold))
        rows = (fold / "evaluation" / "predictions.csv").read_text().splitlines()
        for row in rows[1:4]:
            name, *_, high, low, noise = row.split(",")
            scores = inference.classify(folder / name).scores
            np.testing.assert_allclose(scores, [float(high), float(low), float(noise)], atol=1e-4)
    assert (output / "final" / "model.safetensors").exists()


def test_the_choice_keeps_the_folds_of_a_column_together(recipe, folder, tmp_path, monkeypatch):
    paths = sorted(folder.rglob("*.wav"))
    rows = [
        {"file_name": str(path), "label": path.parent.name, "night": "abcd"[number % 4]}
        for number, path in enumerate(paths)
    ]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = []

    def spy(labels, seed, groups):
        seen.append(list(groups))
        return split_clips(labels, seed, groups)

    monkeypatch.setattr(selection, "split_clips", spy)
    values = {"dataset": str(tmp_path / "table.jsonl"), "num_folds": None, "fold_column": "night", "folds": ["b"]}
    run(recipe, **values, probe_layers="all")
    assert seen == [[row["night"] for row in rows if row["night"] != "b"]]


@pytest.mark.parametrize("layer", [1, -1, "0"])
def test_one_layer_can_be_named(recipe, layer):
    run(recipe, probe_layers=layer)
    fold = Path(recipe["output_dir"]) / "fold-1"
    assert not (fold / "layers.json").exists()
    model = BeatsForAudioClassification.from_pretrained(fold)
    number = int(layer) % (ENCODER["num_hidden_layers"] + 1)
    found = json.loads((fold / "probe.json").read_text())
    assert found == {"probe": "linear", "layer": number, "probe_c": 1.0, "log_losses": []}
    if number == ENCODER["num_hidden_layers"]:
        assert model.layer_average is None
    else:
        assert model.layer_average.weight.softmax(dim=0).tolist() == [float(n == number) for n in range(3)]


def test_few_clips_of_each_class_give_episodes(recipe, capsys):
    run(recipe, probe_shots=[1, 8], probe_episodes=4)
    report = json.loads((Path(recipe["output_dir"]) / "shots.json").read_text())
    assert list(report) == ["1", "8"]
    for entry in report.values():
        assert len(entry["accuracies"]) == 3 * 4
        assert entry["mean"] == pytest.approx(np.mean(entry["accuracies"]))
        assert entry["interval_over"] == "folds"
    assert report["8"]["mean"] > report["1"]["mean"]
    assert "With few clips of each class: 12 episodes, interval of the mean over folds" in capsys.readouterr().out


def test_balanced_weights_are_not_those_of_balanced_episodes(recipe, folder):
    # A class has a third of the clips of the others.
    for number in range(8):
        (folder / "low" / f"{number}.wav").unlink()
    found = {}
    for weights in (None, "balanced"):
        output = Path(recipe["output_dir"]).with_name(f"probe-{weights}")
        run(recipe, probe_shots=[2], probe_episodes=3, class_weights=weights, output_dir=str(output))
        found[weights] = json.loads((output / "shots.json").read_text())["2"]["accuracies"]
    assert found[None] == found["balanced"]


def test_layers_of_several_labels_are_compared(recipe, folder, tmp_path):
    rows = [{"file_name": str(path), "labels": f"sound,{path.parent.name}"} for path in sorted(folder.rglob("*.wav"))]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"dataset": str(tmp_path / "table.jsonl"), "label_separator": ",", "class_weights": "balanced"}
    metrics = run(recipe, **values, probe_layers="all", train_sampling_strategy="group_by_length")
    report = json.loads((Path(recipe["output_dir"]) / "layers.json").read_text())
    assert report["metric"] == "mAP"
    assert metrics["mean"]["mAP"] > 0.6
    described = json.loads((Path(recipe["output_dir"]) / "evaluation" / "metrics.json").read_text())["description"]
    assert described["trained"] == "logistic regression on a layer chosen in each fold of the frozen encoder"
    assert (described["class_weights"], "learning_rate" in described) == ("balanced", False)


@pytest.mark.parametrize(
    ("layers", "read"), [(None, "the last layer"), (1, "layer 1"), ("all", "a layer chosen in each fold")]
)
def test_a_report_of_folds_says_which_layer_was_read(recipe, layers, read):
    arguments = Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | {"probe_layers": layers}))
    assert describe_probe(arguments)["trained"] == f"logistic regression on {read} of the frozen encoder"


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"probe_shots": [9]}, BeatsError, "`probe_shots` has 9, but of 'high' there are 8 clips"),
        ({"probe_shots": [0]}, UsageError, "`probe_shots` must be at least 1, got 0"),
        ({"probe_shots": [1.5]}, UsageError, "`probe_shots` must be list"),
        ({"probe_layers": 99}, UsageError, "There is no layer 99"),
        ({"probe_layers": "most"}, UsageError, "Layers are 'most'"),
        ({"probe_c": 0.0}, UsageError, "`probe_c` must be positive"),
        ({"probe_shots": []}, UsageError, "`probe_shots` must be different numbers"),
        ({"probe_shots": [5, 5]}, UsageError, "`probe_shots` must be different numbers"),
        ({"probe_shots": [5], "num_folds": None}, UsageError, "`probe_shots` needs clips to evaluate on"),
        (
            {"freeze": False, "probe_layers": "all"},
            UsageError,
            "Only a probe reads `probe_layers`: set `freeze: true`",
        ),
        ({"freeze": False, "probe_shots": [1]}, UsageError, "Only a probe reads `probe_shots`: set"),
        ({"freeze": False, "probe_episodes": 3}, UsageError, "Only a probe reads `probe_episodes`: set"),
        ({"freeze": False, "probe_c": 2.0}, UsageError, "Only a probe reads `probe_c`: set"),
        ({"freeze": False, "probe_query": "class"}, UsageError, "Only a probe reads `probe_query`: set"),
        ({"freeze": False, "probe_steps": 5, "lora": {}}, UsageError, "Only a probe reads `probe_steps`: set"),
        ({"freeze": False, "probe_prototypes": 2}, UsageError, "Only a probe reads `probe_prototypes`: set"),
        ({"freeze": False, "probe_learning_rate": 0.1}, UsageError, "Only a probe reads `probe_learning_rate`: set"),
        (
            {"freeze": False, "probe_layer_weights": "attention"},
            UsageError,
            "Only a probe reads `probe_layer_weights`: set",
        ),
        ({"probe_episodes": 3}, UsageError, "`probe_episodes` are draws of `probe_shots`"),
    ],
)
def test_what_cannot_be_probed_is_refused(recipe, values, error, message):
    with pytest.raises(error, match=message):
        run(recipe, **values)


@pytest.mark.parametrize(
    ("text", "value"), [("all", "all"), ("-4:", "-4:"), ("[1, 2]", [1, 2]), ("2", "2"), ("2,3", "2,3")]
)
def test_layers_are_read_from_the_command_line(text, value):
    tuning, *_ = parse_arguments((FineTuningArguments,), ["--freeze", "true", "--probe_layers", text])
    assert tuning.probe_layers == value
