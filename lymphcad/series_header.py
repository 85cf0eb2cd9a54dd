"""What one file says of the series that it belongs to: enough to choose by, without decoding a pixel."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.charset import convert_encodings, decode_bytes, default_encoding, python_encoding
from pydicom.uid import UID, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage
from pydicom.valuerep import TEXT_VR_DELIMS, PersonName

from lymphcad import functional_groups as fg
from lymphcad.dicom_header import decimals, open_dicom, text, uid, unsigned, value_bytes
from lymphcad.errors import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lymphcad.dicom_header import Header
    from lymphcad.memory_file import Source

MAX_FRAMES = 20_000
"""Frames that one file may have."""

_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE, _STUDY_DATE, _MODALITY = (
    0x00080005,
    0x00080016,
    0x00080018,
    0x00080020,
    0x00080060,
)
_STUDY_DESCRIPTION, _DESCRIPTION, _NAME, _ID = 0x00081030, 0x0008103E, 0x00100010, 0x00100020
_AGENT, _AGENTS, _BODY_PART, _THICKNESS = 0x00180010, 0x00180012, 0x00180015, 0x00180050
_STUDY, _SERIES, _NUMBER, _INSTANCE = 0x0020000D, 0x0020000E, 0x00200011, 0x00200013
_FRAMES, _ROWS, _COLUMNS = 0x00280008, 0x00280010, 0x00280011
# fmt: off
_TAGS = [
    _CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE, _STUDY_DATE, _MODALITY, _STUDY_DESCRIPTION, _DESCRIPTION, _NAME, _ID,
    _AGENT, _AGENTS, _BODY_PART, _THICKNESS, _STUDY, _SERIES, _NUMBER, _INSTANCE, _FRAMES, _ROWS, _COLUMNS,
    fg.SHARED, fg.PER_FRAME,
]
# fmt: on
_CODECS = {codecs.lookup(name).name for name in python_encoding.values()}
_ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)


@dataclass(frozen=True)
class About:
    """What all files of a series say alike; texts are empty and numbers None where a file does not say it.

    Attributes
    ----------
    series_instance_uid, study_instance_uid
        (0020,000E) and (0020,000D).
    modality
        (0008,0060).
    description, number, body_part
        Series Description (0008,103E), Series Number (0020,0011), Body Part Examined (0018,0015).
    thickness_mm
        Slice Thickness (0018,0050), mm.
    contrast
        Contrast/Bolus Agent (0018,0010); ``yes`` where only the sequence (0018,0012) tells of one.
    study_description, study_date
        (0008,1030) and (0008,0020).
    patient_name, patient_id
        (0010,0010), family name first, and (0010,0020).
    rows, columns
        Pixels; 0 in an object that is no image.
    """

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    description: str
    number: int | None
    body_part: str
    thickness_mm: float | None
    contrast: str
    study_description: str
    study_date: str
    patient_name: str
    patient_id: str
    rows: int
    columns: int


@dataclass(frozen=True)
class FileHeader:
    """What a file says of itself.

    Attributes
    ----------
    about
        Of its series.
    sop_instance_uid
        (0008,0018); empty if it has none.
    instance
        Instance Number (0020,0013); None if it has none.
    frames
        Number of Frames (0028,0008); None in a file of one image.
    """

    about: About
    sop_instance_uid: str
    instance: int | None
    frames: int | None


def read_file_header(source: Source) -> FileHeader:
    """Read what a DICOM file of any kind says of its series.

    Parameters
    ----------
    source
        The file.

    Returns
    -------
    FileHeader
        Damaged texts come as far as they can be read.

    Raises
    ------
    Refusal
        As `lymphcad.dicom_header.open_dicom`; ``unreadable`` if the file does not say which series it belongs to,
        ``absurd_size`` if it has more than `MAX_FRAMES` frames.
    """
    try:
        with open_dicom(source, _TAGS) as header:
            return _read(header)
    except Refusal:
        raise
    except Exception as error:  # noqa: BLE001
        # As in `lymphcad.dicom.read_slice`: pydicom raises anything at all on damaged files.
        raise Refusal(
            Reason.UNREADABLE,
            f"the file is damaged, or not as the DICOM standard says ({type(error).__name__} while reading it):"
            " send the image again",
        ) from None


def _read(header: Header) -> FileHeader:
    elements = header.elements
    little = header.transfer_syntax.is_little_endian if header.transfer_syntax.is_transfer_syntax else True
    series = uid(elements, _SERIES)
    if not series:
        raise Refusal(
            Reason.UNREADABLE,
            "SeriesInstanceUID (0020,000E) is missing, so the image belongs to no series: export the study again",
        )
    frames = _whole(elements, _FRAMES)
    if frames is not None and frames > MAX_FRAMES:
        raise Refusal(
            Reason.ABSURD_SIZE,
            f"NumberOfFrames (0028,0008) is {frames}, and at most {MAX_FRAMES} are read: export the series again",
        )
    encodings = encodings_of(elements)
    about = About(
        series_instance_uid=series,
        study_instance_uid=uid(elements, _STUDY),
        modality=readable(elements, _MODALITY, encodings),
        description=readable(elements, _DESCRIPTION, encodings),
        number=_whole(elements, _NUMBER),
        body_part=readable(elements, _BODY_PART, encodings),
        thickness_mm=_thickness(header, frames or 1),
        contrast=readable(elements, _AGENT, encodings) or ("yes" if _has_value(elements, _AGENTS) else ""),
        study_description=readable(elements, _STUDY_DESCRIPTION, encodings),
        study_date=readable(elements, _STUDY_DATE, encodings),
        patient_name=_person(elements, encodings),
        patient_id=readable(elements, _ID, encodings),
        rows=unsigned(elements, _ROWS, little=little) or 0,
        columns=unsigned(elements, _COLUMNS, little=little) or 0,
    )
    return FileHeader(about, uid(elements, _SOP_INSTANCE), _whole(elements, _INSTANCE), frames)


def _whole(elements: Any, tag: int) -> int | None:
    """Return a whole number of an Integer String; None if there is none."""
    numbers = decimals(elements, tag)
    return int(numbers[0]) if numbers and numbers[0] == numbers[0] else None  # not NaN


def _thickness(header: Header, frames: int) -> float | None:
    elements = header.elements
    if UID(uid(elements, _SOP_CLASS)) in _ENHANCED:
        try:
            elements = fg.FrameGroups(elements, header.groups, 0, frames).macro(fg.PIXEL_MEASURES)
        except Refusal:  # reading the images says why
            return None
    numbers = decimals(elements, _THICKNESS)
    return numbers[0] if numbers and numbers[0] > 0 else None


def encodings_of(elements: Any) -> list[str]:
    """Return the Python names of Specific Character Set (0008,0005); what is unknown is read as the default one.

    Arguments as for `lymphcad.dicom_header.value_bytes`.

    pydicom takes any codec that Python has, and a file must not choose one that DICOM has not: ``undefined`` raises,
    and the time that ``punycode`` takes grows with the square of the text.
    """
    names = [name.strip() for name in text(elements, _CHARACTER_SET).split("\\")]
    try:
        found = convert_encodings(names)
    except (LookupError, ValueError):
        return [default_encoding]
    return [name if codecs.lookup(name).name in _CODECS else default_encoding for name in found]


def readable(elements: Any, tag: int, encodings: Sequence[str]) -> str:
    """Return a text in its character set (PS3.5, section 6.1), without padding and control characters.

    Parameters
    ----------
    elements, tag
        As for `lymphcad.dicom_header.value_bytes`.
    encodings
        As `encodings_of` returns them.

    Returns
    -------
    str
        On one line; empty if the element is absent.
    """
    found = decode_bytes(value_bytes(elements, tag) or b"", encodings, TEXT_VR_DELIMS)
    return _printable(found)


def _person(elements: Any, encodings: Sequence[str]) -> str:
    """Return Patient's Name (PS3.5, section 6.2, PN): family name, then the others."""
    name = PersonName(value_bytes(elements, _NAME) or b"", encodings).decode(encodings)
    written = next((part for part in (name.alphabetic, name.ideographic, name.phonetic) if part), "")
    family, *others = (_printable(part) for part in str(written).split("^"))
    given = " ".join(part for part in others if part)
    return f"{family}, {given}" if family and given else family or given


def _printable(value: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())


def _has_value(elements: Any, tag: int) -> bool:
    element = elements.get_item(tag)
    return element is not None and bool(element.value)
