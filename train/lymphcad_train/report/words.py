"""Numbers as a reader expects them, and the sentences that page and model card share."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from lymphcad_train.report.contents import NODES

if TYPE_CHECKING:
    from lymphcad_train.report.contents import Comparison, Evaluation, Interval, Network

DASH = "–"
"""What is printed for a figure that is not known."""
_SPACE = "\u00a0"
_MINUS = "−"
PARTS = {"train": "Training", "val": "Validation", "validation": "Validation", "test": "Test"}
"""Names of the parts of a cohort."""


def figure(value: float | None, digits: int = 3) -> str:
    """Return a number with so many decimals."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", _MINUS)


def percent(value: float | None) -> str:
    """Return a share in per cent, one decimal."""
    return DASH if value is None else f"{100 * value:.1f}{_SPACE}%"


def interval(ends: Interval | None) -> str:
    """Return both ends of an interval."""
    if ends is None or None in ends:
        return DASH
    return f"{figure(ends[0])} to {figure(ends[1])}"


def percent_interval(ends: Interval | None) -> str:
    """Return both ends of an interval, in per cent."""
    low, high = ends or (None, None)
    return DASH if low is None or high is None else f"{100 * low:.1f} to {percent(high)}"


def p_value(value: float | None) -> str:
    """Return a p-value; below 0.001 only that it is."""
    return "< 0.001" if value is not None and value < 0.001 else figure(value)


def moment(when: str) -> str:
    """Return an ISO time to the minute; what is none as it is."""
    try:
        time = datetime.fromisoformat(when)
    except ValueError:
        return when
    return f"{time:%Y-%m-%d %H:%M}" + (f" {time.tzname()}" if time.tzinfo else "")


def difference(value: float | None) -> str:
    """Return a difference with its sign."""
    return DASH if value is None else f"{value:+.3f}".replace("-", _MINUS)


def difference_interval(ends: Interval | None) -> str:
    """Return the ends of a difference's interval."""
    low, high = ends or (None, None)
    return DASH if low is None or high is None else f"{difference(low)} to {difference(high)}"


def count(number: int | None, noun: str, plural: str = "") -> str:
    """Return how many of something, with thousands set apart."""
    if number is None:
        return f"{DASH} {plural or noun + 's'}"
    return f"{number:,}".replace(",", "\u202f") + _SPACE + (noun if number == 1 else plural or f"{noun}s")


def millions(number: int | None) -> str:
    """Return a number in millions, one decimal."""
    return DASH if number is None else f"{number / 1e6:.1f}"


def _with(value: float | None, ends: Interval | None) -> str:
    """Return an AUROC and its interval."""
    return figure(value) + (f" ({interval(ends)})" if interval(ends) != DASH else "")


def _percent_with(value: float | None, ends: Interval | None) -> str:
    return percent(value) + (f" ({percent_interval(ends)})" if percent_interval(ends) != DASH else "")


def summary(comparison: Comparison) -> list[str]:
    """Return the result in words: which network, how good, against size alone and against the ceiling.

    Parameters
    ----------
    comparison
        The contents.

    Returns
    -------
    list of str
        Sentences.
    """
    networks, best, ceiling = count(len(comparison.networks), "network"), comparison.best, comparison.cohort.ceiling
    if best is None:
        return [f"Of {networks} none was trained to the end, so none was chosen."]
    found = [
        f"Of {networks} trained on the cohort “{comparison.cohort.name}”, {best.architecture} was chosen on the "
        f"validation part, where its AUROC is {figure(best.validation_auroc)}."
    ]
    if best.test is None:
        return [*found, "It has not been evaluated on the test part."]
    found += _on_test(best, best.test)
    if ceiling is not None:
        found.append(
            f"In this phantom cohort all signs together allow an AUROC of {figure(ceiling.bayes_auroc)}, which no "
            f"network exceeds other than by chance, and diameter alone one of {figure(ceiling.size_auroc)}."
        )
    return found


def _on_test(best: Network, test: Evaluation) -> list[str]:
    area = "cannot be computed"
    if test.auroc is not None:
        area = f"is {figure(test.auroc)} (95{_SPACE}% interval {interval(test.auroc_ci95)})"
    found = [
        f"On the test part ({count(test.n, 'image')} of {count(test.patients, 'patient')}, "
        f"{figure(test.positives, 0)} metastatic), evaluated once and after every choice, its AUROC {area}.",
        f"At the threshold {figure(best.threshold)}, chosen on validation, sensitivity is "
        f"{_percent_with(test.sensitivity, test.sensitivity_ci95)} and specificity "
        f"{_percent_with(test.specificity, test.specificity_ci95)}.",
    ]
    if test.size_baseline_auroc is None:
        return [*found, "What diameter alone reaches is not known; Limits says why."]
    size = _with(test.size_baseline_auroc, test.size_baseline_auroc_ci95)
    alone = f"On the same images diameter alone reaches an AUROC of {size}"
    if test.with_size is not None and test.with_size.auroc is not None:
        both = _with(test.with_size.auroc, test.with_size.auroc_ci95)
        found.append(
            f"{alone}, and diameter and network together one of {both}; the p-value of the difference is "
            f"{p_value(test.with_size.p_against_size)}."
        )
    else:
        found.append(f"{alone}.")
    return found


def cautions(comparison: Comparison) -> list[str]:
    """Return what must be read before any figure.

    Parameters
    ----------
    comparison
        The contents.

    Returns
    -------
    list of str
        Sentences, the gravest first.
    """
    found = []
    if comparison.cohort.split_by == "image":
        found.append(
            "Every figure here is inflated: the cohort was split by image, so images of one patient stand on both "
            "sides of the split. None says how the network does on a new patient; split by patient to know that."
        )
    if comparison.cohort.ceiling is not None:
        found.append(
            "The cohort is a phantom: no image is of a person, and no figure here says anything about patients."
        )
    if comparison.cohort.of != NODES:
        found.append(f"The cohort is of {comparison.cohort.of}: no figure here says anything about {NODES}.")
    return found + comparison.warnings


def limits(comparison: Comparison) -> list[str]:
    """Return what the figures do not say.

    Parameters
    ----------
    comparison
        The contents.

    Returns
    -------
    list of str
        Sentences, first those that always hold, then what could not be computed.
    """
    found = [
        "Training, validation and test are parts of one cohort, split once. How the network does at another hospital, "
        "on another scanner or with another contrast protocol is not known until it is measured there.",
        "The networks were ranked on the validation part, so the chosen one's figures there are optimistic. Whoever "
        "chooses again after reading the test figures makes those optimistic too.",
        "Each network was trained once. Part of any difference between two networks is the chance of one training.",
        "The network judges a node that somebody has pointed at. It does not find nodes, and it was tested on the "
        "nodes that were put into the cohort.",
        "The heatmap shows which part of the crop spoke for metastasis to the network. It neither outlines a "
        "metastasis nor shows that the call is right.",
    ]
    test = comparison.best.test if comparison.best else None
    if test is not None and test.positives is not None and test.n:
        found.append(
            f"Predictive values and accuracy hold where {percent(test.positives / test.n)} of the nodes are "
            "metastatic, as in this test part, and nowhere else."
        )
    if test is not None:
        found += test.cannot or []
    return found
