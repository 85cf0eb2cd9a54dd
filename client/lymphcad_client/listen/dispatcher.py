"""Store the results at the PACS, as long as it takes: what was acknowledged is not lost because a PACS is away."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from lymphcad.errors import CommandError, LymphcadError
from lymphcad_client.listen.listener import FIRST_PAUSE_S, LONGEST_PAUSE_S

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from lymphcad_client.listen.spool import Spool

_LOOK_S = 0.2


class Answer(Protocol):
    """What the PACS said of one object; see `lymphcad_client.pacs.sending.Sent`."""

    @property
    def outcome(self) -> str:
        """``stored``, ``present``, ``refused`` or ``failed``."""
        ...

    @property
    def status(self) -> str:
        """Of what was refused or failed, the PACS's status."""
        ...


@dataclass(frozen=True)
class Delivery:
    """What became of a study's results; nothing in it names the study.

    Attributes
    ----------
    study
        Its name, a hash.
    status
        ``stored``; ``refused``: the PACS wants one of its objects never; ``away``: it is tried again.
    stored
        How many objects the PACS has now.
    codes
        What the PACS said of the others, with how many of each.
    waiting
        How many studies' results wait, this one included if it does.
    again_s
        After how many seconds it is tried again; 0 if it is not.
    """

    study: str
    status: Literal["stored", "refused", "away"]
    stored: int
    codes: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    again_s: float = 0.0


class Dispatcher:
    """Store the results that wait in a spool; one thread runs it.

    Parameters
    ----------
    spool
        The node's folder.
    send
        Stores files at the PACS, and says of each what became of it.
    report
        Called with each delivery.
    """

    def __init__(
        self,
        spool: Spool,
        send: Callable[[Sequence[Path]], Iterable[Answer]],
        report: Callable[[Delivery], None],
    ) -> None:
        self._spool, self._send, self._report = spool, send, report

    def run(self, stop: threading.Event) -> None:
        """Store what comes until `stop` is set, and then finish the study in hand.

        Raises
        ------
        CommandError
            If the spool cannot be read or written to.
        """
        pause_s = FIRST_PAUSE_S
        try:
            while not stop.wait(_LOOK_S):
                for name in self._spool.waiting():
                    if stop.is_set():
                        return
                    if self._deliver(name, pause_s):
                        pause_s = FIRST_PAUSE_S
                        continue
                    stop.wait(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                    break  # those that have come meanwhile wait behind it
        except OSError as error:
            raise CommandError(
                f"results in '{self._spool.results.path}' cannot be moved on ({error.strerror}): make room or change"
                " its permissions, and start again; nothing is lost"
            ) from None

    def _deliver(self, name: str, pause_s: float) -> bool:
        """Store a study's results; return False if the PACS is to be left alone for a while."""
        stored, refused, failed = 0, Counter[str](), Counter[str]()
        try:
            for answer in self._send(self._spool.files(name)):
                if answer.outcome in ("stored", "present"):
                    stored += 1
                else:
                    (refused if answer.outcome == "refused" else failed)[answer.status] += 1
        except LymphcadError:
            failed["unreachable"] += 1
        if failed:
            self._report(Delivery(name, "away", stored, failed, len(self._spool.waiting()), pause_s))
            return False
        self._spool.hand_on(name, self._spool.failed if refused else self._spool.stored)
        left = len(self._spool.waiting())
        self._report(Delivery(name, "refused" if refused else "stored", stored, refused, left))
        return True
