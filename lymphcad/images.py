"""From what a table or a command line calls an image to the file, and from the file to the CT image."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.dicom import read_slice
from lymphcad.dicom_header import open_file, read_sop_instance_uid
from lymphcad.errors import CommandError, Reason, Refusal
from lymphcad.greyscale import JPEG_MAGIC, PNG_MAGIC, read_greyscale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lymphcad.slice import CtSlice

_UID = re.compile(r"[0-9.]{1,64}")
_SPACING_TOLERANCE = 0.01


def read_image(
    path: Path,
    *,
    frame: int | None,
    spacing_mm: float | None,
    window_level_hu: float,
    window_width_hu: float,
    field_of_view_mm: float,
) -> CtSlice:
    """Read a CT image from a DICOM, PNG or JPEG file; its first bytes say which it is, not its name.

    Parameters
    ----------
    path
        The file.
    frame
        Number of the frame in a multi-frame DICOM file, from 1; None if the file has one frame.
    spacing_mm
        Distance between the centres of neighbouring pixels that the table gives, mm; None if it gives none. A PNG or
        JPEG is read with it. A DICOM file is read with its own, which the scanner wrote for this very image; if they
        differ by more than 1 %, `assumptions` says so.
    window_level_hu, window_width_hu, field_of_view_mm
        What is assumed of a PNG or JPEG, HU and mm; see `lymphcad.greyscale.read_greyscale`.

    Returns
    -------
    CtSlice
        `hu` int16 [rows, columns], HU.

    Raises
    ------
    Refusal
        As in `lymphcad.dicom.read_slice` and `lymphcad.greyscale.read_greyscale`; ``no_such_frame`` if another frame
        than 1 of a PNG or JPEG is asked for.
    """
    with open_file(path) as (file, _):
        start = file.read(132)
    # DICOM leaves the first 128 bytes to anybody, so they may look like another format.
    if start[128:] == b"DICM" or not start.startswith((PNG_MAGIC, JPEG_MAGIC)):
        ct = read_slice(path, frame)
        return ct if spacing_mm is None else with_own_spacing(ct, spacing_mm)
    if frame not in (None, 1):
        raise Refusal(Reason.NO_SUCH_FRAME, f"frame {frame} was asked for, and a PNG or JPEG has one: leave it empty")
    return read_greyscale(
        path,
        window_level_hu=window_level_hu,
        window_width_hu=window_width_hu,
        field_of_view_mm=field_of_view_mm,
        spacing_mm=spacing_mm,
    )


def with_own_spacing(ct: CtSlice, spacing_mm: float) -> CtSlice:
    """Return a slice, with a sentence if the table contradicts its spacing."""
    if all(abs(spacing_mm - own) <= _SPACING_TOLERANCE * own for own in ct.spacing_mm):
        return ct
    note = (
        f"The table says {spacing_mm:g} mm for each pixel and the DICOM file {ct.spacing_mm[0]:g} x"
        f" {ct.spacing_mm[1]:g} mm: the file is assumed to be right."
    )
    return replace(ct, assumptions=(*ct.assumptions, note))


class ImageFinder:
    """Find the files of the images that a table names, by path or by SOP Instance UID.

    Safe to share between threads.

    Parameters
    ----------
    base
        The folder that paths are relative to.
    sources
        Files and folders in which UIDs are looked for, read when the first UID is asked for.

    Raises
    ------
    CommandError
        If a source does not exist.
    """

    def __init__(self, base: Path, sources: Sequence[Path]) -> None:
        _check_sources(sources)
        self._base = base
        self._sources = tuple(sources)
        self._lock = threading.Lock()
        self._index: dict[str, list[Path]] | None = None

    def find(self, image: str) -> Path:
        """Return an image's file.

        Parameters
        ----------
        image
            A path, absolute or relative to the base folder, or else a SOP Instance UID.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        Refusal
            ``file_missing`` if there is no such file, ``unknown_image`` if no source has the UID, ``ambiguous_image``
            if several have it that are no copies of one another.
        """
        path = self._base / image
        if _is_file(path):
            return path
        if not _UID.fullmatch(image):
            raise Refusal(
                Reason.FILE_MISSING, "there is no file at the path in the column image: check the name and the folder"
            )
        found = self._files(image)
        if not found:
            raise Refusal(
                Reason.UNKNOWN_IMAGE,
                "no given file or folder has an image with this SOP Instance UID: name the folder that has it",
            )
        if len(found) > 1:
            raise Refusal(
                Reason.AMBIGUOUS_IMAGE,
                f"{len(found)} files have this SOP Instance UID, and they differ: keep one of them, or name the file by"
                " its path",
            )
        return found[0]

    def _files(self, uid: str) -> list[Path]:
        """Return the files with a UID, copies but once; the first call reads all sources."""
        with self._lock:
            if self._index is None:
                files: dict[Path, Path] = {}
                for path in list_images(self._sources):
                    files.setdefault(path.resolve(), path)  # a file can be given twice, or linked to
                index: dict[str, list[Path]] = {}
                for path in files.values():
                    if found := read_sop_instance_uid(path):
                        index.setdefault(found, []).append(path)
                self._index = index
            same = self._index.get(uid, [])
            if len(same) > 1 and all(is_copy(same[0], other) for other in same[1:]):
                del same[1:]
            return same


def is_copy(first: Path, second: Path) -> bool:
    """Return whether two files are one image.

    Parameters
    ----------
    first, second
        DICOM files.

    Returns
    -------
    bool
        Whether they have the same bytes, or one frame each with the same HU at the same place of the same series.
    """
    try:
        if first.read_bytes() == second.read_bytes():
            return True
        one, other = read_slice(first), read_slice(second)
    except (OSError, Refusal):
        return False
    same = ("spacing_mm", "series_instance_uid", "frame_of_reference_uid", "orientation", "position_mm")
    return np.array_equal(one.hu, other.hu) and all(getattr(one, name) == getattr(other, name) for name in same)


def list_images(sources: Sequence[Path]) -> list[Path]:
    """List the files of the given files and folders.

    Parameters
    ----------
    sources
        Files, taken as they are, and folders, searched with all folders below them.

    Returns
    -------
    list of Path
        In the order given, each folder's files sorted; none twice. Of folders, every file except DICOMDIR and those
        whose name, or a folder's on the way, starts with a dot.

    Raises
    ------
    CommandError
        If a source does not exist or a folder may not be read.
    """
    _check_sources(sources)
    found: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            found.update(dict.fromkeys(sorted(_walk(source))))
        else:
            found[source] = None
    return list(found)


def _walk(folder: Path) -> list[Path]:
    """Return the files below a folder, without following links to folders, which may run in a circle."""

    def fail(_: OSError) -> None:
        raise CommandError("a folder below the given ones may not be read: change its permissions, or leave it out")

    files: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith(".") and name.upper() != "DICOMDIR")
        files.extend(path for path in paths if _is_file(path))
    return files


def _check_sources(sources: Sequence[Path]) -> None:
    for number, source in enumerate(sources, start=1):
        try:
            exists = source.exists()
        except (OSError, ValueError):  # a name that is too long, a folder that may not be entered, a NUL byte
            exists = False
        if not exists:
            raise CommandError(f"number {number} of the given files and folders does not exist: check its path")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, a folder that may not be entered, a NUL byte
        return False
