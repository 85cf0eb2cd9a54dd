"""The series of a study, as files are given, and the slices of one of them, in anatomical order."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.dicom import read_slice
from lymphcad.errors import Reason, Refusal
from lymphcad.memory_file import MemoryFile
from lymphcad.series_header import About, read_file_header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lymphcad.memory_file import Source
    from lymphcad.series_header import FileHeader
    from lymphcad.slice import CtSlice

MAX_STACK_BYTES = 2 * 1024**3
"""Memory that the slices of one series may take."""
_SAME_DIRECTION = 1e-3
_SAME_PLACE_MM = 1e-3
_BY_NUMBER = "they stand in the order of their Instance Numbers, file names and frames"


@dataclass(frozen=True)
class RefusedFile:
    """A file, or a frame of one, that is not read.

    Attributes
    ----------
    name
        As it was given.
    refusal
        Why.
    """

    name: str
    refusal: Refusal


@dataclass(frozen=True)
class ImageRef:
    """One image of a series.

    Attributes
    ----------
    source
        Its file.
    frame
        From 1 in a multi-frame file, else None.
    """

    source: Source
    frame: int | None

    @property
    def name(self) -> str:
        """What a user knows it by."""
        name = self.source.name if isinstance(self.source, MemoryFile) else self.source.as_posix()
        return name if self.frame is None else f"{name}, frame {self.frame}"


@dataclass(frozen=True)
class Series(About):
    """A series: what its first file says of it, and its images in the order of their Instance Numbers."""

    images: tuple[ImageRef, ...]


@dataclass(frozen=True)
class Listing:
    """What was found in files: each file is in one of the two.

    Attributes
    ----------
    series
        Of every modality, by study and Series Number.
    refused
        The files that belong to none.
    """

    series: tuple[Series, ...]
    refused: tuple[RefusedFile, ...]


@dataclass(frozen=True)
class Stack:
    """The images of a series that can be scored.

    Attributes
    ----------
    series
        Which.
    slices
        From the head to the feet, or as `note` says.
    refused
        Images that cannot be scored.
    note
        What is unusual about the order or the slices, in plain sentences; empty if nothing is.
    """

    series: Series
    slices: tuple[CtSlice, ...]
    refused: tuple[RefusedFile, ...]
    note: str


def _ignore(_: int) -> None:
    """Tell nobody."""


def list_series(files: Sequence[Source], advance: Callable[[int], None] = _ignore) -> Listing:
    """List the series that files belong to.

    Parameters
    ----------
    files
        DICOM files, and others.
    advance
        Called with 1 after each file.

    Returns
    -------
    Listing
        A file that was given twice is listed once, the second refused; two different files with one SOP Instance UID
        are both refused, for which of them is the image cannot be known.
    """
    headers: list[tuple[Source, FileHeader]] = []
    refused: list[RefusedFile] = []
    for file in files:
        try:
            headers.append((file, read_file_header(file)))
        except Refusal as refusal:
            refused.append(RefusedFile(ImageRef(file, None).name, refusal))
        advance(1)
    unique, twice = _without_copies(headers)
    groups: dict[str, list[tuple[Source, FileHeader]]] = {}
    for file, header in unique:
        groups.setdefault(header.about.series_instance_uid, []).append((file, header))
    series = [_series(group) for group in groups.values()]
    series.sort(key=lambda one: (one.study_instance_uid, one.number is None, one.number or 0, one.series_instance_uid))
    return Listing(tuple(series), (*refused, *twice))


def _without_copies(
    headers: list[tuple[Source, FileHeader]],
) -> tuple[list[tuple[Source, FileHeader]], list[RefusedFile]]:
    """Return the files without those that another one contradicts or repeats, and the latter."""
    counts = Counter(header.sop_instance_uid for _, header in headers)
    # By number: the very same path or object may have been given twice, too.
    digests: dict[str, dict[bytes, int]] = {}
    for number, (file, header) in enumerate(headers):
        if header.sop_instance_uid and counts[header.sop_instance_uid] > 1:
            digests.setdefault(header.sop_instance_uid, {}).setdefault(_digest(file), number)
    kept, refused = [], []
    for number, (file, header) in enumerate(headers):
        copies = digests.get(header.sop_instance_uid, {})
        if len(copies) > 1:
            message = (
                "another file that differs has the same SOP Instance UID (0008,0018), so which is the image cannot be"
                " known: open the one that is right"
            )
        elif copies and number not in copies.values():
            message = "the same file was given twice: one of them is read"
        else:
            kept.append((file, header))
            continue
        refused.append(RefusedFile(ImageRef(file, None).name, Refusal(Reason.AMBIGUOUS_IMAGE, message)))
    return kept, refused


def _digest(source: Source) -> bytes:
    return hashlib.sha256(source.data if isinstance(source, MemoryFile) else source.read_bytes()).digest()


def _series(group: list[tuple[Source, FileHeader]]) -> Series:
    """Return the series of files that say the same Series Instance UID."""
    group.sort(key=lambda pair: (pair[1].instance is None, pair[1].instance or 0, ImageRef(pair[0], None).name))
    images: list[ImageRef] = []
    for file, header in group:
        frames = range(1, header.frames + 1) if header.frames is not None and header.frames > 1 else (None,)
        images += [ImageRef(file, frame) for frame in frames]
    return Series(**asdict(group[0][1].about), images=tuple(images))


def read_series(series: Series, advance: Callable[[int], None] = _ignore) -> Stack:
    """Read all images of a series.

    Parameters
    ----------
    series
        Of any modality; what is no axial CT image is refused, image by image.
    advance
        Called with 1 after each image.

    Returns
    -------
    Stack
        Every image is a slice of it or refused.

    Raises
    ------
    Refusal
        ``absurd_size`` if the slices take more than `MAX_STACK_BYTES`: before any is read, unless they differ in size.
    """
    _check_size(series, 2 * series.rows * series.columns * len(series.images))
    slices: list[CtSlice] = []
    refused: list[RefusedFile] = []
    taken = 0
    for image in series.images:
        try:
            slices.append(read_slice(image.source, image.frame))
            taken += slices[-1].hu.nbytes
        except Refusal as refusal:
            refused.append(RefusedFile(image.name, refusal))
        _check_size(series, taken)  # the first image, which the estimate is made from, may be the smallest
        advance(1)
    ordered, note = _in_order(slices)
    return Stack(series, tuple(ordered), tuple(refused), " ".join([*note, *_odd(slices)]))


def _check_size(series: Series, needed: int) -> None:
    if needed > MAX_STACK_BYTES:
        raise Refusal(
            Reason.ABSURD_SIZE,
            f"the series has {len(series.images)} images that take {needed // 1024**2} MB or more, and at most"
            f" {MAX_STACK_BYTES // 1024**2} MB are opened at once: open a part of it",
        )


def _in_order(slices: list[CtSlice]) -> tuple[list[CtSlice], list[str]]:
    """Return slices from the head to the feet where all say where they lie, and what is to be said of the order."""
    if len(slices) < 2:
        return slices, []
    if any(ct.orientation is None or ct.position_mm is None for ct in slices):
        return slices, [f"Not every slice says where it lies: {_BY_NUMBER}."]
    orientations = np.array([ct.orientation for ct in slices])
    if np.abs(orientations - orientations[0]).max() > _SAME_DIRECTION:
        return slices, [f"The slices are tilted differently: {_BY_NUMBER}."]
    normal = np.cross(orientations[0, :3], orientations[0, 3:])
    # Along the patient's axis, whose positive end is the head (PS3.3, C.7.6.2.1.1); every image is within 45 degrees.
    heights = np.array([ct.position_mm for ct in slices]) @ (normal * np.sign(normal[2]))
    order = np.argsort(-heights, kind="stable")
    same = int((np.diff(np.sort(heights)) < _SAME_PLACE_MM).sum())
    note = [f"{same} slices lie where another one does, as in a series of several phases."] if same else []
    return [slices[index] for index in order], note


def _odd(slices: list[CtSlice]) -> list[str]:
    """Return what slices of one series do not have in common."""
    counts = {
        "sizes": len({ct.hu.shape for ct in slices}),
        "pixel spacings": len({ct.spacing_mm for ct in slices}),
    }
    odd = [f"{count} {name}" for name, count in counts.items() if count > 1]
    return [f"The slices have {' and '.join(odd)}; each is shown and scored with its own."] if odd else []
