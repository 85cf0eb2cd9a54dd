"""Read one file of a study: as an image, as an annotation object, or as something else."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedSRStorage,
    ExtensibleSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from lymphcad import functional_groups as fg
from lymphcad.dicom import MAX_SPACING_MM, MIN_SPACING_MM
from lymphcad.dicom_header import decimals, open_dicom, text, uid, unsigned
from lymphcad.errors import Reason, Refusal
from lymphcad.memory_file import MemoryFile
from lymphcad.series_header import MAX_FRAMES
from lymphcad_client.annotations.annotation import AnnotationObject
from lymphcad_client.annotations.elements import REFERENCED_SERIES, Reader, moment
from lymphcad_client.annotations.images import Image, Plane
from lymphcad_client.annotations.presentation import ANNOTATIONS, read_presentation
from lymphcad_client.annotations.report import (
    CONCEPT,
    CONTENT,
    CURRENT_EVIDENCE,
    OTHER_EVIDENCE,
    VALUE_TYPE,
    evidence,
    is_result,
    read_report,
)
from lymphcad_client.annotations.structure import check_structure

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.dicom_header import Header

MAX_OBJECT_BYTES = 64 * 1024**2
"""Length that an annotation object may have, inflated."""

_REPORTS = (EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage, ExtensibleSRStorage)
_CT, _ENHANCED_CT = CTImageStorage, (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_PIXELS = 0x7FE00008  # of integers or of either kind of floats
_MAX_TILT = math.cos(math.radians(45))
_UNIT = 0.01

_CHARACTER_SET, _IMAGE_TYPE, _SOP_CLASS, _SOP_INSTANCE = 0x00080005, 0x00080008, 0x00080016, 0x00080018
_CONTENT_DATE, _CONTENT_TIME, _MANUFACTURER = 0x00080023, 0x00080033, 0x00080070
_CREATION_DATE, _CREATION_TIME = 0x00700082, 0x00700083
_THICKNESS, _STUDY, _SERIES = 0x00180050, 0x0020000D, 0x0020000E
_POSITION, _ORIENTATION = 0x00200032, 0x00200037
_FRAME_OF_REFERENCE, _FRAMES, _ROWS, _COLUMNS, _SPACING = 0x00200052, 0x00280008, 0x00280010, 0x00280011, 0x00280030

# fmt: off
_OF_IMAGES = [
    _IMAGE_TYPE, _SOP_CLASS, _SOP_INSTANCE, _THICKNESS, _SERIES, _POSITION, _ORIENTATION, _FRAME_OF_REFERENCE, _FRAMES,
    _ROWS, _COLUMNS, _SPACING, fg.SHARED, fg.PER_FRAME,
]
_OF_OBJECTS = [
    _CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE, _CONTENT_DATE, _CONTENT_TIME, _MANUFACTURER, REFERENCED_SERIES, CONCEPT,
    _STUDY, CURRENT_EVIDENCE, OTHER_EVIDENCE, CONTENT, VALUE_TYPE, ANNOTATIONS, _CREATION_DATE, _CREATION_TIME,
]
# fmt: on


def read_file(path: Path) -> Image | AnnotationObject | None:
    """Read what a file of a study says of nodes.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Image or AnnotationObject or None
        None if it is neither: a dose report, a file that is not DICOM.

    Raises
    ------
    Refusal
        ``truncated``, ``unreadable``, ``absurd_size`` or ``file_missing``.
    """
    try:
        return _read(path)
    except Refusal as refusal:
        if refusal.reason is Reason.NOT_DICOM:
            return None
        raise
    except Exception as error:  # noqa: BLE001
        # As in lymphcad.dicom: anything at all is raised on damaged files, and its own text may quote an element.
        raise Refusal(
            Reason.UNREADABLE,
            f"the file is damaged, or not as the DICOM standard says ({type(error).__name__} while reading it):"
            " send it again",
        ) from None


def _read(path: Path) -> Image | AnnotationObject | None:
    with open_dicom(path, [_SOP_CLASS], last_tag=_SOP_INSTANCE) as header:
        sop_class = UID(uid(header.elements, _SOP_CLASS))
        if sop_class in _REPORTS or sop_class == GrayscaleSoftcopyPresentationStateStorage:
            contents = _checked_contents(header)
        else:
            contents = None
    if contents is None:
        with open_dicom(path, _OF_IMAGES, last_tag=_PIXELS) as header:
            return _image(header, path, sop_class)
    with open_dicom(MemoryFile(path.name, contents), _OF_OBJECTS, last_tag=_PIXELS) as header:
        return _object(header, path, sop_class, hashlib.sha256(contents).hexdigest())


def _checked_contents(header: Header) -> bytes:
    """Return the bytes of an annotation object, inflated, and fit to be parsed."""
    if header.size > MAX_OBJECT_BYTES:
        raise Refusal(
            Reason.ABSURD_SIZE,
            f"the annotation object has {header.size} bytes, and at most {MAX_OBJECT_BYTES} are read: split it",
        )
    header.stream.seek(0)
    contents = header.stream.read()
    check_structure(contents, header.transfer_syntax)
    return contents


def _object(header: Header, path: Path, sop_class: UID, digest: str) -> AnnotationObject:
    elements = header.elements
    reader = Reader.of(header)
    is_report = sop_class in _REPORTS
    return AnnotationObject(
        path=path,
        source="SR" if is_report else "GSPS",
        sop_class=str(sop_class),
        sop_instance=uid(elements, _SOP_INSTANCE),
        study=uid(elements, _STUDY),
        written=moment(elements, _CONTENT_DATE, _CONTENT_TIME)
        if is_report
        else moment(elements, _CREATION_DATE, _CREATION_TIME),
        is_result=is_report and is_result(elements, text(elements, _MANUFACTURER)),
        evidence=evidence(elements) if is_report else frozenset(),
        annotations=tuple(read_report(elements, reader) if is_report else read_presentation(elements, reader)),
        digest=digest,
    )


def _image(header: Header, path: Path, sop_class: UID) -> Image | None:
    elements = header.elements
    syntax = header.transfer_syntax
    little = syntax.is_little_endian if syntax.is_transfer_syntax else True
    rows, columns = (unsigned(elements, tag, little=little) or 0 for tag in (_ROWS, _COLUMNS))
    sop_instance = uid(elements, _SOP_INSTANCE)
    if not (rows and columns and sop_instance):
        return None
    numbers = decimals(elements, _FRAMES) or (1.0,)
    if not 1 <= numbers[0] <= MAX_FRAMES:
        raise Refusal(
            Reason.ABSURD_SIZE,
            f"NumberOfFrames (0028,0008) is not a whole number from 1 to {MAX_FRAMES}: export the series again",
        )
    refusal = _refusal(sop_class, text(elements, _IMAGE_TYPE))
    frames = int(numbers[0])
    planes: list[Plane | None] = [None] * frames
    if refusal is None:
        groups = header.groups if sop_class in _ENHANCED_CT else None
        if groups is not None or frames == 1:
            planes = [_plane(fg.FrameGroups(elements, groups, index, frames)) for index in range(frames)]
        if header.pixel_offset is not None and header.pixel_offset + (header.pixel_length or 0) > header.size:
            refusal = Refusal(Reason.TRUNCATED, "the annotated image's file is cut off or damaged: send it again")
    return Image(
        path,
        sop_instance,
        uid(elements, _SERIES),
        uid(elements, _FRAME_OF_REFERENCE),
        rows,
        columns,
        tuple(planes),
        refusal,
    )


def _refusal(sop_class: UID, image_type: str) -> Refusal | None:
    if sop_class != _CT and sop_class not in _ENHANCED_CT:
        return Refusal(Reason.NOT_CT, "the annotation is on an image that is no CT: mark the node on the CT series")
    if "LOCALIZER" in [value.strip() for value in image_type.split("\\")]:
        return Refusal(
            Reason.LOCALIZER, "the annotation is on a localizer (scout view): mark the node on an axial slice"
        )
    return None


def _plane(groups: fg.FrameGroups) -> Plane | None:
    """Return where a frame lies; None if the file does not say so as the standard says, or it is not axial."""
    measures = groups.macro(fg.PIXEL_MEASURES)
    position = decimals(groups.macro(fg.PLANE_POSITION), _POSITION)
    orientation = decimals(groups.macro(fg.PLANE_ORIENTATION), _ORIENTATION)
    spacing, thickness = decimals(measures, _SPACING), decimals(measures, _THICKNESS)
    if position is None or orientation is None or spacing is None:
        return None
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2) or not _is_axial(orientation):
        return None
    if not all(map(math.isfinite, position)) or not all(MIN_SPACING_MM <= s <= MAX_SPACING_MM for s in spacing):
        return None
    a, b, c, d, e, f = orientation
    thick = thickness[0] if thickness and math.isfinite(thickness[0]) and thickness[0] > 0 else 0.0
    return Plane((position[0], position[1], position[2]), (a, b, c, d, e, f), (spacing[0], spacing[1]), thick)


def _is_axial(orientation: tuple[float, ...]) -> bool:
    a, b, c, d, e, f = orientation
    lengths = math.hypot(a, b, c), math.hypot(d, e, f)
    perpendicular = abs(a * d + b * e + c * f) <= _UNIT  # NaN is neither
    return all(abs(n - 1) <= _UNIT for n in lengths) and perpendicular and abs(a * e - b * d) >= _MAX_TILT - 1e-9
