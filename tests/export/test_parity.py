from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from lymphcad_export.parity import Agreement, broken_limits, compare, flipped, hot_spot
from lymphcad_export.scores import Scores
from lymphcad_train.statistics import Cases

pytestmark = pytest.mark.torch
AGREEMENT = Agreement(400, 0.0, 0.0, 0, 0.0, (0.0, 0.0), 0.0, 0, None, None, None, None)


def cases(labels):
    n = len(labels)
    return Cases(
        np.zeros(n), np.array(labels), np.array([f"p{at}" for at in range(n)]), np.full(n, np.nan), np.full(n, "")
    )


@pytest.mark.parametrize(
    ("precision", "agreement", "refused"),
    [
        ("fp32", replace(AGREEMENT, probability_max=0.0009), []),
        ("fp32", replace(AGREEMENT, probability_max=0.0011), ["largest difference of a probability is 0.0011"]),
        ("fp32", replace(AGREEMENT, probability_max=float("nan")), ["is nan"]),
        ("fp32", replace(AGREEMENT, flips=1), ["changed calls among 400 crops is 1, and at most 0"]),
        ("fp16", replace(AGREEMENT, probability_max=0.0099), []),
        ("fp16", replace(AGREEMENT, probability_max=0.0101), ["largest difference of a probability is 0.0101"]),
        ("fp16", replace(AGREEMENT, flips=1), ["changed calls among 400 crops is 1, and at most 0"]),
        ("int8", replace(AGREEMENT, probability_max=0.2, flips=2, auroc_difference=-0.0049), []),
        ("int8", replace(AGREEMENT, flips=3), ["changed calls among 400 crops is 3, and at most 2"]),
        ("int8", replace(AGREEMENT, crops=199, flips=1), ["changed calls among 199 crops is 1, and at most 0"]),
        ("int8", replace(AGREEMENT, auroc_difference=-0.0051), ["change of the AUROC is 0.0051"]),
        ("int8", replace(AGREEMENT, flips=3, auroc_difference=0.1), ["changed calls", "change of the AUROC is 0.1"]),
    ],
)
def test_the_limits(precision, agreement, refused):
    found = broken_limits(agreement, precision)
    assert len(found) == len(refused)
    assert all(words in sentence for words, sentence in zip(refused, found, strict=True))


def test_agreement_by_hand():
    heat = np.zeros((5, 4, 4), np.uint8)
    heat[:, 1, 1] = 200
    heat[4] = 0  # no evidence: nothing to correlate
    moved = heat.copy()
    moved[1] = np.roll(heat[1], 1, axis=1)
    moved[:, 3, 3] += 2
    reference = Scores(np.array([0.1, 0.4, 0.6, 0.9, 0.501]), heat)
    found = Scores(np.array([0.1, 0.62, 0.6, 0.8, 0.499]), moved)
    agreement = compare(found, reference, cases([0, 0, 1, 1, 1]), 0.5, field_of_view_mm=8.0, seed=0)
    assert agreement.crops == 5
    assert agreement.probability_max == pytest.approx(0.22)
    assert agreement.probability_mean == pytest.approx(0.322 / 5)
    assert agreement.flips == 2
    assert flipped(found, reference, 0.5).tolist() == [False, True, False, False, True]
    assert agreement.auroc_difference == pytest.approx(-2 / 6)
    low, high = agreement.auroc_difference_ci95
    assert low <= agreement.auroc_difference <= high
    assert agreement.heatmap_mean == pytest.approx((5 * 2 + 2 * 200) / (5 * 16))
    assert agreement.heatmaps == 4
    own = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(moved[:4], heat[:4], strict=True)]
    assert agreement.heatmap_correlation == pytest.approx(np.mean(own))
    assert agreement.heatmap_correlation_min == pytest.approx(own[1])
    assert (agreement.hot_spot_mm_mean, agreement.hot_spot_mm_max) == (0.5, 2.0)  # one pixel of 2 mm, once in four


def test_a_flat_peak_has_its_middle():
    heatmap = np.zeros((5, 9), np.uint8)
    heatmap[2, 3:8] = 255
    assert hot_spot(heatmap).tolist() == [2, 5]
