"""One axial CT slice from a DICOM file, or the reason why it is refused: `read_slice`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from lymphcad import functional_groups as fg
from lymphcad.dicom_header import Header, decimals, open_dicom, text, uid, unsigned, value_bytes
from lymphcad.dicom_pixels import PixelFormat, check_pixel_data, hounsfield, stored_values
from lymphcad.errors import Reason, Refusal
from lymphcad.memory_file import MemoryFile
from lymphcad.slice import CtSlice

if TYPE_CHECKING:
    from lymphcad.memory_file import Source

MIN_PIXELS, MAX_PIXELS = 16, 4096
"""Rows and columns that an image may have."""
MIN_SPACING_MM, MAX_SPACING_MM = 0.05, 5.0
"""Distance between pixels that an image may have, mm."""

_ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_PHOTOMETRICS = (
    "",
    "MONOCHROME1",
    "MONOCHROME2",
    "RGB",
    "PALETTE COLOR",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_RCT",
    "YBR_ICT",
)
_MAX_TILT = math.cos(math.radians(45))
_COSINE_TOLERANCE = 0.01

_IMAGE_TYPE, _FRAME_TYPE = 0x00080008, 0x00089007
_SOP_CLASS, _SOP_INSTANCE, _MODALITY = 0x00080016, 0x00080018, 0x00080060
_STUDY, _SERIES, _FRAME_OF_REFERENCE = 0x0020000D, 0x0020000E, 0x00200052
_POSITION, _ORIENTATION = 0x00200032, 0x00200037
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
_SPACING = 0x00280030
_ALLOCATED, _STORED, _HIGH_BIT, _REPRESENTATION = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_PADDING, _PADDING_LIMIT = 0x00280120, 0x00280121
_INTERCEPT, _SLOPE, _RESCALE_TYPE, _MODALITY_LUT = 0x00281052, 0x00281053, 0x00281054, 0x00283000
_OVERLAY_BITS = [group << 16 | 0x0102 for group in range(0x6000, 0x6020, 2)]
_OFFSETS, _OFFSET_LENGTHS = 0x7FE00001, 0x7FE00002

# fmt: off
_TAGS = [
    _IMAGE_TYPE, _SOP_CLASS, _SOP_INSTANCE, _MODALITY, _STUDY, _SERIES, _FRAME_OF_REFERENCE, _POSITION, _ORIENTATION,
    _SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _SPACING, _ALLOCATED, _STORED, _HIGH_BIT, _REPRESENTATION,
    _PADDING, _PADDING_LIMIT, _INTERCEPT, _SLOPE, _RESCALE_TYPE, _MODALITY_LUT, fg.SHARED, fg.PER_FRAME,
    _OFFSETS, _OFFSET_LENGTHS, *_OVERLAY_BITS,
]
# fmt: on


def read_slice(source: Source, frame: int | None = None) -> CtSlice:
    """Read one axial CT slice in Hounsfield units.

    CT Image Storage (PS3.3, A.3), Enhanced CT (A.38) and Legacy Converted Enhanced CT (A.70) are read, in every
    transfer syntax that an installed decoder handles. Whatever would make a wrong number of HU or mm is refused.

    Parameters
    ----------
    source
        The file.
    frame
        Number of the frame, from 1; may be None if the file has one frame.

    Returns
    -------
    CtSlice
        int16 [rows, columns] in HU, rescaled (PS3.3, C.11.1), rounded and clipped, with `PADDING_HU` where the file
        declares padding (C.7.5.1.1.2); spacing in mm, between rows first.

    Raises
    ------
    Refusal
        With the reason code, in a sentence that holds no text of the file except Modality, photometric interpretation
        and the names of UIDs.
    """
    try:
        with open_dicom(source, _TAGS) as header:
            return _read(header, Path(source.name) if isinstance(source, MemoryFile) else source, frame)
    except Refusal:
        raise
    except Exception as error:  # noqa: BLE001
        # pydicom and the decoders below it raise anything at all on damaged files, and one file must not end a batch.
        # The exception's own text may quote an element, so only its type is told, and it isn't chained.
        raise Refusal(
            Reason.UNREADABLE,
            f"the file is damaged, or not as the DICOM standard says ({type(error).__name__} while reading it):"
            " send the image again",
        ) from None


def _read(header: Header, path: Path, frame: int | None) -> CtSlice:
    """Check the header from the most general to the most particular, then decode."""
    elements = header.elements
    sop_class = _check_ct(elements)
    little = header.transfer_syntax.is_little_endian if header.transfer_syntax.is_transfer_syntax else True
    if header.pixel_offset is None:
        raise Refusal(Reason.NO_PIXELS, "PixelData (7FE0,0010) is missing: send the image itself, not its header alone")
    _check_monochrome(elements, little=little)
    pixels = _pixel_format(elements, little=little)
    check_pixel_data(header, pixels)
    index = _frame_index(frame, pixels.frames)
    groups = fg.FrameGroups(elements, header.groups if sop_class in _ENHANCED else None, index, pixels.frames)
    _check_localizer(groups.macro(fg.CT_IMAGE_FRAME_TYPE), _FRAME_TYPE)
    spacing = _spacing(groups.macro(fg.PIXEL_MEASURES))
    slope, intercept = _rescale(groups.macro(fg.PIXEL_VALUE_TRANSFORMATION))
    orientation = _orientation(groups.macro(fg.PLANE_ORIENTATION))
    position = decimals(groups.macro(fg.PLANE_POSITION), _POSITION)
    # A position that is damaged, or that belongs to another frame, is none: a score does not need it.
    has_position = position is not None and len(position) == 3 and all(map(math.isfinite, position))
    if sop_class not in _ENHANCED and index > 0:
        has_position = False
    stored = stored_values(header, pixels, index)
    return CtSlice(
        hu=hounsfield(stored, slope, intercept, _padding(elements, pixels, little=little), overwrite=True),
        spacing_mm=spacing,
        path=path,
        frame=index + 1 if pixels.frames > 1 else None,
        sop_class_uid=str(sop_class),
        sop_instance_uid=uid(elements, _SOP_INSTANCE),
        series_instance_uid=uid(elements, _SERIES),
        study_instance_uid=uid(elements, _STUDY),
        frame_of_reference_uid=uid(elements, _FRAME_OF_REFERENCE),
        orientation=orientation,
        position_mm=(position[0], position[1], position[2]) if position is not None and has_position else None,
    )


def _check_ct(elements: Any) -> UID:
    """Return the SOP class of a CT image; refuse everything else, and localizers (PS3.3, C.8.2.1.1.1)."""
    sop_class = UID(uid(elements, _SOP_CLASS))
    if sop_class != CTImageStorage and sop_class not in _ENHANCED:
        found = sop_class.name if sop_class else "missing"
        raise Refusal(
            Reason.NOT_CT, f"SOPClassUID (0008,0016) is {found}, and CT Image Storage was expected: send the CT series"
        )
    if (modality := text(elements, _MODALITY)) != "CT":
        found = "another" if modality else "missing"  # not quoted: a damaged element can hold anything
        raise Refusal(Reason.NOT_CT, f"Modality (0008,0060) is {found}, and CT was expected: send the CT series")
    _check_localizer(elements, _IMAGE_TYPE)
    return sop_class


def _check_localizer(elements: Any, tag: int) -> None:
    """Refuse a localizer by Image Type or Frame Type.

    The standard has LOCALIZER in value 3 (PS3.3, C.8.2.1.1.1 and C.8.15.2.1.2); it counts in every value, for a file
    that was written again may have it further on, and no other image has it.
    """
    if "LOCALIZER" in [value.strip() for value in text(elements, tag).split("\\")]:
        raise Refusal(
            Reason.LOCALIZER,
            "the image is a localizer (scout view), a projection without HU: send an axial slice of the series",
        )


def _check_monochrome(elements: Any, *, little: bool) -> None:
    """Refuse colour and inverted greyscale (PS3.3, C.7.6.3.1.1 and C.7.6.3.1.2)."""
    samples = unsigned(elements, _SAMPLES, little=little)
    photometric = text(elements, _PHOTOMETRIC)
    if photometric not in _PHOTOMETRICS:
        photometric = "of another kind"  # not quoted: a damaged element can hold anything
    if photometric == "MONOCHROME1":
        raise Refusal(
            Reason.MONOCHROME1,
            "PhotometricInterpretation (0028,0004) is MONOCHROME1; it concerns display only and leaves HU alone"
            " (PS3.3, C.7.6.3.1.2), but a CT is expected to say MONOCHROME2, so its values may have been inverted: send"
            " the original series",
        )
    if photometric != "MONOCHROME2" or samples != 1:
        raise Refusal(
            Reason.COLOUR,
            f"the image has {samples or 'no'} samples per pixel and photometric interpretation"
            f" {photometric or 'missing'}, and a CT has 1 and MONOCHROME2: send the original series, not a screenshot",
        )


def _pixel_format(elements: Any, *, little: bool) -> PixelFormat:
    """Return the format of the pixels, refusing sizes that no CT has before anything is allocated for them."""
    rows, columns = (unsigned(elements, tag, little=little) or 0 for tag in (_ROWS, _COLUMNS))
    if not (MIN_PIXELS <= rows <= MAX_PIXELS and MIN_PIXELS <= columns <= MAX_PIXELS):
        raise Refusal(
            Reason.ABSURD_SIZE,
            f"the image has {rows} rows and {columns} columns, and {MIN_PIXELS} to {MAX_PIXELS} of each were expected:"
            " export the image again",
        )
    frames = decimals(elements, _FRAMES) or (1.0,)
    if len(frames) != 1 or not 1 <= frames[0] < 2**31 or frames[0] != int(frames[0]):
        raise Refusal(
            Reason.ABSURD_SIZE,
            "NumberOfFrames (0028,0008) is not a whole number of at least 1: export the image again",
        )
    allocated, stored, high_bit, representation = (
        unsigned(elements, tag, little=little) for tag in (_ALLOCATED, _STORED, _HIGH_BIT, _REPRESENTATION)
    )
    if (
        allocated not in (8, 16, 32)
        or stored is None
        or not 1 <= stored <= allocated
        or high_bit != stored - 1
        or representation not in (0, 1)
    ):
        raise Refusal(
            Reason.UNREADABLE,
            f"BitsAllocated {allocated}, BitsStored {stored}, HighBit {high_bit} and PixelRepresentation"
            f" {representation} do not describe a CT's pixels (e.g. 16, 12, 11 and 0): export the image again",
        )
    overlays = [unsigned(elements, tag, little=little) or 0 for tag in _OVERLAY_BITS]
    mask = sum(1 << position for position in {*overlays} if stored <= position < allocated)
    return PixelFormat(rows, columns, int(frames[0]), allocated, stored, representation == 1, mask)


def _frame_index(frame: int | None, frames: int) -> int:
    """Return the frame's index, from 0."""
    if frame is None and frames > 1:
        raise Refusal(
            Reason.NO_SUCH_FRAME, f"the file has {frames} frames, and none was asked for: name one, from 1 to {frames}"
        )
    if frame is not None and not 1 <= frame <= frames:
        raise Refusal(
            Reason.NO_SUCH_FRAME,
            f"frame {frame} was asked for, and the file has {frames}: name one from 1 to {frames}",
        )
    return 0 if frame is None else frame - 1


def _spacing(elements: Any) -> tuple[float, float]:
    """Return Pixel Spacing (PS3.3, 10.7.1.3), mm, between rows first."""
    spacing = decimals(elements, _SPACING)
    if spacing is None:
        raise Refusal(
            Reason.NO_PIXEL_SPACING,
            "PixelSpacing (0028,0030) is missing, and without it a field of view in mm cannot be cut: send the original"
            " CT series, not an export",
        )
    if len(spacing) != 2 or not all(MIN_SPACING_MM <= value <= MAX_SPACING_MM for value in spacing):
        found = " and ".join(f"{value:g}" for value in spacing[:3])
        raise Refusal(
            Reason.BAD_PIXEL_SPACING,
            f"PixelSpacing (0028,0030) is {found}, and two numbers from {MIN_SPACING_MM} to {MAX_SPACING_MM} mm were"
            " expected: send the original CT series",
        )
    return spacing[0], spacing[1]


def _rescale(elements: Any) -> tuple[float, float]:
    """Return Rescale Slope and Intercept to HU (PS3.3, C.11.1.1 and C.8.15.3.10)."""
    if text(elements, _RESCALE_TYPE) not in ("", "HU"):
        raise Refusal(
            Reason.BAD_RESCALE,
            "RescaleType (0028,1054) is not HU, and the network knows Hounsfield units only: send the original series,"
            " not a derived one",
        )
    if elements.get_item(_MODALITY_LUT) is not None:
        raise Refusal(
            Reason.BAD_RESCALE,
            "the file has ModalityLUTSequence (0028,3000), and a CT rescales by a slope and an intercept: send the"
            " original series",
        )
    slope, intercept = decimals(elements, _SLOPE), decimals(elements, _INTERCEPT)
    if slope is None or intercept is None:
        raise Refusal(
            Reason.BAD_RESCALE,
            "RescaleSlope (0028,1053) or RescaleIntercept (0028,1052) is missing, so the pixels are not in HU: send the"
            " original series",
        )
    if len(slope) != 1 or len(intercept) != 1 or slope[0] == 0 or not math.isfinite(slope[0] + intercept[0]):
        raise Refusal(
            Reason.BAD_RESCALE,
            f"RescaleSlope (0028,1053) is {slope[0]:g} and RescaleIntercept (0028,1052) {intercept[0]:g}, and two"
            " finite numbers were expected, the slope not 0: send the original series",
        )
    return slope[0], intercept[0]


def _orientation(elements: Any) -> tuple[float, float, float, float, float, float] | None:
    """Return Image Orientation (Patient) (PS3.3, C.7.6.2.1.1) if it is of an axial slice; None if it is absent."""
    cosines = decimals(elements, _ORIENTATION)
    if cosines is None:
        return None
    if len(cosines) == 6:
        a, b, c, d, e, f = cosines
        unit = all(abs(math.hypot(*row) - 1) <= _COSINE_TOLERANCE for row in ((a, b, c), (d, e, f)))
        if unit and abs(a * d + b * e + c * f) <= _COSINE_TOLERANCE:
            # The third component of the normal, the cross product of both: the cosine of its angle to the z axis.
            if abs(a * e - b * d) >= _MAX_TILT - 1e-9:
                return a, b, c, d, e, f
            raise Refusal(
                Reason.NOT_AXIAL,
                f"the image plane is {math.degrees(math.acos(min(1.0, abs(a * e - b * d)))):.0f} degrees from axial,"
                " and at most 45 were expected: send the axial series, not a coronal or sagittal reformat",
            )
    raise Refusal(
        Reason.NOT_AXIAL,
        "ImageOrientationPatient (0020,0037) is not two perpendicular unit vectors, so the plane is not known to be"
        " axial: send the original series",
    )


def _padding(elements: Any, pixels: PixelFormat, *, little: bool) -> tuple[int, int] | None:
    """Return the lowest and the highest stored value that mean padding (PS3.3, C.7.5.1.1.2)."""
    first = _stored_number(elements, _PADDING, pixels, little=little)
    if first is None:
        return None
    last = _stored_number(elements, _PADDING_LIMIT, pixels, little=little)
    return (first, first) if last is None else (min(first, last), max(first, last))


def _stored_number(elements: Any, tag: int, pixels: PixelFormat, *, little: bool) -> int | None:
    """Return an element of VR US or SS as the pixels are to be read.

    The VR is that of PixelRepresentation, and many files have the other one: the bits count, not the VR. The sign may
    stand at BitsStored only, as in the pixels.
    """
    value = value_bytes(elements, tag)
    if not value:
        return None
    number = int.from_bytes(value, "little" if little else "big", signed=pixels.is_signed)
    half = 1 << (pixels.bits_stored - 1)
    return number - 2 * half if pixels.is_signed and half <= number < 2 * half else number
