# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Probes beside logistic regression: nearest neighbours, attention, averages of layers, prototypes; their models."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.stats import bootstrap
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from tiny import ENCODER, write_pitches
from transformers import pipeline

from transformers_beats import (
    BeatsConfig,
    BeatsFeatureExtractor,
    BeatsForAudioClassification,
    BeatsForPreTraining,
)
from transformers_beats.inference.windowed import WindowedInference
from transformers_beats.training.config.arguments import FINETUNE_ARGUMENTS, Arguments, FineTuningArguments
from transformers_beats.training.config.checks import PROBES, READERS
from transformers_beats.training.config.recipes import build_arguments, parse_arguments
from transformers_beats.training.data.labels import Labels
from transformers_beats.training.finetune import finetune
from transformers_beats.training.probes import embeddings as embeddings_module
from transformers_beats.training.probes import heads
from transformers_beats.training.probes.embeddings import Embeddings, PatchEmbeddings, PooledLayers
from transformers_beats.training.probes.few_shot import draw_episodes
from transformers_beats.training.probes.heads import AttentiveProbe, LayerProbe, PrototypeProbe
from transformers_beats.training.probes.neighbours import NearestNeighbour, weigh_ranks
from transformers_beats.training.probes.selection import KINDS
from transformers_beats.training.probes.settings import Settings, set_layer
from transformers_beats.training.reports.intervals import percentiles, resampled_means
from transformers_beats.training.reports.layers import read_scores
from transformers_beats.training.reports.report import Predictions
from transformers_beats.utils.errors import BeatsError, UsageError


SIZE, LAYERS = ENCODER["hidden_size"], ENCODER["num_hidden_layers"]
SINGLE = Settings("single_label_classification", steps=40)


def labels_of(targets: np.ndarray) -> Labels:
    names = [str(label) for label in range(int(targets.max()) + 1)]
    return Labels("single_label", names, [[int(label)] for label in targets])


def draw_patches(num_clips: int = 120, seed: int = 0) -> tuple[PatchEmbeddings, Labels]:
    """Noise in which one patch of each clip tells its class; the last patches of every other clip are padding."""
    generator = np.random.default_rng(seed)
    targets = np.arange(num_clips) % 3
    values = generator.standard_normal((num_clips, 10, SIZE)).astype(np.float32)
    patterns = np.random.default_rng(0).choice([-2.0, 2.0], (3, SIZE))
    values[np.arange(num_clips), generator.integers(6, size=num_clips)] += patterns[targets]
    mask = np.ones((num_clips, 10), dtype=bool)
    mask[::2, 6:] = False
    # Padding that would decide everything.
    values[~mask] = 1e3 * generator.standard_normal((int((~mask).sum()), SIZE))
    values = values * np.linspace(0.1, 5, SIZE, dtype=np.float32) + np.linspace(-3, 3, SIZE, dtype=np.float32)
    windows = np.arange(num_clips)
    return PatchEmbeddings(values, mask, windows, windows, [str(clip) for clip in windows]), labels_of(targets)


def draw_layers(num_clips: int = 48) -> tuple[Embeddings, Labels]:
    """Means of layers, of which the second alone tells the class."""
    generator = np.random.default_rng(0)
    targets = np.arange(num_clips) % 3
    values = generator.standard_normal((num_clips, LAYERS + 1, SIZE)).astype(np.float32)
    values[np.arange(num_clips), 1, targets] += 4.0
    return Embeddings(5 * values + 2, np.arange(num_clips), [str(clip) for clip in range(num_clips)]), labels_of(
        targets
    )


def test_names_of_probes_are_those_of_the_arguments():
    assert tuple(KINDS) == PROBES


# Nearest neighbours


@pytest.mark.parametrize("number", [1, 5, 20])
def test_neighbours_are_scikit_learns(number):
    generator = np.random.default_rng(0)
    targets = np.arange(60) % 3
    values = generator.standard_normal((60, 6)).astype(np.float32) * np.logspace(-2, 2, 6, dtype=np.float32)
    unseen = generator.standard_normal((30, 6)).astype(np.float32) * np.logspace(-2, 2, 6, dtype=np.float32)
    names = [str(clip) for clip in range(60)]
    (fitted,) = NearestNeighbour().fit(Embeddings(values, np.arange(60), names), labels_of(targets), SINGLE, [number])
    found = fitted.scores(Embeddings(unseen, np.arange(30), names[:30]))
    scaler = StandardScaler().fit(values)
    classifier = KNeighborsClassifier(number, metric="cosine").fit(scaler.transform(values), targets)
    votes = number * classifier.predict_proba(scaler.transform(unseen))
    # Nearer ones have a thousandth of a vote more, at most.
    np.testing.assert_allclose(found, (votes + 1 / 3) / (number + 1), atol=1e-3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    first, second = -np.sort(-votes, axis=1)[:, :2].T
    is_clear = first > second + 0.5
    np.testing.assert_array_equal(found.argmax(axis=1)[is_clear], votes.argmax(axis=1)[is_clear])


@pytest.mark.parametrize("number", [1, 2, 10])
def test_of_classes_with_equal_votes_the_nearer_wins(number):
    values = 10 * np.eye(10, SIZE, dtype=np.float32)
    names = [str(clip) for clip in range(10)]
    view, labels = Embeddings(values, np.arange(10), names), labels_of(np.arange(10))
    (fitted,) = NearestNeighbour().fit(view, labels, SINGLE, [number])
    np.testing.assert_array_equal(fitted.scores(view).argmax(axis=1), np.arange(10))
    assert sum(weigh_ranks(50)) == pytest.approx(50)
    # All that the nearest of 50 have more is no vote.
    assert np.abs(weigh_ranks(50) - 1).sum() < 0.01


def test_an_episode_has_no_more_neighbours_than_shots(monkeypatch):
    values = np.random.default_rng(0).standard_normal((30, SIZE)).astype(np.float32)
    view, labels = Embeddings(values, np.arange(30), [str(clip) for clip in range(30)]), labels_of(np.arange(30) % 3)
    numbers, original = [], NearestNeighbour.fit

    def record(self, embeddings, labels, settings, choices):
        numbers.extend(choices)
        return original(self, embeddings, labels, settings, choices)

    monkeypatch.setattr(NearestNeighbour, "fit", record)
    draw_episodes(NearestNeighbour(), view, view, labels, labels, [1, 5, 10], 1, SINGLE, 5)
    assert numbers == [1, 5, 5]


def test_neighbours_vote_for_each_of_several_labels():
    values = np.array([[1, 0.1], [1, -0.1], [-1, 0.1], [-1, -0.1]], dtype=np.float32)
    labels = Labels("multi_label", ["a", "b"], [[0], [0, 1], [1], []])
    settings = Settings("multi_label_classification")
    (fitted,) = NearestNeighbour().fit(Embeddings(values, np.arange(4), list("wxyz")), labels, settings, [2])
    found = fitted.scores(Embeddings(values[:1] * [[1, 0]], np.arange(1), ["w"]))
    np.testing.assert_allclose(found, [[2.5 / 3, 1.5 / 3]], atol=1e-3)


# Heads that are trained


@pytest.mark.parametrize("query", ["shared", "class"])
@pytest.mark.parametrize("probe", [AttentiveProbe(), PrototypeProbe()])
def test_one_patch_of_a_clip_can_tell_its_class(probe, query):
    view, labels = draw_patches()
    unseen, unseen_labels = draw_patches(seed=1)
    settings = SINGLE._replace(query=query, steps=150, learning_rate=0.03)
    (fitted,) = probe.fit(view, labels, settings, [150])
    assert (fitted.scores(unseen).argmax(axis=1) == unseen_labels.as_array()).mean() > 0.8


@pytest.mark.parametrize("probe", [AttentiveProbe(), PrototypeProbe()])
def test_patches_of_a_few_windows_are_held_at_a_time(probe, monkeypatch):
    view, labels = draw_patches(num_clips=24)
    settings = SINGLE._replace(prototypes=60)
    whole = probe.build(view, labels, settings)
    sizes, read = [], PatchEmbeddings.read

    def record(self, windows):
        sizes.append(len(windows))
        return read(self, windows)

    monkeypatch.setattr(PatchEmbeddings, "read", record)
    monkeypatch.setattr(heads, "BATCH_SIZE", 8)
    again = probe.build(view, labels, settings)
    assert max(sizes) == 8
    for name, value in whole.pool.state_dict().items():
        if name in ("prototypes", "mean", "std"):
            torch.testing.assert_close(again.pool.state_dict()[name], value)


def test_layers_are_standardised_together():
    view, labels = draw_layers()
    head = LayerProbe().build(view, labels, SINGLE)
    values = view.values.astype(np.float64)
    np.testing.assert_allclose(head.mean, values.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(head.std, np.sqrt(values.var(axis=0).mean(axis=0)), rtol=1e-6)


@pytest.mark.parametrize("layer_weights", ["learned", "attention"])
def test_the_layer_that_tells_the_class_has_the_weight(layer_weights):
    view, labels = draw_layers()
    (fitted,) = LayerProbe().fit(view, labels, SINGLE._replace(layer_weights=layer_weights, steps=150), [150])
    weights = fitted.head.pool.weight.softmax(dim=0)
    assert weights.argmax() == 1
    assert (fitted.scores(view).argmax(axis=1) == labels.as_array()).mean() > 0.9


@pytest.mark.parametrize("probe", [AttentiveProbe(), PrototypeProbe(), LayerProbe()])
def test_the_same_seed_trains_the_same_head_and_earlier_steps_are_kept(probe):
    view, labels = draw_layers() if probe.reads == "layers" else draw_patches()
    state = torch.random.get_rng_state()
    early, late = probe.fit(view, labels, SINGLE, [5, 20])
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(7)
    (again,) = probe.fit(view, labels, SINGLE, [5])
    np.testing.assert_array_equal(early.scores(view), again.scores(view))
    assert not np.array_equal(early.scores(view), late.scores(view))


def test_the_loss_of_several_labels_is_that_of_each():
    view, labels = draw_patches()
    rows = [[values[0], 3] for values in labels.values]
    several = Labels("multi_label", list("abcd"), rows)
    settings = Settings("multi_label_classification", steps=150, learning_rate=0.03)
    (fitted,) = AttentiveProbe().fit(view, several, settings, [150])
    scores = fitted.scores(view)
    assert scores[:, 3].min() > 0.9
    assert (scores[:, :3].argmax(axis=1) == labels.as_array()).mean() > 0.9


def test_heavy_classes_are_predicted_more():
    view, labels = draw_patches()
    scores = [
        AttentiveProbe().fit(view, labels, SINGLE._replace(weights=weights), [10])[0].scores(view)[:, 0].mean()
        for weights in (None, np.array([30.0, 1.0, 1.0], dtype=np.float32))
    ]
    assert scores[1] > scores[0] + 0.1


# Heads in a model


def inputs_and_model() -> tuple[dict, BeatsForAudioClassification]:
    torch.manual_seed(0)
    config = BeatsConfig(**ENCODER, num_labels=3, problem_type="single_label_classification")
    clips = [0.1 * np.random.default_rng(n).standard_normal(n).astype(np.float32) for n in (16000, 9000, 6000)]
    inputs = BeatsFeatureExtractor()(clips, sampling_rate=16000, return_tensors="pt")
    return dict(inputs), BeatsForAudioClassification(config).eval()


@pytest.mark.parametrize("query", ["shared", "class"])
@pytest.mark.parametrize("probe", [AttentiveProbe(), PrototypeProbe(), LayerProbe()])
@torch.no_grad()
def test_a_model_computes_the_scores_of_its_probe(probe, query, tmp_path):
    inputs, model = inputs_and_model()
    layers = list(range(LAYERS + 1))
    outputs = PooledLayers(model.beats, layers, [1])(**inputs)
    names, windows = list("abc"), np.arange(3)
    view = Embeddings(outputs["embeddings"].numpy(), windows, names)
    if probe.reads == "patches":
        view = PatchEmbeddings(
            outputs["patches"][:, :, 0].numpy(), outputs["mask"].numpy() == 1, windows, windows, names
        )
    settings = SINGLE._replace(query=query, layer_weights="attention" if query == "class" else "learned")
    with torch.enable_grad():
        (fitted,) = probe.fit(view, labels_of(windows), settings, [20])
    set_layer(model, 1 if probe.reads == "patches" else LAYERS)
    fitted.write(model)
    model.save_pretrained(tmp_path)
    again = BeatsForAudioClassification.from_pretrained(tmp_path).eval()
    np.testing.assert_allclose(again(**inputs).logits.softmax(-1).numpy(), fitted.scores(view), atol=1e-5)


def test_patches_are_those_of_the_layer():
    inputs, model = inputs_and_model()
    with torch.no_grad():
        found = PooledLayers(model.beats, [0], [2, 1])(**inputs)
        states = model.beats(**inputs, output_hidden_states=True).hidden_states
    for position, layer in enumerate([2, 1]):
        torch.testing.assert_close(found["patches"][:, :, position], states[layer])
    assert found["mask"].sum(dim=1).tolist() == [48, 24, 16]


# Commands


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten clips of each of three classes, whose spectra differ, of two lengths."""
    return write_pitches(tmp_path / "clips", 10, (6400, 9600))


@pytest.fixture
def recipe(folder, tmp_path, no_pictures) -> dict:
    torch.manual_seed(0)
    BeatsForPreTraining(BeatsConfig(**ENCODER)).save_pretrained(tmp_path / "pretrained")
    values = {"model_name_or_path": str(tmp_path / "pretrained"), "dataset": str(folder), "probe_steps": 40}
    return values | {"output_dir": str(tmp_path / "probe"), "num_folds": 2, "crop_seconds": 1.0, "disable_tqdm": True}


def run(recipe: dict, **values) -> dict:
    if "probe_steps" not in values and not any(name in str(values["probe"]) for name in READERS["probe_steps"]):
        recipe = {name: value for name, value in recipe.items() if name != "probe_steps"}
    return finetune(Arguments(*build_arguments(FINETUNE_ARGUMENTS, recipe | values)))


def test_all_probes_are_compared_on_embeddings_that_are_computed_once(recipe, folder, capsys, monkeypatch):
    passes = []
    original = embeddings_module._compute

    def count(trainer, *others):
        passes.append(trainer)
        return original(trainer, *others)

    monkeypatch.setattr(embeddings_module, "_compute", count)
    monkeypatch.setenv("COLUMNS", "80")
    run(recipe, probe=",".join(PROBES), probe_layers=[1, 2], probe_shots=[2], probe_episodes=1, probe_steps=8)
    assert len(passes) == 1
    output = Path(recipe["output_dir"])
    report = json.loads((output / "layers.json").read_text())
    found = [(entry["probe"], entry["layer"]) for entry in report["layers"]]
    assert found == [
        *((probe, layer) for probe in PROBES[:3] for layer in (1, 2)),
        ("multi_layer", None),
        *(("prototype", layer) for layer in (1, 2)),
    ]
    values = [entry["value"] for entry in report["layers"]]
    assert values[report["best"]] == max(values)
    assert report["layers"][report["best"]]["behind_best"] is None
    printed = capsys.readouterr().out
    assert "By probe and layer; kept: that of the least log loss, cross-validated" in printed
    assert f"Best on these clips: {found[report['best']][0]}" in printed
    # No row is wrapped.
    assert sum(" to " in line and re.match(r"  (\w+) +(\d )?", line) is not None for line in printed.splitlines()) >= 9
    for number, chosen in enumerate(report["chosen"], start=1):
        fold = output / f"fold-{number}"
        choice = json.loads((fold / "probe.json").read_text())
        losses = {(row["probe"], row["layer"]): row["log_loss"] for row in choice["log_losses"]}
        assert set(losses) == set(found)
        saved = {key: loss for key, loss in losses.items() if key[0] != "knn"}
        assert (choice["probe"], choice["layer"]) == found[chosen] == min(saved, key=saved.get)
        inference = WindowedInference.from_pretrained(fold)
        rows = (fold / "evaluation" / "predictions.csv").read_text().splitlines()
        for row in rows[1:4]:
            name, *_, high, low, noise = row.split(",")
            scores = inference.classify(folder / name).scores
            np.testing.assert_allclose(scores, [float(high), float(low), float(noise)], atol=1e-4)
    # Another layer alone is computed, and nothing again.
    again = {"output_dir": str(output.with_name("again")), "probe_steps": 1}
    run(recipe, probe="attentive", probe_layers=[0, 1, 2], **again)
    assert [trainer.model.layers for trainer in passes[1:]] == [[0]]


@pytest.mark.parametrize(
    ("probe", "values", "settings"),
    [
        ("attentive", {"probe_layers": 1}, {"classifier_pooling": "attention", "use_weighted_layer_sum": True}),
        ("attentive", {"probe_query": "class"}, {"classifier_pooling": "class_attention"}),
        ("multi_layer", {}, {"use_weighted_layer_sum": True, "layer_weights": "learned"}),
        ("multi_layer", {"probe_layer_weights": "attention"}, {"layer_weights": "attention"}),
        ("prototype", {"probe_prototypes": 2}, {"classifier_pooling": "prototypes", "num_prototypes": 6}),
    ],
)
def test_a_probe_is_an_ordinary_model(probe, values, settings, recipe, folder):
    run(recipe, probe=probe, num_folds=None, eval_share=0.4, **values)
    output = Path(recipe["output_dir"])
    config = json.loads((output / "config.json").read_text())
    assert {name: config[name] for name in settings} == settings
    assert json.loads((output / "evaluation" / "metrics.json").read_text())["metrics"]["accuracy"] > 0.5
    classifier = pipeline("audio-classification", model=str(output))
    # Transformers reads files with ffmpeg, which may not be there.
    samples, rate = soundfile.read(folder / "noise" / "0.wav", dtype="float32")
    assert classifier({"raw": samples, "sampling_rate": rate})[0]["label"] in ("high", "low", "noise")
    choice = json.loads((output / "probe.json").read_text())
    assert choice["probe"] == probe
    assert choice["steps of training"] in range(1, 41)
    known = {name: choice[name] for name in choice if name.startswith("probe_")}
    assert {*known} == {name for name, readers in READERS.items() if probe in readers} - {"probe_layers"}
    assert known["probe_steps"] == 40
    assert known["probe_learning_rate"] == KINDS[probe].learning_rate
    described = json.loads((output / "evaluation" / "metrics.json").read_text())
    assert str(known).strip("{}") in str(described)


def test_a_probe_can_be_probed_again(recipe):
    first = Path(recipe["output_dir"])
    run(recipe, probe="prototype", probe_layers=1, num_folds=None)
    values = {"model_name_or_path": str(first), "output_dir": str(first.with_name("second")), "num_folds": None}
    with pytest.raises(BeatsError, match="reads a mean of all layers"):
        run(recipe, **values, probe="linear")
    run(recipe, **values, probe="linear", probe_layers=2)
    config = json.loads((first.with_name("second") / "config.json").read_text())
    assert (config["classifier_pooling"], config["use_weighted_layer_sum"]) == ("mean", False)
    BeatsForAudioClassification.from_pretrained(first.with_name("second"))


def test_nearest_neighbours_are_an_evaluation(recipe, capsys):
    metrics = run(recipe, probe="knn")
    assert metrics["mean"]["accuracy"] > 0.6
    output = Path(recipe["output_dir"])
    assert not list(output.rglob("model.safetensors"))
    assert json.loads((output / "fold-1" / "probe.json").read_text())["number of neighbours"] >= 1
    assert "Nearest neighbours are an evaluation: there is no model." in capsys.readouterr().out


def test_differences_are_of_the_same_draws_of_clips(recipe):
    run(recipe, probe=["linear", "multi_layer"], probe_steps=4)
    output = Path(recipe["output_dir"])
    parts = [read_scores(output / f"fold-{fold}") for fold in (1, 2)]
    report = json.loads((output / "layers.json").read_text())
    draws = [resampled_means([part.predictions[position] for part in parts])["accuracy"] for position in (0, 1)]
    other = 1 - report["best"]
    expected = percentiles(draws[report["best"]] - draws[other], of_differences=True)
    assert report["layers"][other]["behind_best"] == pytest.approx(expected)


def test_intervals_of_differences_are_scipys():
    generator = np.random.default_rng(0)
    labels = np.zeros(300, dtype=int)
    right = [generator.random(300) < share for share in (0.8, 0.7)]
    names = [str(clip) for clip in range(300)]
    parts = [Predictions(names, np.stack([each, ~each], axis=1), labels, ["a", "b"]) for each in right]
    draws = [resampled_means([part])["accuracy"] for part in parts]

    def difference(first, second, axis=-1):
        return first.mean(axis=axis) - second.mean(axis=axis)

    expected = bootstrap([each.astype(float) for each in right], difference, paired=True, method="percentile")
    np.testing.assert_allclose(percentiles(draws[0] - draws[1]), expected.confidence_interval, atol=0.012)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"probe": "svm"}, UsageError, "`probe` has 'svm': choose linear, knn"),
        ({"probe": []}, UsageError, "`probe` must be different names"),
        ({"probe": ["knn", "knn"]}, UsageError, "`probe` must be different names"),
        ({"probe": "knn", "final": True}, UsageError, "`probe: knn` is an evaluation only"),
        ({"probe": "knn", "num_folds": None}, UsageError, "`probe: knn` is an evaluation only"),
        ({"probe": "linear,knn", "class_weights": "balanced"}, UsageError, "`class_weights` are of a loss"),
        ({"probe": "attentive", "probe_query": "two"}, UsageError, "probe_query"),
        ({"probe": "attentive", "probe_steps": 0}, UsageError, "`probe_steps` must be at least 1"),
        ({"probe": "prototype", "probe_prototypes": 0}, UsageError, "`probe_prototypes` must be at least 1"),
        ({"probe": "linear", "probe_steps": 5}, UsageError, "`probe_steps` is not read by `probe: linear`"),
        (
            {"probe": "multi_layer", "probe_layers": 2},
            UsageError,
            "`probe_layers` is not read by `probe: multi_layer`",
        ),
        ({"probe": "attentive", "probe_prototypes": 9}, UsageError, "leave it out, or name prototype"),
        ({"probe": "knn", "probe_c": 9.0}, UsageError, "`probe_c` is not read by `probe: knn`"),
        ({"probe": "linear,knn", "probe_query": "class"}, UsageError, "not read by `probe: linear, knn`"),
        ({"probe": "linear", "model_config": {"classifier_pooling": "attention"}}, UsageError, "which `probe` sets"),
        ({"probe": "knn", "push_to_hub": True}, UsageError, "nothing of it can be saved or published"),
        ({"probe": "linear", "lora": {}}, UsageError, "`freeze` and `lora` exclude each other"),
    ],
)
def test_what_cannot_be_probed_is_refused(recipe, values, error, message):
    with pytest.raises(error, match=message):
        run(recipe, **values)
    assert not Path(recipe["output_dir"]).exists()


def test_no_room_for_patches_is_said_before_they_are_computed(recipe, monkeypatch):
    usage = embeddings_module.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(embeddings_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(BeatsError, match=r"the patches of these clips need 0\.000 GB"):
        run(recipe, probe="attentive")


@pytest.mark.parametrize(("text", "names"), [("knn", ["knn"]), ("linear, knn", ["linear", "knn"])])
def test_probes_are_read_from_the_command_line(text, names):
    tuning, *_ = parse_arguments((FineTuningArguments,), ["--probe", text])
    assert (tuning.probes, tuning.freeze) == (names, True)
    tuning, *_ = parse_arguments((FineTuningArguments,), ["--probe", "[attentive, prototype]"])
    assert tuning.probes == ["attentive", "prototype"]


def test_patches_that_nothing_has_used_for_long_leave_the_cache(recipe):
    run(recipe, probe="attentive", probe_layers=[0, 1, 2], probe_steps=1)
    cache = Path(os.environ["HF_DATASETS_CACHE"]) / "transformers_beats"
    stored = {*cache.glob("patches-*.npy")}
    assert len(stored) == 4
    for path in stored:
        os.utime(path, (0, 0))
    torch.manual_seed(1)
    BeatsForPreTraining(BeatsConfig(**ENCODER)).save_pretrained(recipe["model_name_or_path"])
    output = Path(recipe["output_dir"]).with_name("other")
    run(recipe, probe="attentive", probe_layers=[0, 1, 2], probe_steps=1, output_dir=str(output))
    assert not stored & {*cache.glob("patches-*.npy")}
    assert len([*cache.glob("patches-*.npy")]) == 4
