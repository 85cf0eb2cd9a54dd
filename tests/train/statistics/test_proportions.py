from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score

pytest.importorskip("sklearn")

from lymphcad_train.statistics import call_figures, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_of_newcombe_1998(successes, trials, expected):
    """The worked examples of Newcombe, Stat Med 1998;17:857, method 3."""
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=5e-5)


def test_the_proportions_are_those_of_scikit_learn():
    generator = np.random.default_rng(5)
    labels, called = generator.integers(0, 2, 90), generator.random(90) < 0.4
    found = call_figures(called, labels)
    (tn, fp), (fn, tp) = confusion_matrix(labels, called).tolist()
    assert found["confusion"] == {"tp": tp, "fp": fp, "tn": tn, "fn": fn}
    assert found["sensitivity"] == pytest.approx(recall_score(labels, called))
    assert found["specificity"] == pytest.approx(recall_score(labels, called, pos_label=0))
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, called))
    assert found["ppv"] == pytest.approx(precision_score(labels, called))
    assert found["npv"] == pytest.approx(precision_score(labels, called, pos_label=0))
    assert found["npv_ci95"] == list(wilson_interval(tn, tn + fn))


def test_nothing_is_divided_by_nothing():
    found = call_figures(np.array([False, False]), np.array([0, 0]))
    assert found["sensitivity"] is found["sensitivity_ci95"] is found["ppv"] is found["ppv_ci95"] is None
    assert found["specificity"] == found["npv"] == 1
    assert call_figures(np.array([], dtype=bool), np.array([], dtype=np.int64))["accuracy"] is None
