"""The centre of a graphic, against worked examples and a drawing program."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lymphcad_client.annotations.shape import CONTOUR, LINE, POINT, read_shape
from PIL import Image, ImageDraw

from lymphcad.errors import Reason, Refusal

SQUARE = [(0, 0), (4, 0), (4, 2), (0, 2), (0, 0)]
ANGLE = [(0, 0), (6, 0), (6, 2)]
"""An open line: 6 long with its middle at 3, 0, then 2 long with its middle at 6, 1."""
LOPSIDED = [(0, 0), (4, 4.1), (4, 0), (0, 4), (0, 0)]
"""The same, but they do not quite cancel, and the centre of its area would be far away."""
BALL = [(1, 5, 9), (7, 5, 9), (4, 4, 9), (4, 6, 9), (4, 5, 8), (4, 5, 10)]
EIGHT = [(0, 0), (4, 4), (4, 0), (0, 4), (0, 0)]
"""Crosses itself: the areas of its halves cancel."""


def shape(graphic_type, points):
    return read_shape(graphic_type, np.array(points, dtype=float))


@pytest.mark.parametrize(
    ("graphic_type", "points", "centre", "kind", "size"),
    [
        ("POINT", [(3, 5)], (3, 5), POINT, 0),
        ("MULTIPOINT", [(3, 5)], (3, 5), POINT, 0),
        ("CIRCLE", [(3, 5), (3, 7)], (3, 5), CONTOUR, 4 * math.pi),
        ("ELLIPSE", [(1, 5), (7, 5), (4, 4), (4, 6)], (4, 5), CONTOUR, 3 * math.pi),
        ("POLYLINE", SQUARE, (2, 1), CONTOUR, 8),
        ("POLYLINE", SQUARE[::-1], (2, 1), CONTOUR, 8),
        ("INTERPOLATED", SQUARE, (2, 1), CONTOUR, 8),
        ("POLYLINE", [(1, 2), (5, 4)], (3, 3), LINE, math.sqrt(20)),
        ("POLYLINE", ANGLE, (3.75, 0.25), LINE, 8),
        ("POLYLINE", [(1, 2), (5, 2), (1, 2)], (3, 2), LINE, 8),
        ("POLYLINE", [(1, 2), (3, 2), (5, 2), (1, 2)], (3, 2), LINE, 8),
        ("POLYLINE", [(1, 2), (1, 2)], (1, 2), POINT, 0),
        ("POLYLINE", EIGHT, (2, 2), LINE, 8 + 2 * math.sqrt(32)),
        ("POLYLINE", LOPSIDED, (39.169752 / 19.484874, 39.461138 / 19.484874), LINE, 19.484874),
        ("POLYGON", [(0, 0, 7), (4, 0, 7), (4, 2, 7), (0, 2, 7), (0, 0, 7)], (2, 1, 7), CONTOUR, 8),
        ("ELLIPSE", [(1, 5, 9), (7, 5, 9), (4, 4, 9), (4, 6, 9)], (4, 5, 9), CONTOUR, 3 * math.pi),
        ("ELLIPSOID", BALL, (4, 5, 9), CONTOUR, 3 * math.pi),
    ],
)  # fmt: skip
def test_centre(graphic_type, points, centre, kind, size):
    found = shape(graphic_type, points)
    assert found.centre == pytest.approx(centre)
    assert found.kind == kind
    assert found.size == pytest.approx(size)


@pytest.mark.parametrize(
    ("reason", "graphic_type", "points"),
    [
        (Reason.NOT_A_POINT, "POINT", np.zeros((0, 2))),
        (Reason.NOT_A_POINT, "POINT", [(1, 2), (3, 4)]),
        (Reason.NOT_A_POINT, "MULTIPOINT", [(1, 2), (3, 4)]),
        (Reason.NOT_A_POINT, "CIRCLE", [(1, 2)]),
        (Reason.NOT_A_POINT, "ELLIPSE", [(1, 2), (3, 4)]),
        (Reason.NOT_A_POINT, "SPLINE", [(1, 2)]),
        (Reason.NOT_A_POINT, "", [(1, 2)]),
        (Reason.NODE_NOT_A_NUMBER, "POINT", [(math.nan, 2)]),
        (Reason.NODE_NOT_A_NUMBER, "POLYLINE", [(1, 2), (3, math.inf)]),
    ],
)
def test_refused(reason, graphic_type, points):
    with pytest.raises(Refusal) as error:
        shape(graphic_type, points)
    assert error.value.reason is reason


@settings(max_examples=20, deadline=None)
@given(radii=st.lists(st.floats(20, 90), min_size=5, max_size=12), x=st.floats(100, 150), y=st.floats(100, 150))
def test_the_centre_of_a_contour_is_that_of_what_it_fills(radii, x, y):
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    points = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
    fine = 8
    picture = Image.new("1", (250 * fine, 250 * fine))
    ImageDraw.Draw(picture).polygon([(float(a) * fine, float(b) * fine) for a, b in points], fill=1)
    filled = np.argwhere(np.array(picture)) / fine
    found = shape("POLYLINE", [*points, points[0]])
    assert found.centre == pytest.approx(filled[:, ::-1].mean(axis=0), abs=0.2)
    assert found.size == pytest.approx(len(filled) / fine**2, rel=0.03)


@settings(max_examples=30, deadline=None)
@given(
    points=st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 3), min_size=1, max_size=8),
    graphic_type=st.sampled_from(["POLYLINE", "POLYGON", "POLYLINE closed"]),
)
def test_the_centre_is_finite_and_among_the_points(points, graphic_type):
    if "closed" in graphic_type:
        points = [*points, points[0]]
    found = shape(graphic_type.split()[0], points)
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    assert (np.array(found.centre) >= low - 1e-3).all()
    assert (np.array(found.centre) <= high + 1e-3).all()
