"""What answers, for a page that outlives the servers it asks: they go away, come back, and serve another bundle."""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lymphcad_client.observing import Seen, asked_by, tell
from lymphcad_client.opening import open_scorer
from lymphcad_client.tls import parse_address
from lymphcad_client.triton import TritonScorer

from lymphcad.bundle import bundle_label
from lymphcad.errors import CommandError, Reason, Refusal, ServerError
from lymphcad.geometry import cut_window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lymphcad_client.edge.runner import Name
    from lymphcad_client.edge.scorer import EdgeScorer
    from lymphcad_client.observing import Observer
    from lymphcad_client.tls import Tls

    from lymphcad.bundle import Manifest, Precision
    from lymphcad.finding import Finding
    from lymphcad.geometry import Window
    from lymphcad.slice import CtSlice
    from lymphcad_dashboard.settings import Settings

_ASK_AGAIN_S = 1.0
_RENEW_S = 600.0
"""A connection stays with its bundle while any server behind a balancer has it; a page is open for weeks."""
_NEVER = -math.inf
_STALE = (Reason.SERVER_AWAY, Reason.OTHER_BUNDLE)
"""What a new connection can mend."""


@dataclass(frozen=True)
class Where:
    """A server, or a bundle in this process: one of `server` and `edge`; `tls` goes with the first, the rest not."""

    server: str | None = None
    edge: Path | None = None
    runner: Name = "auto"
    precision: Precision | None = None
    engines: Path | None = None
    key: Path | None = None
    tls: Tls | None = None


@dataclass(frozen=True)
class Status:
    """What an engine is now.

    Attributes
    ----------
    ready
        Whether it would answer.
    sentence
        For people: who answers, or why nobody does.
    manifest
        Of the bundle that answers; None if not ready, as are the next three empty.
    label, digest
        Name and digest of the bundle, and the whole digest.
    about
        Who answers, and in which precision.
    """

    ready: bool
    sentence: str
    manifest: Manifest | None = None
    label: str = ""
    digest: str = ""
    about: str = ""


@dataclass(frozen=True)
class Answer:
    """For one node.

    Attributes
    ----------
    finding
        The answer.
    manifest
        Of the bundle that gave it.
    seconds
        How long it took, with making sure of who answers.
    """

    finding: Finding
    manifest: Manifest
    seconds: float


class _Held:
    """A scorer, and how many threads are at work with it; the last one closes it once it has been replaced."""

    def __init__(self, scorer: TritonScorer | EdgeScorer) -> None:
        self.scorer, self.users, self.replaced, self.closed = scorer, 0, False, False
        self.since = time.monotonic()


class Engine:
    """Scores nodes for all sessions of a page; safe to call from several threads.

    Parameters
    ----------
    where
        What answers. A bundle is opened now; a server may be away.
    timeout_s
        For one request to a server.
    observers
        Told of each request.

    Attributes
    ----------
    place
        ``this machine``, or the server's address.
    remote
        Whether it is a server.

    Raises
    ------
    CommandError
        If options exclude each other, the address is none, or the runner cannot run here.
    BundleError
        If the bundle is not there or was changed.
    GoldenError
        If this machine computes something else than the bundle was proven with.
    """

    def __init__(self, where: Where, timeout_s: float = 10.0, observers: Sequence[Observer] = ()) -> None:
        self._where, self._timeout, self._observers = where, timeout_s, observers
        self.remote = where.server is not None
        self.place = where.server or "this machine"
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._held: _Held | None = None
        self._asked, self._status = _NEVER, Status(ready=False, sentence="Nobody was asked yet.")
        try:
            self._held = _Held(self._open())
        except ServerError:
            if not self.remote:
                raise

    def close(self) -> None:
        """Give memory and connection back; who is at work still gets an answer."""
        self._replace(self._held, None)

    def status(self) -> Status:
        """Return what it is now; a server is asked at most once a second, and by one thread.

        Returns
        -------
        Status
            Not ready, with a sentence, if the server is away, hangs or serves nothing that this version reads.
        """
        if self._asking.acquire(blocking=self._asked == _NEVER):
            try:
                if time.monotonic() - self._asked >= _ASK_AGAIN_S:
                    self._status = self._ask()
                    self._asked = time.monotonic()
            finally:
                self._asking.release()
        return self._status

    def score(self, ct: CtSlice, row: float, col: float) -> Answer:
        """Score the node at (row, col), zero-based pixel coordinates.

        A server is asked which bundle it serves before and after, so that no answer gets another bundle's meaning.

        Raises
        ------
        Refusal
            If the node cannot be scored.
        ServerError
            If the engine is away or did not answer as it must.
        """
        started = time.perf_counter()
        with self._current() as scorer:
            try:
                found = self._ask_for(scorer, ct, row, col, started)
            except Refusal as refusal:
                self._tell(scorer, None, None, refusal, started)
                raise
            return Answer(found, scorer.manifest, time.perf_counter() - started)

    def _ask_for(
        self, scorer: TritonScorer | EdgeScorer, ct: CtSlice, row: float, col: float, started: float
    ) -> Finding:
        preprocess = scorer.manifest.preprocess
        window = cut_window(ct, row, col, preprocess.field_of_view_mm, preprocess.size)
        try:
            found = scorer.score_window(window)
            if isinstance(scorer, TritonScorer):
                scorer.check()
        except ServerError as error:
            self._tell(scorer, window, None, error, started)
            raise
        self._tell(scorer, window, found, None, started)
        return found

    def _tell(
        self,
        scorer: TritonScorer | EdgeScorer,
        window: Window | None,
        found: Finding | None,
        error: Refusal | ServerError | None,
        started: float,
    ) -> None:
        seconds = time.perf_counter() - started
        tell(self._observers, Seen(window, found, error, seconds, scorer.manifest, scorer.digest, asked_by()))

    def _ask(self) -> Status:
        try:
            with self._current() as scorer:
                label = bundle_label(scorer.manifest, scorer.digest)
                return Status(True, scorer.about, scorer.manifest, label, scorer.digest, scorer.about)
        except ServerError as error:
            return Status(ready=False, sentence=str(error))

    @contextlib.contextmanager
    def _current(self) -> Iterator[TritonScorer | EdgeScorer]:
        """Lend a scorer that knows what is served now."""
        held = self._take()
        if held is not None and self.remote and time.monotonic() - held.since > _RENEW_S:
            self._replace(held, None)
            self._give_back(held)
            held = None
        try:
            if held is not None and isinstance(held.scorer, TritonScorer):
                try:
                    held.scorer.check()
                except ServerError as error:
                    # Its own connection would wait ever longer between tries, and its memory is not the new server's.
                    self._replace(held, None)
                    self._give_back(held)
                    held = None
                    if error.reason not in _STALE:
                        raise
            if held is None:
                self._replace(None, _Held(self._open()))
                held = self._take()
                if held is None:
                    raise ServerError(Reason.SERVER_AWAY, f"the server at {self.place} went away again: try again")
            yield held.scorer
        finally:
            if held is not None:
                self._give_back(held)

    def _open(self) -> TritonScorer | EdgeScorer:
        return open_scorer(**vars(self._where), timeout_s=self._timeout)

    def _take(self) -> _Held | None:
        with self._lock:
            if self._held is not None:
                self._held.users += 1
            return self._held

    def _give_back(self, held: _Held) -> None:
        with self._lock:
            held.users -= 1
        self._close_unused(held)

    def _replace(self, old: _Held | None, new: _Held | None) -> None:
        """Put one scorer in the place of another, unless another thread was faster."""
        with self._lock:
            if self._held is old:
                self._held, superfluous = new, old
            else:
                superfluous = new
            if superfluous is not None:
                superfluous.replaced = True
        if superfluous is not None:
            self._close_unused(superfluous)

    def _close_unused(self, held: _Held) -> None:
        with self._lock:
            close = held.replaced and not held.users and not held.closed
            held.closed = held.closed or close
        if close:
            # Apart: a server that hangs is waited for, and the user has an answer already.
            threading.Thread(target=held.scorer.close, name="lymphcad-close", daemon=True).start()


_OPENING = threading.Lock()


def open_engines(settings: Settings) -> tuple[Engine, ...]:
    """Return what answers: one engine, or two to compare; opened once in this process and shared by all sessions.

    Raises
    ------
    LymphcadError
        As `Engine` does.
    """
    with _OPENING:
        return _open_engines(settings)


@functools.lru_cache
def _open_engines(settings: Settings) -> tuple[Engine, ...]:
    return tuple(Engine(where, observers=open_observers(settings)) for where in places(settings))


@functools.lru_cache
def open_observers(settings: Settings) -> tuple[Observer, ...]:
    """Return who looks on; opened once in this process.

    Raises
    ------
    CommandError
        If options exclude each other, or one cannot be opened.
    """
    if settings.compare is not None and settings.shadow is not None:
        raise CommandError("--compare shows a second answer, and --shadow keeps one unseen: use one of them")
    return tuple(settings.observing.observers(settings.tls))


def places(settings: Settings) -> tuple[Where, ...]:
    """Return where the answers of a dashboard come from.

    A bundle to compare with is run as `Settings.edge` is and must be signed by the same key; its precision is its own.

    Raises
    ------
    CommandError
        If options exclude each other.
    """
    other = settings.compare
    bundle = None if other is None or "://" in other else Path(other)
    tls = settings.tls
    first = Where(settings.server, settings.edge, precision=settings.precision, engines=settings.engines, tls=tls)
    if bundle is None or settings.server is None:  # else they go with the other alone
        first = replace(first, runner=settings.runner, key=settings.key)
    if other is None:
        return (first,)
    if bundle is None:
        return first, Where(server=other, tls=tls if parse_address(other).secure else None)
    # An engine for an RTX GPU is built of one bundle.
    runner = "auto" if settings.runner == "tensorrt-rtx" else settings.runner
    return first, Where(edge=bundle, runner=runner, key=settings.key)
