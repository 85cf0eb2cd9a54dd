"""What a training cohort looked like, so that what comes in later can be held against it."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lymphcad.slice import PADDING_HU

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

Quantity = Literal["probability", "spacing_mm", "window_hu"]
QUANTITIES: tuple[Quantity, ...] = ("probability", "spacing_mm", "window_hu")
BINS = 10
"""At most, beside the two for what lies beyond; fewer where many values are alike, as spacings are."""


class Distribution(BaseModel):
    """Of one quantity.

    Attributes
    ----------
    n
        How many values.
    edges
        Between the bins, ascending; the first bin is open below, the last one above.
    shares
        Of the values in each bin; one more than there are edges.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: Annotated[int, Field(ge=1)]
    edges: tuple[float, ...]
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...]

    @model_validator(mode="after")
    def _fits(self) -> Distribution:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError(
                f"{len(self.edges)} edges part {len(self.edges) + 1} bins, and there are {len(self.shares)}"
            )
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("the edges of the bins do not ascend")
        if not math.isclose(sum(self.shares), 1, abs_tol=1e-6):
            raise ValueError(f"the shares sum up to {sum(self.shares):g}, not to 1")
        return self

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Distribution:
        """Return the distribution of values, in bins of equal shares as far as ties allow.

        The first and the last bin are empty: what lies beyond everything that the cohort had.

        Parameters
        ----------
        values
            float [N], finite, N of 1 or more.
        """
        found = np.asarray(values, np.float64)
        wanted = np.quantile(found, np.linspace(0, 1, BINS + 1)[1:-1])
        # Between two values, not on one: what is equal but for rounding belongs into one bin.
        ordered = np.unique(found)
        places = np.unique(np.searchsorted(ordered, wanted, side="left"))
        places = places[(places > 0) & (places < len(ordered))]
        margin = 0.01 * (ordered[-1] - ordered[0]) or 0.01 * abs(ordered[0]) or 0.01
        cuts = [ordered[0] - margin, *((ordered[places - 1] + ordered[places]) / 2), ordered[-1] + margin]
        edges = list(dict.fromkeys(float(f"{cut:.6g}") for cut in cuts))
        counts = np.bincount(np.searchsorted(edges, found, side="right"), minlength=len(edges) + 1)
        return cls(n=len(found), edges=tuple(edges), shares=tuple((counts / len(found)).tolist()))

    def bin_of(self, value: float) -> int:
        """Return the number of the bin, from 0, that a value lies in."""
        return bisect_right(self.edges, value)


class Reference(BaseModel):
    """Of a training cohort.

    Attributes
    ----------
    probability
        Of its validation and test images, for a network is surer of those it was trained on.
    spacing_mm
        Between rows, of all its images, mm.
    window_hu
        `mean_hu` of all its nodes, HU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Distribution
    spacing_mm: Distribution
    window_hu: Distribution


def mean_hu(
    image: npt.NDArray[np.int16], center: Sequence[float], spacing_mm: Sequence[float], field_of_view_mm: float
) -> float:
    """Return the mean of what was measured in a node's field of view.

    Parameters
    ----------
    image
        int16 [h, w], HU; a slice, or a window of it.
    center
        Of the node, (row, column), pixels.
    spacing_mm
        (between rows, between columns), mm.
    field_of_view_mm
        Side of the square, mm.

    Returns
    -------
    float
        HU; NaN if nothing was measured there.
    """
    half = [field_of_view_mm / 2 / spacing for spacing in spacing_mm]
    inside = image[
        tuple(
            slice(max(round(at - reach), 0), max(round(at + reach) + 1, 0))
            for at, reach in zip(center, half, strict=True)
        )
    ]
    measured = inside[inside != PADDING_HU]
    return float(measured.mean()) if measured.size else math.nan
