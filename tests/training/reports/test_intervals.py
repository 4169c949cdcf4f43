# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Intervals of metrics: each resample has the metrics of the clips that were drawn."""

import numpy as np
import pytest

from transformers_beats.metrics.audioset_map import d_prime
from transformers_beats.training.reports import intervals
from transformers_beats.training.reports.intervals import (
    describe_intervals,
    metric_intervals,
    percentiles,
    resample,
)
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


def test_draws_are_the_same_in_parts(predictions, monkeypatch):
    whole = resample(predictions)
    monkeypatch.setattr(intervals, "BLOCK", 7 * NUM_CLIPS)
    monkeypatch.setattr(intervals, "CHUNK", 3 * NUM_CLIPS)
    parts = resample(predictions)
    np.testing.assert_allclose(parts.classes, whole.classes, rtol=1e-12)
    for name, values in whole.metrics.items():
        np.testing.assert_allclose(parts.metrics[name], values, rtol=1e-12)


def test_a_class_that_no_clip_was_labelled_for_has_no_interval():
    generator = np.random.default_rng(0)
    labels, known = generator.integers(2, size=(20, 2)), np.ones((20, 2), dtype=bool)
    labels[:, 1], known[:, 1] = 0, False
    predictions = Predictions(list(map(str, range(20))), generator.random((20, 2)), labels, ["a", "b"], known)
    found = resample(predictions)
    assert np.isfinite(found.classes[:, 0]).all()
    assert np.isnan(found.classes[:, 1]).all()
    assert metric_intervals([predictions])["mAP"] is not None


def test_ranks_are_computed_once(monkeypatch):
    generator = np.random.default_rng(0)
    # Several parts of draws and rows.
    monkeypatch.setattr(intervals, "BLOCK", 100)
    monkeypatch.setattr(intervals, "CHUNK", 40)
    calls = []
    rankdata = intervals.rankdata
    monkeypatch.setattr(
        intervals,
        "rankdata",
        lambda scores, *args, **kwargs: calls.append(len(scores)) or rankdata(scores, *args, **kwargs),
    )
    labels = np.zeros((30, 4), dtype=int)
    labels[::2] = 1
    predictions = Predictions([f"{row // 3}" for row in range(30)], generator.random((30, 4)), labels, list("abcd"))
    assert len(resample(predictions).classes) == 1000
    # Both ranks of each row that has a label.
    assert sum(calls) == 2 * 15


def test_very_many_scores_have_no_intervals(monkeypatch):
    predictions = Predictions(["a", "b"], np.array([[0.9], [0.1]]), np.array([[1], [0]]), ["x"])
    metrics = dict.fromkeys(["mAP", "auc", "d_prime", "lwlrap"], 0.5)
    small = describe_intervals([predictions], metrics, dict.fromkeys(metrics, (0.1, 0.9)))
    monkeypatch.setattr(intervals, "MAX_SCORES", 1)
    assert resample(predictions).classes.shape == (0, 1)
    assert metric_intervals([predictions]) == dict.fromkeys(metrics)
    text = "mAP, auc, d_prime, lwlrap have no intervals: 2 scores are more than 1."
    assert small.startswith("Intervals of 95%")
    assert describe_intervals([predictions], metrics, dict.fromkeys(metrics)) == text
    # Those of events are there all the same.
    of_events = "Intervals of 95%: percentiles of a bootstrap over clips (1,000 resamples for F1 of events). "
    found = {**dict.fromkeys(metrics), "collar_f1": (0.1, 0.2), "psds1": None}
    assert describe_intervals([predictions], metrics | {"collar_f1": 0.1}, found) == of_events + text
    single = Predictions(["a", "b"], np.eye(2), np.arange(2), ["x", "y"])
    assert set(resample(single).metrics["accuracy"]) == {1}


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


@pytest.mark.parametrize("num_clips", [1, 40])
def test_equal_draws_are_no_interval(num_clips):
    names = list(map(str, range(num_clips)))
    right = Predictions(names, np.eye(2)[np.arange(num_clips) % 2], np.arange(num_clips) % 2, ["x", "y"])
    assert metric_intervals([right]) == {"accuracy": None, "macro_f1": None}
    assert metric_intervals([right, right]) == {"accuracy": None, "macro_f1": None}
    several = Predictions(names, np.eye(2)[np.arange(num_clips) % 2], np.eye(2)[np.arange(num_clips) % 2], ["x", "y"])
    assert set(metric_intervals([several]).values()) == {None}
    if num_clips > 1:
        wrong = Predictions(names, right.scores, np.where(np.arange(num_clips) == 0, 1, right.labels), ["x", "y"])
        low, high = metric_intervals([wrong])["accuracy"]
        assert low < 39 / 40 < high


def test_a_difference_may_be_none():
    assert percentiles(np.zeros(9)) is None
    assert percentiles(np.zeros(9), of_differences=True) == (0, 0)
    assert percentiles(np.full(9, np.nan), of_differences=True) is None


def test_d_prime_has_the_interval_of_auc():
    generator = np.random.default_rng(0)
    labels = np.arange(60)[:, None] % 2
    for shift, is_finite in ((1.0, True), (3.9, False)):
        scores = 1 / (1 + np.exp(-generator.normal(shift * (labels - 0.5))))
        predictions = Predictions(list(map(str, range(60))), scores, labels, ["x"])
        auc = resample(predictions).metrics["auc"]
        share = np.mean(auc == 1)
        found = metric_intervals([predictions])
        # Draws that have all of them right are among those that count.
        assert (share < 0.02) if is_finite else (0.03 < share < 0.97)
        expected = [d_prime(value) for value in np.quantile(auc, [0.025, 0.975])] if is_finite else None
        assert found["d_prime"] == (pytest.approx(expected, rel=1e-2) if is_finite else None)
        assert found["auc"] is not None
        assert compute_metrics(predictions)["d_prime"] is not None


def test_d_prime_of_draws_is_that_of_their_auc():
    labels = np.array([[1], [1], [0], [0], [0]])
    predictions = Predictions(list("abcde"), np.array([[0.9], [0.3], [0.2], [0.4], [0.1]]), labels, ["x"])
    metrics = resample(predictions).metrics
    expected = [d_prime(value) for value in metrics["auc"]]
    is_infinite = np.isinf(metrics["d_prime"])
    assert is_infinite.any()
    np.testing.assert_array_equal(is_infinite, np.isin(metrics["auc"], [0, 1]))
    expected = [value for value in expected if value is not None and not np.isnan(value)]
    np.testing.assert_allclose(metrics["d_prime"][np.isfinite(metrics["d_prime"])], expected)


def test_what_is_undefined_has_no_interval():
    predictions = Predictions(["a", "b"], np.array([[0.9], [0.1]]), np.array([[0], [0]]), ["x"])
    assert metric_intervals([predictions]) == {"mAP": None, "auc": None, "d_prime": None, "lwlrap": None}


def test_the_sentence_names_the_method():
    predictions = Predictions(["a", "b"], np.eye(2), np.arange(2), ["x", "y"])
    text = "Intervals of 95%: percentiles of a bootstrap over clips (1,000 resamples"
    metrics, found = {"accuracy": 0.5}, {"accuracy": (0.1, 0.9)}
    assert describe_intervals([predictions], metrics, found) == f"{text})."
    assert describe_intervals([predictions, predictions], metrics, found) == f"{text}, each fold on its own)."
    events = {"collar_f1": (0.1, 0.2), "segment_f1": (0.1, 0.2), "psds1": (0.1, 0.2)}
    of_events = f"{text}, 1,000 for F1 of events, 200 to 1,000 for PSDS)."
    assert describe_intervals([predictions], metrics, found | events) == of_events


def test_the_sentence_says_why_a_metric_has_no_interval():
    predictions = Predictions(["a", "b"], np.eye(2), np.arange(2), ["x", "y"])
    equal = "None for accuracy, psds1, for which the draws are all equal, or an end would be infinite."
    missing = {"accuracy": 1.0, "psds1": 1.0, "psds2": None}
    assert describe_intervals([predictions], missing, dict.fromkeys(missing)).endswith(f"). {equal}")
    # Of what was not drawn, nothing is known of the draws.
    missing |= {"psds2": 0.5}
    found = dict.fromkeys(["accuracy", "psds1"])
    assert describe_intervals([predictions], missing, found).endswith(
        f"). {equal} None for psds2, whose draws would take too long."
    )
    assert describe_intervals([predictions] * 2, missing, found).endswith(
        f"). {equal} None over folds for psds2: see the reports of the folds."
    )


@pytest.mark.parametrize(
    ("of_moments", "drawn"), [(True, "clips, each with all its moments"), (False, "clips, those of one file together")]
)
def test_the_sentence_says_what_is_drawn(of_moments, drawn):
    predictions = Predictions(["a", "a", "b"], np.zeros((3, 1)), np.zeros((3, 1)), ["x"], of_moments=of_moments)
    text = describe_intervals([predictions], {}, {})
    assert text.startswith(f"Intervals of 95%: percentiles of a bootstrap over {drawn} (")
