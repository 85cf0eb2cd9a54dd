"""The neck of a phantom patient: what stays the same from slice to slice, and what is painted at a level of the neck.

Proportions follow axial anatomy between the thoracic inlet and the hyoid bone; HU are those of portal to arterial
contrast phases. It is a stage for lymph nodes, not an atlas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.phantom.canvas import Ellipse, field

if TYPE_CHECKING:
    from lymphcad.phantom.canvas import Canvas, Patch

FAT_HU, MUSCLE_HU, AIR_HU = -100.0, 58.0, -1000.0


@dataclass(frozen=True)
class Neck:
    """A patient, and how the patient was scanned.

    Attributes
    ----------
    width, depth
        Scale of the anatomy along x and y; 1 is a neck of 124 x 116 mm.
    fat_mm
        Thickness of the fat below the skin, mm.
    artery_hu, vein_hu
        HU of contrast-filled vessels: the contrast phase.
    thyroid_hu
        HU of the enhanced thyroid gland.
    carotid_mm, jugular_mm
        Radius of the common carotid artery; half axes of the (right, left) internal jugular vein, mm.
    spacing_mm
        Side of a pixel, mm.
    middle
        (row, column) of the middle of the neck, pixels.
    turn
        Of the head, radians.
    blur_mm, noise_hu
        Of the scanner: standard deviation of the point spread function, mm, and of the noise, HU.
    seed
        Of what varies from structure to structure.
    """

    width: float
    depth: float
    fat_mm: float
    artery_hu: float
    vein_hu: float
    thyroid_hu: float
    carotid_mm: float
    jugular_mm: tuple[float, float]
    spacing_mm: float
    middle: tuple[float, float]
    turn: float
    blur_mm: float
    noise_hu: float
    seed: int


def draw_neck(rng: np.random.Generator, size: int) -> Neck:
    """Draw a patient, scanned on `size` x `size` pixels."""
    artery = rng.uniform(170, 330)
    width = rng.normal(1.0, 0.07)
    return Neck(
        width=float(np.clip(width, 0.82, 1.2)),
        depth=float(np.clip(rng.normal(width, 0.04), 0.82, 1.2)),
        fat_mm=rng.uniform(3, 11),
        artery_hu=artery,
        vein_hu=artery * rng.uniform(0.6, 1.05),
        thyroid_hu=rng.uniform(110, 190),
        carotid_mm=rng.uniform(2.7, 3.9),
        jugular_mm=(rng.uniform(4.0, 8.5), rng.uniform(3.0, 7.5)),
        spacing_mm=round(rng.uniform(0.3, 0.6), 4),
        middle=(size / 2 + rng.uniform(-20, 20), size / 2 + rng.uniform(-20, 20)),
        turn=rng.normal(0, math.radians(4)),
        blur_mm=rng.uniform(0.3, 0.5),
        noise_hu=rng.uniform(5, 11),
        seed=int(rng.integers(2**31)),
    )


def paint_neck(canvas: Canvas, neck: Neck, level: float, rng: np.random.Generator) -> None:
    """Paint a slice's anatomy.

    Parameters
    ----------
    canvas
        Where to.
    neck
        The patient.
    level
        0 at the thoracic inlet, 1 at the hyoid bone.
    rng
        Source of what varies from slice to slice.
    """
    painter = _Painter(canvas, neck, rng)
    _paint_body(painter, neck)
    _paint_muscles(painter)
    _paint_spine(painter, level)
    _paint_visceral(painter, neck, level)
    _paint_vessels(painter, neck)


def vessels(neck: Neck) -> dict[str, Ellipse]:
    """Return the carotid arteries and internal jugular veins, by side; nodes lie around them.

    Parameters
    ----------
    neck
        The patient.

    Returns
    -------
    dict
        ``carotid-1``, ``carotid1``, ``jugular-1``, ``jugular1``: -1 is the image's left, the patient's right.
    """
    found = {}
    for side, jugular in zip((-1, 1), neck.jugular_mm, strict=True):
        found[f"carotid{side}"] = Ellipse(side * 24 * neck.width, -13 * neck.depth, neck.carotid_mm, neck.carotid_mm)
        x = side * (24 * neck.width + neck.carotid_mm + jugular + 0.8)
        found[f"jugular{side}"] = Ellipse(x, -10.5 * neck.depth, jugular, jugular * 0.72, side * 0.5)
    return found


class _Painter:
    """Paints structures whose size, place and texture vary a little with the patient and the slice."""

    def __init__(self, canvas: Canvas, neck: Neck, rng: np.random.Generator) -> None:
        self.canvas, self.neck, self.rng = canvas, neck, rng
        self._own = np.random.default_rng(neck.seed)  # the same draws in each of the patient's slices
        self.body: Patch | None = None
        """What lies below the fat under the skin: no muscle leaves it."""

    def place(self, x: float, y: float, a: float, b: float, turn: float = 0.0, waves: float = 0.04) -> Ellipse:
        own, now = self._own.normal(0, 1, 5), self.rng.normal(0, 1, 4)
        scale = np.exp(0.06 * own[2:4] + 0.02 * now[2:4])
        phases = self._own.uniform(0, 2 * math.pi, 2)
        return Ellipse(
            x * self.neck.width + 0.7 * own[0] + 0.3 * now[0],
            y * self.neck.depth + 0.7 * own[1] + 0.3 * now[1],
            float(a * self.neck.width * scale[0]),
            float(b * self.neck.depth * scale[1]),
            turn + 0.05 * own[4],
            ((waves, phases[0]), (waves / 2, phases[1])) if waves else (),
        )

    def tissue(self, shape: Ellipse, hu: float, texture_hu: float = 0.0, grain_mm: float = 2.0) -> Patch:
        rows, columns = (part.stop - part.start for part in self.canvas.box(shape))
        if texture_hu and rows and columns:
            texture = field(self.rng, (rows, columns), grain_mm / self.canvas.spacing_mm)
            return self.canvas.paint(shape, hu + texture_hu * texture, self.body)
        return self.canvas.paint(shape, hu, self.body)

    def both(self, x: float, y: float, a: float, b: float, turn: float, hu: float, texture_hu: float) -> None:
        for side in (-1, 1):
            self.tissue(self.place(side * x, y, a, b, side * turn), hu + self.rng.normal(0, 2), texture_hu)


def _paint_body(painter: _Painter, neck: Neck) -> None:
    skin = painter.place(0, 2, 62, 58, 0.0, waves=0.025)
    painter.tissue(skin, 35.0)
    painter.tissue(skin.grown(-2.0), FAT_HU, 7.0, 3.0)
    # The platysma, and the fascia that holds the deep neck.
    painter.tissue(skin.grown(-2.0 - neck.fat_mm), 20.0)
    painter.body = painter.tissue(skin.grown(-3.2 - neck.fat_mm), FAT_HU + 5, 9.0, 2.5)
    for _ in range(14):  # small vessels and nerves in the fat
        turn, reach = painter.rng.uniform(0, 2 * math.pi), painter.rng.uniform(26, 50)
        spot = painter.rng.uniform(0.5, 1.2)
        x, y = reach * math.cos(turn) * neck.width, reach * math.sin(turn) * 0.8 * neck.depth
        painter.tissue(Ellipse(x, y, spot, spot), painter.rng.uniform(20, neck.vein_hu))


def _paint_muscles(painter: _Painter) -> None:
    painter.both(19, 33, 17, 15, 0.35, MUSCLE_HU, 9.0)  # deep muscles of the back
    painter.both(37, 27, 10, 19, 0.75, MUSCLE_HU, 9.0)  # trapezius and levator
    painter.both(25, 10, 8, 9, 0.2, MUSCLE_HU, 8.0)  # scalenes
    painter.both(9, -3, 7, 4, 0.1, MUSCLE_HU, 6.0)  # longus colli
    painter.both(39, -12, 5.5, 16, 0.6, MUSCLE_HU + 2, 8.0)  # sternocleidomastoid
    painter.both(9, -43, 9, 2.6, 0.2, MUSCLE_HU, 5.0)  # strap muscles


def _paint_spine(painter: _Painter, level: float) -> None:
    body = painter.place(0, 9, 14, 9.5, 0.0, waves=0.02)
    disc = math.sin(level * 40.0) > 0.6  # every so often a slice runs through a disc
    painter.tissue(body, 100.0 if disc else 620.0, 20.0)
    painter.tissue(body.grown(-1.6), 85.0 if disc else 260.0, 60.0, 1.5)
    for side in (-1, 1):
        painter.tissue(painter.place(side * 17, 14, 6, 4, side * 0.3), 480.0, 110.0, 1.5)
        painter.tissue(painter.place(side * 15, 27, 4, 9, side * -0.9), 520.0, 100.0, 1.5)
        painter.tissue(painter.place(side * 17.5, 10, 2.2, 2.2, 0, 0), painter.neck.artery_hu * 0.9)  # vertebral artery
    painter.tissue(painter.place(0, 37, 3, 8, 0), 500.0, 90.0, 1.5)
    painter.tissue(painter.place(0, 23, 11.5, 7.5, 0.0, waves=0), -10.0)
    painter.tissue(painter.place(0, 23, 7, 5, 0.0, waves=0), 42.0, 4.0)


def _paint_visceral(painter: _Painter, neck: Neck, level: float) -> None:
    thyroid = max(0.0, 1 - abs(level - 0.28) / 0.32)
    if thyroid > 0.15:
        painter.both(17, -22, 7.5, 14 * math.sqrt(thyroid), 0.25, neck.thyroid_hu, 9.0)
        painter.tissue(painter.place(0, -34, 10, 3.2), neck.thyroid_hu, 8.0)
    airway = painter.place(0, -23, 9 - 2.5 * level, 9 + 2.5 * level, 0.0, waves=0.03)
    if level > 0.55:  # the larynx: thyroid cartilage, partly ossified
        for side in (-1, 1):
            painter.tissue(painter.place(side * 11, -27, 2.0, 13, side * -0.55), 190.0, 120.0, 2.5)
    painter.tissue(airway.grown(2.4), 75.0, 25.0, 2.0)
    painter.tissue(airway, AIR_HU)
    painter.tissue(painter.place(-3, -9, 8, 4.2), 48.0, 10.0)  # oesophagus, pharynx
    if level > 0.75:
        painter.both(27, -33, 11, 7, 0.6, 95.0, 9.0)  # submandibular glands
        painter.both(16, -38, 10, 2, 0.35, 450.0, 90.0)  # hyoid bone


def _paint_vessels(painter: _Painter, neck: Neck) -> None:
    for name, shape in vessels(neck).items():
        hu = neck.artery_hu if name.startswith("carotid") else neck.vein_hu
        painter.tissue(shape.grown(1.0), -30.0)
        painter.tissue(shape, hu, 6.0)
    for side in (-1, 1):
        painter.tissue(painter.place(side * 47, -4, 2.2, 1.6, 0, 0), neck.vein_hu)  # external jugular vein
        painter.tissue(painter.place(side * 10, -47, 1.6, 1.2, 0, 0), neck.vein_hu)  # anterior jugular vein
