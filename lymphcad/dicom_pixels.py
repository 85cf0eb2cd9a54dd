"""Stored pixel values of one frame, native or encapsulated, and their way to Hounsfield units."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from lymphcad.codestream import check_size
from lymphcad.errors import Reason, Refusal
from lymphcad.lossless_jpeg import decode_lossless_jpeg
from lymphcad.slice import PADDING_HU

if TYPE_CHECKING:
    from typing import Any, BinaryIO

    import numpy.typing as npt
    from pydicom.uid import UID

    from lymphcad.dicom_header import Header

_MAX_HU = int(np.iinfo(np.int16).max)
_MIN_HU = PADDING_HU + 1
_LOSSLESS_JPEG = (JPEGLossless, JPEGLosslessSV1)
_HTJ2K = (HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)
# Left to itself, pydicom tries every installed plugin. GDCM aborts or crashes the process on damaged streams of all
# kinds, and pylibjpeg-rle panics, so neither is used; what only GDCM decodes is decoded in `lymphcad.lossless_jpeg`.
_PLUGINS = {
    RLELossless: ("pydicom",),
    JPEGBaseline8Bit: ("pillow",),
    JPEGExtended12Bit: ("pillow",),
    **dict.fromkeys(JPEGLSTransferSyntaxes, ("pyjpegls",)),
    **dict.fromkeys((JPEG2000, JPEG2000Lossless), ("pylibjpeg", "pillow")),
    **dict.fromkeys(_HTJ2K, ("pylibjpeg",)),
}
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD


@dataclass(frozen=True)
class PixelFormat:
    """The Image Pixel module (PS3.3, C.7.6.3), as far as it matters to a CT.

    Attributes
    ----------
    rows, columns
        Pixels.
    frames
        NumberOfFrames (0028,0008), 1 if absent.
    bits_allocated, bits_stored
        Bits of a pixel's cell, and those of them that hold its value (the lowest ones).
    is_signed
        PixelRepresentation (0028,0103) is 1: two's complement.
    overlay_bits
        Mask of the other bits of a cell that the file says hold overlay planes, as old files do.
    """

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    overlay_bits: int = 0

    @property
    def frame_bytes(self) -> int:
        """Length of one uncompressed frame, bytes."""
        return self.rows * self.columns * self.bits_allocated // 8


def check_pixel_data(header: Header, pixels: PixelFormat) -> None:
    """Check that the pixel data can be decoded and hold all frames, without decoding any.

    Parameters
    ----------
    header
        The open file, which has pixel data.
    pixels
        Their format.

    Raises
    ------
    Refusal
        ``no_decoder``, ``truncated``, ``absurd_size`` (more frames than the data can hold) or ``unreadable``.
    """
    syntax = header.transfer_syntax
    try:
        is_encapsulated = syntax.is_encapsulated
        has_decoder = not is_encapsulated or syntax in _LOSSLESS_JPEG or bool(_plugin(syntax))
        get_decoder(syntax)
    except (ValueError, NotImplementedError):  # not a transfer syntax, or one that pydicom does not know
        has_decoder = False
    if not has_decoder:
        raise Refusal(
            Reason.NO_DECODER,
            f"no installed decoder reads the transfer syntax {syntax.name}: send the image uncompressed"
            " (Explicit VR Little Endian) or as lossless JPEG, JPEG-LS, JPEG 2000 or RLE",
        )
    if is_encapsulated:
        _check_encapsulated(header, pixels)
    else:
        _check_native(header, pixels)


def stored_values(header: Header, pixels: PixelFormat, index: int) -> npt.NDArray[Any]:
    """Return the stored values of one frame; no other frame is decoded.

    Parameters
    ----------
    header
        The open file, which has passed `check_pixel_data`.
    pixels
        Their format.
    index
        The frame, from 0.

    Returns
    -------
    numpy.ndarray
        Integers [rows, columns], each within `bits_stored` bits; the caller's own, but may be read-only.

    Raises
    ------
    Refusal
        ``truncated``, ``absurd_size`` (a compressed image larger than the header says) or ``unreadable``.
    """
    syntax, is_encapsulated = header.transfer_syntax, header.transfer_syntax.is_encapsulated
    data = _codestream(header, pixels, index) if is_encapsulated and syntax != RLELossless else b""
    if syntax in _LOSSLESS_JPEG:
        kind = f"{'i' if pixels.is_signed else 'u'}{pixels.bits_allocated // 8}"
        decoded = decode_lossless_jpeg(
            data, pixels.bits_stored, pixels.bits_allocated, first_order=syntax == JPEGLosslessSV1
        )
        if int(decoded.max()) >> pixels.bits_allocated:
            raise Refusal(
                Reason.UNREADABLE,
                f"the compressed image has values of more than {pixels.bits_allocated} bits, which the header says:"
                " export the image again",
            )
        values = decoded.astype(kind)
    elif not is_encapsulated and syntax != ExplicitVRBigEndian and pixels.bits_allocated in (8, 16):
        values = _native(header, pixels, index)
    else:
        header.stream.seek(0)
        # Left to itself, pydicom would mask some transfer syntaxes' unused bits; `_within_bits_stored` looks at them.
        plugin = _plugin(syntax)
        values = pixel_array(header.stream, index=index, decoding_plugin=plugin, correct_unused_bits=False)
    if values.shape != (pixels.rows, pixels.columns) or values.dtype.kind not in "iu":
        raise Refusal(
            Reason.UNREADABLE,
            f"the decoded pixels are {values.dtype} {values.shape}, and the header says integers"
            f" ({pixels.rows}, {pixels.columns}): export the image again",
        )
    return _within_bits_stored(values, pixels)


def _plugin(syntax: UID) -> str:
    """Return the name of pydicom's plugin for a compressed transfer syntax; empty if none is installed."""
    plugins = _PLUGINS.get(syntax)
    if plugins is None:
        return ""
    available = get_decoder(syntax).available_plugins
    return next((plugin for plugin in plugins if plugin in available), "")


def _native(header: Header, pixels: PixelFormat, index: int) -> npt.NDArray[Any]:
    """Read one little-endian frame (PS3.5, section 8.1.1 and annex A.2)."""
    assert header.pixel_offset is not None  # noqa: S101 - the caller has refused a file without pixel data
    header.stream.seek(header.pixel_offset + index * pixels.frame_bytes)
    dtype = f"<{'i' if pixels.is_signed else 'u'}{pixels.bits_allocated // 8}"
    values: npt.NDArray[Any] = np.empty((pixels.rows, pixels.columns), dtype)
    count = header.stream.readinto(values.data.cast("B"))
    if count < pixels.frame_bytes:  # cut off since `_check_native`
        raise _short(count, pixels.frame_bytes)
    return values


def _check_native(header: Header, pixels: PixelFormat) -> None:
    """Refuse native pixel data that are shorter than their frames."""
    if header.pixel_length is None or header.pixel_offset is None:
        raise Refusal(
            Reason.UNREADABLE,
            "PixelData (7FE0,0010) has no length, which only compressed pixels may lack: export the image again",
        )
    expected = pixels.frame_bytes * pixels.frames
    if header.pixel_length < expected and pixels.frames > 1:
        raise Refusal(
            Reason.ABSURD_SIZE,
            f"NumberOfFrames (0028,0008) is {pixels.frames}, but PixelData (7FE0,0010) holds"
            f" {header.pixel_length // pixels.frame_bytes} frames: export the series again",
        )
    actual = min(header.pixel_length, header.size - header.pixel_offset)
    if actual < expected:
        raise _short(actual, expected)


def _short(actual: int, expected: int) -> Refusal:
    return Refusal(
        Reason.TRUNCATED,
        f"PixelData (7FE0,0010) holds {actual} bytes, and the image needs {expected}: the file is cut off or damaged,"
        " so send it again",
    )


def _check_encapsulated(header: Header, pixels: PixelFormat) -> None:
    """Refuse fragments (PS3.5, section A.4) that are cut off, or fewer than the frames."""
    if header.pixel_offset is None or header.pixel_length is not None:
        raise Refusal(
            Reason.UNREADABLE,
            "PixelData (7FE0,0010) is not in fragments, as compressed pixels must be: export the image again",
        )
    fragments = _count_fragments(header.stream, header.pixel_offset, header.size)
    if fragments < pixels.frames:
        raise Refusal(
            Reason.ABSURD_SIZE if pixels.frames > 1 else Reason.NO_PIXELS,
            f"NumberOfFrames (0028,0008) is {pixels.frames}, but PixelData (7FE0,0010) holds {fragments} fragments:"
            " export the image again",
        )


def _codestream(header: Header, pixels: PixelFormat, index: int) -> bytes:
    """Return a compressed frame; refuse it if a decoder must not see it."""
    header.stream.seek(header.pixel_offset or 0)
    data: bytes = get_frame(header.stream, index, number_of_frames=pixels.frames, extended_offsets=_offsets(header))
    syntax = header.transfer_syntax
    check_size(data, pixels.rows, pixels.columns, is_jpeg2000=syntax in JPEG2000TransferSyntaxes or syntax in _HTJ2K)
    return data


def _offsets(header: Header) -> tuple[bytes, bytes] | None:
    """Return the Extended Offset Table (7FE0,0001) and its lengths (7FE0,0002), if the file has them."""
    items = [header.elements.get_item(tag) for tag in (0x7FE00001, 0x7FE00002)]
    return None if None in items else (items[0].value, items[1].value)


def _count_fragments(stream: BinaryIO, offset: int, size: int) -> int:
    """Walk over the items from the Basic Offset Table to the delimiter, without reading them, and count fragments."""
    count = -1  # the first item is the Basic Offset Table
    while True:
        stream.seek(offset)
        if len(start := stream.read(8)) < 8:
            raise _cut_off()
        group, element, length = struct.unpack("<HHL", start)
        if (tag := group << 16 | element) == _SEQUENCE_END:
            return max(count, 0)
        if tag != _ITEM or length == 0xFFFFFFFF:
            raise Refusal(Reason.UNREADABLE, "the fragments of PixelData (7FE0,0010) are damaged: send the image again")
        offset += 8 + length
        if offset > size:
            raise _cut_off()
        count += 1


def _cut_off() -> Refusal:
    return Refusal(
        Reason.TRUNCATED, "the file ends within its compressed pixels, so it is cut off or damaged: send it again"
    )


def _within_bits_stored(values: npt.NDArray[Any], pixels: PixelFormat) -> npt.NDArray[Any]:
    """Extend the sign from BitsStored (0028,0101), and refuse values that need more bits than that.

    Unused bits are zero, the extended sign, or overlay planes if Overlay Bit Position (60xx,0102) says so (PS3.5,
    section 8.1.1, and its retired section 8.1.2). But some writers say 12 bits and store 16; whatever else stands in
    unused bits may be that, and masking it would make up HU.
    """
    bits = pixels.bits_stored
    if bits == values.dtype.itemsize * 8:
        return values
    candidates = [values]
    if pixels.overlay_bits:
        mask = np.array(pixels.overlay_bits, f"u{values.dtype.itemsize}").view(values.dtype.newbyteorder("="))
        candidates.append(values & ~mask)
        if pixels.is_signed:  # the bits around the overlay hold the sign
            candidates.append(np.where(values & (1 << (bits - 1)), values | mask, values & ~mask))
    for candidate in candidates:
        fitting = _extended(candidate, pixels)
        if fitting is not None:
            return fitting
    raise Refusal(
        Reason.UNREADABLE,
        f"pixels hold values from {values.min()} to {values.max()}, which do not fit in BitsStored (0028,0101) = {bits}"
        f" ({'signed' if pixels.is_signed else 'unsigned'}): export the image again, without burnt-in overlays",
    )


def _extended(values: npt.NDArray[Any], pixels: PixelFormat) -> npt.NDArray[Any] | None:
    """Return values with the sign extended from BitsStored; None if they do not fit in it."""
    bits = pixels.bits_stored
    low, high = int(values.min()), int(values.max())
    if pixels.is_signed and -(1 << (bits - 1)) <= low and high < 1 << (bits - 1):
        return values
    if low < 0 or high >= 1 << bits:
        return None
    unused = values.dtype.itemsize * 8 - bits
    return (values << unused) >> unused if pixels.is_signed else values


def hounsfield(
    stored: npt.NDArray[Any],
    slope: float,
    intercept: float,
    padding: tuple[int, int] | None,
    *,
    overwrite: bool = False,
) -> npt.NDArray[np.int16]:
    """Rescale stored values to Hounsfield units (PS3.3, C.11.1), rounded, and clipped to what int16 holds.

    Parameters
    ----------
    stored
        Integers [rows, columns].
    slope, intercept
        RescaleSlope (0028,1053), not 0, and RescaleIntercept (0028,1052), HU.
    padding
        Lowest and highest stored value that mean padding, both included; None if the file declares none.
    overwrite
        Whether the result may take the memory of `stored`: getting more from the system takes longer than the rest.

    Returns
    -------
    numpy.ndarray
        int16 [rows, columns], HU; `PADDING_HU` where padded, and nowhere else.
    """
    padded = None
    if padding is not None:
        first, last = padding
        padded = stored == first if first == last else (stored >= first) & (stored <= last)
    hu = _rescaled_by_integers(stored, slope, intercept, overwrite=overwrite)
    if hu is None:
        with np.errstate(over="ignore"):  # infinity is clipped, too
            values = stored * np.float64(slope) + np.float64(intercept)
        hu = np.clip(np.rint(values), _MIN_HU, _MAX_HU).astype(np.int16)
    if padded is not None:
        hu[padded] = PADDING_HU
    return hu


def _rescaled_by_integers(
    stored: npt.NDArray[Any], slope: float, intercept: float, *, overwrite: bool
) -> npt.NDArray[np.int16] | None:
    """Rescale in integers; None if slope or intercept is not whole, or too large."""
    if slope != math.floor(slope) or intercept != math.floor(intercept):
        return None
    factor, offset = int(slope), int(intercept)
    low, high = int(stored.min()), int(stored.max())
    ends = (low * factor + offset, high * factor + offset)
    if min(ends) >= _MIN_HU and max(ends) <= _MAX_HU:
        # All results fit in int16, so steps on the way there may wrap around: arithmetic modulo 65536 is exact.
        in_place = overwrite and stored.flags.writeable and stored.dtype in (np.int16, np.uint16)
        hu = stored.view(np.int16) if in_place else stored.astype(np.int16)
        if factor != 1:
            hu *= _wrapped(factor)
        hu += _wrapped(offset)
        return hu
    if max(abs(low), abs(high), 1) * abs(factor) + abs(offset) >= 2**63:
        return None
    values = stored.astype(np.int64)
    values *= factor
    values += offset
    return np.clip(values, _MIN_HU, _MAX_HU).astype(np.int16)


def _wrapped(number: int) -> np.int16:
    """Return the int16 that equals a number modulo 65536."""
    return np.int16((number + 0x8000) % 0x10000 - 0x8000)
