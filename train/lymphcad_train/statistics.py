"""What a set of probabilities is worth: AUROC, sensitivity, specificity, accuracy, each with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, xlogy
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Labels = npt.NDArray[np.int64]

RESAMPLES = 2000
FLAT = 0.005
"""How far below its maximum Youden's index counts as the maximum; far below what a validation set can tell apart."""
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
    """Return the mean negative logarithm of the probability of the true class."""
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return float(-np.mean(xlogy(labels, p) + xlogy(1 - labels, 1 - p)))


def youden_threshold(margins: Floats, labels: Labels) -> float:
    """Return the margin with the largest sensitivity + specificity - 1 (Youden, Cancer 1950;3:32), smoothed.

    The index of the sample itself has its maximum wherever a few images happen to lie, so each class is smoothed by
    normal kernels first (Fluss, Faraggi and Reiser, Biom J 2005;47:458). Its maximum is flat: of the cuts between two
    neighbouring images that lose at most `FLAT`, the one with the widest gap is taken, so that rounding in another
    engine changes no call of these images.

    Parameters
    ----------
    margins
        float64 [N], logits of the probabilities.
    labels
        int64 [N], both classes.

    Returns
    -------
    float
        Midway between two neighbouring margins; the margin itself where all are equal.
    """
    points = np.unique(margins)
    if len(points) == 1:
        return float(points[0])
    cuts, gaps = (points[1:] + points[:-1]) / 2, np.diff(points)
    below = [_smoothed_share_below(cuts, margins[labels == label], float(np.ptp(points))) for label in (0, 1)]
    index = below[0] - below[1]
    good = np.flatnonzero(index >= index.max() - FLAT)
    return float(cuts[good[np.argmax(gaps[good])]])


def _smoothed_share_below(cuts: Floats, margins: Floats, span: float) -> Floats:
    """Return the share of a class below each cut, smoothed with Silverman's bandwidth, float64 as `cuts`."""
    quartiles = np.percentile(margins, [25, 75])
    spreads = [spread for spread in (np.std(margins), np.ptp(quartiles) / 1.34) if spread > 0]
    bandwidth = 0.9 * min(spreads, default=1e-3 * span) * len(margins) ** -0.2
    share: Floats = norm.cdf((cuts[:, None] - margins) / bandwidth).mean(axis=1)
    return share


def auroc_interval(scores: Floats, labels: Labels, patients: npt.NDArray[Any], seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the AUROC by a bootstrap over patients, whose images are not independent.

    Parameters
    ----------
    scores
        float64 [N].
    labels
        int64 [N], both classes.
    patients
        [N], whose image it is.
    seed
        Of the resamples.

    Returns
    -------
    tuple of float
        2.5th and 97.5th percentile of `RESAMPLES` resamples; those that lack a class are left out.
    """
    generator = np.random.default_rng(seed)
    names, owner = np.unique(patients, return_inverse=True)
    ranks = np.unique(scores, return_inverse=True)[1]
    found = []
    for _ in range(RESAMPLES):
        weights = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))[owner]
        if min(weights[labels == 0].sum(), weights[labels == 1].sum()) > 0:
            found.append(weighted_auroc(ranks, labels, weights))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def weighted_auroc(ranks: Labels, labels: Labels, weights: npt.NDArray[Any]) -> float:
    """Return the AUROC of weighted images: the share of pairs that are ranked rightly, of ties one half.

    Parameters
    ----------
    ranks
        int64 [N], ranks of the scores from 0, equal for equal scores.
    labels
        int64 [N].
    weights
        [N], of both classes some above 0.

    Returns
    -------
    float
        As scikit-learn's, some thirty times as fast, which a bootstrap needs.
    """
    benign = np.bincount(ranks, weights * (labels == 0))
    metastatic = np.bincount(ranks, weights * (labels == 1))
    below = np.cumsum(benign) - benign / 2
    return float(metastatic @ below / (metastatic.sum() * benign.sum()))


def evaluate(
    probabilities: Floats,
    labels: Labels,
    patients: npt.NDArray[Any],
    diameters_mm: Floats,
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """Return the figures of one part of a cohort, as they stand in a bundle.

    Parameters
    ----------
    probabilities
        float64 [N], of metastasis.
    labels
        int64 [N], 1 metastatic; both classes.
    patients
        [N], whose image it is.
    diameters_mm
        float64 [N], mm; NaN where it is not known.
    threshold
        A probability at or above it is called metastatic.
    seed
        Of the bootstrap.

    Returns
    -------
    dict of str to Any
        ``n``, ``patients``, ``auroc``, ``auroc_ci95`` (bootstrap over patients), ``sensitivity``, ``specificity``,
        ``accuracy``, each with ``_ci95`` (Wilson), and ``size_baseline_auroc`` where every diameter is known.
    """
    called = probabilities >= threshold
    correct = called == (labels == 1)
    figures: dict[str, Any] = {
        "n": len(labels),
        "patients": len(np.unique(patients)),
        "auroc": float(roc_auc_score(labels, probabilities)),
        "auroc_ci95": auroc_interval(probabilities, labels, patients, seed),
        "negative_log_likelihood": negative_log_likelihood(probabilities, labels),
    }
    for name, among in (("sensitivity", labels == 1), ("specificity", labels == 0), ("accuracy", labels >= 0)):
        proportion = binomtest(int(correct[among].sum()), int(among.sum()))
        interval = proportion.proportion_ci(confidence_level=0.95, method="wilson")
        figures[name] = float(proportion.statistic)
        figures[f"{name}_ci95"] = (float(interval.low), float(interval.high))
    if np.isfinite(diameters_mm).all():
        figures["size_baseline_auroc"] = float(roc_auc_score(labels, diameters_mm))
    return figures
