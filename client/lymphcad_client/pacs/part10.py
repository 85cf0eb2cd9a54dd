"""DICOM files that wait to be sent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Stored:
    """A DICOM file (PS3.10), and what its file meta information says.

    Attributes
    ----------
    path
        The file.
    sop_class, sop_instance, transfer_syntax
        UIDs.
    """

    path: Path
    sop_class: str
    sop_instance: str
    transfer_syntax: str


def read_stored(path: Path) -> Stored | None:
    """Read a file's meta information.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Stored or None
        None if it is no DICOM file, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return None
        meta = read_file_meta_info(path)
        names = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
        sop_class, sop_instance, syntax = (str(meta.get(name) or "") for name in names)
    except (OSError, InvalidDicomError, ValueError, EOFError, NotImplementedError, AttributeError):
        return None
    return Stored(path, sop_class, sop_instance, syntax) if sop_class and sop_instance and syntax else None


def list_dicom(sources: Sequence[Path]) -> tuple[list[Path], int]:
    """List the DICOM files of files and folders, all folders below them too.

    Parameters
    ----------
    sources
        Files, taken as they are, and folders.

    Returns
    -------
    list of Path, int
        In order, and how many other files of folders were left out. Names that start with a dot are not looked at: they
        are not whole yet.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    found: list[Path] = []
    others = 0

    def fail(error: OSError) -> None:
        raise error

    for source in sources:
        if not source.is_dir():
            found.append(source)
            continue
        for parent, folders, names in os.walk(source, onerror=fail):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if name.startswith("."):
                    continue
                path = Path(parent, name)
                if read_stored(path) is None:
                    others += 1
                else:
                    found.append(path)
    return found, others
