"""The picture of a scored node: where it lies, the field of view that the network saw, and its evidence on it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lymphcad import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from lymphcad.bundle import Manifest
    from lymphcad.finding import Finding
    from lymphcad.slice import CtSlice

PANEL = 320
"""Side of each of the three panels, pixels."""
STRIP = 28
"""Height of the line below the panels, which says what they show, pixels."""
CAPTION = 52
"""Height of the two lines below it, pixels."""
CONTEXT = 2.5
"""Side of the left panel in fields of view."""
_SMALL, _LETTERS, _LARGE = 13, 14, 16
_BOX, _WHITE, _GREY, _BLACK = (255, 200, 0), (255, 255, 255), (190, 190, 190), (0, 0, 0)
# Anchors of a colour map of even lightness, dark to light, safe for the colour-blind; drawn over the anatomy with an
# opacity that grows with the evidence.
_ANCHORS = np.array([[20, 11, 53], [87, 16, 110], [156, 41, 100], [214, 72, 67], [249, 142, 9], [252, 255, 164]])
_PALETTE = np.stack(
    [np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(_ANCHORS)), _ANCHORS[:, i]) for i in range(3)], axis=1
).astype(np.uint8)
_OPACITY = [round(0.65 * level) for level in range(256)]
_SMALLEST_COSINE = math.sin(math.radians(20))


def draw_overlay(ct: CtSlice, row: float, col: float, finding: Finding, manifest: Manifest) -> Image.Image:
    """Draw the overlay of a scored node: its surroundings, its field of view, and that with the heatmap.

    All three panels are square in millimetres with the node in the middle, in the bundle's window. The heatmap's
    colours are on the bundle's absolute scale, which the bar below it names.

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
    PIL.Image.Image
        RGB, 3 * `PANEL` wide and `PANEL` + `STRIP` + `CAPTION` high, pixels.
    """
    field_mm = manifest.preprocess.field_of_view_mm
    close = _anatomy(ct, row, col, field_mm, manifest).convert("RGB")
    heat = Image.fromarray(finding.heatmap).resize((PANEL, PANEL), Image.Resampling.BILINEAR)
    picture = Image.new("RGB", (3 * PANEL, PANEL + STRIP + CAPTION))
    picture.paste(_anatomy(ct, row, col, CONTEXT * field_mm, manifest), (0, 0))
    picture.paste(close, (PANEL, 0))
    picture.paste(_coloured(heat, close), (2 * PANEL, 0))
    furniture = _furniture(field_mm, manifest.evidence_scale, ct.orientation)
    picture.paste(furniture, (0, 0), furniture)
    frame = "" if ct.frame is None else f", frame {ct.frame}"
    found = (
        f"Probability of metastasis {finding.probability:.3f}: {finding.call} at threshold {finding.threshold:.3f}"
        f"   (row {row:g}, column {col:g}{frame})"
    )
    assumed = " Assumptions: see the result." if ct.assumptions else ""
    pen = ImageDraw.Draw(picture)
    pen.text((8, PANEL + STRIP + 2), found, _WHITE, _font(_LARGE))
    notice = f"{RESEARCH_USE_ONLY}.{assumed} Bundle {finding.bundle}"
    pen.text((8, PANEL + STRIP + 27), notice, _GREY, _font(_SMALL))
    return picture


def draw_pair(crop: npt.NDArray[np.float32], heatmap: npt.NDArray[np.uint8]) -> Image.Image:
    """Draw what the network saw, and beside it the same under its heatmap.

    Parameters
    ----------
    crop
        float32 [S, S], 0..1, as the network gets it.
    heatmap
        uint8 [S, S], evidence for metastasis on the bundle's scale.

    Returns
    -------
    PIL.Image.Image
        RGB, 2 * `PANEL` wide and `PANEL` high, pixels.
    """
    panels = [Image.fromarray(grey) for grey in ((255 * crop.clip(0, 1)).astype(np.uint8), heatmap)]
    grey, heat = (panel.resize((PANEL, PANEL), Image.Resampling.BILINEAR) for panel in panels)
    picture = Image.new("RGB", (2 * PANEL, PANEL))
    picture.paste(grey, (0, 0))
    picture.paste(_coloured(heat, grey.convert("RGB")), (PANEL, 0))
    return picture


def heat_layer(heatmap: npt.NDArray[np.uint8]) -> Image.Image:
    """Return a heatmap's colours as a layer to lay over the anatomy.

    Parameters
    ----------
    heatmap
        uint8 [S, S], evidence for metastasis on the bundle's scale.

    Returns
    -------
    PIL.Image.Image
        RGBA, S x S pixels; where there is no evidence it is transparent, where there is most it is opaque.
    """
    return Image.fromarray(np.dstack([_PALETTE[heatmap], heatmap]))


def _anatomy(ct: CtSlice, row: float, col: float, side_mm: float, manifest: Manifest) -> Image.Image:
    """Return a square of the anatomy around a node in the bundle's window, 8-bit grey; black beyond the slice."""
    low = manifest.preprocess.window_level_hu - manifest.preprocess.window_width_hu / 2
    sides = [side_mm / mm for mm in ct.spacing_mm]
    # A box counts from the border of the first pixel, the node from its centre.
    starts = [at + 0.5 - side / 2 for at, side in zip((row, col), sides, strict=True)]
    # Interpolation reads a few pixels beyond the box.
    first = [math.floor(start) - 3 for start in starts]
    shape = [math.ceil(start + side) + 3 - at for start, side, at in zip(starts, sides, first, strict=True)]
    inside = [
        slice(max(at, 0), min(at + count, length)) for at, count, length in zip(first, shape, ct.hu.shape, strict=True)
    ]
    grey = np.zeros(shape, np.uint8)
    shown = (ct.hu[tuple(inside)] - np.float32(low)) * np.float32(255 / manifest.preprocess.window_width_hu)
    grey[tuple(slice(i.start - at, i.stop - at) for i, at in zip(inside, first, strict=True))] = shown.clip(0, 255)
    top, left = (start - at for start, at in zip(starts, first, strict=True))
    box = (left, top, left + sides[1], top + sides[0])
    return Image.fromarray(grey).resize((PANEL, PANEL), Image.Resampling.BICUBIC, box)


def _coloured(heat: Image.Image, under: Image.Image) -> Image.Image:
    """Lay the heatmap's colours over a picture of the same size."""
    colours = heat.copy()
    colours.putpalette(_PALETTE.tobytes())
    return Image.composite(colours.convert("RGB"), under, heat.point(_OPACITY))


@lru_cache(maxsize=16)
def _furniture(field_mm: float, evidence_scale: float, orientation: tuple[float, ...] | None) -> Image.Image:
    """Draw what is the same in every picture of a series: box, scale bars, letters and legend, RGBA."""
    layer = Image.new("RGBA", (3 * PANEL, PANEL + STRIP))
    pen = ImageDraw.Draw(layer)
    pen.rectangle([0, PANEL, 3 * PANEL, PANEL + STRIP], (*_BLACK, 255))
    near, far = PANEL / 2 * (1 - 1 / CONTEXT), PANEL / 2 * (1 + 1 / CONTEXT)
    pen.rectangle([near, near, far, far], outline=_BOX)
    for left in (PANEL, 2 * PANEL):
        _pointers(pen, left)
    names = ("Context; box: field of view", "Field of view")
    for left, side_mm, name in ((0, CONTEXT * field_mm, names[0]), (PANEL, field_mm, names[1])):
        _scale_bar(pen, left, side_mm)
        _letters(pen, left, orientation)
        pen.text((left + 8, PANEL + 6), f"{name}, {field_mm:g} x {field_mm:g} mm", _GREY, _font(_SMALL))
    _legend(layer, pen, evidence_scale)
    return layer


def scale_bar_mm(side_mm: float) -> float:
    """Return the length of a picture's scale bar: a round number of mm, at most a third of the picture's side, mm."""
    steps = [digit * 10.0**power for power in range(-1, 4) for digit in (1, 2, 5)]
    return max((step for step in steps if step <= side_mm / 3), default=steps[0])


def _scale_bar(pen: ImageDraw.ImageDraw, left: int, side_mm: float) -> None:
    """Draw the scale bar of the panel that starts at `left`."""
    length_mm = scale_bar_mm(side_mm)
    start, end, y = left + 12, left + 12 + length_mm / side_mm * PANEL, PANEL - 14
    pen.rectangle([start - 1, y - 1, end + 1, y + 3], _BLACK)
    pen.rectangle([start, y, end, y + 2], _WHITE)
    _outlined(pen, (start, y - 6), f"{length_mm:g} mm", "ls")


def _pointers(pen: ImageDraw.ImageDraw, left: int) -> None:
    """Draw a short line near each edge that points to the node in the middle, without a mark on the node itself."""
    middle, first, last = PANEL // 2, 32, 40
    for start, end in ((first, last), (PANEL - last, PANEL - first)):
        pen.line([left + start, middle, left + end, middle], _BOX)
        pen.line([left + middle, start, left + middle, end], _BOX)


def _letters(pen: ImageDraw.ImageDraw, left: int, orientation: tuple[float, ...] | None) -> None:
    """Write on each edge of a panel which side of the patient lies there, where the file says it."""
    if orientation is None:
        return
    right, down = orientation[:3], orientation[3:]
    for x, y, anchor, cosines in (
        (PANEL - 6, PANEL // 2, "rm", right),
        (6, PANEL // 2, "lm", [-value for value in right]),
        (PANEL // 2, PANEL - 6, "ms", down),
        (PANEL // 2, 5, "mt", [-value for value in down]),
    ):
        _outlined(pen, (left + x, y), side_of_patient(cosines), anchor)


def side_of_patient(cosines: Sequence[float]) -> str:
    """Return the letters of a direction, as Patient Orientation (0020,0020) writes them (PS3.3, C.7.6.1.1.1).

    Parameters
    ----------
    cosines
        Three direction cosines in the patient's system: to the left, to the back, to the head.

    Returns
    -------
    str
        Of R or L, A or P, F or H, the main axis first; an axis that is less than 20 degrees off, as with a tilted
        gantry, is left out.
    """
    axes = sorted(zip(cosines, ("RL", "AP", "FH"), strict=True), key=lambda axis: -abs(axis[0]))
    return "".join(names[value > 0] for value, names in axes if abs(value) > _SMALLEST_COSINE)


def _legend(layer: Image.Image, pen: ImageDraw.ImageDraw, evidence_scale: float) -> None:
    """Draw the heatmap's colours below its panel, as they look over grey, with the ends of the bundle's scale."""
    width, height = 48, 12
    start, y = 3 * PANEL - width - 86, PANEL + 8
    levels = Image.fromarray(np.linspace(0, 255, width).astype(np.uint8)[np.newaxis].repeat(height, axis=0))
    layer.paste(_coloured(levels, Image.new("RGB", levels.size, (110, 110, 110))), (start, y))
    pen.text((start - 6, y + 10), "Evidence for metastasis (logit)  0", _GREY, _font(_SMALL), "rs")
    pen.text((start + width + 6, y + 10), f"{evidence_scale:.3g} or more", _GREY, _font(_SMALL), "ls")


def _outlined(pen: ImageDraw.ImageDraw, at: tuple[float, float], words: str, anchor: str) -> None:
    """Write in white with a dark edge, to be read on bone and on air."""
    pen.text(at, words, _WHITE, _font(_LETTERS), anchor, stroke_width=1, stroke_fill=_BLACK)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that Pillow brings."""
    return ImageFont.load_default(size)
