"""The window of a slice that the preprocess graph reads: what the client sends, in place of the whole slice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.errors import Reason, Refusal
from lymphcad.slice import PADDING_HU

if TYPE_CHECKING:
    import numpy.typing as npt

    from lymphcad.slice import CtSlice

WINDOW_STEP = 64
"""Sides of a window are multiples of this, pixels, so that requests for slices of similar spacing batch."""
MIN_WINDOW = 128
MAX_WINDOW = 1024


@dataclass(frozen=True)
class Window:
    """A part of a slice around a node, as the graph takes it.

    Attributes
    ----------
    image
        int16 [h, w], HU, contiguous; `PADDING_HU` beyond the slice's border.
    center
        The node's centre in the window, (row, column), pixels.
    spacing_mm
        (between rows, between columns), mm.
    """

    image: npt.NDArray[np.int16]
    center: tuple[float, float]
    spacing_mm: tuple[float, float]


def cut_window(ct: CtSlice, row: float, col: float, field_of_view_mm: float, size: int) -> Window:
    """Cut the window that holds every pixel which the graph weighs for a node.

    The graph resamples a field of view of `field_of_view_mm` to `size` x `size` with hat functions whose half-width
    is one pixel or one sample, whichever is larger; beyond the slice it reads zero. So the window and the whole slice
    give the same crop.

    Parameters
    ----------
    ct
        The slice.
    row, col
        The node's centre, zero-based pixel coordinates.
    field_of_view_mm
        Side of the square field of view, mm.
    size
        Samples along a side of the crop, pixels.

    Returns
    -------
    Window
        Its sides are multiples of `WINDOW_STEP`, pixels.

    Raises
    ------
    Refusal
        ``node_not_a_number``, ``node_outside_image``, ``node_in_padding``, or ``bad_pixel_spacing`` if the field of
        view would span more than `MAX_WINDOW` pixels.
    """
    check_node(ct, row, col)
    sides = [_side(field_of_view_mm, size, spacing) for spacing in ct.spacing_mm]
    starts = [round(at) - side // 2 for at, side in zip((row, col), sides, strict=True)]
    inside = [slice(max(at, 0), min(at + side, n)) for at, side, n in zip(starts, sides, ct.hu.shape, strict=True)]
    image: npt.NDArray[np.int16] = ct.hu[tuple(inside)].copy()
    if image.shape != tuple(sides):  # near the slice's border
        part, image = image, np.full(sides, PADDING_HU, dtype=np.int16)
        image[tuple(slice(i.start - at, i.stop - at) for i, at in zip(inside, starts, strict=True))] = part
    return Window(image, (row - starts[0], col - starts[1]), ct.spacing_mm)


def check_node(ct: CtSlice, row: float, col: float) -> None:
    """Refuse a node that no anatomy lies under.

    Parameters
    ----------
    ct
        The slice.
    row, col
        The node's centre, zero-based pixel coordinates.

    Raises
    ------
    Refusal
        ``node_not_a_number``, ``node_outside_image`` or ``node_in_padding``.
    """
    if not (math.isfinite(row) and math.isfinite(col)):
        raise Refusal(
            Reason.NODE_NOT_A_NUMBER, f"the node is at ({row}, {col}), and finite pixel coordinates are needed"
        )
    rows, columns = ct.hu.shape
    if not (-0.5 <= row < rows - 0.5 and -0.5 <= col < columns - 0.5):
        raise Refusal(
            Reason.NODE_OUTSIDE_IMAGE,
            f"the node is at row {row:g}, column {col:g}, and the image has {rows} rows and {columns} columns, counted"
            " from 0: check that the order is row, column",
        )
    if ct.hu[max(round(row), 0), max(round(col), 0)] == PADDING_HU:
        raise Refusal(
            Reason.NODE_IN_PADDING,
            f"the node at row {row:g}, column {col:g} lies where the scanner measured nothing (pixel padding): place it"
            " on the lymph node",
        )


def _side(field_of_view_mm: float, size: int, spacing: float) -> int:
    """Return the window's side along one axis, pixels."""
    step = field_of_view_mm / size / spacing
    needed = field_of_view_mm / spacing + 2 * max(step, 1.0) + 2
    side = max(math.ceil(needed / WINDOW_STEP) * WINDOW_STEP, MIN_WINDOW)
    if side > MAX_WINDOW:
        raise Refusal(
            Reason.BAD_PIXEL_SPACING,
            f"at {spacing:g} mm a pixel the field of view of {field_of_view_mm:g} mm spans {needed:.0f} pixels, and at"
            f" most {MAX_WINDOW} are read: send the original CT series",
        )
    return side
