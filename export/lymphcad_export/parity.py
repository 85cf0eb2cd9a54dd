"""How far an artefact may be from the trained network in float32, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from lymphcad_train.statistics import auroc, difference_interval

from lymphcad.errors import ProofError

if TYPE_CHECKING:
    import numpy.typing as npt
    from lymphcad_train.statistics import Cases

    from lymphcad.bundle import Precision
    from lymphcad_export.scores import Scores


@dataclass(frozen=True)
class Limits:
    """What one precision may change; None is not limited.

    Attributes
    ----------
    probability
        Largest difference of a probability.
    flipped_share
        Share of the crops whose call changes.
    auroc
        Difference of the AUROC.
    """

    probability: float | None
    flipped_share: float
    auroc: float | None


LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(probability=0.001, flipped_share=0.0, auroc=None),
    "fp16": Limits(probability=0.01, flipped_share=0.0, auroc=None),
    "int8": Limits(probability=None, flipped_share=0.005, auroc=0.005),
}


class ParityError(ProofError):
    """The graphs do not say what the network says, so they are not published."""


@dataclass(frozen=True)
class Agreement:
    """How far an engine running exported graphs is from torch in float32.

    Attributes
    ----------
    crops
        How many were compared.
    probability_max, probability_mean
        Largest and mean difference of the probabilities.
    flips
        Crops on the other side of the threshold.
    auroc_difference, auroc_difference_ci95
        The engine's AUROC minus torch's, and the interval of a bootstrap over patients.
    heatmap_mean
        Mean difference of the heatmaps, grey levels of 255.
    heatmaps
        Crops whose heatmaps both show evidence: those of the next three.
    heatmap_correlation, heatmap_correlation_min
        Mean and smallest Pearson correlation of the two heatmaps of a crop; None without any.
    hot_spot_mm_mean, hot_spot_mm_max
        Distance of their hot spots (middle of the brightest pixels), mm; None without any.
    """

    crops: int
    probability_max: float
    probability_mean: float
    flips: int
    auroc_difference: float
    auroc_difference_ci95: tuple[float, float]
    heatmap_mean: float
    heatmaps: int
    heatmap_correlation: float | None
    heatmap_correlation_min: float | None
    hot_spot_mm_mean: float | None
    hot_spot_mm_max: float | None


def compare(
    found: Scores, reference: Scores, cases: Cases, threshold: float, field_of_view_mm: float, seed: int
) -> Agreement:
    """Compare an engine's scores with torch's.

    Parameters
    ----------
    found, reference
        Of the same N crops.
    cases
        Labels (both classes) and patients of the crops.
    threshold
        A probability at or above it is called metastatic.
    field_of_view_mm
        Side of the heatmap, mm.
    seed
        Of the bootstrap.

    Returns
    -------
    Agreement
        Differences.
    """
    probabilities = found.probabilities, reference.probabilities
    distance = np.abs(probabilities[0] - probabilities[1])
    difference = auroc(probabilities[0], cases.labels) - auroc(probabilities[1], cases.labels)
    shown = [
        (one.astype(np.float64), other.astype(np.float64))
        for one, other in zip(found.heatmaps, reference.heatmaps, strict=True)
        if np.ptp(one) > 0 and np.ptp(other) > 0
    ]
    alike = [float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) for one, other in shown]
    pixel_mm = field_of_view_mm / reference.heatmaps.shape[1]
    apart = [float(np.linalg.norm(hot_spot(one) - hot_spot(other))) * pixel_mm for one, other in shown]
    return Agreement(
        crops=len(distance),
        probability_max=float(distance.max()),
        probability_mean=float(distance.mean()),
        flips=int(flipped(found, reference, threshold).sum()),
        auroc_difference=difference,
        auroc_difference_ci95=difference_interval(*probabilities, cases.labels, cases.patients, seed),
        heatmap_mean=float(np.abs(found.heatmaps.astype(np.int16) - reference.heatmaps).mean()),
        heatmaps=len(shown),
        heatmap_correlation=float(np.mean(alike)) if shown else None,
        heatmap_correlation_min=min(alike) if shown else None,
        hot_spot_mm_mean=float(np.mean(apart)) if shown else None,
        hot_spot_mm_max=max(apart) if shown else None,
    )


def flipped(found: Scores, reference: Scores, threshold: float) -> npt.NDArray[np.bool_]:
    """Return which crops are on the other side of the threshold, bool [N]."""
    changed: npt.NDArray[np.bool_] = (found.probabilities >= threshold) != (reference.probabilities >= threshold)
    return changed


def hot_spot(heatmap: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return row and column of the middle of a heatmap's brightest pixels, float64 [2]."""
    middle: npt.NDArray[np.float64] = np.argwhere(heatmap == heatmap.max()).mean(axis=0)
    return middle


def broken_limits(agreement: Agreement, precision: Precision) -> list[str]:
    """Return the limits that an artefact is over, each in words with figure and limit; none if it holds.

    Parameters
    ----------
    agreement
        What was found.
    precision
        Of the CNN.

    Returns
    -------
    list of str
        Empty if it may be published.
    """
    limits = LIMITS[precision]
    flips = int(limits.flipped_share * agreement.crops)
    found = [
        ("largest difference of a probability", agreement.probability_max, limits.probability),
        (f"number of changed calls among {agreement.crops} crops", agreement.flips, flips),
        ("change of the AUROC", abs(agreement.auroc_difference), limits.auroc),
    ]
    return [
        f"the {name} is {value:.4g}, and at most {limit:g} is accepted"
        for name, value, limit in found
        if limit is not None and not value <= limit  # a NaN is refused too
    ]
