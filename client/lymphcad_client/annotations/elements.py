"""Read what annotation objects have and images have not: codes, 32-bit numbers, references to images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lymphcad.dicom_header import decimals, label, text, uid, value_bytes
from lymphcad.errors import Reason, Refusal
from lymphcad.functional_groups import items
from lymphcad.series_header import encodings_of, readable
from lymphcad_client.annotations.annotation import MAX_NAME

if TYPE_CHECKING:
    import numpy.typing as npt

    from lymphcad.dicom_header import Header

GRAPHIC_DATA, GRAPHIC_TYPE = 0x00700022, 0x00700023
REFERENCED_IMAGES, REFERENCED_SERIES, REFERENCED_INSTANCES = 0x00081140, 0x00081115, 0x00081199
_INSTANCE, _FRAMES = 0x00081155, 0x00081160
_CODE, _SCHEME = 0x00080100, 0x00080102
_DATE, _TIME = re.compile(r"\d{8}"), re.compile(r"\d{2,6}(\.\d{1,6})?")


@dataclass(frozen=True)
class Reader:
    """Reads elements of one object, in its byte order and character set.

    Attributes
    ----------
    little
        Whether numbers are little endian.
    encodings
        Python's names of the character sets.
    """

    little: bool
    encodings: list[str]

    @classmethod
    def of(cls, header: Header) -> Reader:
        """Return the reader for a file; its header must have Specific Character Set (0008,0005)."""
        syntax = header.transfer_syntax
        little = syntax.is_little_endian if syntax.is_transfer_syntax else True
        return cls(little, encodings_of(header.elements))

    def name(self, elements: Any, tag: int) -> str:
        """Return a text on one line, of at most `MAX_NAME` characters; empty if it is absent."""
        found = readable(elements, tag, self.encodings)
        return found if len(found) <= MAX_NAME else found[: MAX_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"

    def points(self, elements: Any, tag: int, dimensions: int) -> npt.NDArray[np.float64]:
        """Return points of VR FL (PS3.5, section 6.2).

        Parameters
        ----------
        elements, tag
            As for `lymphcad.dicom_header.value_bytes`.
        dimensions
            Numbers in a point.

        Returns
        -------
        numpy.ndarray
            float64 [n, dimensions], as they stand; n is 0 if the element is absent.

        Raises
        ------
        Refusal
            ``unreadable`` if the element does not hold whole points.
        """
        value = value_bytes(elements, tag) or b""
        if len(value) % (4 * dimensions):
            raise Refusal(
                Reason.UNREADABLE,
                f"{label(tag)} has {len(value)} bytes, which are no whole number of points: draw the annotation again",
            )
        return np.frombuffer(value, "<f4" if self.little else ">f4").reshape(-1, dimensions).astype(np.float64)

    def numbers(self, elements: Any, tag: int) -> list[int]:
        """Return the numbers of an element of VR UL; none if it is absent."""
        value = value_bytes(elements, tag) or b""
        found = np.frombuffer(value[: len(value) // 4 * 4], "<u4" if self.little else ">u4")
        return [int(number) for number in found]


def code(elements: Any, tag: int) -> tuple[str, str]:
    """Return value and coding scheme of the first code of a sequence (PS3.3, section 8.8); empty if there is none."""
    found = items(elements, tag)
    return (text(found[0], _CODE), text(found[0], _SCHEME)) if found else ("", "")


def referenced(elements: Any, tag: int) -> list[tuple[str, tuple[int, ...]]]:
    """Return the references of a sequence of the Image SOP Instance Reference Macro (PS3.3, section 10.3).

    Parameters
    ----------
    elements, tag
        As for `lymphcad.functional_groups.items`.

    Returns
    -------
    list of tuple
        SOP Instance UID, and frame numbers from 1; 0 stands for one that is no whole number.
    """
    found = []
    for item in items(elements, tag):
        frames = decimals(item, _FRAMES) or ()
        found.append((uid(item, _INSTANCE), tuple(int(n) if n == n and n == int(n) else 0 for n in frames)))
    return found


def moment(elements: Any, date: int, time: int) -> str:
    """Return date and time as digits that sort by time; empty parts where the elements are absent or damaged."""
    day, hour = text(elements, date), text(elements, time)
    return f"{day if _DATE.fullmatch(day) else '':0<8} {hour if _TIME.fullmatch(hour) else '':0<6}"
