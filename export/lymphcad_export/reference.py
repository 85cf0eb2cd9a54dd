"""What a cohort looked like: the part of the bundle that drift is told by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lymphcad.reference import Distribution, Reference, mean_hu

if TYPE_CHECKING:
    import numpy.typing as npt
    from lymphcad_train.cohort import Windows


def reference_of(windows: Windows, field_of_view_mm: float, probabilities: npt.NDArray[np.float64]) -> Reference:
    """Return what a cohort looked like.

    Parameters
    ----------
    windows
        Of all its images, N.
    field_of_view_mm
        The bundle's, mm.
    probabilities
        float64 [M], calibrated, of its validation and test images by the served engine.
    """
    hu = [
        mean_hu(image, center, spacing, field_of_view_mm)
        for image, center, spacing in zip(windows.hu, windows.center.tolist(), windows.spacing_mm.tolist(), strict=True)
    ]
    return Reference(
        probability=Distribution.of(probabilities),
        spacing_mm=Distribution.of(windows.spacing_mm[:, 0]),
        window_hu=Distribution.of([value for value in hu if np.isfinite(value)]),
    )
