from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import auc, roc_auc_score, roc_curve

pytest.importorskip("sklearn")

from lymphcad_train.statistics import (
    ROC_POINTS,
    auroc,
    auroc_interval,
    delong,
    delong_interval,
    delong_test,
    difference_interval,
    roc_points,
    weighted_auroc,
)

RATED_BENIGN, RATED_METASTATIC = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
"""Ratings 1 to 5 of 109 tomograms: Hanley and McNeil, Radiology 1982;143:29, table I."""


@pytest.fixture
def rated():
    scores = np.repeat(np.tile(np.arange(1.0, 6.0), 2), RATED_BENIGN + RATED_METASTATIC)
    return scores, np.repeat([0, 1], [sum(RATED_BENIGN), sum(RATED_METASTATIC)])


def by_definition(scores, labels):
    """Return DeLong's AUROCs and covariance from all pairs, with equations 1 to 6 of the paper."""
    metastatic, benign = scores[:, labels == 1], scores[:, labels == 0]
    m, n = metastatic.shape[1], benign.shape[1]
    won = np.array(
        [
            [[1.0 if x > y else 0.5 if x == y else 0.0 for y in low] for x in high]
            for high, low in zip(metastatic, benign, strict=True)
        ]
    )
    areas = won.mean(axis=(1, 2))
    v10, v01 = won.mean(axis=2) - areas[:, None], won.mean(axis=1) - areas[:, None]
    return areas, v10 @ v10.T / (m - 1) / m + v01 @ v01.T / (n - 1) / n


@pytest.mark.parametrize("levels", [4, 10_000])
def test_delong_is_what_its_definition_says_with_ties_and_without(levels):
    generator = np.random.default_rng(6)
    labels = np.repeat([1, 0], [13, 29])
    scores = generator.integers(0, levels, (3, 42)) + 0.3 * levels * labels
    areas, covariance = delong(scores, labels)
    expected_areas, expected = by_definition(scores, labels)
    np.testing.assert_allclose(areas, expected_areas)
    np.testing.assert_allclose(covariance, expected, atol=1e-15)
    difference, p = delong_test(scores[0], scores[1], labels)
    variance = np.array([1, -1, 0]) @ expected @ np.array([1, -1, 0])
    assert difference == pytest.approx(expected_areas[0] - expected_areas[1])
    assert p == pytest.approx(2 * norm.cdf(-abs(difference) / np.sqrt(variance)))


def test_delong_of_the_tomograms_is_that_of_stata(rated):
    """The example of roctab in Stata's Base Reference Manual: ROC area, standard error, 95 % interval."""
    areas, covariance = delong(rated[0][None], rated[1])
    assert areas[0] == pytest.approx(0.8932, abs=5e-5)
    assert np.sqrt(covariance[0, 0]) == pytest.approx(0.0307, abs=5e-5)
    assert delong_interval(*rated) == pytest.approx((0.83295, 0.95339), abs=5e-6)


@given(
    st.lists(st.integers(-50, 50), min_size=8, max_size=30),
    st.sampled_from([np.exp, np.arctan, lambda x: x**3, lambda x: 5 * x - 2]),
)
def test_delong_knows_ranks_only(values, monotone):
    scores = np.array(values, dtype=np.float64) / 10
    labels = np.arange(len(values)) % 2
    found, changed = delong(scores[None], labels), delong(monotone(scores)[None], labels)
    np.testing.assert_array_equal(found[0], changed[0])
    np.testing.assert_array_equal(found[1], changed[1])


def test_delong_where_there_is_nothing_to_vary():
    scores, labels = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1])
    assert delong_interval(scores, labels) == (1, 1)
    assert delong_test(scores, scores**2, labels) == (0, 1)
    assert delong_test(scores, -scores, labels) == (1, 0)
    with pytest.raises(ValueError, match="found 3 benign and 1 metastatic"):
        delong_interval(scores, np.array([0, 0, 0, 1]))


def test_delong_rejects_a_true_hypothesis_as_often_as_it_says():
    generator = np.random.default_rng(7)
    labels = np.repeat([0, 1], [60, 40])
    p = [
        delong_test(*(labels + generator.normal(size=100) + generator.normal(size=(2, 100))), labels)[1]
        for _ in range(1000)
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.02)


def test_the_interval_of_a_difference_is_delongs_where_patients_have_one_image_each():
    generator = np.random.default_rng(9)
    labels = np.repeat([0, 1], [150, 120])
    common = labels + generator.normal(size=270)
    first, second = common + 0.6 * generator.normal(size=270), common + generator.normal(size=270)
    areas, covariance = delong(np.stack([first, second]), labels)
    reach = norm.ppf(0.975) * np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    expected = areas[0] - areas[1] - reach, areas[0] - areas[1] + reach
    found = difference_interval(first, second, labels, np.arange(270), seed=0)
    assert found == pytest.approx(expected, abs=0.006)
    assert difference_interval(second, first, labels, np.arange(270), seed=0) == pytest.approx((-found[1], -found[0]))
    assert difference_interval(first, 2 * first, labels, np.arange(270), seed=0) == (0, 0)


def test_auroc_is_that_of_scikit_learn(rated):
    generator = np.random.default_rng(2)
    scores, labels = generator.integers(0, 9, 80), generator.integers(0, 2, 80)
    weights = generator.integers(0, 4, 80)
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert weighted_auroc(scores, labels, weights) == pytest.approx(expected)
    for values, truth in ((scores / 7, labels), rated):
        assert auroc(values, truth) == pytest.approx(roc_auc_score(truth, values))


def test_repeated_images_of_a_patient_do_not_narrow_the_interval():
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1], 30)
    scores = labels + generator.normal(0, 1, 60)
    once = auroc_interval(scores, labels, np.arange(60), seed=0)
    tenfold = auroc_interval(np.repeat(scores, 10), np.repeat(labels, 10), np.repeat(np.arange(60), 10), seed=0)
    naive = auroc_interval(np.repeat(scores, 10), np.repeat(labels, 10), np.arange(600), seed=0)
    assert tenfold == pytest.approx(once, abs=0.01)
    assert naive[1] - naive[0] < 0.5 * (once[1] - once[0])


def test_the_intervals_cover_the_truth_and_only_the_bootstrap_knows_of_patients(monkeypatch):
    """Forty patients with three alike images each; normal classes that are one deviation apart."""
    monkeypatch.setattr("lymphcad_train.statistics.roc.RESAMPLES", 200)
    generator = np.random.default_rng(8)
    truth = norm.cdf(1 / np.sqrt(2))
    patients = np.repeat(np.arange(40), 3)
    labels = patients % 2
    covered = {"bootstrap": 0, "delong": 0}
    for seed in range(300):
        scores = labels + np.sqrt(0.9) * generator.normal(size=40)[patients]
        scores += np.sqrt(0.1) * generator.normal(size=120)
        for name, (low, high) in (
            ("bootstrap", auroc_interval(scores, labels, patients, seed)),
            ("delong", delong_interval(scores, labels)),
        ):
            covered[name] += low <= truth <= high
    assert 0.88 <= covered["bootstrap"] / 300 <= 0.98
    assert covered["delong"] / 300 < 0.82


def test_the_curve_is_that_of_scikit_learn_thinned_from_corner_to_corner():
    generator = np.random.default_rng(9)
    labels = generator.integers(0, 2, 3000)
    scores = labels + generator.normal(size=3000)
    points = np.array(roc_points(scores, labels))
    assert len(points) == ROC_POINTS
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    assert auc(*points.T) == pytest.approx(roc_auc_score(labels, scores), abs=0.002)
    few = roc_points(scores[:20], labels[:20])
    np.testing.assert_array_equal(few, np.stack(roc_curve(labels[:20], scores[:20])[:2], axis=1))
