"""The picture of a scored node: the field of view on the anatomy, plain and with the heatmap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from lymphcad import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    import numpy.typing as npt

    from lymphcad.bundle import Manifest
    from lymphcad.finding import Finding
    from lymphcad.slice import CtSlice

PANEL = 320
"""Side of a panel, pixels."""
_CAPTION = 40
_CONTEXT = 2.5
"""Side of the left panel in fields of view."""
# Anchors of a colour map of even lightness, dark to light, safe for the colour-blind; drawn over the anatomy with an
# opacity that grows with the evidence.
_ANCHORS = np.array([[20, 11, 53], [87, 16, 110], [156, 41, 100], [214, 72, 67], [249, 142, 9], [252, 255, 164]])
_LEVELS = np.stack(
    [np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(_ANCHORS)), _ANCHORS[:, i]) for i in range(3)], axis=1
)
_OPACITY = np.linspace(0, 0.65, 256)[:, np.newaxis]


def draw_overlay(ct: CtSlice, row: float, col: float, finding: Finding, manifest: Manifest) -> Image.Image:
    """Draw the overlay of a scored node.

    Parameters
    ----------
    ct
        The slice.
    row, col
        The node's centre, zero-based pixel coordinates.
    finding
        The answer for it.
    manifest
        Of the bundle that answered.

    Returns
    -------
    Image
        RGB.
    """
    window = manifest.preprocess
    low, width = window.window_level_hu - window.window_width_hu / 2, window.window_width_hu
    field = window.field_of_view_mm
    context = _grey(_cut(ct, row, col, field * _CONTEXT), low, width)
    close = _grey(_cut(ct, row, col, field), low, width)
    heat = np.asarray(Image.fromarray(finding.heatmap).resize((PANEL, PANEL), Image.Resampling.BILINEAR))
    opacity = _OPACITY[heat]
    blended = np.asarray(close) * (1 - opacity) + _LEVELS[heat] * opacity
    picture = Image.new("RGB", (3 * PANEL, PANEL + _CAPTION))
    for column, panel in enumerate((context, close, Image.fromarray(blended.astype(np.uint8)))):
        picture.paste(panel, (column * PANEL, 0))
    pen = ImageDraw.Draw(picture)
    half = PANEL / _CONTEXT / 2
    pen.rectangle([PANEL / 2 - half, PANEL / 2 - half, PANEL / 2 + half, PANEL / 2 + half], outline=(255, 200, 0))
    pen.line([PANEL + 12, PANEL - 12, PANEL + 12 + 10 / field * PANEL, PANEL - 12], fill=(255, 255, 255), width=2)
    pen.text((PANEL + 12, PANEL - 28), "10 mm", fill=(255, 255, 255))
    score = f"P(metastatic) {finding.probability:.3f}  threshold {finding.threshold:.3f}  call: {finding.call}"
    pen.text((8, PANEL + 5), score, fill=(255, 255, 255))
    pen.text((8, PANEL + 21), f"{RESEARCH_USE_ONLY}. Bundle {finding.bundle}", fill=(200, 200, 200))
    return picture


def _cut(ct: CtSlice, row: float, col: float, side_mm: float) -> npt.NDArray[np.float32]:
    """Return a square of the anatomy around a node, float32 [PANEL, PANEL], HU; the lowest value beyond the slice."""
    halves = [side_mm / spacing / 2 for spacing in ct.spacing_mm]
    # Image.transform counts from the corner of the first pixel; the node's coordinates from its centre.
    box = (col + 0.5 - halves[1], row + 0.5 - halves[0], col + 0.5 + halves[1], row + 0.5 + halves[0])
    source = Image.fromarray(ct.hu.astype(np.int32))
    square = source.transform(
        (PANEL, PANEL), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR, fillcolor=int(ct.hu.min())
    )
    return np.asarray(square, dtype=np.float32)


def _grey(hu: npt.NDArray[np.float32], low: float, width: float) -> Image.Image:
    """Return a window of HU as a picture."""
    return Image.fromarray((np.clip((hu - low) / width, 0, 1) * 255).astype(np.uint8)).convert("RGB")
