# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Fréchet distance against closed forms, and its extrapolation."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from transformers_beats.search.distance import Gaussian, count_needed, fit_gaussian, frechet_distance, measure_distance
from transformers_beats.utils.errors import UsageError


def random_covariance(generator, dim: int, rank: int | None = None) -> np.ndarray:
    factor = generator.standard_normal((dim, rank or 2 * dim))
    return factor @ factor.T / factor.shape[1]


def test_of_diagonal_covariances_it_is_the_closed_form():
    generator = np.random.default_rng(0)
    means, deviations = generator.standard_normal((2, 16)), generator.uniform(0, 2, (2, 16))
    first, second = (Gaussian(mean, np.diag(deviation**2)) for mean, deviation in zip(means, deviations))
    expected = np.square(means[0] - means[1]).sum() + np.square(deviations[0] - deviations[1]).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_of_any_covariances_it_is_the_formula_with_the_square_root_of_their_product():
    generator = np.random.default_rng(1)
    first, second = (Gaussian(generator.standard_normal(8), random_covariance(generator, 8)) for _ in range(2))
    root = np.trace(sqrtm(first.covariance @ second.covariance).real)
    expected = np.square(first.mean - second.mean).sum()
    expected += np.trace(first.covariance) + np.trace(second.covariance) - 2 * root
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("count", [5, 50])
def test_of_equal_collections_it_is_zero_also_if_they_are_few(count):
    values = np.random.default_rng(2).standard_normal((count, 20)).astype(np.float32)
    found = measure_distance(values, values)
    assert found.value == pytest.approx(0, abs=1e-10)
    assert found.is_biased == (count == 5)


def test_collections_of_singular_covariances_have_a_distance():
    generator = np.random.default_rng(3)
    # In one dimension each, at right angles: the root of the product is zero.
    first, second = np.zeros((2, 10, 4))
    first[:, 0], second[:, 1] = generator.standard_normal((2, 10))
    expected = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    expected += first[:, 0].var(ddof=1) + second[:, 1].var(ddof=1)
    assert measure_distance(first, second).value == pytest.approx(expected, rel=1e-10)


def test_the_extrapolation_is_nearer_to_the_true_distance():
    generator = np.random.default_rng(4)
    dim, count = 16, 200
    shift = 0.05
    true = dim * shift**2
    first, second = generator.standard_normal((count, dim)), shift + generator.standard_normal((count, dim))
    found = measure_distance(first, second)
    assert not found.is_biased
    assert abs(found.extrapolated - true) < 0.4 * abs(found.value - true)
    assert measure_distance(first, second) == found


def test_without_enough_embeddings_there_is_no_extrapolation():
    values = np.random.default_rng(5).standard_normal((2, 32, 16))
    found = measure_distance(*values)
    assert (found.extrapolated, found.is_biased) == (None, False)


def test_the_extrapolation_begins_with_the_number_that_is_named():
    values = np.random.default_rng(6).standard_normal((2, count_needed(4), 4))
    assert count_needed(4) == 10
    assert measure_distance(*values).extrapolated is not None
    assert measure_distance(values[0], values[1][1:]).extrapolated is None


def test_one_embedding_has_no_covariance():
    with pytest.raises(UsageError, match="two embeddings at least, got 1"):
        fit_gaussian(np.zeros((1, 3)))
