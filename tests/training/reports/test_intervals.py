# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Intervals of metrics: each resample has the metrics of the clips that were drawn."""

import numpy as np
import pytest

from transformers_beats.training.reports import intervals
from transformers_beats.training.reports.intervals import describe_intervals, metric_intervals, resample
from transformers_beats.training.reports.report import Predictions, compute_metrics, per_class


NUM_CLIPS, NAMES = 60, list("abcde")


@pytest.fixture(params=["single", "multi", "partly known"])
def predictions(request) -> Predictions:
    generator = np.random.default_rng(0)
    # Rounded, so that clips of one score are met.
    scores = generator.random((NUM_CLIPS, len(NAMES))).round(1)
    labels = generator.random(scores.shape) < 0.3
    labels = labels.argmax(axis=1) if request.param == "single" else labels.astype(int)
    known = None
    if request.param == "partly known":
        known = generator.random(scores.shape) < 0.7
        labels = labels * known
    return Predictions([f"{clip}.wav" for clip in range(NUM_CLIPS)], scores, labels, NAMES, known)


def draw(predictions: Predictions, rows: np.ndarray) -> Predictions:
    names = [predictions.names[row] for row in rows]
    known = None if predictions.known is None else predictions.known[rows]
    return Predictions(names, predictions.scores[rows], predictions.labels[rows], NAMES, known)


def test_a_resample_has_the_metrics_of_its_clips(predictions, monkeypatch):
    monkeypatch.setattr(intervals, "count_resamples", lambda predictions: 3)
    found = resample(predictions, seed=1)
    generator = np.random.default_rng(1)
    # Names in alphabetical order, as drawn.
    order = np.argsort(predictions.names)
    for number in range(3):
        drawn = draw(predictions, order[generator.integers(NUM_CLIPS, size=NUM_CLIPS)])
        for name, value in compute_metrics(drawn).items():
            assert found.metrics[name][number] == pytest.approx(value)
        key = "ap" if predictions.is_multi_label else "f1"
        values = [np.nan if entry[key] is None else entry[key] for entry in per_class(drawn)]
        np.testing.assert_allclose(found.classes[number], values)


def test_an_interval_holds_the_metric(predictions):
    found = metric_intervals([predictions])
    for name, value in compute_metrics(predictions).items():
        low, high = found[name]
        assert low < value < high


def test_accuracy_has_the_interval_of_the_binomial_distribution():
    labels = np.arange(400) >= 320
    predictions = Predictions(list(map(str, range(400))), np.eye(2)[np.zeros(400, dtype=int)], labels, ["x", "y"])
    # 1.96 standard errors of 0.02.
    assert metric_intervals([predictions])["accuracy"] == pytest.approx((0.761, 0.839), abs=0.01)


def test_rows_of_one_file_are_drawn_together():
    labels = np.arange(400) >= 320
    names = [str(row // 40) for row in range(400)]
    predictions = Predictions(names, np.eye(2)[np.zeros(400, dtype=int)], labels, ["x", "y"])
    low, high = metric_intervals([predictions])["accuracy"]
    assert (low, high) == pytest.approx((0.5, 1), abs=0.1)


def test_the_mean_of_folds_has_a_smaller_interval_than_a_fold(predictions):
    one, five = metric_intervals([predictions]), metric_intervals([predictions] * 5)
    for name, (low, high) in one.items():
        assert five[name][1] - five[name][0] < 0.7 * (high - low)


def test_what_is_undefined_has_no_interval():
    predictions = Predictions(["a", "b"], np.array([[0.9], [0.1]]), np.array([[0], [0]]), ["x"])
    assert metric_intervals([predictions]) == {"mAP": None, "auc": None, "d_prime": None, "lwlrap": None}


def test_the_sentence_names_the_method():
    predictions = Predictions(["a", "b"], np.eye(2), np.arange(2), ["x", "y"])
    text = "Intervals of 95%: percentiles of a bootstrap over clips (1,000 resamples"
    assert describe_intervals([predictions]) == f"{text})."
    assert describe_intervals([predictions, predictions]) == f"{text}, each fold on its own)."
