"""The signs of a lymph node and their distributions in the two classes: the whole of what a phantom's label shows.

Benign and metastatic nodes overlap in every sign, as in the literature on cervical nodes (size, roundness, fatty hilum,
heterogeneous enhancement, cystic change, calcification: Hoang et al., AJR 2013;200:W227; Som, AJR 1992;158:961). The
numbers are ours, chosen so that size alone reaches an AUROC of about 0.75 and all signs together one of about 0.97.
Given the class, signs are independent, so the likelihood ratio is a product and its AUROC the best that any reader
of the images can reach on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class Signs:
    """What a node looks like.

    Attributes
    ----------
    diameter_mm
        Diameter of the circle with the node's area, mm.
    roundness
        Short axis over long axis.
    enhancement_hu
        Mean of the solid part, HU.
    heterogeneity_hu
        Standard deviation within the solid part, HU.
    fatty_hilum, cystic, calcified
        Whether the node has it.
    """

    diameter_mm: float
    roundness: float
    enhancement_hu: float
    heterogeneity_hu: float
    fatty_hilum: bool
    cystic: bool
    calcified: bool

    @property
    def half_axes_mm(self) -> tuple[float, float]:
        """Half of the short and of the long axis, mm."""
        root = math.sqrt(self.roundness)
        return self.diameter_mm / 2 * root, self.diameter_mm / 2 / root


@dataclass(frozen=True)
class _Normal:
    """A sign that is normal in each class within limits, on a scale that may be logarithmic."""

    means: tuple[float, float]
    deviations: tuple[float, float]
    low: float
    high: float
    logarithmic: bool = False

    def draw(self, rng: np.random.Generator, label: int) -> float:
        low, high = self._scaled(self.low), self._scaled(self.high)
        while True:
            value = rng.normal(self._scaled(self.means[label]), self.deviations[label])
            if low <= value <= high:
                return float(math.exp(value) if self.logarithmic else value)

    def log_ratio(self, value: float) -> float:
        at = self._scaled(value)
        benign, metastatic = (self._log_density(at, label) for label in (0, 1))
        return metastatic - benign

    def _log_density(self, at: float, label: int) -> float:
        mean, deviation = self._scaled(self.means[label]), self.deviations[label]
        edges = [math.erf((self._scaled(edge) - mean) / deviation / math.sqrt(2)) for edge in (self.low, self.high)]
        within = (edges[1] - edges[0]) / 2
        return -0.5 * ((at - mean) / deviation) ** 2 - math.log(deviation * within)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value


@dataclass(frozen=True)
class _Present:
    """A sign that a node has or has not, with its frequency in each class."""

    frequencies: tuple[float, float]

    def draw(self, rng: np.random.Generator, label: int) -> bool:
        return bool(rng.random() < self.frequencies[label])

    def log_ratio(self, value: float) -> float:
        benign, metastatic = self.frequencies if value else (1 - share for share in self.frequencies)
        return math.log(metastatic / benign)


# Benign first, metastatic second.
_SIGNS: dict[str, _Normal | _Present] = {
    "diameter_mm": _Normal((7.2, 10.4), (0.38, 0.38), 3.0, 25.0, logarithmic=True),
    "roundness": _Normal((0.58, 0.75), (0.14, 0.14), 0.35, 1.0),
    "enhancement_hu": _Normal((82.0, 102.0), (16.0, 20.0), 40.0, 170.0),
    "heterogeneity_hu": _Normal((5.5, 14.0), (0.65, 0.65), 1.0, 45.0, logarithmic=True),
    "fatty_hilum": _Present((0.60, 0.15)),
    "cystic": _Present((0.03, 0.25)),
    "calcified": _Present((0.02, 0.15)),
}


def draw_signs(rng: np.random.Generator, label: int) -> Signs:
    """Draw a node of a class.

    Parameters
    ----------
    rng
        Source of randomness.
    label
        0 benign, 1 metastatic.

    Returns
    -------
    Signs
        Of one node.
    """
    return Signs(**{name: sign.draw(rng, label) for name, sign in _SIGNS.items()})  # type: ignore[arg-type]


def log_likelihood_ratio(signs: Signs) -> float:
    """Return the log of how much likelier a node's signs are in a metastatic node than in a benign one."""
    return sum(sign.log_ratio(getattr(signs, name)) for name, sign in _SIGNS.items())


def ceilings(draws: int = 20_000, seed: int = 0) -> dict[str, float]:
    """Measure what the signs allow, over nodes drawn anew.

    Parameters
    ----------
    draws
        Nodes of each class; 20,000 leave a standard error of about 0.001.
    seed
        Of the draws.

    Returns
    -------
    dict
        ``bayes_auroc``, of the likelihood ratio, which no reader of the images exceeds on average; ``size_auroc``,
        of the diameter alone.
    """
    rng = np.random.default_rng([seed, draws])
    nodes = [[draw_signs(rng, label) for _ in range(draws)] for label in (0, 1)]
    ratio = [np.array([log_likelihood_ratio(node) for node in group]) for group in nodes]
    size = [np.array([node.diameter_mm for node in group]) for group in nodes]
    return {"bayes_auroc": auroc(*ratio), "size_auroc": auroc(*size)}


def auroc(negative: npt.NDArray[np.float64], positive: npt.NDArray[np.float64]) -> float:
    """Return the area under the ROC curve: the share of pairs in the right order, ties counting half.

    Parameters
    ----------
    negative, positive
        Scores of the two classes, float64 [n] and [m]; neither is empty.

    Returns
    -------
    float
        0..1.
    """
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).sum() / 2 / (len(negative) * len(positive)))
