from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit

pytest.importorskip("sklearn")

from lymphcad_train.statistics import Cases, SizeModel, compare_pairs, delong_test, difference_interval, holm


def cases_of(probabilities, labels, diameters):
    number = np.arange(len(labels)).astype(str)
    return Cases(probabilities, labels, number, diameters, np.full(len(labels), ""))


@pytest.fixture
def made():
    """Return 400 cases: logit of metastasis = -6 + 0.5 logit(probability) + 2.5 log(diameter)."""
    generator = np.random.default_rng(10)
    logits, diameters = generator.normal(0, 2, 400), np.exp(generator.normal(2.4, 0.5, 400))
    labels = (generator.random(400) < expit(-6 + 0.5 * logits + 2.5 * np.log(diameters))).astype(np.int64)
    return cases_of(expit(logits), labels, diameters)


def test_holm_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; none below the one before it."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]
    assert holm(np.array([])).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_none_and_bonferroni_and_keeps_the_order(values):
    p = np.array(values)
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(len(p) * p, 1)).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()


def test_every_pair_is_compared():
    generator = np.random.default_rng(11)
    labels = np.repeat([0, 1], 40)
    scores = {name: worth * labels + generator.normal(size=80) for name, worth in (("a", 3), ("b", 1), ("c", 0.9))}
    patients = np.arange(80) // 2
    found = compare_pairs(scores, labels, patients, seed=3)
    assert [(pair.first, pair.second) for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in found:
        assert (pair.difference, pair.p) == delong_test(scores[pair.first], scores[pair.second], labels)
        both = scores[pair.first], scores[pair.second]
        assert pair.interval == difference_interval(*both, labels, patients, seed=3)
    assert [pair.p_holm for pair in found] == holm(np.array([pair.p for pair in found])).tolist()
    assert found[0].p_holm < 0.001
    assert found[2].p_holm > 0.05


def test_the_model_has_the_largest_likelihood(made):
    features = np.stack([np.ones(400), logit(made.probabilities), np.log(made.diameters_mm)], axis=1)
    signs = 2 * made.labels - 1
    expected = minimize(lambda b: np.logaddexp(0, -signs * (features @ b)).sum(), np.zeros(3), method="BFGS").x
    model = SizeModel.fit(made)
    found = [model.intercept, model.logit_probability, model.log_diameter]
    np.testing.assert_allclose(found, expected, rtol=0.01)
    np.testing.assert_allclose(found, [-6, 0.5, 2.5], rtol=0.3)
    np.testing.assert_allclose(model.score(made), features @ found)


def test_the_model_stays_finite_where_the_classes_separate_or_the_size_is_always_the_same():
    probabilities, labels = np.array([0.0, 0.2, 0.8, 1.0]), np.array([0, 0, 1, 1])
    model = SizeModel.fit(cases_of(probabilities, labels, np.full(4, 8.0)))
    assert np.isfinite([model.intercept, model.logit_probability]).all()
    assert model.logit_probability > 0
    assert model.log_diameter == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("labels", "diameters"), [([1, 1], [8.0, 9.0]), ([0, 1], [8.0, np.nan])])
def test_the_model_refuses_what_it_cannot_be_fitted_on(labels, diameters):
    with pytest.raises(ValueError, match="both classes and every diameter"):
        SizeModel.fit(cases_of(np.array([0.3, 0.6]), np.array(labels), np.array(diameters)))
