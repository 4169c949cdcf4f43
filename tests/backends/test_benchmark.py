# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""The benchmark of backends: its rows, and data that do not fit."""

import json

import numpy as np
import pytest
import soundfile
import typer
from encoders import TINY
from typer.testing import CliRunner

from transformers_beats import BeatsConfig, BeatsFeatureExtractor, BeatsModel
from transformers_beats.inference.loading import load_model


for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

from benchmarks import backends  # noqa: E402


@pytest.fixture
def classifier(saved_model):
    return load_model(saved_model)


@pytest.fixture
def dataset(tmp_path):
    """Three clips in two folds, and a checkpoint's feature extractor."""
    generator = np.random.default_rng(0)
    for index, length in enumerate((16000, 9000, 12000)):
        soundfile.write(tmp_path / f"{index}.wav", generator.normal(0, 0.1, length), 16000, subtype="FLOAT")
    (tmp_path / "metadata.csv").write_text("file_name,label,fold\n0.wav,LABEL_1,1\n1.wav,LABEL_2,1\n2.wav,LABEL_0,2\n")
    BeatsFeatureExtractor().save_pretrained(tmp_path)
    return tmp_path


def run(dataset, *options, model=None):
    arguments = ["--model", model or dataset, "--dataset", dataset, "--batch-size", 1, "--seconds", 0.5]
    command = typer.Typer()
    command.command()(backends.main)
    return CliRunner().invoke(command, [str(word) for word in (*arguments, "--repeats", 1, *options)])


def test_it_compares_backends_with_pytorch_and_the_published_code(dataset, classifier, monkeypatch):
    loaded = []
    monkeypatch.setattr("benchmarks.clips.load_model", lambda name, dtype: loaded.append(name) or classifier)
    monkeypatch.setattr("benchmarks.clips.load_extractor", lambda name: BeatsFeatureExtractor())
    # A model for each fold: here the same one.
    result = run(dataset, "--fold", 1, "--fold", 2, model=f"{dataset}/fold-{{fold}}")
    assert result.exit_code == 0, result.output
    assert loaded == [f"{dataset}/fold-1", f"{dataset}/fold-2"]
    report = json.loads(result.stdout.splitlines()[-1])
    published, pytorch, float32, int8 = report["rows"]
    assert [row["name"] for row in report["rows"]] == ["reference-style", "torch", "onnx", "onnx-int8"]
    assert report["clips"] == 3
    assert pytorch["largest_difference"] == 0
    assert float32["largest_difference"] < 1e-5 < int8["largest_difference"]
    assert int8["cosine"] < float32["cosine"] == pytest.approx(1.0, abs=1e-5)
    assert int8["embeddings"] < float32["embeddings"] == pytest.approx(1.0, abs=1e-5)
    low, high = pytorch["accuracy_interval"]
    assert low <= pytorch["accuracy"] <= high
    assert float32["accuracy"] == pytorch["accuracy"]
    assert pytorch["change_interval"] == [0.0, 0.0]
    assert min(row["seconds"]["1"] for row in report["rows"]) > 0
    assert published["seconds"]["1"] > 0


def test_one_clip_has_an_accuracy_and_no_interval():
    probabilities = np.array([[0.2, 0.8]])
    row = backends.compare(probabilities, probabilities, [1])
    assert row["accuracy"] == 1.0
    assert {"accuracy_interval", "change_interval"}.isdisjoint(row)
    row |= {"name": "torch", "bytes": 1000}
    table = backends.make_table([row], {}, "title")
    assert list(table.columns[6].cells) == ["100.0%"]
    several = backends.compare(np.repeat(probabilities, 2, axis=0), np.repeat(probabilities, 2, axis=0), [1, 0])
    assert several["accuracy_interval"] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file_name,label,fold\n0.wav,bird,1\n", "no label 'bird', only LABEL_0, LABEL_1, LABEL_2, LABEL_3"),
        ("file_name,label,fold\n0.wav,LABEL_0,2\n", "no rows of fold 1"),
        ("file_name,label\n0.wav,LABEL_0\n", "no column 'fold'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table, message, dataset, classifier, monkeypatch):
    monkeypatch.setattr("benchmarks.clips.load_model", lambda name, dtype: classifier)
    (dataset / "metadata.csv").write_text(table)
    result = run(dataset, "--fold", 1)
    assert result.exit_code == 1
    assert message in result.stderr


def test_models_without_classes_are_refused(dataset, monkeypatch):
    monkeypatch.setattr("benchmarks.clips.load_model", lambda name, dtype: BeatsModel(BeatsConfig(**TINY)))
    result = run(dataset)
    assert result.exit_code == 1
    assert "holds a BeatsModel" in result.stderr


def test_a_model_for_each_fold_needs_folds(dataset):
    result = run(dataset, model="fold-{fold}")
    assert result.exit_code == 2
    assert "needs --dataset and --fold" in result.stderr
