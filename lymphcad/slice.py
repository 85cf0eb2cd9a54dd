"""One axial CT image, as everything downstream sees it: Hounsfield units, millimetres, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

PADDING_HU = int(np.iinfo(np.int16).min)
"""Value of pixels that the scanner did not measure (and of those beyond the image's border). Below every window."""


@dataclass(frozen=True)
class CtSlice:
    """One slice in Hounsfield units.

    Attributes
    ----------
    hu
        int16 [rows, columns], HU; pixels that the file declares as padding hold `PADDING_HU`.
    spacing_mm
        Distance between the centres of neighbouring pixels, (between rows, between columns), mm.
    path
        The file that it was read from; of one in memory, its name.
    frame
        Number of the frame in a multi-frame file, from 1 as in DICOM; None in a single-frame file.
    sop_class_uid, sop_instance_uid, series_instance_uid, study_instance_uid, frame_of_reference_uid
        What a result must refer to; empty for a PNG or JPEG and where the file has none.
    orientation
        Image Orientation (Patient), (0020,0037): direction cosines of a row, then of a column; None if absent.
    position_mm
        Image Position (Patient), (0020,0032): centre of the first pixel, mm; None if absent.
    assumptions
        Plain sentences on what was assumed because the file does not say it, or another source contradicts it; they
        go into the result.
    """

    hu: npt.NDArray[np.int16]
    spacing_mm: tuple[float, float]
    path: Path
    frame: int | None = None
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    series_instance_uid: str = ""
    study_instance_uid: str = ""
    frame_of_reference_uid: str = ""
    orientation: tuple[float, float, float, float, float, float] | None = None
    position_mm: tuple[float, float, float] | None = None
    assumptions: tuple[str, ...] = ()
