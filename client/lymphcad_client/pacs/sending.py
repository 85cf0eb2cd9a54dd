"""Store files at a PACS: what became of each, and nothing twice that needs no second time."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lymphcad.errors import LymphcadError
from lymphcad_client.pacs.address import DicomPeer
from lymphcad_client.pacs.part10 import Stored, read_stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from lymphcad_client.pacs.address import Peer, Speech

Outcome = Literal["stored", "present", "refused", "failed"]
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0


@dataclass(frozen=True)
class Sent:
    """What became of a file.

    Attributes
    ----------
    path
        The file.
    outcome
        ``stored``; ``present``, where the PACS says that it has it; ``refused``, which another try would not change;
        or ``failed``.
    status
        The PACS's own, e.g. ``0xA900`` or ``HTTP 409``, or a word of ours: ``no_context`` (it takes no objects of this
        kind, or not in this transfer syntax), ``unreachable``, ``not_dicom``.
    """

    path: Path
    outcome: Outcome
    status: str = ""


class TryAgain(LymphcadError):  # noqa: N818 - for the loop below
    """The object was not stored, and may be if it is sent again.

    Parameters
    ----------
    status
        As in `Sent`.
    """

    def __init__(self, status: str) -> None:
        super().__init__(f"the PACS did not store an object ({status}): see it")
        self.status = status


class Store(Protocol):
    """A connection that stores."""

    def store(self, one: Stored) -> Sent:
        """Store an object. Raises `TryAgain`."""
        ...

    def close(self) -> None:
        """End it."""
        ...


def send_files(paths: Sequence[Path], peer: Peer, speech: Speech) -> Iterator[Sent]:
    """Store files at a PACS, one after the other; safe to repeat, for an object's UIDs are its own.

    An object that the PACS could not take just now (out of resources, a lost connection, HTTP 503) is sent again
    after a pause that doubles, `Speech.tries` times in all. If a connection cannot be had by then, what is left fails
    with it.

    Parameters
    ----------
    paths
        DICOM files (PS3.10); only their headers are read before their turn.
    peer, speech
        To whom, and how.

    Yields
    ------
    Sent
        One a file, in order.

    Raises
    ------
    LymphcadError
        If the PACS does not answer at all, before the first file.
    """
    known = [(path, read_stored(path)) for path in paths]
    with ExitStack() as stack:
        line = stack.enter_context(_Line(peer, speech, [one for _, one in known if one is not None]))
        line.open()
        for path, one in known:
            yield Sent(path, "refused", "not_dicom") if one is None else line.send(one)


class _Line:
    """A connection that is opened again when it was lost."""

    def __init__(self, peer: Peer, speech: Speech, files: Sequence[Stored]) -> None:
        self._peer, self._speech, self._files = peer, speech, files
        self._store: Store | None = None
        self._is_down = False

    def __enter__(self) -> _Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def open(self) -> Store:
        """Connect, if it is not."""
        if self._store is None:
            self._store = self._connected()
        return self._store

    def send(self, one: Stored) -> Sent:
        status = "unreachable"
        for number in range(1 if self._is_down else self._speech.tries):
            if number:
                pause = min(_FIRST_PAUSE_S * 2 ** (number - 1), _LONGEST_PAUSE_S)
                time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - so that clients do not come all at once
            try:
                sent = self.open().store(one)
            except TryAgain as error:
                status = error.status
                self._close()
            except LymphcadError:
                status = "unreachable"
            else:
                self._is_down = False
                return sent
        self._is_down = status == "unreachable"
        return Sent(one.path, "failed", status)

    def _connected(self) -> Store:
        if isinstance(self._peer, DicomPeer):
            from lymphcad_client.pacs.store_dimse import DimseStore

            return DimseStore(self._peer, self._speech, self._files)
        from lymphcad_client.pacs.store_web import WebStore

        return WebStore(self._peer, self._speech)

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()


def status_text(status: Any) -> str:
    """Return a DIMSE status as it is written, e.g. ``0xA700``; for none, ``unreachable``."""
    return "unreachable" if status is None else f"0x{int(status):04X}"
