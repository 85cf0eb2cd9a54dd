"""A few phantom nodes in memory: a bundle's golden inputs are made of them, so that no patient's pixels travel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lymphcad.phantom.anatomy import draw_neck, paint_neck
from lymphcad.phantom.canvas import Canvas, scan
from lymphcad.phantom.node import paint_node, place_node
from lymphcad.phantom.signs import draw_signs
from lymphcad.slice import CtSlice

_SIZE = 512


def sample_nodes(count: int, seed: int) -> list[tuple[CtSlice, float, float]]:
    """Draw nodes of one phantom patient, benign and metastatic in turn.

    Parameters
    ----------
    count
        How many, each on a slice of its own.
    seed
        Of everything.

    Returns
    -------
    list of tuple
        Slice (all of one spacing), row and column of the node's centre, pixels.
    """
    rng = np.random.default_rng([seed, 2])
    neck = draw_neck(rng, _SIZE)
    found = []
    for number in range(count):
        signs = draw_signs(rng, number % 2)
        shape = place_node(neck, signs, rng)
        canvas = Canvas(_SIZE, neck.spacing_mm, neck.middle, neck.turn)
        paint_neck(canvas, neck, (number + 0.5) / count, rng)
        paint_node(canvas, shape, signs, rng)
        hu = scan(canvas.hu, rng, neck.blur_mm / neck.spacing_mm, neck.noise_hu)
        spacing = (neck.spacing_mm, neck.spacing_mm)
        found.append((CtSlice(hu, spacing, Path(f"phantom {number}")), *canvas.pixel(shape.x, shape.y)))
    return found
