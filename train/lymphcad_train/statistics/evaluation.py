"""All figures of one part of a cohort, ready for JSON, and what could not be computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lymphcad.errors import CommandError
from lymphcad_train.statistics.calibration import (
    brier,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from lymphcad_train.statistics.comparison import SizeModel
from lymphcad_train.statistics.proportions import call_figures
from lymphcad_train.statistics.roc import (
    auroc,
    auroc_interval,
    delong_interval,
    delong_test,
    difference_interval,
    roc_points,
)

if TYPE_CHECKING:
    from lymphcad_train.statistics.cases import Cases, Floats

FEW = 10
"""Fewer cases of a class than this, and no interval is to be relied on."""
SIZE_GROUPS_MM = (("< 10 mm", 0.0, 10.0), ("10 to < 20 mm", 10.0, 20.0), (">= 20 mm", 20.0, np.inf))
_LONG = ("roc", "size_roc", "reliability", "by_size", "lesion")
_CLASSES = ("benign", "metastatic")


def evaluate(cases: Cases, threshold: float, seed: int, validation: Cases | None = None) -> dict[str, Any]:
    """Return the figures of one part of a cohort, an image and, where the table names lesions, a lesion.

    Parameters
    ----------
    cases
        Never empty; one class only is evaluated as far as it can be.
    threshold
        A probability at or above it is called metastatic; chosen on validation.
    seed
        Of the bootstraps.
    validation
        The other part, on which size and network are weighed against each other; None where there is none.

    Returns
    -------
    dict of str to Any
        Lists, dicts, strings and finite numbers; None where a figure cannot be computed.

        - ``n``, ``patients``, ``positives``, ``negatives``, ``threshold``
        - ``auroc``, ``auroc_ci95`` (bootstrap over patients), ``auroc_ci95_delong``, ``roc`` (as `roc_points`)
        - ``confusion``, ``sensitivity``, ``specificity``, ``accuracy``, ``ppv``, ``npv``, as `call_figures`
        - ``negative_log_likelihood``, ``ece``, ``brier``, ``reliability``, as the functions of those names
        - where every diameter is known: ``size_baseline_auroc``, ``size_baseline_auroc_ci95``, ``size_roc``;
          ``p_against_size`` of the network alone (DeLong); ``by_size``, for each of `SIZE_GROUPS_MM` its ``group``,
          ``n``, ``positives``, AUROC and calls; with `validation` ``with_size``, the model of both on these cases:
          ``auroc``, ``auroc_ci95``, ``p_against_size``, ``coefficients``
        - where every row names its lesion: ``lesion``, the same dict with a row a lesion, and of it ``auroc_lesion``,
          ``auroc_lesion_ci95``, ``size_baseline_auroc_lesion``, ``size_baseline_auroc_lesion_ci95``
        - ``cannot``, sentences: what could not be computed or not be relied on, and why

    Raises
    ------
    CommandError
        If there are no cases, or images of one lesion have different labels.
    """
    if not len(cases):
        raise CommandError("there is nothing to evaluate: a part of a cohort needs at least one scored image")
    figures = _figures(cases, threshold, seed, validation, "images")
    lesions = cases.by_lesion()
    if lesions is not None:
        of_validation = None if validation is None else validation.by_lesion()
        lesion = _figures(lesions, threshold, seed, of_validation, "lesions")
        if validation is not None and of_validation is None:
            lesion["cannot"].append("Validation names no lesions: what the network adds to size is told an image only.")
        for name in ("auroc", "auroc_ci95", "size_baseline_auroc", "size_baseline_auroc_ci95"):
            if name in lesion:
                figures[name.replace("auroc", "auroc_lesion")] = lesion[name]
        figures["lesion"] = lesion
    elif (cases.lesions != "").any():
        figures["cannot"].append("Some images name no lesion: nothing is told a lesion.")
    return figures


def summary(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return an evaluation without what only a report needs.

    Parameters
    ----------
    evaluation
        As `evaluate` returns it.

    Returns
    -------
    dict of str to Any
        Without curves, size groups and the dict a lesion, whose AUROCs stand beside it.
    """
    return {name: value for name, value in evaluation.items() if name not in _LONG}


def _figures(cases: Cases, threshold: float, seed: int, validation: Cases | None, unit: str) -> dict[str, Any]:
    """Return what `evaluate` does, for one row a case, which `unit` names."""
    probabilities, labels = cases.probabilities, cases.labels
    counts = np.bincount(labels, minlength=2)
    area, interval = _auroc(probabilities, cases, seed)
    calls = call_figures(probabilities >= threshold, labels)
    figures: dict[str, Any] = {
        "n": len(cases),
        "patients": len(np.unique(cases.patients)),
        "positives": int(counts[1]),
        "negatives": int(counts[0]),
        "threshold": threshold,
        "auroc": area,
        "auroc_ci95": interval,
        "auroc_ci95_delong": list(delong_interval(probabilities, labels)) if counts.min() > 1 else None,
        **calls,
        "negative_log_likelihood": negative_log_likelihood(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
        "brier": brier(probabilities, labels),
        "reliability": reliability(probabilities, labels),
        "roc": roc_points(probabilities, labels) if cases.both_classes else None,
        "cannot": [],
    }
    cannot = figures["cannot"]
    for name, count in zip(_CLASSES, counts, strict=True):
        if count == 0:
            cannot.append(f"No {name} {unit}: whatever compares the two classes, AUROC first, cannot be computed.")
        elif count < FEW:
            cannot.append(f"Fewer than {FEW} {name} {unit} ({count}): intervals and p-values are unreliable.")
    if counts.min() == 1:
        cannot.append(f"Only one of the {unit} in a class: DeLong's variance cannot be computed.")
    if area in (0, 1):
        cannot.append(f"The classes separate without an error: the intervals of an AUROC of {area:.0f} have no width.")
    cannot += [
        f"No {unit} are called {called}: the {name.upper()} cannot be computed."
        for name, called in (("ppv", "metastatic"), ("npv", "benign"))
        if calls[name] is None
    ]
    if cases.sizes_known:
        figures |= _size_figures(cases, threshold, seed, validation, cannot)
    else:
        cannot.append(f"The diameter is not known of all {unit}: nothing is told about size.")
    return figures


def _size_figures(
    cases: Cases, threshold: float, seed: int, validation: Cases | None, cannot: list[str]
) -> dict[str, Any]:
    """Return size alone, network and size together, and the figures of each size group."""
    diameters = cases.diameters_mm
    area, interval = _auroc(diameters, cases, seed)
    figures: dict[str, Any] = {
        "size_baseline_auroc": area,
        "size_baseline_auroc_ci95": interval,
        **_against_size(cases.probabilities, cases, seed),
        "size_roc": roc_points(diameters, cases.labels) if cases.both_classes else None,
        "by_size": [],
    }
    for name, low, high in SIZE_GROUPS_MM:
        group = cases.select((diameters >= low) & (diameters < high))
        area, interval = _auroc(group.probabilities, group, seed)
        figures["by_size"].append(
            {
                "group": name,
                "n": len(group),
                "positives": int(group.labels.sum()),
                "auroc": area,
                "auroc_ci95": interval,
                **call_figures(group.probabilities >= threshold, group.labels),
            }
        )
    if validation is None:
        return figures
    if not validation.both_classes or not validation.sizes_known:
        cannot.append("Validation lacks a class or a diameter: what the network adds to size cannot be computed.")
        return figures
    model = SizeModel.fit(validation)
    scores = model.score(cases)
    area, interval = _auroc(scores, cases, seed)
    figures["with_size"] = {
        "auroc": area,
        "auroc_ci95": interval,
        **_against_size(scores, cases, seed),
        "coefficients": vars(model).copy(),
    }
    return figures


def _against_size(scores: Floats, cases: Cases, seed: int) -> dict[str, Any]:
    """Return how much larger a score's AUROC is than that of the diameter, its interval over patients, DeLong's p."""
    if np.bincount(cases.labels, minlength=2).min() < 2:
        return {"above_size": None, "above_size_ci95": None, "p_against_size": None}
    difference, p = delong_test(scores, cases.diameters_mm, cases.labels)
    interval = difference_interval(scores, cases.diameters_mm, cases.labels, cases.patients, seed)
    return {"above_size": difference, "above_size_ci95": list(interval), "p_against_size": p}


def _auroc(scores: Floats, cases: Cases, seed: int) -> tuple[float | None, list[float] | None]:
    """Return the AUROC of a score and its interval over patients; None both where a class is missing."""
    if not cases.both_classes:
        return None, None
    return auroc(scores, cases.labels), list(auroc_interval(scores, cases.labels, cases.patients, seed))
