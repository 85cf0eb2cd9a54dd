"""How well scores rank: the AUROC, its intervals, the test of two of them, the curve itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_curve

if TYPE_CHECKING:
    import numpy.typing as npt

    from lymphcad_train.statistics.cases import Floats, Labels

RESAMPLES = 2000
ROC_POINTS = 200
"""At most as many are kept of a curve."""
_NO_VARIANCE = 1e-20
"""Rounding leaves about 1e-33 where the variance is 0; the smallest one that means something is about 1 / N squared."""


def auroc(scores: Floats, labels: Labels) -> float:
    """Return the area under the ROC curve: the share of pairs that are ranked rightly, of ties one half.

    Parameters
    ----------
    scores
        float64 [N].
    labels
        int64 [N], both classes.

    Returns
    -------
    float
        From 0 to 1.
    """
    return weighted_auroc(np.unique(scores, return_inverse=True)[1], labels, np.ones(len(labels)))


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


def auroc_interval(scores: Floats, labels: Labels, patients: npt.NDArray[Any], seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the AUROC by a bootstrap over patients; arguments as for `resampled_aurocs`."""
    return middle_95(resampled_aurocs(scores[None], labels, patients, seed)[:, 0])


def difference_interval(
    first: Floats, second: Floats, labels: Labels, patients: npt.NDArray[Any], seed: int
) -> tuple[float, float]:
    """Return the 95 % interval of how much larger the first of two AUROCs of the same images is.

    By a bootstrap over patients that draws the same ones for both scores; the other arguments as for
    `resampled_aurocs`.

    Parameters
    ----------
    first, second
        float64 [N], two scores of each image.

    Returns
    -------
    tuple of float
        2.5th and 97.5th percentile.
    """
    found = resampled_aurocs(np.stack([first, second]), labels, patients, seed)
    return middle_95(found[:, 0] - found[:, 1])


def resampled_aurocs(scores: Floats, labels: Labels, patients: npt.NDArray[Any], seed: int) -> Floats:
    """Return the AUROCs in resamples of the patients, whose images are not independent.

    Parameters
    ----------
    scores
        float64 [K, N], of K methods.
    labels
        int64 [N], both classes.
    patients
        [N], whose image it is.
    seed
        Of the resamples.

    Returns
    -------
    array
        float64 [R, K] of `RESAMPLES` resamples; those that lack a class are left out.
    """
    generator = np.random.default_rng(seed)
    names, owner = np.unique(patients, return_inverse=True)
    ranks = [np.unique(one, return_inverse=True)[1] for one in scores]
    found = []
    for _ in range(RESAMPLES):
        weights = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))[owner]
        if min(weights[labels == 0].sum(), weights[labels == 1].sum()) > 0:
            found.append([weighted_auroc(one, labels, weights) for one in ranks])
    return np.array(found)


def middle_95(values: Floats) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile of resampled values, float64 [R]."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def delong(scores: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Return AUROCs of the same images, and their covariance (DeLong et al., Biometrics 1988;44:837).

    By midranks, in N log N (Sun and Xu, IEEE Signal Process Lett 2014;21:1389). Images count as independent: where
    patients have several, the variance is too small and `auroc_interval` is the one to trust.

    Parameters
    ----------
    scores
        float64 [K, N], of K methods.
    labels
        int64 [N], at least two of each class.

    Returns
    -------
    tuple of arrays
        AUROC, float64 [K]; covariance, float64 [K, K].

    Raises
    ------
    ValueError
        If a class has fewer than two images.
    """
    metastatic, benign = scores[:, labels == 1], scores[:, labels == 0]
    m, n = metastatic.shape[1], benign.shape[1]
    if min(m, n) < 2:
        raise ValueError(f"DeLong's variance needs two images of each class, found {n} benign and {m} metastatic")
    ranks = rankdata(np.concatenate([metastatic, benign], axis=1), axis=1)
    # For each metastatic image the share of benign ones below it, and for each benign one of metastatic ones above it
    beaten = (ranks[:, :m] - rankdata(metastatic, axis=1)) / n
    beating = 1 - (ranks[:, m:] - rankdata(benign, axis=1)) / m
    covariance = np.atleast_2d(np.cov(beaten)) / m + np.atleast_2d(np.cov(beating)) / n
    return beaten.mean(axis=1), covariance


def delong_interval(scores: Floats, labels: Labels) -> tuple[float, float]:
    """Return the 95 % interval of the AUROC by DeLong's variance, on the plain scale as R's pROC and Stata give it.

    Parameters
    ----------
    scores
        float64 [N].
    labels
        int64 [N], at least two of each class.

    Returns
    -------
    tuple of float
        Cut off at 0 and 1; without width where all pairs are ranked rightly, or all wrongly.

    Raises
    ------
    ValueError
        If a class has fewer than two images.
    """
    areas, covariance = delong(scores[None], labels)
    reach = norm.ppf(0.975) * np.sqrt(covariance[0, 0])
    return float(max(areas[0] - reach, 0)), float(min(areas[0] + reach, 1))


def delong_test(first: Floats, second: Floats, labels: Labels) -> tuple[float, float]:
    """Return how much larger the first of two AUROCs of the same images is, and the two-sided p-value.

    Parameters
    ----------
    first, second
        float64 [N], two scores of each image.
    labels
        int64 [N], at least two of each class.

    Returns
    -------
    tuple of float
        Difference, and p by DeLong et al.; where the difference has no variance, 1 if there is none, else 0.

    Raises
    ------
    ValueError
        If a class has fewer than two images.
    """
    areas, covariance = delong(np.stack([first, second]), labels)
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance < _NO_VARIANCE:
        return difference, float(abs(difference) < 1e-12)
    return difference, float(2 * norm.sf(abs(difference) / np.sqrt(variance)))


def roc_points(scores: Floats, labels: Labels) -> list[list[float]]:
    """Return the corners of the ROC curve, evenly thinned to `ROC_POINTS`.

    Parameters
    ----------
    scores
        float64 [N].
    labels
        int64 [N], both classes.

    Returns
    -------
    list of [false positive rate, true positive rate]
        From [0, 0] to [1, 1].
    """
    rates = np.stack(roc_curve(labels, scores)[:2], axis=1)
    kept = np.unique(np.linspace(0, len(rates) - 1, ROC_POINTS).round().astype(np.int64))
    points: list[list[float]] = rates[kept].tolist()
    return points
