"""The CT images of a study, as far as a place in one of them, or in the patient, asks for them."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.errors import Reason, Refusal
from lymphcad.images import is_copy

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad_client.annotations.annotation import InImage, InSpace

SAME_PLACE_MM = 0.01
"""Planes that are nearer to each other are the same place."""
UNKNOWN_THICKNESS_MM = 1.0
"""What is assumed of a slice without neighbours whose file does not say how thick it is."""

_PARALLEL = 0.999


@dataclass(frozen=True)
class Plane:
    """Where a frame lies in the patient (PS3.3, C.7.6.2.1.1).

    Attributes
    ----------
    position_mm
        Centre of the first pixel, mm.
    orientation
        Direction cosines of a row, then of a column.
    spacing_mm
        Between rows, between columns, mm.
    thickness_mm
        Slice Thickness (0018,0050), mm; 0 if the file has none.
    """

    position_mm: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    spacing_mm: tuple[float, float]
    thickness_mm: float


@dataclass(frozen=True)
class Image:
    """An image file.

    Attributes
    ----------
    path
        The file.
    sop_instance, series, frame_of_reference
        UIDs; empty where the file has none.
    rows, columns
        Pixels.
    planes
        One for each frame; None where the file does not say where it lies, or it is no axial slice.
    refusal
        Why no node can lie on it; None if one can.
    """

    path: Path
    sop_instance: str
    series: str
    frame_of_reference: str
    rows: int
    columns: int
    planes: tuple[Plane | None, ...]
    refusal: Refusal | None


@dataclass(frozen=True)
class Spot:
    """A place on an image of the study.

    Attributes
    ----------
    image
        SOP Instance UID.
    frame
        From 1; None in a single-frame file.
    row, col
        Zero-based pixel coordinates.
    """

    image: str
    frame: int | None
    row: float
    col: float


class StudyImages:
    """Finds the image that an annotation means.

    Parameters
    ----------
    images
        All images of the study.
    """

    def __init__(self, images: list[Image]) -> None:
        self._by_uid: dict[str, list[Image]] = defaultdict(list)
        for image in images:
            self._by_uid[image.sop_instance].append(image)
        self._same: dict[str, bool] = {}
        self._stacks: dict[str, _Stack] = {}

    def in_image(self, place: InImage) -> Spot:
        """Return a place that names its image.

        Parameters
        ----------
        place
            The place.

        Returns
        -------
        Spot
            The same.

        Raises
        ------
        Refusal
            ``unknown_image``, ``ambiguous_image``, ``not_ct``, ``localizer``, ``no_such_frame`` or
            ``node_outside_image``.
        """
        image = self._image(place.image)
        frames = len(image.planes)
        if len(place.frames) > 1:
            raise Refusal(
                Reason.AMBIGUOUS_IMAGE,
                f"the annotation names {len(place.frames)} frames, and one was expected: mark the node on one slice",
            )
        if not place.frames and frames > 1:
            raise Refusal(
                Reason.NO_SUCH_FRAME,
                f"the image has {frames} frames, and the annotation names none: name one, from 1 to {frames}",
            )
        frame = place.frames[0] if place.frames else 1
        if not 1 <= frame <= frames:
            raise Refusal(
                Reason.NO_SUCH_FRAME,
                f"the annotation names a frame that is none of the image's {frames}: name one, from 1 to {frames}",
            )
        return _spot(image, frame, place.row, place.col)

    def in_space(self, place: InSpace, evidence: frozenset[str]) -> Spot:
        """Return a place in the patient on the axial slice that is nearest, projected onto it.

        Where the annotation's object says which images it was made from, and the study has some of them, the slice is
        one of those.

        Parameters
        ----------
        place
            The place.
        evidence
            SOP Instance UIDs.

        Returns
        -------
        Spot
            On the slice.

        Raises
        ------
        Refusal
            ``other_frame_of_reference`` if no slice has it, ``off_slice`` if the nearest is further away than half its
            thickness or half the distance to its neighbour, ``ambiguous_image`` if several lie there, and
            ``node_outside_image``.
        """
        stack = self._stack(place.frame_of_reference)
        if stack is None:
            raise Refusal(
                Reason.OTHER_FRAME_OF_REFERENCE,
                "no axial CT slice of the study that says where it lies has the frame of reference of the"
                " annotation: add the series that it was made on",
            )
        index = stack.nearest(np.array(place.at_mm), evidence)
        image, frame, plane = stack.slices[index]
        self._image(image.sop_instance)  # refuses copies that differ
        offset = np.array(place.at_mm) - plane.position_mm
        along_row, along_column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
        col, row = float(offset @ along_row) / plane.spacing_mm[1], float(offset @ along_column) / plane.spacing_mm[0]
        return _spot(image, frame, row, col)

    def _image(self, uid: str) -> Image:
        found = self._by_uid.get(uid) if uid else None
        if not found:
            raise Refusal(
                Reason.UNKNOWN_IMAGE, "the study does not have the image that the annotation is on: add its series"
            )
        if len(found) > 1 and not self._are_same(uid, found):
            raise Refusal(
                Reason.AMBIGUOUS_IMAGE,
                f"{len(found)} files have the SOP Instance UID of the image that the annotation is on, and they differ:"
                " keep the right one",
            )
        if found[0].refusal is not None:
            raise found[0].refusal
        return found[0]

    def _are_same(self, uid: str, images: list[Image]) -> bool:
        if uid not in self._same:
            self._same[uid] = all(is_copy(images[0].path, other.path) for other in images[1:])
        return self._same[uid]

    def _stack(self, frame_of_reference: str) -> _Stack | None:
        if frame_of_reference not in self._stacks:
            slices = [
                (image, frame, plane)
                for images in self._by_uid.values()
                for image in images[:1]  # the others are copies, or refused
                if frame_of_reference and image.frame_of_reference == frame_of_reference
                for frame, plane in enumerate(image.planes, start=1)
                if plane is not None
            ]
            self._stacks[frame_of_reference] = _Stack(slices)
        stack = self._stacks[frame_of_reference]
        return stack if stack.slices else None


class _Stack:
    """The axial slices of one frame of reference, each with its frame number."""

    def __init__(self, slices: list[tuple[Image, int, Plane]]) -> None:
        self.slices = slices
        self._positions = np.array([plane.position_mm for _, _, plane in slices])
        axes = np.array([plane.orientation for _, _, plane in slices]).reshape(-1, 6)
        self._normals = np.cross(axes[:, :3], axes[:, 3:])
        self._named: dict[frozenset[str], npt.NDArray[np.bool_]] = {}

    @cached_property
    def _reach_mm(self) -> npt.NDArray[np.float64]:
        """How far from each slice a place still belongs to it, mm: half its thickness, or half way to a neighbour."""
        series: dict[str, list[int]] = defaultdict(list)
        for index, (image, _, _) in enumerate(self.slices):
            series[image.series].append(index)
        distances = np.zeros(len(self.slices))
        for indices in series.values():
            heights = self._positions[indices] @ self._normals[indices[0]]
            order = np.argsort(heights)
            steps = np.diff(heights[order])
            steps = np.where(steps > SAME_PLACE_MM, steps, np.inf)
            # a slice beside a hole reaches no further than the others, so the lower median is the limit
            usual = np.sort(steps)[(len(steps) - 1) // 2] if len(steps) else np.inf
            nearest = np.minimum(np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf)), usual)
            distances[np.array(indices)[order]] = np.where(np.isfinite(nearest), nearest, 0.0)
        thickness = np.array([plane.thickness_mm for _, _, plane in self.slices])
        found = np.maximum(distances, thickness)
        reach: npt.NDArray[np.float64] = np.where(found > 0, found, UNKNOWN_THICKNESS_MM) / 2
        return reach

    def nearest(self, at_mm: npt.NDArray[np.float64], evidence: frozenset[str]) -> int:
        """Return the index of the nearest slice."""
        away = np.abs(((at_mm - self._positions) * self._normals).sum(axis=1))
        if evidence not in self._named:
            self._named[evidence] = np.array([image.sop_instance in evidence for image, _, _ in self.slices])
        named = self._named[evidence]
        if named.any():
            away = np.where(named, away, np.inf)
        best = int(away.argmin())
        if not away[best] <= self._reach_mm[best] + SAME_PLACE_MM:
            raise Refusal(
                Reason.OFF_SLICE,
                f"the annotation is {away[best]:.1f} mm from the nearest slice, and at most {self._reach_mm[best]:.1f}"
                " mm were expected: add the slice that it lies on",
            )
        apart = np.abs((self._positions - self._positions[best]) @ self._normals[best])
        parallel = np.abs(self._normals @ self._normals[best]) > _PARALLEL
        rivals = int(((apart <= SAME_PLACE_MM) & parallel & np.isfinite(away)).sum())
        if rivals > 1:
            raise Refusal(
                Reason.AMBIGUOUS_IMAGE,
                f"{rivals} slices lie where the annotation is, and it does not say which it means: keep one series",
            )
        return best


def _spot(image: Image, frame: int, row: float, col: float) -> Spot:
    if not (math.isfinite(row) and math.isfinite(col)):
        raise Refusal(Reason.NODE_NOT_A_NUMBER, "the annotation's place is not a finite number: draw it again")
    if not (-0.5 <= row < image.rows - 0.5 and -0.5 <= col < image.columns - 0.5):
        raise Refusal(
            Reason.NODE_OUTSIDE_IMAGE,
            f"the annotation is at row {row:g}, column {col:g} of an image with {image.rows} rows and {image.columns}"
            " columns, counted from 0: it may be on another image",
        )
    return Spot(image.sop_instance, frame if len(image.planes) > 1 else None, round(row, 4), round(col, 4))
