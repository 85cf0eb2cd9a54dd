"""The watch: studies that have stopped growing are scored, one after the other, and moved."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lymphcad_client.watch.inbox import StudyHeldError
from lymphcad_client.watch.listing import Settling, list_study
from lymphcad_client.watch.study import score_study

if TYPE_CHECKING:
    from collections.abc import Callable

    from lymphcad_client.scorer import Scorer
    from lymphcad_client.watch.inbox import Inbox
    from lymphcad_client.watch.listing import Listing
    from lymphcad_client.watch.outbox import Outbox
    from lymphcad_client.watch.study import Verdict

SETTLE, WITHOUT_TABLE = 5.0, 600.0


@dataclass(frozen=True)
class Event:
    """What a study has come to; nothing in it names it.

    Attributes
    ----------
    fingerprint
        The study's.
    status
        ``done`` or ``refused``: it was moved; ``changed`` while it was scored, so it waits; ``held``: it cannot be
        moved, which is tried again and again.
    verdict
        None if it changed.
    seconds
        How long it took.
    why
        Why it is held, in the system's words.
    """

    fingerprint: str
    status: Literal["done", "refused", "changed", "held"]
    verdict: Verdict | None
    seconds: float
    why: str = ""


class Watcher:
    """Watch an inbox.

    It looks again and again, for a network share tells nobody of a new file.

    Parameters
    ----------
    inbox, outbox
        See there; held by this process alone.
    scorer
        Answers.
    report
        Called with each event.
    settle
        A study is scored when it has been seen unchanged for so long, s.
    without_table
        One without a table is refused after so long, s: a person may write it last.
    overlays
        Whether a picture of each scored node is written.
    """

    def __init__(
        self,
        inbox: Inbox,
        outbox: Outbox,
        scorer: Scorer,
        report: Callable[[Event], None],
        *,
        settle: float = SETTLE,
        without_table: float = WITHOUT_TABLE,
        overlays: bool = True,
    ) -> None:
        self._inbox, self._outbox, self._scorer, self._report = inbox, outbox, scorer, report
        self._settle, self._without_table, self._overlays = settle, max(settle, without_table), overlays
        self._pause = min(1.0, max(0.05, settle / 5))
        self._settling = Settling()
        self._held: dict[str, tuple[Listing, Verdict]] = {}

    def run(self, *, once: bool = False) -> None:
        """Score what comes.

        Parameters
        ----------
        once
            Come back when nothing is left of what was there at the start; else never.

        Raises
        ------
        CommandError
            If inbox or outbox cannot be read or written to.
        InterruptedByUser, KeyboardInterrupt
            On Ctrl-C.
        """
        present = self._inbox.studies()
        waited_for = set(present)
        while True:
            for name, listing in self._settled(present):
                self._handle(name, listing)
            present = self._inbox.studies()
            waited_for &= set(present) - set(self._held)
            if once and not waited_for:
                return
            time.sleep(self._pause)

    def _settled(self, present: list[str]) -> list[tuple[str, Listing]]:
        """Return the studies that have settled, the one that has waited longest first."""
        self._settling.forget_others(present)
        self._held = {name: held for name, held in self._held.items() if name in present}
        found: list[tuple[float, str, Listing]] = []
        for name in present:
            listing = list_study(self._inbox.path / name)
            if listing is None:
                continue
            unchanged = self._settling.unchanged(name, listing.fingerprint, time.monotonic())
            if unchanged >= (self._settle if listing.has_table else self._without_table):
                found.append((-unchanged, name, listing))
        return [(name, listing) for _, name, listing in sorted(found, key=lambda one: one[:2])]

    def _handle(self, name: str, listing: Listing) -> None:
        start = time.monotonic()
        study = self._inbox.path / name
        if list_study(study) != listing:  # others were scored since it was listed
            return
        before, verdict = self._held.get(name, (None, None))
        if before != listing or verdict is None:
            self._held.pop(name, None)
            verdict = score_study(study, listing, self._outbox, self._scorer, overlays=self._overlays)
        if verdict is None:
            self._report(Event(listing.fingerprint, "changed", None, time.monotonic() - start))
            return
        try:
            if verdict.status == "done":
                self._inbox.done(name)
            else:
                self._inbox.refused(name, verdict.sentence)
        except StudyHeldError as error:
            if name not in self._held:
                self._held[name] = listing, verdict
                self._report(Event(listing.fingerprint, "held", verdict, time.monotonic() - start, str(error)))
            return
        self._held.pop(name, None)
        self._report(Event(listing.fingerprint, verdict.status, verdict, time.monotonic() - start))
