"""C-STORE as SCU (PS3.4, annex B)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pydicom import dcmread

from lymphcad_client.pacs.dimse import MAX_CONTEXTS, association
from lymphcad_client.pacs.sending import Sent, TryAgain, status_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lymphcad_client.pacs.address import DicomPeer, Speech
    from lymphcad_client.pacs.part10 import Stored

_SUCCESS, _DUPLICATE = 0x0000, 0x0111
_WARNINGS, _OUT_OF_RESOURCES = range(0xB000, 0xC000), range(0xA700, 0xA800)


class DimseStore:
    """Stores over an association; opens another when an object needs a presentation context that it lacks.

    Parameters
    ----------
    peer, speech
        With whom, and how.
    files
        All that will be stored: for each SOP class in each transfer syntax there is a presentation context.

    Raises
    ------
    NoAssociation
        If the peer does not agree.
    """

    def __init__(self, peer: DicomPeer, speech: Speech, files: Sequence[Stored]) -> None:
        self._peer, self._speech = peer, speech
        pairs = list(dict.fromkeys((one.sop_class, one.transfer_syntax) for one in files))
        self._groups = [pairs[start : start + MAX_CONTEXTS] for start in range(0, len(pairs), MAX_CONTEXTS)] or [[]]
        self._stack = ExitStack()
        self._association: Any = None
        self._group: list[tuple[str, str]] = []
        self._take(self._groups[0])

    def close(self) -> None:
        """Release the association."""
        self._stack.close()

    def store(self, one: Stored) -> Sent:
        """Store an object; see `lymphcad_client.pacs.sending.Store.store`."""
        pair = (one.sop_class, one.transfer_syntax)
        if pair not in self._group:
            self._take(next(group for group in self._groups if pair in group))
        accepted = {(c.abstract_syntax, str(c.transfer_syntax[0])) for c in self._association.accepted_contexts}
        if pair not in accepted:
            return Sent(one.path, "refused", "no_context")
        try:
            answer = self._association.send_c_store(dcmread(one.path))
        except RuntimeError:  # the association was lost between two objects
            raise TryAgain("unreachable") from None
        except (OSError, ValueError, AttributeError, NotImplementedError, EOFError):
            return Sent(one.path, "refused", "not_dicom")  # it cannot be read, or not be written again
        status = answer.get("Status")
        if status is None or status in _OUT_OF_RESOURCES:
            raise TryAgain(status_text(status))
        if status == _DUPLICATE:
            return Sent(one.path, "present", status_text(status))
        if status == _SUCCESS or status in _WARNINGS:
            return Sent(one.path, "stored", status_text(status))
        return Sent(one.path, "refused", status_text(status))

    def _take(self, group: list[tuple[str, str]]) -> None:
        self._stack.close()
        contexts = [(sop_class, [syntax]) for sop_class, syntax in group]
        self._association = self._stack.enter_context(association(self._peer, self._speech, contexts))
        self._group = group
