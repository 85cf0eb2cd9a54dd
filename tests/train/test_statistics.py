from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score, roc_curve

pytest.importorskip("torch")

from lymphcad_train.statistics import (
    auroc_interval,
    evaluate,
    fit_temperature,
    negative_log_likelihood,
    weighted_auroc,
    youden_threshold,
)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    generator = np.random.default_rng(0)
    margins = generator.normal(0, 4, 20_000)
    labels = (generator.random(20_000) < expit(margins / temperature)).astype(np.int64)
    assert fit_temperature(margins, labels) == pytest.approx(temperature, rel=0.05)


def test_temperature_stays_finite_where_the_classes_separate():
    assert fit_temperature(np.array([-3.0, -1.0, 2.0]), np.array([0, 0, 1])) == pytest.approx(0.2, rel=0.01)


def test_likelihood_by_hand():
    found = negative_log_likelihood(np.array([0.25, 0.5]), np.array([0, 1]))
    assert found == pytest.approx(-(np.log(0.75) + np.log(0.5)) / 2)


def test_the_threshold_lies_in_the_widest_gap_where_the_classes_separate():
    margins, labels = np.array([-3.0, -2.0, -1.0, 2.0, 2.5]), np.array([0, 0, 0, 1, 1])
    assert youden_threshold(margins, labels) == pytest.approx(0.5)
    assert youden_threshold(np.array([-1.0, 4.0]), np.array([0, 1])) == pytest.approx(1.5)
    assert youden_threshold(np.array([2.0, 2.0]), np.array([0, 1])) == 2


def test_the_threshold_is_nearer_to_the_best_one_than_that_of_the_sample():
    """Of two normal classes around 0 and 2, both of deviation 1, the best one is 1."""
    generator = np.random.default_rng(3)
    labels = np.repeat([0, 1], 50)
    errors, unsmoothed = [], []
    for _ in range(300):
        margins = 2 * labels + generator.normal(size=100)
        threshold = youden_threshold(margins, labels)
        neighbours = np.sort(np.abs(margins - threshold))[:2]
        assert neighbours[0] == pytest.approx(neighbours[1])
        errors.append(threshold - 1)
        false_positive, true_positive, thresholds = roc_curve(labels, margins)
        unsmoothed.append(thresholds[np.argmax(true_positive - false_positive)] - 1)
    assert abs(np.mean(errors)) < 0.1
    assert np.std(errors) < 0.8 * np.std(unsmoothed)


def test_figures_by_hand():
    probabilities = np.array([0.1, 0.6, 0.7, 0.4])
    labels, patients = np.array([0, 0, 1, 1]), np.array(["a", "b", "c", "d"])
    found = evaluate(probabilities, labels, patients, np.array([3.0, 9.0, 8.0, 9.5]), 0.5, seed=0)
    assert found["n"] == found["patients"] == 4
    assert found["auroc"] == 0.75
    assert found["sensitivity"] == found["specificity"] == found["accuracy"] == 0.5
    assert found["size_baseline_auroc"] == 0.75
    # Wilson, 2 of 4: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n)
    assert found["accuracy_ci95"] == pytest.approx((0.1500, 0.8500), abs=1e-4)


def test_no_size_baseline_where_a_diameter_is_missing():
    found = evaluate(np.array([0.1, 0.9]), np.array([0, 1]), np.array([1, 2]), np.array([np.nan, 2.0]), 0.5, seed=0)
    assert "size_baseline_auroc" not in found


def test_weighted_auroc_is_that_of_scikit_learn():
    generator = np.random.default_rng(2)
    scores, labels = generator.integers(0, 9, 80), generator.integers(0, 2, 80)
    weights = generator.integers(0, 4, 80)
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert weighted_auroc(scores, labels, weights) == pytest.approx(expected)


def test_repeated_images_of_a_patient_do_not_narrow_the_interval():
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1], 30)
    scores = labels + generator.normal(0, 1, 60)
    once = auroc_interval(scores, labels, np.arange(60), seed=0)
    tenfold = auroc_interval(np.repeat(scores, 10), np.repeat(labels, 10), np.repeat(np.arange(60), 10), seed=0)
    naive = auroc_interval(np.repeat(scores, 10), np.repeat(labels, 10), np.arange(600), seed=0)
    assert tenfold == pytest.approx(once, abs=0.01)
    assert naive[1] - naive[0] < 0.5 * (once[1] - once[0])
