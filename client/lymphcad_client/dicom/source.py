"""What a result takes over from the image it is about: where to file it, what to refer to, where a pixel lies."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage
from pydicom.valuerep import TEXT_VR_DELIMS, PersonName

from lymphcad import functional_groups as fg
from lymphcad.dicom_header import decimals, open_dicom, text, unsigned, value_bytes
from lymphcad.errors import Reason, Refusal

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.dicom_header import Header

# fmt: off
_FILING = [
    # Patient (PS3.3, C.7.1.1)
    0x00100010, 0x00100020, 0x00100021, 0x00100030, 0x00100040, 0x00120062, 0x00120063,
    # General Study (C.7.2.1)
    0x0020000D, 0x00080020, 0x00080030, 0x00080050, 0x00080090, 0x00200010, 0x00081030,
]
# fmt: on
_IDENTITY_REMOVED, _REMOVED_HOW, _SEX = 0x00120062, 0x00120063, 0x00100040
_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_INSTANCE_NUMBER, _FRAME_OF_REFERENCE, _FRAMES, _ROWS, _COLUMNS = (
    0x00200013,
    0x00200052,
    0x00280008,
    0x00280010,
    0x00280011,
)
_POSITION, _ORIENTATION, _SPACING, _THICKNESS = 0x00200032, 0x00200037, 0x00280030, 0x00180050
_LOSSY = [0x00282110, 0x00282112, 0x00282114]
_MOMENTS = ((0x00080023, 0x00080033), (0x00080022, 0x00080032), (0x00080021, 0x00080031), (0x00080020, 0x00080030))
"""Date and time of content, acquisition, series and study."""
_TAGS = sorted(
    {*_FILING, _CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES, _INSTANCE_NUMBER, _FRAME_OF_REFERENCE}
    | {_FRAMES, _ROWS, _COLUMNS, _POSITION, _ORIENTATION, _SPACING, _THICKNESS, *_LOSSY, fg.SHARED, fg.PER_FRAME}
    | {tag for pair in _MOMENTS for tag in pair}
)
_ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
# Zeros in front of a component are wrong (PS3.5, section 9.1), but a study is filed under the UID that it came with.
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?")
_MISSPELT = re.compile(r"ISO[ _-]?(2022)?[ _-]?IR[ _-]?([0-9]+)")
_TOLERANCE = 0.01
_FARTHEST_MM = 1e5
UNDATED = datetime(1900, 1, 1)
"""Stands for the date of an image without any, where an object must have one."""


@dataclass(frozen=True)
class Plane:
    """Where the pixels of a slice lie in the patient (PS3.3, C.7.6.2.1.1).

    Attributes
    ----------
    frame_of_reference_uid
        The system that the next two belong to.
    position_mm
        Centre of the first pixel: x, y, z.
    orientation
        Direction cosines of a row, then of a column.
    spacing_mm
        Between rows, between columns.
    """

    frame_of_reference_uid: str
    position_mm: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]
    spacing_mm: tuple[float, float]

    def point_mm(self, row: float, col: float) -> tuple[float, float, float]:
        """Return the place of a point of the slice.

        Parameters
        ----------
        row, col
            Pixels; 0, 0 is the middle of the first one.

        Returns
        -------
        tuple of float
            x, y, z of the patient, mm.
        """
        down, right = row * self.spacing_mm[0], col * self.spacing_mm[1]
        x, y, z = (
            at + right * along_row + down * along_column
            for at, along_row, along_column in zip(
                self.position_mm, self.orientation[:3], self.orientation[3:], strict=True
            )
        )
        return x, y, z


@dataclass(frozen=True)
class SourceImage:
    """A slice that nodes lie on.

    Attributes
    ----------
    filing
        The elements of patient and study, checked, with the Specific Character Set that they are in.
    sop_class_uid, sop_instance_uid, series_instance_uid, study_instance_uid
        What a result refers to.
    frame
        Number of the frame, from 1, in a file of several; else None.
    number
        Its Instance Number, or that of the frame; 1 if it has none.
    rows, columns
        Pixels.
    plane
        None if the file does not say where it lies.
    thickness_mm
        None if the file does not say it.
    lossy
        Lossy Image Compression and what belongs to it, if the pixels went through one (PS3.3, C.7.6.1.1.5).
    made
        The moment of its content, as far as the file says.
    """

    filing: Dataset
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    frame: int | None
    number: int
    rows: int
    columns: int
    plane: Plane | None
    thickness_mm: float | None
    lossy: Dataset
    made: datetime


def read_source(path: Path, frame: int | None) -> SourceImage:
    """Read the header of a CT image that was scored.

    Parameters
    ----------
    path
        The file.
    frame
        Number of the frame, from 1; may be None if the file has one.

    Returns
    -------
    SourceImage
        Values that no object may have are left out of it.

    Raises
    ------
    Refusal
        ``no_study`` if the file does not say which study, series and instance it is, ``no_such_frame``, or as
        `lymphcad.dicom_header.open_dicom`.
    """
    try:
        with open_dicom(path, _TAGS) as header:
            return _read(header, frame)
    except Refusal as refusal:
        if refusal.reason is Reason.NOT_DICOM:
            raise _no_study("is a picture without one") from None
        raise
    except Exception as error:  # noqa: BLE001
        # As in `lymphcad.dicom.read_slice`: pydicom raises anything at all on damaged files.
        raise Refusal(
            Reason.UNREADABLE,
            f"the file is damaged, or not as the DICOM standard says ({type(error).__name__} while reading it):"
            " send the image again",
        ) from None


def _read(header: Header, frame: int | None) -> SourceImage:
    elements = header.elements
    little = header.transfer_syntax.is_little_endian if header.transfer_syntax.is_transfer_syntax else True
    sop_class, instance, series, study = (
        _checked_uid(elements, tag) for tag in (_SOP_CLASS, _SOP_INSTANCE, _SERIES, _STUDY)
    )
    frames = int((decimals(elements, _FRAMES) or (1.0,))[0])
    if not (frame or 1) <= frames or (frame is None and frames > 1):
        raise Refusal(
            Reason.NO_SUCH_FRAME,
            f"frame {frame or 'none'} was scored, and the file has {frames} now: score the image again",
        )
    groups = fg.FrameGroups(elements, header.groups if sop_class in _ENHANCED else None, (frame or 1) - 1, frames)
    number = decimals(elements, _INSTANCE_NUMBER) if frames == 1 else (float(frame or 1),)
    thickness = decimals(groups.macro(fg.PIXEL_MEASURES), _THICKNESS)
    return SourceImage(
        filing=_filing(elements),
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        series_instance_uid=series,
        study_instance_uid=study,
        frame=frame if frames > 1 else None,
        number=int(number[0]) if number and 1 <= number[0] < 2**31 else 1,
        rows=unsigned(elements, _ROWS, little=little) or 0,
        columns=unsigned(elements, _COLUMNS, little=little) or 0,
        plane=_plane(elements, groups, single=sop_class in _ENHANCED or frames == 1),
        thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
        lossy=_lossy(elements),
        made=_made(elements),
    )


def _no_study(what: str) -> Refusal:
    return Refusal(
        Reason.NO_STUDY,
        f"a DICOM result is filed in the study of its image, and the image {what}: leave it out of the DICOM results,"
        " or send the image as the scanner wrote it",
    )


def _checked_uid(elements: Any, tag: int) -> str:
    value = text(elements, tag)
    if not _UID.fullmatch(value) or len(value) > 64:
        name = {_SOP_CLASS: "SOPClassUID", _SOP_INSTANCE: "SOPInstanceUID", _SERIES: "SeriesInstanceUID"}.get(
            tag, "StudyInstanceUID"
        )
        raise _no_study(f"has a {name} ({tag >> 16:04X},{tag & 0xFFFF:04X}) that is {'no UID' if value else 'missing'}")
    return value


def _filing(elements: Any) -> Dataset:
    """Return the elements of patient and study; what is not as its kind must be is empty, as if it were missing."""
    filing = Dataset()
    terms = _character_set(text(elements, _CHARACTER_SET))
    encodings = convert_encodings(terms)
    if any(terms):
        filing.SpecificCharacterSet = terms
    for tag in _FILING:
        raw, vr = (value_bytes(elements, tag) or b"").strip(b" \0"), dictionary_VR(tag)
        value: str | PersonName = decode_bytes(raw, encodings, TEXT_VR_DELIMS).strip()
        if vr == "PN":
            value = PersonName(raw, encodings)
        elif vr == "DA":
            value = value if _date(str(value)) else ""
        elif vr == "TM":
            value = value if _TIME.fullmatch(str(value)) else ""
        elif tag == _SEX and value not in ("M", "F", "O"):
            value = ""
        if raw:
            filing[tag] = DataElement(tag, vr, value)
    if _REMOVED_HOW not in filing and _IDENTITY_REMOVED in filing:
        del filing[_IDENTITY_REMOVED]  # one does not go without the other (PS3.3, C.7.1.1)
    return filing


def _character_set(value: str) -> list[str]:
    """Return the terms of Specific Character Set as the standard spells them (PS3.3, C.12.1.1.2).

    pydicom takes any codec that Python has, and a file must not choose one that DICOM has not: what is unknown is left
    out, and texts come and go in the bytes that they are.
    """
    terms = []
    for term in value.split("\\"):
        found = _MISSPELT.fullmatch(term.strip())
        terms.append(f"ISO{' 2022 IR' if found[1] else '_IR'} {found[2]}" if found else term.strip())
    return terms if all(term in python_encoding for term in terms) else [""]


def _date(value: str) -> datetime | None:
    try:
        return datetime.strptime(value, "%Y%m%d") if len(value) == 8 and value.isdigit() else None
    except ValueError:
        return None


def _made(elements: Any) -> datetime:
    for date_tag, time_tag in _MOMENTS:
        if date := _date(text(elements, date_tag)):
            time = _TIME.fullmatch(text(elements, time_tag))
            digits = time[0].split(".")[0].ljust(6, "0") if time else "000000"
            return date.replace(hour=int(digits[:2]), minute=int(digits[2:4]), second=int(digits[4:]))
    return UNDATED


def _lossy(elements: Any) -> Dataset:
    lossy = Dataset()
    if text(elements, _LOSSY[0]) == "01":
        for tag in _LOSSY:
            if value := text(elements, tag):
                lossy[tag] = DataElement(tag, dictionary_VR(tag), value)
    return lossy


def _plane(elements: Any, groups: fg.FrameGroups, *, single: bool) -> Plane | None:
    """Return the plane of a frame; None if the file does not say all of it, or something that cannot be.

    `single` is whether the file says it for this very frame.
    """
    reference = text(elements, _FRAME_OF_REFERENCE)
    position = decimals(groups.macro(fg.PLANE_POSITION), _POSITION) or ()
    orientation = decimals(groups.macro(fg.PLANE_ORIENTATION), _ORIENTATION) or ()
    spacing = decimals(groups.macro(fg.PIXEL_MEASURES), _SPACING) or ()
    if not single or not _UID.fullmatch(reference) or len(reference) > 64:
        return None
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
        return None
    x, y, z = position
    a, b, c, d, e, f = orientation
    square = math.isclose(math.hypot(a, b, c), 1, abs_tol=_TOLERANCE) and abs(a * d + b * e + c * f) <= _TOLERANCE
    if not square or not math.isclose(math.hypot(d, e, f), 1, abs_tol=_TOLERANCE):
        return None
    # A comparison with what is not a number is false.
    if not all(abs(at) <= _FARTHEST_MM for at in position) or not all(0 < mm <= _FARTHEST_MM for mm in spacing):
        return None
    return Plane(reference, (x, y, z), (a, b, c, d, e, f), (spacing[0], spacing[1]))
