# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Back ends, pooling and banks of a detector against independent computations."""

import warnings
import weakref

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf, ShrunkCovariance
from sklearn.decomposition import PCA

from transformers_beats.anomalies.backends import make_backend
from transformers_beats.anomalies.bank import MemoryBank
from transformers_beats.anomalies.choices import DetectorSettings
from transformers_beats.anomalies.pooling import arrange_bands, deviation_weights, pool_blocks, pool_time
from transformers_beats.utils.errors import BeatsError, UsageError


BACKENDS = ("knn", "density", "mahalanobis", "pca")


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def correlated(generator, num_clips: int, dim: int) -> np.ndarray:
    return generator.normal(size=(num_clips, dim)) @ generator.normal(size=(dim, dim)) + 3


def cosine_distance(first, second) -> float:
    return 1 - first @ second / np.linalg.norm(first) / np.linalg.norm(second)


# Pooling


def test_generalised_mean_is_a_mean_of_cubes_of_what_is_positive(generator):
    values = generator.normal(size=(7, 2, 3, 5))
    expected = np.cbrt(np.mean([np.where(column > 0, column, 0) ** 3 for column in values], axis=0))
    np.testing.assert_allclose(pool_time(values, "gem"), expected, rtol=1e-6)


def test_relative_deviation_pooling_is_a_weighted_mean(generator):
    values = generator.normal(size=(6, 1, 2, 4))
    for band in range(2):
        own = values[:, 0, band]
        distances = [np.linalg.norm(column - own.mean(axis=0)) for column in own]
        weights = np.array([(1 + distance / max(distances)) ** 4 for distance in distances])
        expected = np.average(own, axis=0, weights=weights)
        np.testing.assert_allclose(pool_time(values, "rdp")[0, band], expected, rtol=1e-5)
        cubes = np.average(np.clip(own, 0, None) ** 3, axis=0, weights=weights)
        np.testing.assert_allclose(pool_time(values, "rdp-gem")[0, band], np.cbrt(cubes), rtol=1e-5)


def test_poolings_of_one_column_and_of_equal_columns_are_the_mean(generator):
    column = np.abs(generator.normal(size=(1, 1, 2, 4)))
    for pooling in ("mean", "gem", "rdp", "rdp-gem"):
        for values in (column, np.repeat(column, 5, axis=0)):
            np.testing.assert_allclose(pool_time(values, pooling), column[0], rtol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "gem", "rdp", "rdp-gem"])
def test_blocks_of_columns_are_pooled_as_the_whole(pooling):
    values = np.random.default_rng(0).standard_normal((50, 2, 3, 8)).astype(np.float32)
    held = []

    def blocks():
        for start in range(0, 50, 7):
            block = values[start : start + 7].copy()
            held.append(weakref.ref(block))
            # One before may still have a name where it is added.
            assert "rdp" in pooling or sum(each() is not None for each in held) <= 2
            yield block

    np.testing.assert_allclose(pool_blocks(blocks(), pooling), pool_time(values, pooling), rtol=1e-6)
    assert len(held) == 8


def test_a_power_of_0_weighs_all_columns_alike(generator):
    np.testing.assert_allclose(deviation_weights(generator.normal(size=(4, 3, 2)), power=0), 0.25)


def test_bands_are_kept_averaged_or_put_one_after_another(generator):
    pooled = generator.normal(size=(2, 3, 4))
    assert arrange_bands(pooled, "separate") is pooled
    np.testing.assert_array_equal(arrange_bands(pooled, "mean")[1, 0], pooled[1].mean(axis=0))
    np.testing.assert_array_equal(arrange_bands(pooled, "concat")[1, 0], np.concatenate(list(pooled[1])))


# Back ends


@pytest.mark.parametrize("num_neighbors", [1, 3])
def test_nearest_neighbors_have_the_smallest_cosine_distances(generator, num_neighbors):
    bank, tests = correlated(generator, 12, 5), generator.normal(size=(3, 5))
    found = make_backend("knn", bank, num_neighbors).score(tests)
    for test, score in zip(tests, found):
        distances = sorted(cosine_distance(test, vector) for vector in bank)
        assert score == pytest.approx(np.mean(distances[:num_neighbors]))


@pytest.mark.parametrize("num_neighbors", [1, 3])
def test_density_divides_by_the_distances_in_the_bank(generator, num_neighbors):
    bank, tests = correlated(generator, 12, 5), generator.normal(size=(3, 5))
    found = make_backend("density", bank, num_neighbors).score(tests)
    radii = []
    for number, vector in enumerate(bank):
        others = sorted(cosine_distance(vector, other) for other in np.delete(bank, number, axis=0))
        radii.append(np.mean(others[:num_neighbors]))
    for test, score in zip(tests, found):
        ratios = [cosine_distance(test, vector) / radius for vector, radius in zip(bank, radii)]
        assert score == pytest.approx(min(ratios))


@pytest.mark.parametrize(("num_clips", "dim"), [(30, 4), (8, 20)])
def test_mahalanobis_distance_is_that_of_the_covariance_of_ledoit_and_wolf(generator, num_clips, dim):
    bank, tests = correlated(generator, num_clips, dim), generator.normal(size=(3, dim))
    expected = np.sqrt(LedoitWolf().fit(bank).mahalanobis(tests))
    np.testing.assert_allclose(make_backend("mahalanobis", bank).score(tests), expected, rtol=1e-9)


def test_pca_leaves_what_its_components_do_not_explain(generator):
    plane = generator.normal(size=(30, 2)) @ generator.normal(size=(2, 6))
    backend = make_backend("pca", plane)
    inside = generator.normal(size=(1, 2)) @ np.linalg.svd(plane - plane.mean(axis=0))[2][:2] + plane.mean(axis=0)
    normal = np.linalg.svd(plane - plane.mean(axis=0))[2][5]
    assert backend.score(inside)[0] == pytest.approx(0, abs=1e-9)
    assert backend.score(inside + 2 * normal)[0] == pytest.approx(2)


@pytest.mark.parametrize(("num_clips", "dim"), [(20, 5), (9, 30)])
@pytest.mark.parametrize("num_neighbors", [1, 2, 5])
@pytest.mark.parametrize("name", ["knn", "density"])
def test_held_out_scores_are_those_against_a_bank_without_the_clip(generator, name, num_neighbors, num_clips, dim):
    bank = correlated(generator, num_clips, dim)
    expected = [
        make_backend(name, np.delete(bank, clip, axis=0), num_neighbors).score(bank[clip : clip + 1])[0]
        for clip in range(num_clips)
    ]
    np.testing.assert_allclose(make_backend(name, bank, num_neighbors).held_out(), expected, rtol=1e-9)


@pytest.mark.parametrize(("num_clips", "dim"), [(20, 5), (9, 30), (3, 4)])
def test_held_out_mahalanobis_distances_are_those_without_the_clip_at_the_same_shrinkage(generator, num_clips, dim):
    bank = correlated(generator, num_clips, dim)
    shrinkage = LedoitWolf().fit(bank).shrinkage_
    expected = [
        ShrunkCovariance(shrinkage=shrinkage).fit(np.delete(bank, clip, axis=0)).mahalanobis(bank[clip : clip + 1])[0]
        for clip in range(num_clips)
    ]
    np.testing.assert_allclose(make_backend("mahalanobis", bank).held_out(), np.sqrt(expected), rtol=1e-8)


def test_held_out_residuals_are_those_of_components_fitted_without_the_clip(generator):
    bank = correlated(generator, 15, 6)
    expected = []
    for clip in range(15):
        pca = PCA(n_components=0.95, svd_solver="full").fit(np.delete(bank, clip, axis=0))
        own = bank[clip : clip + 1]
        expected.append(np.linalg.norm(own - pca.inverse_transform(pca.transform(own))))
    np.testing.assert_allclose(make_backend("pca", bank).held_out(), expected, rtol=1e-9)


def test_of_many_clips_a_tenth_is_left_out_together(generator):
    bank = correlated(generator, 60, 5)
    pca = PCA(n_components=0.95, svd_solver="full").fit(bank[6:])
    expected = np.linalg.norm(bank[:6] - pca.inverse_transform(pca.transform(bank[:6])), axis=1)
    np.testing.assert_allclose(make_backend("pca", bank).held_out()[:6], expected, rtol=1e-9)


@pytest.mark.parametrize("name", BACKENDS)
def test_scores_are_finite_for_banks_without_a_spread(generator, name):
    clip = generator.normal(size=(1, 6))
    banks = [np.zeros((5, 6)), np.repeat(clip, 4, axis=0), np.concatenate([np.repeat(clip, 4, axis=0), -clip])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for bank in banks:
            backend = make_backend(name, bank, num_neighbors=9)
            scores = np.concatenate([backend.held_out(), backend.score(np.concatenate([clip, 0 * clip, clip + 1]))])
            assert np.isfinite(scores).all()
            assert (scores >= 0).all()


# Banks


def normal_clips(generator, num_clips: int) -> np.ndarray:
    return (generator.normal(size=(num_clips, 2, 3, 8)) + 4).astype(np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_score_is_the_mean_of_standardised_scores_of_layers_and_bands(generator, backend):
    vectors, tests = normal_clips(generator, 10), normal_clips(generator, 4)
    settings = DetectorSettings((0, 1), backend=backend, num_neighbors=2)
    found = MemoryBank({"": vectors}, settings).score(tests)
    parts = []
    for layer in range(2):
        for band in range(3):
            one = make_backend(backend, vectors[:, layer, band], 2)
            normal = one.held_out()
            parts.append((one.score(tests[:, layer, band]) - normal.mean()) / normal.std())
    np.testing.assert_allclose(found, np.mean(parts, axis=0), rtol=1e-6)


def test_of_several_domains_the_one_counts_that_a_clip_is_most_like(generator):
    source, target = normal_clips(generator, 12), normal_clips(generator, 4) - 8
    settings = DetectorSettings((0, 1))
    both = MemoryBank({"source": source, "target": target}, settings)
    alone = [MemoryBank({"": vectors}, settings) for vectors in (source, target)]
    tests = np.concatenate([normal_clips(generator, 3), normal_clips(generator, 3) - 8])
    expected = np.minimum(alone[0].score(tests), alone[1].score(tests))
    np.testing.assert_allclose(both.score(tests), expected)
    # A few normal clips of another domain are as normal as any, and would not be without a bank of their own.
    assert both.score(tests[3:]).max() < alone[0].score(tests[3:]).min()


def test_normal_scores_are_those_of_clips_that_are_left_out(generator):
    source, target = normal_clips(generator, 8), normal_clips(generator, 4)
    bank = MemoryBank({"source": source, "target": target}, DetectorSettings((0, 1)))
    found = bank.normal_scores()
    for clip in range(8):
        own = (bank.held_out["source"][clip] - bank.means["source"]) / bank.spreads["source"]
        other = MemoryBank({"": target}, DetectorSettings((0, 1))).score(source[clip : clip + 1])[0]
        assert found[clip] == pytest.approx(min(own.mean(), other))


def test_the_score_of_a_clip_does_not_depend_on_the_others(generator):
    bank = MemoryBank({"": normal_clips(generator, 9)}, DetectorSettings((0, 1), backend="density"))
    tests = normal_clips(generator, 5)
    one_by_one = np.concatenate([bank.score(tests[clip : clip + 1]) for clip in range(5)])
    np.testing.assert_allclose(bank.score(tests), one_by_one, rtol=1e-9)


def test_copies_count_once_and_are_known_again(generator):
    vectors = normal_clips(generator, 5)
    twice = np.concatenate([vectors, vectors[:2] * (1 + 1e-7), vectors[4:]])
    bank = MemoryBank({"": twice}, DetectorSettings((0, 1)))
    np.testing.assert_array_equal(bank.vectors[""], vectors)
    assert (bank.num_copies, bank.num_shared) == (3, 0)
    alone = MemoryBank({"": vectors}, DetectorSettings((0, 1)))
    np.testing.assert_array_equal(bank.normal_scores(), alone.normal_scores())
    assert bank.holds(np.concatenate([vectors[:1], normal_clips(generator, 1)])).tolist() == [True, False]


def test_a_clip_of_both_domains_is_one_of_the_target_only(generator):
    source, target = normal_clips(generator, 8), normal_clips(generator, 4) - 8
    mixed = np.concatenate([source, target[:2]])
    bank = MemoryBank({"source": mixed, "target": target}, DetectorSettings((0, 1)))
    expected = MemoryBank({"source": source, "target": target}, DetectorSettings((0, 1)))
    assert list(bank.vectors) == ["source", "target"]
    assert (bank.num_copies, bank.num_shared) == (2, 2)
    np.testing.assert_array_equal(bank.normal_scores(), expected.normal_scores())
    with pytest.raises(BeatsError, match=r"^There are 0 different normal clips \(source\), and 3 are needed"):
        MemoryBank({"source": source, "target": source}, DetectorSettings((0, 1)))


def test_vectors_of_other_shapes_are_refused_with_both(generator):
    vectors = normal_clips(generator, 5)
    bank = MemoryBank({"": vectors}, DetectorSettings((0, 1)))
    _, layers, bands, dim = vectors.shape
    for call in (bank.score, bank.parts, bank.holds):
        for wrong in (vectors[:, :1], vectors[0], vectors[..., :-1]):
            with pytest.raises(UsageError) as caught:
                call(wrong)
            assert f"Vectors have the shape {wrong.shape}" in str(caught.value)
            assert f"(num_clips, {layers}, {bands}, {dim})" in str(caught.value)
    with pytest.raises(UsageError, match=r"have the shapes .* of source, .* of target: expected one shape"):
        MemoryBank({"source": vectors, "target": vectors[:, :1]}, DetectorSettings((0, 1)))


def test_a_bank_of_two_clips_is_refused_in_one_line(generator):
    with pytest.raises(BeatsError, match=r"^There are 2 different normal clips \(target of fan\), and 3 are needed"):
        MemoryBank(
            {"source": normal_clips(generator, 4), "target": normal_clips(generator, 2)},
            DetectorSettings((0, 1)),
            name="fan",
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backend": "nn"}, "`backend` is 'nn': choose knn, density, mahalanobis, pca."),
        ({"pooling": "max"}, "`pooling` is 'max'"),
        ({"bands": 3}, "`bands` is 3"),
        ({"num_neighbors": 0}, "`num_neighbors` must be a whole number of at least 1, got 0."),
    ],
)
def test_unknown_choices_are_refused(values, message):
    with pytest.raises(UsageError) as caught:
        DetectorSettings((0,), **values)
    assert message in str(caught.value)
