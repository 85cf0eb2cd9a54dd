"""A slice being painted: soft-edged ellipses in millimetres on a grid of pixels, then what a scanner does to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]

_EDGE_PIXELS = 1.0
"""Width over which an edge goes from one tissue to the next, pixels: the partial volume of a pixel."""


@dataclass(frozen=True)
class Ellipse:
    """A shape in the phantom's own millimetres: x to the image's right, y down, from the middle of the neck.

    Attributes
    ----------
    x, y
        Centre, mm.
    a, b
        Half axes, mm; `a` lies along x before the turn.
    turn
        From x towards y, radians.
    waves
        Amplitudes (share of the radius) and phases (radians) of the 2nd, 3rd, ... wave around the outline.
    """

    x: float
    y: float
    a: float
    b: float
    turn: float = 0.0
    waves: tuple[tuple[float, float], ...] = ()

    def grown(self, mm: float) -> Ellipse:
        """Return the ellipse with both half axes longer by `mm`."""
        return Ellipse(self.x, self.y, self.a + mm, self.b + mm, self.turn, self.waves)


@dataclass(frozen=True)
class Patch:
    """Where a shape lies on the canvas.

    Attributes
    ----------
    box
        Slices of rows and columns.
    cover
        float32 [rows, columns] of the box, 0..1, share of each pixel that the shape covers.
    """

    box: tuple[slice, slice]
    cover: Array

    def over(self, box: tuple[slice, slice]) -> Array:
        """Return the cover of another box's pixels, float32 of its shape; 0 where the shape does not reach."""
        cover = np.zeros([part.stop - part.start for part in box], np.float32)
        source, target = [], []
        for own, other in zip(self.box, box, strict=True):
            start = max(own.start, other.start)
            stop = max(min(own.stop, other.stop), start)
            source.append(slice(start - own.start, stop - own.start))
            target.append(slice(start - other.start, stop - other.start))
        part = self.cover[tuple(source)]
        cover[tuple(target)][: part.shape[0], : part.shape[1]] = part
        return cover


class Canvas:
    """A square image in HU that starts as air.

    Parameters
    ----------
    size
        Rows and columns, pixels.
    spacing_mm
        Side of a pixel, mm.
    middle
        (row, column) of the phantom's origin, pixels.
    turn
        Of the whole phantom, radians.

    Attributes
    ----------
    hu
        float32 [size, size], HU.
    """

    def __init__(self, size: int, spacing_mm: float, middle: tuple[float, float], turn: float) -> None:
        self.hu = np.full((size, size), -1000.0, np.float32)
        self.spacing_mm = spacing_mm
        self._middle = middle
        self._turn = turn

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return (row, column), pixels, of a point in mm."""
        cosine, sine = math.cos(self._turn), math.sin(self._turn)
        right, down = x * cosine - y * sine, x * sine + y * cosine
        return self._middle[0] + down / self.spacing_mm, self._middle[1] + right / self.spacing_mm

    def box(self, shape: Ellipse) -> tuple[slice, slice]:
        """Return the rows and columns that hold a shape; empty where it lies beyond the image."""
        swell = 1 + sum(abs(amplitude) for amplitude, _ in shape.waves)
        reach = max(shape.a, shape.b) * swell / self.spacing_mm + 2
        ends = []
        for at in self.pixel(shape.x, shape.y):
            first = min(max(math.floor(at - reach), 0), len(self.hu))
            ends.append(slice(first, max(min(math.ceil(at + reach) + 1, len(self.hu)), first)))
        return ends[0], ends[1]

    def patch(self, shape: Ellipse) -> Patch:
        """Return the pixels that a shape covers."""
        row, col = self.pixel(shape.x, shape.y)
        box = self.box(shape)
        down = (np.arange(box[0].start, box[0].stop, dtype=np.float32) - row)[:, np.newaxis] * self.spacing_mm
        right = (np.arange(box[1].start, box[1].stop, dtype=np.float32) - col)[np.newaxis, :] * self.spacing_mm
        cosine, sine = math.cos(self._turn + shape.turn), math.sin(self._turn + shape.turn)
        along = (right * cosine + down * sine) / shape.a
        across = (down * cosine - right * sine) / shape.b
        radius = np.sqrt(along * along + across * across)
        inside: Array | float = 1.0
        if shape.waves:
            angle = np.arctan2(across, along)
            for order, (amplitude, phase) in enumerate(shape.waves, start=2):
                inside = inside + np.float32(amplitude) * np.cos(order * angle + np.float32(phase))
        edge = (inside - radius) * (min(shape.a, shape.b) / self.spacing_mm / _EDGE_PIXELS)
        return Patch(box, np.clip(edge + 0.5, 0, 1, dtype=np.float32))

    def paint(self, shape: Ellipse, hu: float | Array, within: Patch | None = None) -> Patch:
        """Cover a shape with a tissue.

        Parameters
        ----------
        shape
            What to cover.
        hu
            HU, or float32 HU of the shape's box.
        within
            Outside it nothing is painted.

        Returns
        -------
        Patch
            What was covered.
        """
        patch = self.patch(shape)
        cover = patch.cover if within is None else patch.cover * within.over(patch.box)
        target = self.hu[patch.box]
        target += (np.asarray(hu, np.float32) - target) * cover
        return Patch(patch.box, cover)


def field(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> Array:
    """Return a smooth random field of mean 0 and standard deviation 1.

    Parameters
    ----------
    rng
        Source of randomness.
    shape
        Rows and columns, pixels.
    grain
        Distance over which it changes, pixels.

    Returns
    -------
    numpy.ndarray
        float32 [rows, columns].
    """
    coarse = [max(math.ceil(length / grain), 1) + 3 for length in shape]
    noise = Image.fromarray(rng.standard_normal(coarse, dtype=np.float32))
    margin = 1.5
    box = (margin, margin, margin + shape[1] / grain, margin + shape[0] / grain)
    smooth = np.asarray(noise.resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box))
    deviation = float(smooth.std())
    return np.asarray((smooth - smooth.mean()) / (deviation if deviation > 0 else 1.0), np.float32)


def scan(hu: Array, rng: np.random.Generator, blur_pixels: float, noise_hu: float) -> npt.NDArray[np.int16]:
    """Blur, add noise of the reconstruction's grain, and round as a scanner stores it.

    Parameters
    ----------
    hu
        float32 [rows, columns], HU.
    rng
        Source of randomness.
    blur_pixels
        Standard deviation of the point spread function, pixels.
    noise_hu
        Standard deviation of the noise, HU.

    Returns
    -------
    numpy.ndarray
        int16 [rows, columns], HU, -1024 to 3071 (12 bits).
    """
    noise = _smooth(rng.standard_normal(hu.shape, dtype=np.float32), 0.6)
    seen = _smooth(hu, blur_pixels) + noise * np.float32(noise_hu / float(noise.std()))
    return np.clip(np.rint(seen), -1024, 3071).astype(np.int16)


def _smooth(image: Array, deviation: float) -> Array:
    """Return the image under a Gaussian, along rows and columns in turn; edges repeated."""
    reach = math.ceil(3 * deviation)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (0, 1):
        padded = np.pad(image, [(reach, reach) if axis == i else (0, 0) for i in (0, 1)], mode="edge")
        length = image.shape[axis]
        parts = (padded[_along(axis, i, i + length)] for i in range(len(weights)))
        total = np.zeros_like(image)
        for weight, part in zip(weights, parts, strict=True):
            total += weight * part
        image = total
    return image


def _along(axis: int, start: int, stop: int) -> tuple[slice, slice]:
    return (slice(start, stop), slice(None)) if axis == 0 else (slice(None), slice(start, stop))
