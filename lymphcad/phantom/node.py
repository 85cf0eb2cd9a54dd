"""Paint a lymph node with given signs, where cervical nodes lie."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.phantom.anatomy import FAT_HU, Neck, vessels
from lymphcad.phantom.canvas import Ellipse, field

if TYPE_CHECKING:
    from lymphcad.phantom.canvas import Canvas
    from lymphcad.phantom.signs import Signs

_RIM_MM = 1.0
"""Fat around a node that keeps it apart from its neighbours, mm."""
_MIN_GRAIN_MM = 1.1


def place_node(neck: Neck, signs: Signs, rng: np.random.Generator) -> Ellipse:
    """Choose where a node lies: by the jugular vein, in the posterior triangle, or before the carotid artery.

    Parameters
    ----------
    neck
        The patient.
    signs
        Of the node; a larger one lies farther from the vessel that it touches.
    rng
        Source of randomness.

    Returns
    -------
    Ellipse
        The node's outline, not regular, and no more so in one class than in the other.
    """
    short, long = signs.half_axes_mm
    side = int(rng.choice([-1, 1]))
    vessel = vessels(neck)[f"{rng.choice(['jugular', 'jugular', 'carotid'])}{side}"]
    is_jugular = vessel.b != vessel.a
    # Behind and beside the jugular vein; before the carotid artery, where the chain of level III and VI runs.
    towards = rng.uniform(0.05, 1.25) if is_jugular else rng.uniform(-1.9, -1.2)
    direction = (side * math.cos(towards), math.sin(towards))
    gap = max(vessel.a, vessel.b) + math.sqrt(short * long) + rng.uniform(0.8, 3.0)
    waves = tuple((float(abs(rng.normal(0, 0.025))), float(rng.uniform(0, 2 * math.pi))) for _ in range(3))
    return Ellipse(
        vessel.x + direction[0] * gap,
        vessel.y + direction[1] * gap,
        long,
        short,
        float(rng.uniform(0, math.pi)),
        waves,
    )


def paint_node(canvas: Canvas, shape: Ellipse, signs: Signs, rng: np.random.Generator) -> None:
    """Paint a node: fat rim, solid part, then hilum, cyst and calcifications.

    Parameters
    ----------
    canvas
        Where to.
    shape
        Outline; `a` is half of the long axis, `b` half of the short one.
    signs
        What it looks like.
    rng
        Source of randomness.
    """
    canvas.paint(shape.grown(_RIM_MM), FAT_HU + 15)
    outline = canvas.patch(shape)
    rows, columns = outline.cover.shape
    grain_mm = max(shape.b / 2.2, _MIN_GRAIN_MM)
    texture = field(rng, (rows, columns), grain_mm / canvas.spacing_mm)
    solid = outline.cover > 0.5
    inside = texture[solid]
    texture = (texture - inside.mean()) / max(float(inside.std()), 1e-3)  # the sign is what this very node shows
    canvas.paint(shape, signs.enhancement_hu + signs.heterogeneity_hu * texture)
    side = 1 if rng.random() < 0.5 else -1
    if signs.fatty_hilum:
        part = _part(shape, across=side * rng.uniform(0.12, 0.3), a=rng.uniform(0.45, 0.6), b=rng.uniform(0.36, 0.46))
        canvas.paint(part, rng.uniform(-85, -50), within=outline)
    if signs.cystic:
        part = _part(
            shape,
            along=rng.uniform(-0.25, 0.25),
            across=-side * rng.uniform(0.2, 0.35),
            a=rng.uniform(0.42, 0.6),
            b=rng.uniform(0.42, 0.55),
        )
        canvas.paint(part, rng.uniform(5, 25), within=outline)
    if signs.calcified:
        for _ in range(int(rng.integers(2, 5))):
            radius = rng.uniform(0.5, 0.8)
            turn, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.65)
            spot = _part(shape, along=reach * math.cos(turn), across=reach * math.sin(turn), a=1, b=1)
            canvas.paint(Ellipse(spot.x, spot.y, radius, radius), rng.uniform(500, 900), within=outline)


def _part(shape: Ellipse, *, a: float, b: float, along: float = 0.0, across: float = 0.0) -> Ellipse:
    """Return an ellipse within another; everything in shares of the outer one's half axes."""
    cosine, sine = math.cos(shape.turn), math.sin(shape.turn)
    x, y = along * shape.a, across * shape.b
    return Ellipse(
        shape.x + x * cosine - y * sine, shape.y + x * sine + y * cosine, a * shape.a, b * shape.b, shape.turn
    )
