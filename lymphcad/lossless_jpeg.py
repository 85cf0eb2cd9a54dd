"""Lossless Huffman JPEG (ISO 10918-1, annex H), the compression of most CT archives, decoded without native code.

The free decoder at hand, GDCM, ends the whole process on damaged streams: one bad upload would take a dashboard down.
Huffman decoding is sequential, but not all of it need be: the length of a code is looked up at every bit at once, only
the walk from code to code is a loop, and what the codes say is again computed at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.errors import Reason, Refusal

if TYPE_CHECKING:
    import numpy.typing as npt

_DHT, _SOF3, _SOS, _DRI = 0xC4, 0xC3, 0xDA, 0xDD
_SKIPPED = (*range(0xE0, 0xF0), 0xFE)  # APPn, COM
_ENTROPY_SLACK_BITS = 16
_PADDING_BYTES = 8


@dataclass(frozen=True)
class _Scan:
    """A parsed code stream: its frame header, the scan's table and predictor, and the scan itself, without stuffing."""

    precision: int
    rows: int
    columns: int
    table: tuple[bytes, bytes]
    predictor: int
    data: bytes


def decode_lossless_jpeg(
    data: bytes, bits_stored: int, bits_allocated: int, *, first_order: bool
) -> npt.NDArray[np.uint16]:
    """Decode a greyscale image in one scan, without restart intervals and point transform.

    Parameters
    ----------
    data
        The code stream, from SOI to EOI. The image has the size of the stream's own header: check it first.
    bits_stored, bits_allocated
        What the DICOM header says; the stream's precision must lie between them.
    first_order
        Whether the transfer syntax allows predictor 1 only. The stream has no checksum, so a damaged predictor or
        precision shows by these two alone.

    Returns
    -------
    numpy.ndarray
        uint16 [rows, columns].

    Raises
    ------
    Refusal
        ``unreadable`` if the stream is damaged, or of a kind that is not read here.
    """
    scan = _parse(data)
    if not bits_stored <= scan.precision <= bits_allocated:
        raise _damaged(f"it has {scan.precision} bits, and the header says {bits_stored} of {bits_allocated}")
    if first_order and scan.predictor != 1:
        raise _damaged(f"it has predictor {scan.predictor}, and its transfer syntax says 1")
    differences = _differences(scan).reshape(scan.rows, scan.columns)
    values = _undo_prediction(differences, 1 << (scan.precision - 1), scan.predictor)
    if int(values.max()) >> scan.precision:
        raise _damaged("its values need more bits than it has")
    return values


def _parse(data: bytes) -> _Scan:
    """Read the segments (B.2) up to the scan, and check that nothing but the end follows it."""
    tables: dict[int, tuple[bytes, bytes]] = {}
    frame: bytes | None = None
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
            tables.update(_huffman_tables(segment))
        elif marker == _SOF3 and frame is None:
            # Precision, rows, columns, and one component.
            if len(segment) != 9 or not 2 <= segment[0] <= 16 or segment[5] != 1:
                raise _damaged("it is not greyscale")
            frame = segment
        elif marker == _SOS:
            # One component, the number of its table, the predictor, and no point transform.
            if frame is None or len(segment) != 6 or segment[0] != 1 or segment[2] >> 4 not in tables:
                raise _damaged("its scan has no frame or table")
            if not 1 <= segment[3] <= 7 or segment[4] or segment[5]:
                raise _damaged("its scan is not lossless")
            break
        elif marker not in _SKIPPED and (marker != _DRI or any(segment)):
            raise _damaged("it has a segment that is not supported")
    # Within the scan, FF is followed by a stuffed 00 (B.1.1.5). The one other FF is that of the end, after fill bytes.
    scan = data[at:].rstrip(b"\0").removesuffix(b"\xd9").rstrip(b"\xff")
    if scan.count(b"\xff") != scan.count(b"\xff\x00"):
        raise _damaged("there is a marker within the scan")
    rows, columns = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    scan = scan.replace(b"\xff\x00", b"\xff")
    if not 0 < rows * columns <= 8 * len(scan):  # a code has at least one bit
        raise _damaged("its scan is too short")
    return _Scan(frame[0], rows, columns, tables[segment[2] >> 4], segment[3], scan)


def _huffman_tables(segment: bytes) -> dict[int, tuple[bytes, bytes]]:
    """Return the tables of a DHT segment (B.2.4.2) by number: how many codes of 1 to 16 bits there are, and symbols."""
    found: dict[int, tuple[bytes, bytes]] = {}
    at = 0
    while at < len(segment):
        counts = segment[at + 1 : at + 17]
        symbols = segment[at + 17 : at + 17 + sum(counts)]
        if len(counts) != 16 or segment[at] > 3 or not symbols or len(symbols) != sum(counts) or max(symbols) > 16:
            raise _damaged("a Huffman table is not of lossless JPEG")
        code = 0
        for bits, count in enumerate(counts, start=1):
            code += count
            if code > 1 << bits:
                raise _damaged("a Huffman table has too many codes")
            code <<= 1
        found[segment[at]] = (counts, symbols)
        at += 17 + len(symbols)
    return found


def _lookup(table: tuple[bytes, bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return a code's length (0: there is no such code) and its symbol, by the 16 bits that start with it (annex C)."""
    lengths, symbols = np.zeros(1 << 16, np.uint8), np.zeros(1 << 16, np.uint8)
    start = at = 0
    for bits, count in enumerate(table[0], start=1):
        for symbol in table[1][at : at + count]:
            end = start + (1 << (16 - bits))
            lengths[start:end] = bits
            symbols[start:end] = symbol
            start = end
        at += count
    return lengths, symbols


def _differences(scan: _Scan) -> npt.NDArray[np.int64]:
    """Decode the scan to one difference for each pixel (H.1.2.2)."""
    lengths, symbols = _lookup(scan.table)
    # After a code come as many bits as its symbol says; after symbol 16, none.
    steps_of = np.where(lengths > 0, lengths + np.where(symbols < 16, symbols, 0), 0).astype(np.uint8)
    data = np.frombuffer(scan.data + b"\xff" * _PADDING_BYTES, np.uint8)
    words = data[:-2].astype(np.uint32) << 16 | data[1:-1].astype(np.uint32) << 8 | data[2:]
    steps = np.empty((len(words), 8), np.uint8)
    for bit in range(8):
        steps[:, bit] = steps_of[words >> (8 - bit) & 0xFFFF]
    walk = steps.tobytes()
    last = 8 * len(scan.data)
    positions = []
    position = 0
    for _ in range(scan.rows * scan.columns):
        if position >= last:
            raise _damaged("its scan is too short")
        positions.append(position)
        position += walk[position]
    if not last - _ENTROPY_SLACK_BITS < position <= last:
        raise _damaged("its scan has more or fewer codes than pixels")
    at = np.array(positions, np.int64)
    first = at >> 3
    window = np.zeros(len(at), np.int64)
    for byte in range(5):
        window = window << 8 | data[first + byte]
    window = window >> (8 - (at & 7)) & 0xFFFFFFFF  # the 32 bits from the code on
    code = window >> 16
    length, symbol = lengths[code].astype(np.int64), symbols[code].astype(np.int64)
    if not length.all():
        raise _damaged("its scan has a code that its table lacks")
    bits = np.where(symbol < 16, symbol, 0)
    extra = window >> (32 - length - bits) & ((1 << bits) - 1)
    # Values that start with a 0 bit are negative (F.1.2.1.1); symbol 16 is the difference 32768.
    differences = np.where(extra >> np.maximum(bits - 1, 0) > 0, extra, extra - (1 << bits) + 1)
    return np.where(symbol == 16, 32768, differences)


def _undo_prediction(differences: npt.NDArray[np.int64], start: int, predictor: int) -> npt.NDArray[np.uint16]:
    """Add the predictions (H.1.2.1, table H.1) modulo 65536; `start` is that of the first pixel."""
    values = differences.copy()
    values[0, 0] += start
    # The first row is predicted from the left and the first column from above, whatever the predictor.
    if predictor == 1:
        values[:, 0] = np.cumsum(values[:, 0])
        return (np.cumsum(values, axis=1) & 0xFFFF).astype(np.uint16)
    values[0] = np.cumsum(values[0])
    if predictor == 2:
        return (np.cumsum(values, axis=0) & 0xFFFF).astype(np.uint16)
    above = [value & 0xFFFF for value in values[0].tolist()]
    values[0] = above
    for number in range(1, len(values)):
        row = values[number].tolist()
        row[0] = left = (row[0] + above[0]) & 0xFFFF
        for column in range(1, len(row)):
            up, corner = above[column], above[column - 1]
            if predictor == 3:
                prediction = corner
            elif predictor == 4:
                prediction = left + up - corner
            elif predictor == 5:
                prediction = left + ((up - corner) >> 1)
            elif predictor == 6:
                prediction = up + ((left - corner) >> 1)
            else:
                prediction = (left + up) >> 1
            row[column] = left = (row[column] + prediction) & 0xFFFF
        values[number] = above = row
    return values.astype(np.uint16)


def _damaged(why: str) -> Refusal:
    return Refusal(
        Reason.UNREADABLE, f"the lossless JPEG is damaged, or of a kind not read here ({why}): send it uncompressed"
    )
