"""What is arriving: which study is not complete, for an association brings it or has only just done so."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Brought:
    """What one association has brought.

    Attributes
    ----------
    new, same
        How many objects were saved, and how many were there already.
    refused
        How many were refused, by code.
    studies
        Names of the studies that they belong to.
    """

    new: int = 0
    same: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    studies: set[str] = field(default_factory=set)


class Arrivals:
    """Keeps count of what arrives; safe to share between threads.

    Each association is served by one thread, so that thread's number says which object is in its hands.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._in_hand: dict[int, str] = {}
        self._open: dict[threading.Thread, Brought] = {}
        self._last: dict[str, float] = {}
        self._new: Counter[str] = Counter()
        self._all: Counter[str] = Counter()

    def begin(self, study: str) -> None:
        """Say that this thread is about to save an object of a study."""
        with self._lock:
            self._in_hand[threading.get_ident()] = study

    def saved(self, association: threading.Thread, study: str, *, is_new: bool) -> None:
        """Say that it is saved.

        Parameters
        ----------
        association
            That brought it: its thread.
        study
            The study.
        is_new
            Whether it was not there before.
        """
        with self._lock:
            brought = self._open.setdefault(association, Brought())
            brought.studies.add(study)
            brought.new += is_new
            brought.same += not is_new
            self._last[study] = time.monotonic()
            self._new[study] += is_new
            self._all[study] += 1
            self._in_hand.pop(threading.get_ident(), None)

    def refused(self, association: threading.Thread, reason: str) -> None:
        """Say that an object was refused, whether or not it came as far as to be saved."""
        with self._lock:
            self._open.setdefault(association, Brought()).refused[reason] += 1
            self._in_hand.pop(threading.get_ident(), None)

    def closed(self, association: threading.Thread) -> Brought | None:
        """Say that an association has ended; return what it brought, None if nothing."""
        with self._lock:
            brought = self._open.pop(association, None)
            if brought is not None:
                self._last.update(dict.fromkeys(brought.studies, time.monotonic()))
            return brought

    def quiet_s(self, study: str) -> float:
        """Return for how long nothing of a study has come, s; 0 while an association is open that brought some."""
        with self._lock:
            brings = (study in brought.studies for one, brought in self._open.items() if one.is_alive())
            if study in self._in_hand.values() or any(brings):
                return 0.0
            return time.monotonic() - self._last.get(study, self._start)

    def since_s(self, study: str) -> float:
        """Return how long ago an object of a study came, new or not, s; infinity if none has since the start."""
        with self._lock:
            return time.monotonic() - self._last[study] if study in self._last else math.inf

    def new(self, study: str) -> int:
        """Return how many objects of a study have come that were not there; it only grows."""
        with self._lock:
            return self._new[study]

    def all(self, study: str) -> int:
        """Return how many objects of a study have come, those included that were there; it only grows."""
        with self._lock:
            return self._all[study]

    def take_away(self, study: str, seen: int, move: Callable[[], None]) -> bool:
        """Move a study away while nothing of it is being saved, unless an object has come.

        Parameters
        ----------
        study
            The study.
        seen
            What `all` was when it was decided.
        move
            Does it, at once.

        Returns
        -------
        bool
            Whether it was moved.
        """
        with self._lock:
            if study in self._in_hand.values() or self._all[study] != seen:
                return False
            move()
            self._last.pop(study, None)
            return True
