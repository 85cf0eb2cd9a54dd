"""Store the results at the PACS, as long as it takes: what was acknowledged is not lost because a PACS is away."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lymphcad.errors import CommandError, LymphcadError
from lymphcad_client.listen.listener import FIRST_PAUSE_S, LONGEST_PAUSE_S

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from lymphcad_client.listen.spool import Spool
    from lymphcad_client.pacs.sending import Sent

Status = Literal["stored", "refused", "later", "away"]
_LOOK_S = 0.2
_AWAY = "unreachable"


@dataclass(frozen=True)
class Delivery:
    """What became of a study's results; nothing in it names the study.

    Attributes
    ----------
    study
        Its name, a hash.
    status
        ``stored``; ``refused``: the PACS wants one of its objects never; ``later``: it could not take one of them now;
        ``away``: it does not answer. With the last two it is tried again.
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
    status: Status
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
        Stores files at the PACS, and says of each what became of it; `lymphcad_client.pacs.sending.send_files`.
    report
        Called with each delivery.
    """

    def __init__(
        self,
        spool: Spool,
        send: Callable[[Sequence[Path]], Iterable[Sent]],
        report: Callable[[Delivery], None],
    ) -> None:
        self._spool, self._send, self._report = spool, send, report
        self._away_s = FIRST_PAUSE_S
        self._later: dict[str, tuple[float, float]] = {}
        """When the results of a study are tried again, and the pause that then follows, s."""

    def run(self, stop: threading.Event) -> None:
        """Store what comes until `stop` is set, and then finish the study in hand.

        Raises
        ------
        CommandError
            If the spool cannot be read or written to.
        """
        try:
            while not stop.wait(_LOOK_S):
                for name in self._spool.waiting():
                    due, pause_s = self._later.get(name, (0.0, FIRST_PAUSE_S))
                    if time.monotonic() < due:
                        continue
                    if stop.is_set():
                        return
                    if self._deliver(name, pause_s) == "away":
                        stop.wait(self._away_s)
                        self._away_s = min(2 * self._away_s, LONGEST_PAUSE_S)
                        break
                    self._away_s = FIRST_PAUSE_S
        except OSError as error:
            raise CommandError(
                f"results in '{self._spool.results.path}' cannot be moved on ({error.strerror}): make room or change"
                " its permissions, and start again; nothing is lost"
            ) from None

    def _deliver(self, name: str, pause_s: float) -> Status:
        stored, refused, failed = 0, Counter[str](), Counter[str]()
        try:
            for sent in self._send(self._spool.files(name)):
                if sent.outcome in ("stored", "present"):
                    stored += 1
                else:
                    (refused if sent.outcome == "refused" else failed)[sent.status] += 1
        except LymphcadError:
            failed[_AWAY] += 1
        except Exception as error:  # noqa: BLE001 - results that meet a fault of ours must not keep the others waiting
            failed[f"fault: {type(error).__name__}"] += 1
        if not failed:
            self._later.pop(name, None)
            status: Status = "refused" if refused else "stored"
            self._spool.hand_on(name, self._spool.failed if refused else self._spool.stored)
            self._report(Delivery(name, status, stored, refused, len(self._spool.waiting())))
            return status
        status = "away" if not stored and set(failed) == {_AWAY} else "later"
        if status == "later":
            self._later[name] = time.monotonic() + pause_s, min(2 * pause_s, LONGEST_PAUSE_S)
        again_s = self._away_s if status == "away" else pause_s
        self._report(Delivery(name, status, stored, failed + refused, len(self._spool.waiting()), again_s))
        return status
