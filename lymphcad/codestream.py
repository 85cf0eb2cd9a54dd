"""What a compressed image says of itself, checked before a decoder sees it.

Decoders allocate what a code stream asks for, and fill the missing end of an image with whatever they have.
"""

from __future__ import annotations

import struct

from lymphcad.errors import Reason, Refusal

_SIZ_LENGTH = 24


def check_size(data: bytes, rows: int, columns: int, *, is_jpeg2000: bool) -> None:
    """Refuse a code stream of another size than the DICOM header's, or without its end.

    Parameters
    ----------
    data
        The frame: JPEG (ISO 10918-1), JPEG-LS (ISO 14495-1) or JPEG 2000 (ISO 15444-1).
    rows, columns
        What the DICOM header says, pixels.
    is_jpeg2000
        Whether it is JPEG 2000.

    Raises
    ------
    Refusal
        ``absurd_size``, ``truncated``, or ``unreadable`` if it does not start like a code stream.
    """
    size = _jpeg2000_size(data) if is_jpeg2000 else _jpeg_size(data)
    if size is None:
        raise Refusal(
            Reason.UNREADABLE, "the compressed image does not start like one: send it again, uncompressed if need be"
        )
    if size != (rows, columns):
        raise Refusal(
            Reason.ABSURD_SIZE,
            f"the compressed image has {size[0]} rows and {size[1]} columns, and the header says {rows} and {columns}:"
            " export the image again",
        )
    # All end in FF D9 (EOI, EOC), and a fragment may be padded to an even length.
    if not data[-64:].rstrip(b"\0").endswith(b"\xff\xd9"):
        raise Refusal(
            Reason.TRUNCATED, "the compressed image has no end marker, so it is cut off or damaged: send it again"
        )


def _jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) from SIZ (ISO 15444-1, A.5.1): the extent of the grid less the image's offset on it."""
    # A stream in a JP2 file, which DICOM forbids and some writers send, has its boxes first.
    start = data.find(b"\xff\x4f\xff\x51", 0, 512)
    if start < 0 or len(data) < start + _SIZ_LENGTH:
        return None
    width, height, left, top = struct.unpack_from(">4L", data, start + 8)
    return height - top, width - left


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) from the first frame header: SOF (ISO 10918-1, B.2.2) or SOF55 of JPEG-LS."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">HH", data, at + 5)
            return rows, columns
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
