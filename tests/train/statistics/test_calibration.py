from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

pytest.importorskip("sklearn")

from lymphcad_train.statistics import (
    BINS,
    brier,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)


@pytest.fixture
def made():
    generator = np.random.default_rng(4)
    probabilities = generator.random(500)
    return probabilities, (generator.random(500) < probabilities**2).astype(np.int64)


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
    assert negative_log_likelihood(np.array([0.0]), np.array([1])) == pytest.approx(-np.log(1e-12))


def test_likelihood_brier_and_reliability_are_those_of_scikit_learn(made):
    probabilities, labels = made
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities))
    assert brier(probabilities, labels) == pytest.approx(brier_score_loss(labels, probabilities))
    bins = reliability(probabilities, labels)
    share, mean = calibration_curve(labels, probabilities, n_bins=BINS)
    np.testing.assert_allclose([a_bin["share_metastatic"] for a_bin in bins], share)
    np.testing.assert_allclose([a_bin["mean_probability"] for a_bin in bins], mean)
    assert sum(a_bin["n"] for a_bin in bins) == 500


def test_calibration_error_is_that_of_torchmetrics(made):
    torch = pytest.importorskip("torch")
    import lymphcad_train.vision  # noqa: F401 - before torchmetrics, which imports torchvision
    from torchmetrics.classification import BinaryCalibrationError

    probabilities, labels = made
    expected = BinaryCalibrationError(n_bins=BINS)(torch.from_numpy(probabilities), torch.from_numpy(labels))
    assert expected > 0.1
    assert expected_calibration_error(probabilities, labels) == pytest.approx(float(expected), abs=1e-6)


def test_certainty_stands_in_the_outer_bins_and_empty_ones_are_left_out():
    found = reliability(np.array([0.0, 1.0, 1.0]), np.array([0, 1, 0]))
    assert found == [
        {"mean_probability": 0.0, "share_metastatic": 0.0, "n": 1},
        {"mean_probability": 1.0, "share_metastatic": 0.5, "n": 2},
    ]
    assert expected_calibration_error(np.array([0.0, 1.0, 1.0]), np.array([0, 1, 0])) == pytest.approx(1 / 3)
