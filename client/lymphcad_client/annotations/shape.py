"""Where the centre of a graphic is: points, lines, contours, circles and ellipses, in pixels or in mm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.errors import Reason, Refusal

if TYPE_CHECKING:
    import numpy.typing as npt

CONTOUR, POINT, LINE = 2, 1, 0
"""What a shape says of a node, the best first: all of its outline, its place, one of its diameters."""

_NUMBER_OF_POINTS = {"CIRCLE": 2, "ELLIPSE": 4, "ELLIPSOID": 6}
_KNOWN = {"POINT", "MULTIPOINT", "POLYLINE", "INTERPOLATED", "POLYGON", *_NUMBER_OF_POINTS}
_FLAT = 1e-9


@dataclass(frozen=True)
class Shape:
    """A graphic, as far as a node is concerned.

    Attributes
    ----------
    centre
        Its centre, in the coordinates and the order of its points.
    kind
        `CONTOUR`, `POINT` or `LINE`.
    size
        Area of a contour, length of a line, in squares or multiples of the coordinates' unit; 0 for a point.
    """

    centre: tuple[float, ...]
    kind: int
    size: float


def read_shape(graphic_type: str, points: npt.NDArray[np.float64]) -> Shape:
    """Return the shape of a graphic (PS3.3, C.10.5.1.2, C.18.6.1.2 and C.18.9.1.2).

    The centre of a POINT is the point; of a CIRCLE its first point; of an ELLIPSE or ELLIPSOID the middle of its axes;
    of a contour (POLYGON, and POLYLINE or INTERPOLATED whose last point is its first) the centre of its area; of an
    open line the centre of its length, which of a straight one is its middle.

    Parameters
    ----------
    graphic_type
        As the object has it.
    points
        float64 [n, 2], pixels, or [n, 3], mm.

    Returns
    -------
    Shape
        With a finite centre.

    Raises
    ------
    Refusal
        ``node_not_a_number`` if a coordinate is not finite, ``not_a_point`` if the type is unknown, has another number
        of points, or is several points.
    """
    if graphic_type not in _KNOWN or len(points) == 0:  # not quoted: a damaged element can hold anything
        raise Refusal(
            Reason.NOT_A_POINT,
            "the graphic has no points, or is of a kind that the standard does not know, and a point, line, contour,"
            " circle or ellipse was expected: draw it again",
        )
    if not np.isfinite(points).all():
        raise Refusal(
            Reason.NODE_NOT_A_NUMBER, "a coordinate of the graphic is not a finite number: draw the annotation again"
        )
    expected = _NUMBER_OF_POINTS.get(graphic_type)
    if expected is not None and len(points) != expected:
        raise Refusal(
            Reason.NOT_A_POINT,
            f"the graphic is of type {graphic_type} and has {len(points)} points instead of {expected}: draw it again",
        )
    if graphic_type in ("POINT", "MULTIPOINT") and len(points) > 1:
        raise Refusal(
            Reason.NOT_A_POINT,
            f"the graphic marks {len(points)} points at once, and one was expected: mark each node for itself",
        )
    if graphic_type == "CIRCLE":
        return Shape(_tuple(points[0]), CONTOUR, math.pi * math.dist(points[0], points[1]) ** 2)
    if expected is not None:
        first, second = math.dist(points[0], points[1]) / 2, math.dist(points[2], points[3]) / 2
        return Shape(_tuple(points.mean(axis=0)), CONTOUR, math.pi * first * second)
    if len(points) == 1:
        return Shape(_tuple(points[0]), POINT, 0.0)
    closed = graphic_type == "POLYGON" or (len(points) > 3 and np.array_equal(points[0], points[-1]))
    if closed and (contour := _contour(points)) is not None:
        return contour
    return _line(points)


def _contour(points: npt.NDArray[np.float64]) -> Shape | None:
    """Return the centre of a polygon's area; None if it encloses none, or crosses itself so that it has no middle."""
    at = np.zeros((len(points), 3))
    at[:, : points.shape[1]] = points - points[0]  # near the origin, where the products below are exact
    crosses = np.cross(at[:-1], at[1:])
    normal = crosses.sum(axis=0)
    doubled = float(np.linalg.norm(normal))
    extent = np.ptp(at, axis=0)
    if doubled <= _FLAT * float(extent @ extent):
        return None
    weights = crosses @ normal / doubled**2
    middle = (weights[:, None] * (at[:-1] + at[1:])).sum(axis=0) / 3
    if (middle < at.min(axis=0) - _FLAT - extent * _FLAT).any() or (
        middle > at.max(axis=0) + _FLAT + extent * _FLAT
    ).any():
        return None
    return Shape(_tuple(middle[: points.shape[1]] + points[0]), CONTOUR, doubled / 2)


def _line(points: npt.NDArray[np.float64]) -> Shape:
    """Return the centre of a line's length."""
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    total = float(lengths.sum())
    if total == 0:
        return Shape(_tuple(points[0]), POINT, 0.0)
    middles = (points[:-1] + points[1:]) / 2
    return Shape(_tuple((lengths[:, None] * middles).sum(axis=0) / total), LINE, total)


def _tuple(point: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in point)
