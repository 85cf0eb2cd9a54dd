"""A cohort's pixels: a window of each image around its node, in HU, read once and kept in the run."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.errors import CommandError, Refusal
from lymphcad.geometry import cut_window
from lymphcad.images import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad.bundle import Preprocess
    from lymphcad.images import ImageFinder
    from lymphcad.tables import CohortRow

_MAX_LISTED = 20


@dataclass(frozen=True)
class Windows:
    """Windows of unequal sizes, in the order of the cohort.

    Attributes
    ----------
    hu
        int16 [h, w] each, HU.
    spacing_mm
        float32 [N, 2], between rows and between columns, mm.
    center
        float32 [N, 2], row and column of the node's centre in its window, pixels.
    """

    hu: Sequence[npt.NDArray[np.int16]]
    spacing_mm: npt.NDArray[np.float32]
    center: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.hu)


def read_windows(
    rows: Sequence[CohortRow],
    parts: Sequence[str],
    finder: ImageFinder,
    preprocess: Preprocess,
    reach_mm: float,
    each: Callable[[], object],
    warn: Callable[[str], object],
) -> Windows:
    """Read every image and cut its window.

    Parameters
    ----------
    rows
        The cohort.
    parts
        Of its split, for each row.
    finder
        Where its images lie.
    preprocess
        What is assumed of a PNG or JPEG, and the size of the crop.
    reach_mm
        Side of the square that a window holds at least, mm.
    each
        Called after each row.
    warn
        Told of images that lie twice within a part.

    Returns
    -------
    Windows
        One for each row.

    Raises
    ------
    CommandError
        One error for all images that cannot be used: the first 20 with their rows, and how many more there are. If
        the same pixels stand under two names in two parts of the split.
    """
    windows, problems = [], []
    images = _Images()
    for number, row in enumerate(rows, start=1):
        try:
            ct = read_image(
                finder.find(row.image),
                frame=row.frame,
                spacing_mm=row.spacing_mm,
                window_level_hu=preprocess.window_level_hu,
                window_width_hu=preprocess.window_width_hu,
                field_of_view_mm=preprocess.field_of_view_mm,
            )
            images.add(number, row.image, parts[number - 1], ct.hu)
            windows.append(cut_window(ct, row.row, row.col, reach_mm, preprocess.size))
        except Refusal as refusal:
            problems.append(f"row {number} (line {row.line}): {refusal}")
        each()
    if problems:
        raise CommandError(
            f"{len(problems)} of {len(rows)} images cannot be used, correct the files or the table: {_first(problems)}"
        )
    images.check(warn)
    return Windows(
        [window.image for window in windows],
        np.array([window.spacing_mm for window in windows], np.float32),
        np.array([window.center for window in windows], np.float32),
    )


class _Images:
    """Finds the same pixels under two names: the same image copied, or sent twice."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[int, str, str]] = {}
        self._within: list[str] = []
        self._across: list[str] = []

    def add(self, number: int, name: str, part: str, hu: npt.NDArray[np.int16]) -> None:
        digest = hashlib.sha256(repr(hu.shape).encode() + hu.tobytes()).digest()
        first, known, its_part = self._seen.setdefault(digest, (number, name, part))
        if name != known:
            (self._within if part == its_part else self._across).append(f"rows {first} and {number}")

    def check(self, warn: Callable[[str], object]) -> None:
        if self._across:
            raise CommandError(
                f"the same pixels stand under two names in two parts of the split, which inflates every figure"
                f" ({_first(self._across)}): remove the copies, or give both to the same patient"
            )
        if self._within:
            warn(f"The same pixels stand under two names ({_first(self._within)}): each counts in training.")


def _first(places: Sequence[str]) -> str:
    more = f"; and {len(places) - _MAX_LISTED} more" if len(places) > _MAX_LISTED else ""
    return "; ".join(places[:_MAX_LISTED]) + more


def save_windows(path: Path, windows: Windows) -> None:
    """Write windows as an .npz file, which is there whole or not at all.

    Parameters
    ----------
    path
        The file.
    windows
        The pixels of all windows stand one after the other in one array.
    """
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            hu=np.concatenate([window.ravel() for window in windows.hu]),
            shape=np.array([window.shape for window in windows.hu], np.int32),
            spacing_mm=windows.spacing_mm,
            center=windows.center,
        )
    os.replace(part, path)  # noqa: PTH105 - replaces in one step


def load_windows(path: Path) -> Windows:
    """Read what `save_windows` wrote.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Windows
        As saved.

    Raises
    ------
    CommandError
        If the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            pixels, shapes = file["hu"], file["shape"]
            ends = np.cumsum(shapes.prod(axis=1))
            hu = [part.reshape(shape) for part, shape in zip(np.split(pixels, ends[:-1]), shapes, strict=True)]
            return Windows(hu, file["spacing_mm"], file["center"])
    except (OSError, ValueError, KeyError):
        raise CommandError(f"{path.name} of the run is missing or damaged: train again into a new folder") from None
