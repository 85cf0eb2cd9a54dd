"""Which score is better: pairs of networks, and the network against the node's size alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from lymphcad_train.statistics.roc import delong_test, middle_95, resampled_aurocs

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from lymphcad_train.statistics.cases import Cases, Floats, Labels

_SURE = 1e-7
"""As near to 0 and 1 as a probability in float32 tells anything."""
_WEAK = 100.0
"""Inverse strength of the L2 penalty: next to none, but finite coefficients where the classes separate."""


@dataclass(frozen=True)
class Comparison:
    """Two scores of the same images.

    Attributes
    ----------
    first, second
        Names.
    difference, interval
        AUROC of the first minus that of the second, and its 95 % interval by a bootstrap over patients.
    p, p_holm
        Two-sided, by DeLong; as it is, and corrected for the number of pairs.
    """

    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    p: float
    p_holm: float


def compare_pairs(
    scores: Mapping[str, Floats], labels: Labels, patients: npt.NDArray[Any], seed: int
) -> list[Comparison]:
    """Compare every pair of scores of the same images: the difference of AUROC, its interval, and DeLong's test.

    Parameters
    ----------
    scores
        float64 [N] by name.
    labels
        int64 [N], at least two of each class.
    patients
        [N], whose image it is.
    seed
        Of the bootstrap.

    Returns
    -------
    list of Comparison
        In the order of the names.

    Raises
    ------
    ValueError
        If a class has fewer than two images.
    """
    if not scores:
        return []
    names = list(scores)
    pairs = list(combinations(range(len(names)), 2))
    found = [delong_test(scores[names[i]], scores[names[j]], labels) for i, j in pairs]
    corrected = holm(np.array([p for _, p in found]))
    resampled = resampled_aurocs(np.stack(list(scores.values())), labels, patients, seed)
    return [
        Comparison(names[i], names[j], difference, middle_95(resampled[:, i] - resampled[:, j]), p, float(p_holm))
        for (i, j), (difference, p), p_holm in zip(pairs, found, corrected, strict=True)
    ]


def holm(p: Floats) -> Floats:
    """Return p-values that hold together, by Holm's step-down correction (Scand J Stat 1979;6:65).

    Parameters
    ----------
    p
        float64 [K].

    Returns
    -------
    array
        float64 [K], in the same order, at most 1.
    """
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


@dataclass(frozen=True)
class SizeModel:
    """A logistic model of what the network says and how large the node is.

    Attributes
    ----------
    intercept
        Logit.
    logit_probability
        Logit for each unit of the logit of the network's probability.
    log_diameter
        Logit for each unit of the natural logarithm of the diameter in mm.
    """

    intercept: float
    logit_probability: float
    log_diameter: float

    @classmethod
    def fit(cls, validation: Cases) -> SizeModel:
        """Fit it, with a penalty so weak that it only matters where the classes separate without an error.

        Parameters
        ----------
        validation
            Of both classes, every diameter known; never the cases that it is then tried on.

        Returns
        -------
        SizeModel
            The maximum of the likelihood, nearly.

        Raises
        ------
        ValueError
            If a class or a diameter is missing.
        """
        if not validation.both_classes or not validation.sizes_known:
            raise ValueError("a model of size and network needs both classes and every diameter")
        features = _features(validation)
        mean, spread = features.mean(axis=0), features.std(axis=0)
        spread[spread == 0] = 1
        fitted = LogisticRegression(C=_WEAK, tol=1e-8, max_iter=1000).fit((features - mean) / spread, validation.labels)
        slopes = fitted.coef_[0] / spread
        return cls(float(fitted.intercept_[0] - slopes @ mean), *slopes.tolist())

    def score(self, cases: Cases) -> Floats:
        """Return the logit of metastasis.

        Parameters
        ----------
        cases
            N of them, every diameter known.

        Returns
        -------
        array
            float64 [N].
        """
        slopes = np.array([self.logit_probability, self.log_diameter])
        scores: Floats = self.intercept + _features(cases) @ slopes
        return scores


def _features(cases: Cases) -> Floats:
    """Return logit of the probability and natural logarithm of the diameter in mm, float64 [N, 2]."""
    logits = logit(np.clip(cases.probabilities, _SURE, 1 - _SURE))
    return np.stack([logits, np.log(cases.diameters_mm)], axis=1)
