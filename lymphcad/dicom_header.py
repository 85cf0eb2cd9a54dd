"""Open a DICOM file and read the few header elements that are wanted, without decoding a pixel or leaking a value.

Elements are taken in their raw form (`pydicom.dataelem.RawDataElement`) and converted here. It is several times faster
than pydicom's own conversion, and no validation of pydicom's ever sees, and so logs, the text of an element.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
import stat
import struct
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import pydicom.config
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from lymphcad.errors import Reason, Refusal
from lymphcad.functional_groups import PER_FRAME, SHARED
from lymphcad.last_header import LastHeader
from lymphcad.memory_file import MemoryFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lymphcad.memory_file import Source

    Stream = io.BufferedReader | io.BytesIO

# pydicom's warnings and log records quote element values, and a value can be a patient's name. These settings belong
# to the process, so they are made once, at import: changing them around each call would race with other threads.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
for _name in ("pydicom", "pylibjpeg", "openjpeg"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

MAX_FILE_BYTES = 2 * 1024**3
MAX_INFLATED_BYTES = 256 * 1024**2
# The header of a single slice is parsed in memory, twice as fast as in a file, and its pixels are read where they stay.
_HEAD_BYTES = 64 * 1024
_INFLATE_STEP = 1024**2
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_OTHER_PIXEL_DATA = (0x7FE00008, 0x7FE00009)  # Float and Double Float Pixel Data: never in a CT
_DELIMITERS = (struct.pack("<HHL", 0xFFFE, 0xE0DD, 0), struct.pack(">HHL", 0xFFFE, 0xE0DD, 0))
_last_header = LastHeader()
_UID_TEXT = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class Header:
    """The wanted elements of a DICOM file, and where its pixel data lie.

    Attributes
    ----------
    elements
        The dataset with the wanted elements only, but for the next.
    groups
        The functional groups sequences, apart: to parse one, pydicom converts other elements of its dataset, too.
    transfer_syntax
        Of what `stream` holds: Explicit VR Little Endian if the file was deflated.
    stream
        The file, or its contents in memory; open as long as `open_dicom`'s block.
    size
        Length of `stream`, bytes.
    pixel_offset
        Where the value of Pixel Data (7FE0,0010) starts in `stream`, bytes; None if there is none.
    pixel_length
        Its length as the file states it, bytes; None if undefined (encapsulated).
    """

    elements: Any
    groups: Any
    transfer_syntax: UID
    stream: Stream
    size: int
    pixel_offset: int | None = None
    pixel_length: int | None = None


@contextmanager
def open_dicom(source: Source, tags: list[int], last_tag: int = _PIXEL_DATA) -> Iterator[Header]:
    """Open a DICOM file (PS3.10, section 7.1) and read `tags` of its header, up to and without `last_tag`.

    Parameters
    ----------
    source
        The file.
    tags
        The elements to keep, as (group << 16) + element.
    last_tag
        Where to stop: the pixel data, or an element before it.

    Yields
    ------
    Header
        What was read. Its stream is closed at the end of the block.

    Raises
    ------
    Refusal
        ``file_missing``, ``not_dicom``, ``truncated``, ``absurd_size`` or ``unreadable``.
    """
    headers = source.headers if isinstance(source, MemoryFile) else _last_header
    with open_file(source) as (file, size):
        header = headers.find(file, size, tags)
        if header is None:
            if last_tag >= _PIXEL_DATA and not isinstance(file, io.BytesIO):
                header = _read_head(file, size, tags, last_tag)
            if header is None:
                file.seek(0)
                header = _read(file, size, tags, last_tag)
            headers.keep(header, file, tags)
        yield header


@contextmanager
def open_file(source: Source) -> Iterator[tuple[Stream, int]]:
    """Open an image file, and refuse what is not one.

    Parameters
    ----------
    source
        The file.

    Yields
    ------
    tuple of binary file, int
        The file, open for reading, and its length in bytes.

    Raises
    ------
    Refusal
        ``file_missing`` if there is no regular file, ``unreadable`` if it may not be read, ``absurd_size`` above 2 GiB.
    """
    if isinstance(source, MemoryFile):
        _check_length(len(source.data))
        yield io.BytesIO(source.data), len(source.data)
        return
    try:
        status = source.stat()  # before opening it: opening a named pipe would wait for ever
        if not stat.S_ISREG(status.st_mode):
            raise Refusal(Reason.FILE_MISSING, "the path is a folder or a device, not a file: name the image's file")
        file = source.open("rb")
    except PermissionError:
        raise Refusal(
            Reason.UNREADABLE, "the file may not be read by this user: change its permissions, or run as its owner"
        ) from None
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        raise Refusal(Reason.FILE_MISSING, "there is no file at this path: check the name and the folder") from None
    with file:
        size = os.fstat(file.fileno()).st_size  # of this file: another may have taken its place since
        _check_length(size)
        yield file, size


def _check_length(length: int) -> None:
    if length > MAX_FILE_BYTES:
        raise Refusal(
            Reason.ABSURD_SIZE,
            f"the file has {length} bytes, and at most {MAX_FILE_BYTES} are read: export the series as single slices",
        )


def read_sop_instance_uid(path: Path) -> str:
    """Return SOP Instance UID (0008,0018) of a DICOM file, reading its first elements only.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    str
        The UID; empty if the file has none, is not DICOM or cannot be read.
    """
    try:
        with open_dicom(path, [0x00080018], last_tag=0x00080019) as header:
            return uid(header.elements, 0x00080018)
    except Refusal:
        return ""
    except Exception:  # noqa: BLE001 - an index of a whole folder meets every kind of file; these are not indexed
        return ""


def _read_head(file: Stream, size: int, tags: list[int], last_tag: int) -> Header | None:
    """Return the header if the pixel data begin within the first bytes; None if the whole file is needed to tell.

    Up to the pixel data a parser sees the same bytes in both, so what is found here is what would be found there.
    """
    file.seek(0)
    head = io.BytesIO(file.read(_HEAD_BYTES))
    try:
        header = _read(head, size, tags, last_tag)
    except Exception:  # noqa: BLE001 - what is wrong, or only longer, is said of the whole file
        return None
    return None if header.pixel_offset is None or header.stream is not head else replace(header, stream=file)


def _read(stream: Stream, size: int, tags: list[int], last_tag: int) -> Header:
    """Read the file meta information and the header that follows it."""
    if len(start := stream.read(132)) < 132 or start[128:] != b"DICM":
        raise Refusal(
            Reason.NOT_DICOM,
            "the file is not DICOM (no 'DICM' at byte 128), PNG or JPEG: send the CT image as a DICOM Part 10 file",
        )
    meta, _ = _read_elements(stream, size, [0x00020010], lambda tag: tag >> 16 != 2, implicit=False, little=True)
    name = uid(meta, 0x00020010)
    if not name:
        if stream.tell() >= size:
            raise _truncated()
        raise Refusal(
            Reason.UNREADABLE,
            "Transfer Syntax UID (0002,0010) is missing, so the bytes cannot be interpreted: export the image again",
        )
    if stream.tell() >= size:
        raise _truncated()
    syntax = UID(name)
    if syntax == DeflatedExplicitVRLittleEndian:
        # The inflated data set stands behind a new preamble, for pydicom reads files with one transfer syntax only.
        prefix = start + _explicit_meta()
        body = _inflate(stream)
        stream, size = io.BytesIO(prefix + body), len(prefix) + len(body)
        stream.seek(len(prefix))
        syntax = UID("1.2.840.10008.1.2.1")
    elements, found = _read_elements(
        stream,
        size,
        tags,
        lambda tag: tag >= last_tag or tag in _OTHER_PIXEL_DATA,
        implicit=syntax == ImplicitVRLittleEndian,
        little=syntax != ExplicitVRBigEndian,
    )
    groups = Dataset()
    for tag in {SHARED, PER_FRAME}.intersection(elements.keys()):
        groups[tag] = elements.get_item(tag)
        del elements[tag]
    if found is None or found[0] != _PIXEL_DATA:
        return Header(elements, groups, syntax, stream, size)
    _, offset, length = found
    return Header(elements, groups, syntax, stream, size, offset, None if length == _UNDEFINED_LENGTH else length)


def _read_elements(
    stream: BinaryIO, size: int, tags: list[int], is_end: Callable[[int], bool], *, implicit: bool, little: bool
) -> tuple[Any, tuple[int, int, int] | None]:
    """Return the wanted elements, and (tag, offset, length) of the element at which reading stopped, if any."""
    stopped: tuple[int, int, int] | None = None
    last_end: int | None = stream.tell()

    def stop_when(tag: int, _vr: str | None, length: int) -> bool:
        """Look at every element before it is read: its length is checked against the file's first."""
        nonlocal stopped, last_end
        offset = stream.tell()
        if is_end(number := int(tag)):  # comparing pydicom's own tags is slow
            stopped = (number, offset, length)
            return True
        last_end = None if length == _UNDEFINED_LENGTH else offset + length
        if last_end is not None and last_end > size:
            raise _truncated()
        return False

    try:
        elements = read_dataset(stream, implicit, little, stop_when=stop_when, specific_tags=tags)
    except Refusal:
        raise
    except Exception:
        if stream.tell() >= size:
            raise _truncated() from None
        raise
    if stopped is None:
        # No pixel data: either the file has none, or it was cut off before them.
        if last_end is None:  # after an element of undefined length, which its delimiter ends (PS3.5, section 7.5)
            stream.seek(max(size - 8, 0))
            last_end = size if stream.read(8) in _DELIMITERS else None
        if last_end != size:
            raise _truncated()
    return elements, stopped


def _truncated() -> Refusal:
    return Refusal(
        Reason.TRUNCATED, "the file ends in the middle of an element, so it is cut off or damaged: send the image again"
    )


def _explicit_meta() -> bytes:
    """File meta information (PS3.10, section 7.1) that says Explicit VR Little Endian and nothing else."""
    value = b"1.2.840.10008.1.2.1\0"
    return struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value


def _inflate(stream: BinaryIO) -> bytes:
    """Inflate the rest of a deflated file (PS3.5, section A.5) in steps, up to a limit: a few KB can hold gigabytes."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    total = 0
    pending = stream.read()
    try:
        while not inflater.eof:
            part = inflater.decompress(pending, _INFLATE_STEP)
            pending = inflater.unconsumed_tail
            if not part and not pending and not inflater.eof:
                raise _truncated()
            parts.append(part)
            total += len(part)
            if total > MAX_INFLATED_BYTES:
                raise Refusal(
                    Reason.ABSURD_SIZE,
                    f"the deflated data grow beyond {MAX_INFLATED_BYTES} bytes: send the image uncompressed",
                )
    except zlib.error:
        raise Refusal(Reason.UNREADABLE, "the deflated data are damaged: send the image again") from None
    return b"".join(parts)


def value_bytes(elements: Any, tag: int) -> bytes | None:
    """Return the bytes of an element as they stand in the file.

    Parameters
    ----------
    elements
        A dataset as read by `open_dicom`, or an item of one of its sequences.
    tag
        The element.

    Returns
    -------
    bytes or None
        The value; None if the element is absent.

    Raises
    ------
    Refusal
        ``unreadable`` if the element is a sequence.
    """
    element = elements.get_item(tag)
    if element is None:
        return None
    value = element.value
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    raise Refusal(Reason.UNREADABLE, f"{label(tag)} is not of the kind that the standard says: export the image again")


def text(elements: Any, tag: int) -> str:
    """Return a text element without its padding; empty if it is absent. Arguments as for `value_bytes`."""
    return (value_bytes(elements, tag) or b"").decode("ascii", "replace").strip(" \0")


def uid(elements: Any, tag: int) -> str:
    """Return a UID (PS3.5, section 9.1); empty if it is absent or not one. Arguments as for `value_bytes`."""
    value = text(elements, tag)
    return value if _UID_TEXT.fullmatch(value) else ""


def decimals(elements: Any, tag: int) -> tuple[float, ...] | None:
    """Return the numbers of a Decimal or Integer String (PS3.5, section 6.2).

    Parameters
    ----------
    elements, tag
        As for `value_bytes`.

    Returns
    -------
    tuple of float or None
        All finite; None if the element is absent or empty, and NaN in place of what is not a finite number.
    """
    value = text(elements, tag)
    return tuple(_number(part) for part in value.split("\\")) if value else None


def _number(value: str) -> float:
    """Return a finite number or NaN; Python's own spellings (1_000) are not numbers in DICOM."""
    try:
        number = float(value)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) and "_" not in value else math.nan


def unsigned(elements: Any, tag: int, *, little: bool) -> int | None:
    """Return the number of an element of VR US (PS3.5, section 6.2).

    Parameters
    ----------
    elements, tag
        As for `value_bytes`.
    little
        Whether the file is little endian.

    Returns
    -------
    int or None
        The number; None if the element is absent or empty.

    Raises
    ------
    Refusal
        ``unreadable`` if it does not hold one 16-bit number.
    """
    value = value_bytes(elements, tag)
    if not value:
        return None
    if len(value) != 2:
        raise Refusal(Reason.UNREADABLE, f"{label(tag)} is not one 16-bit number: export the image again")
    return int.from_bytes(value, "little" if little else "big")


def label(tag: int) -> str:
    """Return an element's keyword and tag, e.g. ``PixelSpacing (0028,0030)``."""
    return f"{keyword_for_tag(tag) or 'an element'} ({tag >> 16:04X},{tag & 0xFFFF:04X})"
