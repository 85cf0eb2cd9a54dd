"""What the calls at a threshold are worth: sensitivity, specificity, accuracy and predictive values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scipy.stats import binomtest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from lymphcad_train.statistics.cases import Labels


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion, without a correction for continuity (Wilson, JASA 1927;22:209).

    Parameters
    ----------
    successes
        From 0 to `trials`.
    trials
        At least 1.

    Returns
    -------
    tuple of float
        Lower and upper limit, both within 0 to 1.
    """
    interval = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def call_figures(called: npt.NDArray[np.bool_], labels: Labels) -> dict[str, Any]:
    """Return the confusion matrix and the five proportions of it.

    Parameters
    ----------
    called
        bool [N], whether it is called metastatic.
    labels
        int64 [N], 1 metastatic.

    Returns
    -------
    dict of str to Any
        ``confusion`` (``tp``, ``fp``, ``tn``, ``fn``); ``sensitivity``, ``specificity``, ``accuracy``, ``ppv`` and
        ``npv``, each with ``_ci95`` (Wilson), both None where there is nothing to divide by.
    """
    metastatic = labels == 1
    tp, fp = int((called & metastatic).sum()), int((called & ~metastatic).sum())
    tn, fn = int((~called & ~metastatic).sum()), int((~called & metastatic).sum())
    figures: dict[str, Any] = {"confusion": {"tp": tp, "fp": fp, "tn": tn, "fn": fn}}
    for name, successes, trials in (
        ("sensitivity", tp, tp + fn),
        ("specificity", tn, tn + fp),
        ("accuracy", tp + tn, len(labels)),
        ("ppv", tp, tp + fp),
        ("npv", tn, tn + fn),
    ):
        figures[name] = successes / trials if trials else None
        figures[f"{name}_ci95"] = list(wilson_interval(successes, trials)) if trials else None
    return figures
