"""Windows as torch takes them: samples, and batches of windows of unequal sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from lymphcad.slice import PADDING_HU

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from lymphcad_train.cohort import Windows

Sample = tuple["Tensor", "Tensor", "Tensor", "Tensor"]


class Samples(Dataset[Sample]):
    """Some rows of a cohort.

    Parameters
    ----------
    windows
        Of the whole cohort.
    labels
        int64 or float32 [N], of the whole cohort: 0 or 1, or what training aims at.
    rows
        Which of them, M.

    Attributes
    ----------
    labels
        [M], of the rows.
    """

    def __init__(self, windows: Windows, labels: npt.NDArray[Any], rows: Sequence[int] | npt.NDArray[np.intp]) -> None:
        self.rows = [int(row) for row in rows]
        self.labels = torch.from_numpy(labels[self.rows])
        self._windows = windows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Return the window int16 [h, w] in HU, spacing [2] in mm, centre [2] in pixels, and the label."""
        row = self.rows[index]
        windows = self._windows
        return (
            torch.from_numpy(windows.hu[row]),
            torch.from_numpy(windows.spacing_mm[row]),
            torch.from_numpy(windows.center[row]),
            self.labels[index],
        )


def collate(samples: Sequence[Sample]) -> Sample:
    """Stack samples; smaller windows are filled up below and to the right with `PADDING_HU`, as beyond an image."""
    height, width = (max(sample[0].shape[axis] for sample in samples) for axis in (0, 1))
    image = torch.full((len(samples), height, width), PADDING_HU, dtype=torch.int16)
    for filled, sample in zip(image, samples, strict=True):
        rows, columns = sample[0].shape
        filled[:rows, :columns] = sample[0]
    return image, *(torch.stack([sample[place] for sample in samples]) for place in (1, 2, 3))  # type: ignore[return-value]
