# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Scores as rates of false alarms."""

import numpy as np
import pytest

from transformers_beats.anomalies.calibration import clips_needed, p_values, threshold_of
from transformers_beats.utils.errors import UsageError


def test_a_p_value_counts_the_normal_scores_that_are_as_high():
    normal = np.array([1.0, 2.0, 2.0, 5.0])
    found = p_values(np.array([0.0, 2.0, 2.5, 5.0, 9.0]), normal)
    np.testing.assert_allclose(found, [5 / 5, 4 / 5, 2 / 5, 2 / 5, 1 / 5])


@pytest.mark.parametrize("shape", [(), (3, 1), (2, 1, 1, 4)])
def test_p_values_are_those_of_one_score_a_clip(shape):
    with pytest.raises(UsageError, match="`scores` must be one score for each clip") as caught:
        p_values(np.zeros(shape), np.arange(9.0))
    assert str(shape) in str(caught.value)
    with pytest.raises(UsageError, match="`normal` must be one score for each clip"):
        p_values(np.zeros(2), np.zeros(shape))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 1 / 20, 0.999])
def test_above_the_threshold_p_values_are_no_more_than_the_rate(rate):
    normal = np.round(np.random.default_rng(0).normal(size=39), 1)
    scores = np.unique(np.concatenate([normal, normal + 0.05, [-9, 9]]))
    is_above = scores > threshold_of(normal, rate)
    np.testing.assert_array_equal(is_above, p_values(scores, normal) <= rate + 1e-12)
    assert is_above.any()


def test_no_more_new_normal_clips_are_called_anomalous_than_was_asked_for():
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        threshold = threshold_of(generator.normal(size=40), 0.1)
        shares.append(np.mean(generator.normal(size=200) > threshold))
    # Floor of 4.1 of 41.
    assert np.mean(shares) == pytest.approx(4 / 41, abs=0.01)


@pytest.mark.parametrize(("rate", "count"), [(0.05, 19), (0.1, 9), (0.5, 1), (0.03, 33)])
def test_too_few_clips_for_a_rate_are_refused_in_one_line(rate, count):
    assert clips_needed(rate) == count
    threshold_of(np.arange(count), rate)
    if count > 1:
        with pytest.raises(UsageError) as caught:
            threshold_of(np.arange(count - 1), rate)
        assert f"needs {count} normal clips or more, and there are {count - 1}" in str(caught.value)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, float("nan")])
def test_rates_that_are_none_are_refused(rate):
    with pytest.raises(UsageError, match="must be between 0 and 1"):
        threshold_of(np.arange(30), rate)
