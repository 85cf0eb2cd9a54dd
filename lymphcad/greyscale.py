"""A crop that somebody saved as an 8-bit PNG or JPEG: grey values back to Hounsfield units, by stated assumptions."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lymphcad.dicom_header import open_file
from lymphcad.errors import Reason, Refusal
from lymphcad.slice import PADDING_HU, CtSlice

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
MIN_PIXELS = 16
MAX_PIXELS = 4096
MAX_FILE_BYTES = 4 * MAX_PIXELS**2
_MAX_SPACING_MM = 100.0
_EXIF_ORIENTATION = 0x0112


def read_greyscale(
    path: Path,
    *,
    window_level_hu: float,
    window_width_hu: float,
    field_of_view_mm: float,
    spacing_mm: float | None = None,
) -> CtSlice:
    """Read an 8-bit greyscale PNG or JPEG as a CT image.

    The grey values 0 to 255 are taken for the window's lower to upper end:
    HU = level - width / 2 + grey / 255 * width, rounded to the nearest whole number.

    Parameters
    ----------
    path
        The file.
    window_level_hu, window_width_hu
        Middle and width of the window that the image is assumed to be saved with, HU.
    field_of_view_mm
        What the image's shorter side is assumed to show where `spacing_mm` is missing, mm.
    spacing_mm
        Distance between the centres of neighbouring pixels, in both directions, mm; None if it is not known.

    Returns
    -------
    CtSlice
        `hu` int16 [rows, columns], pixels as stored; `assumptions` has one sentence for each thing assumed.

    Raises
    ------
    Refusal
        ``file_missing``; ``colour`` if the channels differ; ``unreadable`` with transparency, a palette, a depth
        other than 8 bits, more than one frame or a rotation tag, or if damaged; ``truncated``; ``absurd_size`` if a
        side has fewer than 16 or more than 4096 pixels; ``bad_pixel_spacing`` if `spacing_mm` is not positive.
    """
    if spacing_mm is not None and not 0 < spacing_mm <= _MAX_SPACING_MM:
        raise Refusal(
            Reason.BAD_PIXEL_SPACING,
            f"the given pixel spacing must be above 0 and at most {_MAX_SPACING_MM:g} mm: give it in mm, or leave it"
            " out",
        )
    with open_file(path) as (file, size):
        if size > MAX_FILE_BYTES:
            raise Refusal(
                Reason.ABSURD_SIZE,
                f"the file has {size} bytes, and at most {MAX_FILE_BYTES} are read of a PNG or JPEG: save a smaller"
                " image",
            )
        contents = file.read(MAX_FILE_BYTES)
    grey = _decode(contents)
    assumptions = [
        f"The file holds no Hounsfield units: grey values 0 to 255 are assumed to show "
        f"{window_level_hu - window_width_hu / 2:g} to {window_level_hu + window_width_hu / 2:g} HU."
    ]
    if spacing_mm is None:
        shorter = min(grey.shape)
        spacing_mm = field_of_view_mm / shorter
        assumptions.append(
            f"The file holds no pixel spacing: its shorter side of {shorter} pixels is assumed to show "
            f"{field_of_view_mm:g} mm, so {spacing_mm:.4g} mm for each pixel."
        )
    table = window_level_hu - window_width_hu / 2 + np.arange(256, dtype=np.float64) / 255 * window_width_hu
    limits = np.iinfo(np.int16)
    hu = np.clip(np.rint(table), PADDING_HU + 1, limits.max).astype(np.int16)[grey]
    return CtSlice(hu=hu, spacing_mm=(spacing_mm, spacing_mm), path=path, assumptions=tuple(assumptions))


def _decode(contents: bytes) -> npt.NDArray[np.uint8]:
    """Return the grey values, uint8 [rows, columns]."""
    if contents.startswith(PNG_MAGIC):
        _check_png(contents)
    elif not contents.startswith(JPEG_MAGIC):
        raise Refusal(Reason.UNREADABLE, "the file is not a PNG or JPEG: save the image as one of them, or as DICOM")
    try:
        with Image.open(io.BytesIO(contents), formats=["PNG", "JPEG"]) as image:
            _check_size(image.width, image.height)
            _check_kind(image)
            image.load()
            pixels = np.array(image, dtype=np.uint8)
    except Refusal:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _absurd() from None
    except Exception as error:  # noqa: BLE001 - a damaged file makes Pillow raise nearly anything
        if "truncated" in str(error).lower() or not _is_complete(contents):
            raise Refusal(
                Reason.TRUNCATED, "the image ends before its last pixel, so the file is cut off: send it again"
            ) from None
        raise Refusal(
            Reason.UNREADABLE, "the PNG or JPEG is damaged and cannot be decoded: save the image again"
        ) from None
    if pixels.ndim == 3:
        if not (np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])):
            raise Refusal(
                Reason.COLOUR, "the image is coloured, and CT has shades of grey only: save it without colours or marks"
            )
        pixels = np.ascontiguousarray(pixels[..., 0])
    return pixels


def _check_png(contents: bytes) -> None:
    """Check what stands in a PNG's first chunk; Pillow reduces 16 bits to 8 in some kinds without a word."""
    if len(contents) < 33 or b"IEND" not in contents:
        raise Refusal(Reason.TRUNCATED, "the PNG has no end, so the file is cut off: send it again")
    width, height, depth = struct.unpack(">IIB", contents[16:25])
    _check_size(width, height)
    if depth != 8:
        raise Refusal(
            Reason.UNREADABLE,
            f"the PNG has {depth} bits for each sample, and only 8 are read: save it with 8, or as DICOM",
        )


def _check_size(width: int, height: int) -> None:
    if not (MIN_PIXELS <= width <= MAX_PIXELS and MIN_PIXELS <= height <= MAX_PIXELS):
        raise _absurd(f"{height} rows and {width} columns")


def _absurd(found: str = "too many pixels") -> Refusal:
    return Refusal(
        Reason.ABSURD_SIZE,
        f"the image has {found}, and {MIN_PIXELS} to {MAX_PIXELS} of each are read: save a crop around the node",
    )


def _check_kind(image: Image.Image) -> None:
    if image.mode not in ("L", "RGB") or "transparency" in image.info:
        raise Refusal(
            Reason.UNREADABLE,
            "the image has transparency, a palette or a kind of pixel other than 8-bit grey: save it as plain 8-bit"
            " greyscale",
        )
    if image.format == "PNG" and getattr(image, "is_animated", False):
        raise Refusal(Reason.UNREADABLE, "the PNG is animated: save the one frame to read")
    # A rotation tag makes viewers show, and users click in, another image than the stored one.
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        raise Refusal(
            Reason.UNREADABLE, "the image has a tag to show it rotated or mirrored: save it again without the tag"
        )


def _is_complete(contents: bytes) -> bool:
    """Whether the end mark is there; JPEGs may have anything behind it, so only its absence says something."""
    return b"IEND" in contents if contents.startswith(PNG_MAGIC) else b"\xff\xd9" in contents
