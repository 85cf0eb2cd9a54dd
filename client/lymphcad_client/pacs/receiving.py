"""Save a received DICOM object as it was received: when `save` has come back, a power cut does not lose it."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from lymphcad.dicom import read_slice
from lymphcad.dicom_header import open_dicom, text, uid
from lymphcad.errors import LymphcadError, Reason, Refusal
from lymphcad.memory_file import MemoryFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydicom.dataset import Dataset

STORED, DUPLICATE, OUT_OF_RESOURCES, DOES_NOT_MATCH, CANNOT_UNDERSTAND, TOO_LARGE = (
    0x0000,
    0x0111,
    0xA700,
    0xA900,
    0xC210,
    0xC213,
)
"""Statuses of a C-STORE response (PS3.4, table B.2-1; 0111 is of PS3.7, annex C). A sender may repeat A700 only."""
PART = ".part-"
"""How the name of a file starts that is not yet whole; a kill leaves it."""

_TRANSFER_SYNTAX, _SOP_CLASS, _SOP_INSTANCE, _MANUFACTURER, _STUDY = (
    0x00020010,
    0x00080016,
    0x00080018,
    0x00080070,
    0x0020000D,
)
_TO_THE_END = 1 << 32  # beyond the last tag
_PIXELS = 0x7FE00010
_naming = threading.Lock()


class NotSaved(LymphcadError):  # noqa: N818 - it is no error of the program's
    """An object that was not saved, with the status for its sender.

    Parameters
    ----------
    status
        Of the C-STORE response.
    reason
        The code for the log.
    message
        The sentence.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Identity:
    """What an object says that it is.

    Attributes
    ----------
    sop_class, sop_instance, study
        UIDs.
    manufacturer
        Manufacturer (0008,0070); often empty.
    """

    sop_class: str
    sop_instance: str
    study: str
    manufacturer: str


@dataclass(frozen=True)
class Saved:
    """A saved object.

    Attributes
    ----------
    path
        Its file.
    identity
        What it is.
    is_new
        False if the same object was there already; nothing was changed then.
    """

    path: Path
    identity: Identity
    is_new: bool


def file_name(sop_instance: str) -> str:
    """Return the name of an object's file: a hash, for a UID can lead to a patient."""
    return f"{hashed(sop_instance, 32)}.dcm"


def hashed(text: str, digits: int = 16) -> str:
    """Return the first hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def identify(contents: bytes) -> Identity:
    """Read an object to its end, without decoding a pixel, and return what it is.

    Parameters
    ----------
    contents
        A DICOM file (PS3.10, section 7.1).

    Returns
    -------
    Identity
        Read from the data set, not from the file meta information.

    Raises
    ------
    NotSaved
        ``CANNOT_UNDERSTAND`` if it is cut off, an element's length leads beyond its end, or a UID is missing.
    """
    try:
        with open_dicom(
            MemoryFile("received", contents), [_SOP_CLASS, _SOP_INSTANCE, _MANUFACTURER, _STUDY], _TO_THE_END
        ) as header:
            elements = header.elements
            sop_class, sop_instance, study = (uid(elements, tag) for tag in (_SOP_CLASS, _SOP_INSTANCE, _STUDY))
            manufacturer = text(elements, _MANUFACTURER)
    except Refusal as refusal:
        raise NotSaved(CANNOT_UNDERSTAND, refusal.reason.value, refusal.args[0]) from None
    except Exception as error:  # noqa: BLE001 - as in lymphcad.dicom: anything at all is raised on damaged files
        raise NotSaved(
            CANNOT_UNDERSTAND,
            Reason.UNREADABLE.value,
            f"the object is damaged, or not as the DICOM standard says ({type(error).__name__} while reading it):"
            " send it again",
        ) from None
    if not (sop_class and sop_instance and study):
        raise NotSaved(
            CANNOT_UNDERSTAND,
            Reason.UNREADABLE.value,
            "the object lacks its SOP Class UID, SOP Instance UID or Study Instance UID, or one is not a UID: export it"
            " again",
        )
    return Identity(sop_class, sop_instance, study, manufacturer)


def save(contents: bytes, folder: Path | Callable[[Identity], Path], *, sop_class: str = "", sop: str = "") -> Saved:
    """Save an object as it was received; it is on the disk when this comes back.

    It is written under another name first, so that no half of one is ever seen, and an object that is there is never
    written over. Safe to call from several threads of the one process that writes to the folder.

    Parameters
    ----------
    contents
        A DICOM file (PS3.10, section 7.1).
    folder
        Where it goes, or what says so; made if it is not there.
    sop_class, sop
        SOP Class and SOP Instance UID that were announced, if any.

    Returns
    -------
    Saved
        Its name is `file_name` of its SOP Instance UID.

    Raises
    ------
    NotSaved
        ``CANNOT_UNDERSTAND``: see `identify`; ``DOES_NOT_MATCH``: it is not what was announced; ``DUPLICATE``: another
        object with the same SOP Instance UID is there; ``OUT_OF_RESOURCES``: the disk is full or cannot be written to.
    """
    identity = identify(contents)
    if (sop_class or identity.sop_class, sop or identity.sop_instance) != (identity.sop_class, identity.sop_instance):
        raise NotSaved(
            DOES_NOT_MATCH,
            "other_object",
            "the object's SOP Class or SOP Instance UID is not the one that was announced: send it again",
        )
    parent = folder(identity) if callable(folder) else folder
    path = parent / file_name(identity.sop_instance)
    try:
        if _is_there(path, contents):
            return Saved(path, identity, is_new=False)
        _make(parent)
        part = parent / f"{PART}{uuid.uuid4().hex}"
        try:
            with part.open("xb") as file:
                file.write(contents)
                file.flush()
                os.fsync(file.fileno())
            with _naming:  # the same object can come over two associations at once
                if _is_there(path, contents):
                    return Saved(path, identity, is_new=False)
                part.rename(path)
        finally:
            part.unlink(missing_ok=True)
        _sync(parent)
    except OSError as error:
        raise NotSaved(
            OUT_OF_RESOURCES,
            "disk",
            f"the object cannot be written ({error.strerror}): make room, or let this user write to the folder",
        ) from None
    return Saved(path, identity, is_new=True)


def _make(folder: Path) -> None:
    """Make a folder whose name is on the disk, too."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Have the names in a folder written to the disk. Not on Windows, which opens no folder."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _is_there(path: Path, contents: bytes) -> bool:
    """Return whether the same object is at a path; refuse another with its UID."""
    try:
        present = path.read_bytes()
    except FileNotFoundError:
        return False
    if present == contents or _is_same(present, contents):
        return True
    raise NotSaved(
        DUPLICATE,
        Reason.AMBIGUOUS_IMAGE.value,
        "another object with this SOP Instance UID is there, and it differs: give the changed object a UID of its own",
    )


def _is_same(one: bytes, other: bytes) -> bool:
    """Return whether two files hold the same data set, or the same CT in two encodings."""
    try:
        first, second = dcmread(DicomBytesIO(one)), dcmread(DicomBytesIO(other))
        if first.file_meta.TransferSyntaxUID == second.file_meta.TransferSyntaxUID:
            return _data_set(one) == _data_set(other)  # whoever wrote the file meta information
        count = first.get("NumberOfFrames")
        frames = [None] if count is None else list(range(1, int(count) + 1))
        return _values(first) == _values(second) and all(
            np.array_equal(read_slice(MemoryFile("", one), frame).hu, read_slice(MemoryFile("", other), frame).hu)
            for frame in frames
        )
    except Exception:  # noqa: BLE001 - what cannot be compared is not the same; damaged files raise anything at all
        return False


def _data_set(contents: bytes) -> bytes:
    """Return what follows the file meta information, whose first element holds its length (PS3.10, section 7.1)."""
    if contents[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return contents
    return contents[144 + int.from_bytes(contents[140:144], "little") :]


def _values(data_set: Dataset) -> dict[int, Any]:
    """Return all values but the pixels; private ones change their kind with the encoding."""
    return {
        int(element.tag): element.value
        for element in data_set
        if element.tag != _PIXELS and not element.tag.is_private and element.tag.element != 0
    }
