from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

pytest.importorskip("sklearn")

from lymphcad_train.statistics import sensitivity_threshold, youden_threshold


def test_youden_lies_in_the_widest_gap_where_the_classes_separate():
    margins, labels = np.array([-3.0, -2.0, -1.0, 2.0, 2.5]), np.array([0, 0, 0, 1, 1])
    assert youden_threshold(margins, labels) == pytest.approx(0.5)
    assert youden_threshold(np.array([-1.0, 4.0]), np.array([0, 1])) == pytest.approx(1.5)
    assert youden_threshold(np.array([2.0, 2.0]), np.array([0, 1])) == 2


def test_youden_is_nearer_to_the_best_threshold_than_that_of_the_sample():
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


def test_the_threshold_of_a_required_sensitivity_by_hand():
    margins, labels = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]), np.array([0, 1, 0, 1, 1, 1])
    assert sensitivity_threshold(margins, labels, 0.75) == 0.5
    assert sensitivity_threshold(margins, labels, 0.76) == -1.5
    assert sensitivity_threshold(margins[1:], labels[1:], 1.0) == -1


@given(
    st.lists(st.tuples(st.integers(-20, 20), st.booleans()), min_size=1, max_size=100).filter(
        lambda rows: any(metastatic for _, metastatic in rows)
    ),
    st.integers(1, 100),
)
def test_no_higher_threshold_has_the_required_sensitivity(rows, percent):
    margins = np.array([margin for margin, _ in rows], dtype=np.float64)
    labels = np.array([metastatic for _, metastatic in rows], dtype=np.int64)
    threshold = sensitivity_threshold(margins, labels, percent / 100)
    metastatic = margins[labels == 1]
    assert 100 * (metastatic >= threshold).sum() >= percent * len(metastatic)
    above = margins[margins >= threshold].min()
    assert 100 * (metastatic > above).sum() < percent * len(metastatic)


@pytest.mark.parametrize(("labels", "required"), [([0, 0], 0.9), ([0, 1], 0.0), ([0, 1], 1.1)])
def test_a_sensitivity_that_cannot_be_required_is_refused(labels, required):
    with pytest.raises(ValueError, match="no requirement"):
        sensitivity_threshold(np.array([1.0, 2.0]), np.array(labels), required)
