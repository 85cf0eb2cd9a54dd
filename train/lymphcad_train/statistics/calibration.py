"""Whether a probability of 0.8 means eight of ten: temperature, likelihood, Brier score, reliability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, xlogy

if TYPE_CHECKING:
    from lymphcad_train.statistics.cases import Floats, Labels

BINS = 10
"""Of equal width, from 0 to 1."""
_TEMPERATURES = (0.2, 10.0)


def fit_temperature(margins: Floats, labels: Labels) -> float:
    """Return the divisor of the logits that makes the labels most likely (Guo et al., ICML 2017).

    Parameters
    ----------
    margins
        float64 [N], logit of metastatic minus logit of benign.
    labels
        int64 [N], 1 metastatic.

    Returns
    -------
    float
        From 0.2 to 10: where the classes separate without an error, ever smaller divisors would be ever better.
    """
    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(
        lambda log: negative_log_likelihood(expit(margins / np.exp(log)), labels), bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x))


def negative_log_likelihood(probabilities: Floats, labels: Labels) -> float:
    """Return the mean negative logarithm of the probability of the true class.

    Parameters
    ----------
    probabilities
        float64 [N], of metastasis; kept 1e-12 away from 0 and 1.
    labels
        int64 [N], 1 metastatic.

    Returns
    -------
    float
        In nats, from 0.
    """
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return float(-np.mean(xlogy(labels, p) + xlogy(1 - labels, 1 - p)))


def brier(probabilities: Floats, labels: Labels) -> float:
    """Return the mean squared distance of the probability from the label (Brier, Mon Weather Rev 1950;78:1).

    Parameters
    ----------
    probabilities
        float64 [N], of metastasis.
    labels
        int64 [N], 1 metastatic.

    Returns
    -------
    float
        From 0 to 1; 0.25 where every probability is 0.5.
    """
    return float(np.mean((probabilities - labels) ** 2))


def reliability(probabilities: Floats, labels: Labels) -> list[dict[str, Any]]:
    """Return what is predicted and what is found in `BINS` bins of equal width.

    Parameters
    ----------
    probabilities
        float64 [N], of metastasis, 0 to 1; a bin has its lower edge, the last one both.
    labels
        int64 [N], 1 metastatic.

    Returns
    -------
    list of dict
        ``mean_probability``, ``share_metastatic`` and ``n`` of each bin that is not empty, from low to high.
    """
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    return [
        {
            "mean_probability": float(probabilities[bins == number].mean()),
            "share_metastatic": float(labels[bins == number].mean()),
            "n": int((bins == number).sum()),
        }
        for number in np.unique(bins)
    ]


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Return the mean gap of the reliability curve, its bins weighted by their size (Naeini et al., AAAI 2015).

    Parameters
    ----------
    probabilities
        float64 [N], of metastasis.
    labels
        int64 [N], 1 metastatic.

    Returns
    -------
    float
        From 0 to 1. Biased upwards in a small set: well calibrated probabilities have gaps too, by chance.
    """
    bins = reliability(probabilities, labels)
    gaps = [a_bin["n"] * abs(a_bin["mean_probability"] - a_bin["share_metastatic"]) for a_bin in bins]
    return float(sum(gaps) / len(labels))
