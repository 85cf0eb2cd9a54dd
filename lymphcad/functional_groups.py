"""Where a CT file keeps what describes one frame: in the data set, or in an enhanced file's functional groups."""

from __future__ import annotations

from typing import Any

from lymphcad.errors import Reason, Refusal

SHARED = 0x52009229
PER_FRAME = 0x52009230
PIXEL_MEASURES = 0x00289110
PLANE_POSITION = 0x00209113
PLANE_ORIENTATION = 0x00209116
PIXEL_VALUE_TRANSFORMATION = 0x00289145
CT_IMAGE_FRAME_TYPE = 0x00189329


class FrameGroups:
    """The functional groups of one frame (PS3.3, C.7.6.16), or the data set itself in their place.

    Parameters
    ----------
    elements
        The header.
    groups
        A dataset with `SHARED` and `PER_FRAME`, if the file has them; None if the SOP class does not keep these
        elements in functional groups, as Enhanced CT does (PS3.3, A.38 and A.70).
    index
        The frame, from 0.
    frames
        How many frames the file says it has.

    Raises
    ------
    Refusal
        ``unreadable`` if there is not one per-frame item for each frame.
    """

    def __init__(self, elements: Any, groups: Any, index: int, frames: int) -> None:
        self._groups: list[Any] | None = None
        self._elements = elements
        if groups is None:
            return
        per_frame = items(groups, PER_FRAME)
        if len(per_frame) != frames:
            raise Refusal(
                Reason.UNREADABLE,
                f"the file has {frames} frames and {len(per_frame)} items in PerFrameFunctionalGroupsSequence"
                " (5200,9230), and each frame needs one: export the series again",
            )
        # A group stands in one of the two; a frame's own comes first should a file have it in both.
        self._groups = [per_frame[index], *items(groups, SHARED)[:1]]

    def macro(self, tag: int) -> Any:
        """Return the data set that holds the elements of one macro.

        Parameters
        ----------
        tag
            The macro's sequence, e.g. `PIXEL_MEASURES`.

        Returns
        -------
        Dataset
            The sequence's first item; an empty dict, which has no element at all, if the frame lacks the group.
        """
        if self._groups is None:
            return self._elements
        for group in self._groups:
            found = items(group, tag)
            if found:
                return found[0]
        return _Nothing()


class _Nothing:
    """A data set without elements."""

    @staticmethod
    def get_item(_tag: int) -> None:
        """Return None: there is no such element."""


def items(elements: Any, tag: int) -> list[Any]:
    """Return the items of a sequence (PS3.5, section 7.5).

    Parameters
    ----------
    elements
        A dataset as read by `lymphcad.dicom_header.open_dicom`, or an item of one of its sequences.
    tag
        The sequence.

    Returns
    -------
    list of Dataset
        None if the sequence is absent.

    Raises
    ------
    Refusal
        ``unreadable`` if the element is not a sequence.
    """
    if elements.get_item(tag) is None:
        return []
    value = elements[tag].value
    if value is None or isinstance(value, (bytes, str)):
        raise Refusal(
            Reason.UNREADABLE, f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is not a sequence: export the series again"
        )
    return list(value)
