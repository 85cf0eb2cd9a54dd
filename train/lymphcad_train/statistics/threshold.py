"""Where to call a node metastatic; chosen on validation only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

if TYPE_CHECKING:
    from lymphcad_train.statistics.cases import Floats, Labels

FLAT = 0.005
"""How far below its maximum Youden's index counts as the maximum; far below what a validation set can tell apart."""


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


def sensitivity_threshold(margins: Floats, labels: Labels, required: float) -> float:
    """Return the highest threshold at which the sensitivity of these images is at least what is required.

    Parameters
    ----------
    margins
        float64 [N], logits of the probabilities.
    labels
        int64 [N], some of them 1.
    required
        Sensitivity, above 0 and at most 1.

    Returns
    -------
    float
        Midway between the last metastatic image that must be called and its lower neighbour, so that rounding in
        another engine changes no call of these images; that image's margin where none is lower.

    Raises
    ------
    ValueError
        If `required` is not above 0 and at most 1, or no image is metastatic.
    """
    metastatic = np.sort(margins[labels == 1])[::-1]
    if not 0 < required <= 1 or not len(metastatic):
        raise ValueError(f"a sensitivity of {required} of {len(metastatic)} metastatic images is no requirement")
    needed = math.ceil(required * len(metastatic) - 1e-9)  # 0.55 x 100 is a little more than 55
    last = metastatic[needed - 1]
    lower = margins[margins < last]
    return float((last + lower.max()) / 2 if len(lower) else last)


def _smoothed_share_below(cuts: Floats, margins: Floats, span: float) -> Floats:
    """Return the share of a class below each cut, smoothed with Silverman's bandwidth, float64 as `cuts`."""
    quartiles = np.percentile(margins, [25, 75])
    spreads = [spread for spread in (np.std(margins), np.ptp(quartiles) / 1.34) if spread > 0]
    bandwidth = 0.9 * min(spreads, default=1e-3 * span) * len(margins) ** -0.2
    share: Floats = norm.cdf((cuts[:, None] - margins) / bandwidth).mean(axis=1)
    return share
