"""What a compressed image says of itself, checked before a decoder sees it.

Decoders allocate what a code stream asks for, fill the missing end of an image with whatever they have, and GDCM ends
the whole process (abort or segmentation fault) on headers that no encoder writes. So the headers are read here first.
"""

from __future__ import annotations

import struct

from lymphcad.errors import Reason, Refusal

_SOI, _SOS, _DHT, _SOF3 = 0xD8, 0xDA, 0xC4, 0xC3
_HARMLESS = (*range(0xE0, 0xF0), 0xFE)  # APPn, COM
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
        raise _damaged("it does not start like one")
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


def check_lossless_jpeg(data: bytes, bits_stored: int, bits_allocated: int) -> None:
    """Refuse whatever is not one plain greyscale scan of lossless Huffman JPEG (ISO 10918-1, annexes B and H).

    Parameters
    ----------
    data
        The frame, which has passed `check_size`.
    bits_stored, bits_allocated
        What the DICOM header says; the code stream's precision must lie between them.

    Raises
    ------
    Refusal
        ``unreadable``.
    """
    tables: set[int] = set()
    has_frame = False
    at = 2
    while True:
        if len(data) < at + 4 or data[at] != 0xFF:
            raise _damaged("a marker is missing")
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        segment = data[at + 4 : at + 2 + length]
        if length < 2 or len(segment) != length - 2:
            raise _damaged("a segment has no end")
        at += 2 + length
        if marker == _DHT:
            tables |= _huffman_tables(segment)
        elif marker == _SOF3 and not has_frame:
            # Precision, rows and columns, then one component: its number, its sampling, no quantization table.
            if len(segment) != 9 or segment[5] != 1 or segment[7] != 0x11:
                raise _damaged("it is not greyscale")
            if not bits_stored <= segment[0] <= bits_allocated:
                raise _damaged(f"it has {segment[0]} bits, and the header says {bits_stored} of {bits_allocated}")
            has_frame = True
        elif marker == _SOS:
            # One component, its table, the predictor, no point transform.
            if not has_frame or len(segment) != 6 or segment[0] != 1 or segment[2] >> 4 not in tables:
                raise _damaged("its scan has no frame or table")
            if segment[2] & 0x0F or not 1 <= segment[3] <= 7 or segment[4] or segment[5]:
                raise _damaged("its scan is not lossless")
            break
        elif marker not in _HARMLESS:
            raise _damaged("it has a segment that is not of lossless JPEG")
    # Within the scan, FF is followed by 00; the only marker is the end, which fill bytes (FF) may stand before.
    scan = data[at:].rstrip(b"\0").removesuffix(b"\xd9").rstrip(b"\xff")
    if scan.count(b"\xff") != scan.count(b"\xff\x00"):
        raise _damaged("there is a marker within the scan")


def _huffman_tables(segment: bytes) -> set[int]:
    """Return the numbers of the tables in a DHT segment (B.2.4.2)."""
    found: set[int] = set()
    at = 0
    while at < len(segment):
        counts = segment[at + 1 : at + 17]
        symbols = segment[at + 17 : at + 17 + sum(counts)]
        if len(counts) != 16 or segment[at] > 3 or not symbols or len(symbols) != sum(counts) or max(symbols) > 16:
            raise _damaged("a Huffman table is not of lossless JPEG")
        code = 0
        for bits, count in enumerate(counts, start=1):
            code += count
            if code > (1 << bits) - (count > 0):  # the code of all ones is kept free (annex C)
                raise _damaged("a Huffman table has too many codes")
            code <<= 1
        found.add(segment[at])
        at += 17 + len(symbols)
    return found


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
    if data[:2] != bytes((0xFF, _SOI)):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (_DHT, 0xC8, 0xCC)):
            rows, columns = struct.unpack_from(">HH", data, at + 5)
            return rows, columns
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _damaged(why: str) -> Refusal:
    return Refusal(
        Reason.UNREADABLE, f"the compressed image is damaged ({why}): send it again, uncompressed if need be"
    )
