"""From Hounsfield units to grey levels, and between the screen, millimetres and pixels of a slice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.slice import PADDING_HU

if TYPE_CHECKING:
    import numpy.typing as npt

    from lymphcad.bundle import Manifest
    from lymphcad.slice import CtSlice

MAX_ZOOM = 8.0


@dataclass(frozen=True)
class HuWindow:
    """What is shown black to white.

    Attributes
    ----------
    level, width
        Middle and width, HU; the width is at least 1.
    """

    level: float
    width: float


PRESETS = {
    "Soft tissue": HuWindow(40, 400),
    "Neck, contrast": HuWindow(90, 300),
    "Bone": HuWindow(500, 2000),
    "Lung": HuWindow(-600, 1500),
}
"""Windows by name."""
NETWORK = "As the network sees it"
"""Name of the window that the bundle cuts."""


def network_window(manifest: Manifest) -> HuWindow:
    """Return the window that a bundle maps to 0..1."""
    return HuWindow(manifest.preprocess.window_level_hu, manifest.preprocess.window_width_hu)


def grey_levels(hu: npt.NDArray[np.int16], window: HuWindow) -> npt.NDArray[np.uint8]:
    """Return a slice in a window.

    Parameters
    ----------
    hu
        int16 [rows, columns], HU.
    window
        Level and width, HU.

    Returns
    -------
    numpy.ndarray
        uint8 [rows, columns]; padding is black.
    """
    return _levels(window)[hu.view(np.uint16)]


@lru_cache(maxsize=16)
def _levels(window: HuWindow) -> npt.NDArray[np.uint8]:
    """Return the grey level of each int16, in the order of uint16: one table in place of arithmetic for each pixel."""
    hu = np.arange(2**16, dtype=np.uint16).view(np.int16).astype(np.float32)
    scaled = (hu - (window.level - window.width / 2)) * (255 / window.width)
    scaled[hu == PADDING_HU] = 0
    levels: npt.NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return levels


@dataclass(frozen=True)
class Frame:
    """The square of a slice that is on the screen.

    Attributes
    ----------
    row, col
        What lies in its middle, zero-based pixel coordinates.
    side_mm
        Its side, mm.
    spacing_mm
        Of the slice: between rows, between columns, mm.
    """

    row: float
    col: float
    side_mm: float
    spacing_mm: tuple[float, float]

    def x(self, col: float) -> float:
        """Return a column's distance from the left edge, mm."""
        return (col - self.col) * self.spacing_mm[1] + self.side_mm / 2

    def y(self, row: float) -> float:
        """Return a row's distance from the upper edge, mm."""
        return (row - self.row) * self.spacing_mm[0] + self.side_mm / 2

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return the row and column that lie at (x, y), each 0..1 from the left and upper edge."""
        row = self.row + (y - 0.5) * self.side_mm / self.spacing_mm[0]
        col = self.col + (x - 0.5) * self.side_mm / self.spacing_mm[1]
        return row, col


def frame_of(ct: CtSlice, zoom: float = 1.0, center: tuple[float, float] | None = None) -> Frame:
    """Return the square that shows a slice, or a part of it.

    Parameters
    ----------
    ct
        The slice.
    zoom
        1 shows all of it, 2 half its side.
    center
        Row and column in the middle, pixels; the slice's own middle if None, and where all of it is shown.

    Returns
    -------
    Frame
        Square in millimetres, whatever the spacing.
    """
    rows, columns = ct.hu.shape
    side = max(rows * ct.spacing_mm[0], columns * ct.spacing_mm[1])
    row, col = center if center is not None and zoom > 1 else ((rows - 1) / 2, (columns - 1) / 2)
    return Frame(row, col, side / zoom, ct.spacing_mm)
