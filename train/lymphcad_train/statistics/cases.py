"""What is evaluated: one row an image, or one row a lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lymphcad.errors import CommandError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Cases:
    """Scored images, or lesions, of known label; all arrays have one element a row.

    Attributes
    ----------
    probabilities
        float64 [N], of metastasis, calibrated.
    labels
        int64 [N], 1 metastatic, 0 benign.
    patients
        str [N], whose image it is.
    diameters_mm
        float64 [N], mm, above 0; NaN where it is not known.
    lesions
        str [N], which of the patient's lesions it is; empty where it is not known.

    Raises
    ------
    ValueError
        If the arrays differ in length.
    """

    probabilities: Floats
    labels: Labels
    patients: Names
    diameters_mm: Floats
    lesions: Names

    def __post_init__(self) -> None:
        arrays = (self.probabilities, self.labels, self.patients, self.diameters_mm, self.lesions)
        if len({array.shape for array in arrays}) != 1 or self.labels.ndim != 1:
            raise ValueError(f"cases of one length expected, found {[array.shape for array in arrays]}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def both_classes(self) -> bool:
        """Whether there are benign and metastatic ones."""
        return len(np.unique(self.labels)) == 2

    @property
    def sizes_known(self) -> bool:
        """Whether every diameter is known."""
        return bool(np.isfinite(self.diameters_mm).all())

    def select(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Cases:
        """Return some of the rows.

        Parameters
        ----------
        chosen
            bool [N], or their numbers.

        Returns
        -------
        Cases
            In the order in which they are chosen.
        """
        return Cases(
            self.probabilities[chosen],
            self.labels[chosen],
            self.patients[chosen],
            self.diameters_mm[chosen],
            self.lesions[chosen],
        )

    def by_lesion(self) -> Cases | None:
        """Return one row a lesion: its images' mean probability and their largest known diameter.

        Returns
        -------
        Cases or None
            Sorted by patient and lesion, for a lesion's name is unique within its patient only; None unless every row
            names its lesion.

        Raises
        ------
        CommandError
            If images of one lesion have different labels.
        """
        if not len(self) or (self.lesions == "").any():
            return None
        patients = np.unique(self.patients, return_inverse=True)[1]
        names, lesions = np.unique(self.lesions, return_inverse=True)
        first, owner = np.unique(patients * len(names) + lesions, return_index=True, return_inverse=True)[1:]
        images = np.bincount(owner)
        metastatic = np.bincount(owner, self.labels)
        if mixed := int(((metastatic > 0) & (metastatic < images)).sum()):
            raise CommandError(
                f"{mixed} of {len(images)} lesions have both a benign and a metastatic image: give all images of a "
                "lesion the same label"
            )
        diameters = np.full(len(images), np.nan)
        np.fmax.at(diameters, owner, self.diameters_mm)
        return Cases(
            np.bincount(owner, self.probabilities) / images,
            self.labels[first],
            self.patients[first],
            diameters,
            self.lesions[first],
        )
