"""Score each received study once it is complete, again when more has come, and remove it when its time is over."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from lymphcad.errors import CommandError, LymphcadError
from lymphcad_client.listen.study import score_received

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from lymphcad_client.dicom.study import Kind
    from lymphcad_client.listen.arrivals import Arrivals
    from lymphcad_client.listen.spool import Spool
    from lymphcad_client.scorer import Scorer

FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""Pauses before what failed is tried again: twice as long each time, up to a limit, for ever."""


@dataclass(frozen=True)
class Event:
    """What a study has come to; nothing in it names it.

    Attributes
    ----------
    study
        Its name, a hash.
    status
        As of `Outcome`; ``held``: the disk failed, so it is tried again; ``removed``: its time is over.
    scored, refused
        How many nodes.
    codes
        Why nodes were refused or failed, with how many of each.
    seconds
        How long it took.
    again_s
        After how many seconds it is tried again; 0 if it is not.
    why
        Of what is held, a sentence.
    """

    study: str
    status: Literal["scored", "already", "waiting", "refused", "failed", "changed", "held", "removed"]
    scored: int = 0
    refused: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    again_s: float = 0.0
    why: str = ""


@dataclass
class _Known:
    """What is known of a study: what it has come to, with so many new objects, and when that is over or tried again."""

    new: int
    status: str
    ends: float
    due: float | None = None
    pause_s: float = FIRST_PAUSE_S


class Listener:
    """Score what is received; one thread runs it.

    Parameters
    ----------
    spool
        The node's folder.
    arrivals
        Knows what is arriving.
    scorer
        Answers.
    kinds
        Of DICOM results.
    report
        Called with each event.
    settle_s
        A study is complete when nothing of it has come for so long after its associations were released, s.
    keep_s
        A study is removed so long after its last object, s; then its results are on their way or at the PACS.
    """

    def __init__(
        self,
        spool: Spool,
        arrivals: Arrivals,
        scorer: Scorer,
        kinds: Collection[Kind],
        report: Callable[[Event], None],
        *,
        settle_s: float,
        keep_s: float,
    ) -> None:
        self._spool, self._arrivals, self._scorer, self._kinds, self._report = spool, arrivals, scorer, kinds, report
        self._settle, self._keep = settle_s, keep_s
        self._known: dict[str, _Known] = {}

    def run(self, stop: threading.Event) -> None:
        """Score what comes until `stop` is set, and then finish the study in hand.

        Raises
        ------
        CommandError
            If the spool cannot be read.
        """
        pause = min(1.0, max(0.05, self._settle / 5))
        while not stop.wait(pause):
            try:
                studies = self._spool.studies()
            except OSError as error:
                raise CommandError(
                    f"'{self._spool.received}' cannot be read ({error.strerror}): see that the disk or share is there"
                ) from None
            self._known = {study: known for study, known in self._known.items() if study in studies}
            for study in studies:
                if stop.is_set():
                    return
                self._look(study)

    def _look(self, study: str) -> None:
        """Score a study if it is complete and not known as it is; remove it if its time is over."""
        seen, new = self._arrivals.all(study), self._arrivals.new(study)
        if self._arrivals.quiet_s(study) < self._settle:
            return
        known = self._known.get(study)
        if known is None or known.new != new:
            self._score(study, new, FIRST_PAUSE_S)
        elif known.due is not None:
            if time.monotonic() >= known.due:
                self._score(study, new, min(2 * known.pause_s, LONGEST_PAUSE_S))
        elif time.monotonic() >= known.ends and self._arrivals.since_s(study) >= self._keep:
            self._remove(study, seen, known)

    def _score(self, study: str, new: int, pause_s: float) -> None:
        start = time.monotonic()
        event, ends = self._try(study), 0.0
        if event.status == "changed":
            self._report(replace(event, seconds=time.monotonic() - start))
            return
        now = time.monotonic()
        again_s = pause_s if event.status in ("failed", "held") else 0.0
        if not again_s:
            ends = now + self._keep - self._spool.age_s(study)
        self._known[study] = _Known(new, event.status, ends, now + again_s if again_s else None, pause_s)
        if event.status != "already":
            self._report(replace(event, seconds=now - start, again_s=again_s))

    def _try(self, study: str) -> Event:
        try:
            outcome = score_received(study, self._spool, self._scorer, self._kinds)
        except (CommandError, OSError) as error:  # what was acknowledged stays, and room may be made on the disk
            return Event(study, "held", why=_sentence(error))
        except Exception as error:  # noqa: BLE001 - a study that meets a fault of ours must not keep the others waiting
            return Event(study, "held", why=f"a fault in the program, {type(error).__name__}")
        return Event(study, outcome.status, outcome.scored, outcome.refused, outcome.codes)

    def _remove(self, study: str, seen: int, known: _Known) -> None:
        try:
            if self._spool.age_s(study) < self._keep or not self._spool.remove(study, self._arrivals, seen):
                return
        except OSError as error:
            known.due, known.pause_s = time.monotonic() + LONGEST_PAUSE_S, LONGEST_PAUSE_S
            self._report(Event(study, "held", again_s=LONGEST_PAUSE_S, why=_sentence(error)))
            return
        del self._known[study]
        self._report(Event(study, "removed", why=known.status))


def _sentence(error: LymphcadError | OSError) -> str:
    """Return what the system says of a file, without its name."""
    met = error if isinstance(error, OSError) else error.__context__
    return met.strerror or type(met).__name__ if isinstance(met, OSError) else "the study's folder cannot be used"
