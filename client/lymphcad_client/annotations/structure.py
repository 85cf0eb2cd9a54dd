"""See that the lengths in a file's sequences add up, before a parser believes them: `check_structure`.

pydicom reads an item whose length is wrong without a word, and the items behind it are gone. It also makes an object of
each item, a kilobyte large, and goes as deep as the file does; a few MB can hold millions of items.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import dictionary_VR
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from lymphcad.errors import Reason, Refusal

MAX_ITEMS = 100_000
"""Items that all sequences of an object may have together."""
MAX_DEPTH = 40
"""Sequences, one in the other; TID 1500 needs about ten."""

_META_START = 132
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


@dataclass
class _Part:
    """A sequence, or a data set, that is being walked through.

    Attributes
    ----------
    is_sequence
        Whether items follow, not elements.
    end
        Where it ends; None if a delimiter ends it.
    limit
        Where it, or what it lies in, ends at the latest.
    implicit
        Whether its elements have no VR.
    """

    is_sequence: bool
    end: int | None
    limit: int
    implicit: bool


def check_structure(contents: bytes, syntax: UID) -> None:
    """Refuse an object whose sequences and items do not fit into each other (PS3.5, section 7.5).

    Parameters
    ----------
    contents
        A DICOM file (PS3.10, section 7.1), not deflated.
    syntax
        The transfer syntax of its data set.

    Raises
    ------
    Refusal
        ``truncated`` if it ends too early, ``unreadable`` if lengths contradict each other, ``absurd_size`` if it has
        more than `MAX_ITEMS` items or is deeper than `MAX_DEPTH`.
    """
    order, items = "<", 0
    at, in_meta = _META_START, True
    parts = [_Part(is_sequence=False, end=len(contents), limit=len(contents), implicit=False)]
    while parts:
        part = parts[-1]
        if at == part.end:
            parts.pop()
            continue
        if at + 8 > part.limit:
            raise _wrong(part.limit, contents)
        if in_meta and contents[at : at + 2] != b"\2\0":
            in_meta = False
            order = ">" if syntax == ExplicitVRBigEndian else "<"
            part.implicit = syntax == ImplicitVRLittleEndian
        group, element, length = struct.unpack_from(f"{order}HHL", contents, at)
        tag = group << 16 | element
        if part.end is None and tag == (_SEQUENCE_END if part.is_sequence else _ITEM_END):
            parts.pop()
            at += 8
            continue
        if part.is_sequence != (tag == _ITEM):
            raise _contradiction()
        opens_sequence, implicit = False, part.implicit
        header = 8
        if part.is_sequence:
            items += 1
        elif implicit:
            opens_sequence = length == _UNDEFINED or _is_sequence(tag)
        else:
            vr = contents[at + 4 : at + 6]
            if vr in _LONG:
                header = 12
                if at + header > part.limit:
                    raise _wrong(part.limit, contents)
                (length,) = struct.unpack_from(f"{order}L", contents, at + 8)
            else:
                (length,) = struct.unpack_from(f"{order}H", contents, at + 6)
            implicit = vr == b"UN"  # what its writer did not know stands as implicit VR (PS3.5, section 6.2.2)
            opens_sequence = vr == b"SQ" or length == _UNDEFINED or (implicit and _is_sequence(tag))
        at += header
        if length != _UNDEFINED and at + length > part.limit:
            raise _wrong(part.limit, contents)
        if not (part.is_sequence or opens_sequence):
            at += length
            continue
        if items > MAX_ITEMS or len(parts) > 2 * MAX_DEPTH:
            raise Refusal(
                Reason.ABSURD_SIZE,
                f"the annotation object has more than {MAX_ITEMS} items, or {MAX_DEPTH} levels of them: split it",
            )
        end = None if length == _UNDEFINED else at + length
        parts.append(_Part(opens_sequence, end, part.limit if end is None else end, implicit))


@lru_cache(maxsize=4096)
def _is_sequence(tag: int) -> bool:
    try:
        return str(dictionary_VR(tag)) == "SQ"
    except KeyError:
        return False


def _wrong(limit: int, contents: bytes) -> Refusal:
    """Return why something reaches beyond its limit."""
    if limit < len(contents):
        return _contradiction()
    return Refusal(
        Reason.TRUNCATED,
        "the annotation object ends in the middle of an element, so it is cut off or damaged: send it again",
    )


def _contradiction() -> Refusal:
    return Refusal(
        Reason.UNREADABLE, "the lengths in the annotation object contradict each other, so it is damaged: send it again"
    )
