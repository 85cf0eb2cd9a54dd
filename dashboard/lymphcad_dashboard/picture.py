"""The viewer's picture, an SVG in millimetres: the slice, fields of view, heatmaps, letters, scale bar."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lymphcad.overlay import heat_layer, scale_bar_mm, side_of_patient
from lymphcad.png import png_bytes
from lymphcad_dashboard.display import Frame, grey_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from lymphcad.slice import CtSlice
    from lymphcad_dashboard.display import HuWindow

BOX_COLOUR = "#ffd23f"
_CROP_OPACITY = 0.65
_STYLE = (
    "text{font-family:system-ui,sans-serif;fill:#fff;stroke:#000;stroke-width:.22em;paint-order:stroke;"
    "stroke-linejoin:round;user-select:none}"
)


@dataclass(frozen=True)
class Box:
    """A marked node on the slice that is shown.

    Attributes
    ----------
    row, col
        Its centre, zero-based pixel coordinates.
    side_mm
        Of the field of view, mm; None where no bundle has said it yet.
    label
        What is written at its corner.
    selected
        Drawn thicker.
    heatmap
        uint8 [S, S] to lay over its field of view, or None.
    """

    row: float
    col: float
    side_mm: float | None
    label: str
    selected: bool
    heatmap: npt.NDArray[np.uint8] | None = None


def draw(ct: CtSlice, frame: Frame, window: HuWindow, boxes: Sequence[Box], opacity: float) -> str:
    """Draw a slice.

    Parameters
    ----------
    ct
        The slice.
    frame
        Which part of it.
    window
        Level and width, HU.
    boxes
        The nodes on it.
    opacity
        Of the heatmaps where they are strongest, 0..1.

    Returns
    -------
    str
        An SVG element, square, in mm.
    """
    layers = [_slice(ct, frame, window)]
    layers += [_heat(frame, box, opacity) for box in boxes if box.heatmap is not None]
    layers += [_box(frame, box) for box in boxes]
    return _svg(frame, [*layers, _letters(ct, frame.side_mm)], _described(ct, boxes))


def draw_crop(
    ct: CtSlice, row: float, col: float, side_mm: float, window: HuWindow, heatmap: npt.NDArray[np.uint8] | None
) -> str:
    """Draw a node's field of view.

    Parameters
    ----------
    ct
        The slice.
    row, col
        The node's centre, zero-based pixel coordinates.
    side_mm
        Of the field of view, mm.
    window
        Level and width, HU.
    heatmap
        uint8 [S, S], laid over it; None for the anatomy alone.

    Returns
    -------
    str
        An SVG element, square, in mm.
    """
    frame = Frame(row, col, side_mm, ct.spacing_mm)
    box = Box(row, col, side_mm, "", selected=False, heatmap=heatmap)
    layers = [_slice(ct, frame, window), _heat(frame, box, _CROP_OPACITY)]
    return _svg(frame, layers, "Field of view" if heatmap is None else "Field of view with its heatmap")


def _svg(frame: Frame, layers: Sequence[str], described: str) -> str:
    side = frame.side_mm
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side:.4f} {side:.4f}" role="img"'
        f' aria-label="{escape(described)}" font-size="{side / 34:.4f}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#000"/>{"".join(layers)}{_scale_bar(side)}</svg>'
    )


def _described(ct: CtSlice, boxes: Sequence[Box]) -> str:
    """Return what a screen reader says of the picture."""
    rows, columns = ct.hu.shape
    nodes = f", nodes {', '.join(box.label for box in boxes)}" if boxes else ""
    return f"Axial CT slice, {rows} rows, {columns} columns{nodes}"


def _slice(ct: CtSlice, frame: Frame, window: HuWindow) -> str:
    """Return the part of the slice that the frame shows; whole pixels, one more at each edge than is seen."""
    spans = []
    for at, mm, length in zip((frame.row, frame.col), ct.spacing_mm, ct.hu.shape, strict=True):
        half = frame.side_mm / mm / 2
        spans.append(slice(max(math.floor(at - half) - 1, 0), min(math.ceil(at + half) + 2, length)))
    part = ct.hu[spans[0], spans[1]]
    if not part.size:
        return ""
    x, y = frame.x(spans[1].start - 0.5), frame.y(spans[0].start - 0.5)
    width, height = part.shape[1] * ct.spacing_mm[1], part.shape[0] * ct.spacing_mm[0]
    grey = Image.fromarray(grey_levels(np.ascontiguousarray(part), window))
    return _image(x, y, width, height, png_bytes(grey))


def _image(x: float, y: float, width: float, height: float, png: bytes, more: str = "") -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<image x="{x:.4f}" y="{y:.4f}" width="{width:.4f}" height="{height:.4f}" preserveAspectRatio="none"{more}'
        f' href="data:image/png;base64,{data}"/>'
    )


def _corner(frame: Frame, box: Box, side: float) -> tuple[float, float]:
    """Return the upper left corner of a field of view, mm."""
    return frame.x(box.col) - side / 2, frame.y(box.row) - side / 2


def _heat(frame: Frame, box: Box, opacity: float) -> str:
    if box.heatmap is None or box.side_mm is None:
        return ""
    x, y = _corner(frame, box, box.side_mm)
    png = _heat_png(box.heatmap.tobytes(), box.heatmap.shape[0])
    return _image(x, y, box.side_mm, box.side_mm, png, f' class="heat" opacity="{opacity:.2f}"')


@lru_cache(maxsize=32)
def _heat_png(levels: bytes, size: int) -> bytes:
    """Return the layer of a heatmap, which is the same in every position of slider and opacity."""
    return png_bytes(heat_layer(np.frombuffer(levels, np.uint8).reshape(size, size)))


def _box(frame: Frame, box: Box) -> str:
    """Return the field of view in true size, its name, and a small cross on the node."""
    side = box.side_mm or frame.side_mm / 40
    x, y = _corner(frame, box, side)
    width = frame.side_mm / (250 if box.selected else 500)
    middle, arm = (x + side / 2, y + side / 2), frame.side_mm / 90
    dashes = "" if box.selected else f' stroke-dasharray="{4 * width:.3f} {2 * width:.3f}"'
    common = f'fill="none" stroke="{BOX_COLOUR}" stroke-width="{width:.4f}"'
    cross = f"M{middle[0] - arm:.3f} {middle[1]:.3f}h{2 * arm:.3f}M{middle[0]:.3f} {middle[1] - arm:.3f}v{2 * arm:.3f}"
    return (
        f'<g class="node"><rect x="{x:.4f}" y="{y:.4f}" width="{side:.4f}" height="{side:.4f}" {common}{dashes}/>'
        f'<path d="{cross}" {common} opacity=".7"/>'
        f'<text x="{x:.3f}" y="{y - frame.side_mm / 120:.3f}" font-size=".85em">{escape(box.label)}</text></g>'
    )


def _letters(ct: CtSlice, side: float) -> str:
    """Return which side of the patient lies at which edge, where the file says it."""
    if ct.orientation is None:
        return ""
    right, down = ct.orientation[:3], ct.orientation[3:]
    near, far, middle = side / 40, side * 39 / 40, side / 2
    return "".join(
        f'<text class="letter" x="{x:.3f}" y="{y:.3f}" text-anchor="middle" dominant-baseline="central"'
        f' font-size="1.3em">{side_of_patient(cosines)}</text>'
        for x, y, cosines in (
            (far, middle, right),
            (near, middle, [-value for value in right]),
            (middle, far, down),
            (middle, near, [-value for value in down]),
        )
    )


def _scale_bar(side: float) -> str:
    length = scale_bar_mm(side)
    x, y, thick = side / 30, side * 0.955, side / 180
    return (
        f'<g class="scale"><rect x="{x:.3f}" y="{y:.3f}" width="{length:.4f}" height="{thick:.3f}" fill="#fff"'
        f' stroke="#000" stroke-width="{thick / 3:.3f}"/>'
        f'<text x="{x:.3f}" y="{y - thick:.3f}" font-size=".9em">{length:g} mm</text></g>'
    )
