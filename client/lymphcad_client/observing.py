"""Who looks on while nodes are scored: the audit trail, metrics, a second bundle in the shadow of the first."""

from __future__ import annotations

import getpass
import os
import time
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lymphcad.errors import CommandError, Refusal, ServerError
from lymphcad.geometry import cut_window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from lymphcad.bundle import Manifest
    from lymphcad.finding import Finding
    from lymphcad.geometry import Window
    from lymphcad.slice import CtSlice
    from lymphcad_client.edge.scorer import EdgeScorer
    from lymphcad_client.servers import Servers
    from lymphcad_client.tls import Tls

ASKING: ContextVar[str] = ContextVar("ASKING", default="")
"""Who asks for what is scored now, where one process scores for several people; empty for who runs it."""


@dataclass(frozen=True)
class Seen:
    """One request for one node, and how it ended.

    Attributes
    ----------
    window
        What was asked; None if the image or the node was refused before there was one.
    finding
        The answer; None if there is none.
    error
        Why there is none.
    seconds
        From the request to its end.
    manifest, digest
        Of the bundle that was to answer.
    who
        Asked for it: a name, never to leave the process as it is.
    """

    window: Window | None
    finding: Finding | None
    error: Refusal | ServerError | None
    seconds: float
    manifest: Manifest
    digest: str
    who: str


class Observer(Protocol):
    """Looks on; safe to call from several threads."""

    def saw(self, seen: Seen) -> None:
        """Take note of a request, in its own thread and before its answer is given out: quickly.

        Raises
        ------
        ServerError
            If the answer must not be given out; the audit trail alone does that.
        """
        ...

    def close(self) -> None:
        """Finish what is begun."""
        ...


class Observed:
    """A scorer that is looked at; see `lymphcad_client.scorer.Scorer`.

    Parameters
    ----------
    scorer
        Which scores; closed with this.
    observers
        Told of each request; closed with this, after the scorer.

    Attributes
    ----------
    manifest, digest, about, at_once
        The scorer's.
    """

    def __init__(self, scorer: Servers | EdgeScorer, observers: Sequence[Observer]) -> None:
        self._scorer, self._observers = scorer, observers
        self.manifest, self.digest = scorer.manifest, scorer.digest
        self.about, self.at_once = scorer.about, scorer.at_once

    def __enter__(self) -> Observed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what scorer and observers hold."""
        with ExitStack() as stack:
            for observer in self._observers:
                stack.callback(observer.close)
            stack.callback(self._scorer.close)

    def wait_no_longer(self) -> None:
        """Let nodes fail that no server answers now."""
        self._scorer.wait_no_longer()

    def score(self, ct: CtSlice, row: float, col: float) -> Finding:
        """Score one node; see `Scorer.score`."""
        preprocess = self.manifest.preprocess
        try:
            window = cut_window(ct, row, col, preprocess.field_of_view_mm, preprocess.size)
        except Refusal as refusal:
            self.refused(refusal)
            raise
        return self.score_window(window)

    def score_window(self, window: Window) -> Finding:
        """Score a node's window; see `Scorer.score_window`."""
        started = time.perf_counter()
        try:
            finding = self._scorer.score_window(window)
        except (Refusal, ServerError) as error:
            self._tell(window, None, error, time.perf_counter() - started)
            raise
        self._tell(window, finding, None, time.perf_counter() - started)
        return finding

    def refused(self, refusal: Refusal) -> None:
        """Have it noted that an image or a node was refused before there was a window to score."""
        self._tell(None, None, refusal, 0.0)

    def _tell(
        self, window: Window | None, finding: Finding | None, error: Refusal | ServerError | None, seconds: float
    ) -> None:
        tell(self._observers, Seen(window, finding, error, seconds, self.manifest, self.digest, asked_by()))


def tell(observers: Sequence[Observer], seen: Seen) -> None:
    """Tell each observer.

    Raises
    ------
    ServerError
        If the answer must not be given out.
    """
    for observer in observers:
        observer.saw(seen)


def asked_by() -> str:
    """Return who asks now: as whom somebody signed in, else the account that runs this."""
    return ASKING.get() or _account()


def _account() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user has a number and no name
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown"


@dataclass(frozen=True)
class Observing:
    """What a command line says of it.

    Attributes
    ----------
    audit
        File of the audit trail.
    metrics
        ``HOST:PORT`` to give metrics out at.
    shadow
        Address of a server, or folder of a bundle, that is asked the same.
    shadow_out
        File for the pairs of answers.
    """

    audit: Path | None = None
    metrics: str | None = None
    shadow: str | None = None
    shadow_out: Path | None = None

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return any(value is not None for value in vars(self).values())

    def check(self) -> None:
        """Raise if the options do not go together.

        Raises
        ------
        CommandError
            If only one of `shadow` and `shadow_out` is given.
        """
        if (self.shadow is None) != (self.shadow_out is None):
            raise CommandError("--shadow and --shadow-out go together: give both")

    def observe(self, scorer: Servers | EdgeScorer, tls: Tls | None) -> Servers | EdgeScorer | Observed:
        """Return a scorer that is looked at, or the scorer itself if nothing is asked for.

        Parameters
        ----------
        scorer
            Which scores; closed if this raises.
        tls
            See `observers`.

        Raises
        ------
        CommandError
            If an observer cannot be opened.
        """
        if not self:
            return scorer
        with ExitStack() as stack:
            stack.callback(scorer.close)
            observed = Observed(scorer, self.observers(tls))
            stack.pop_all()
        return observed

    def observers(self, tls: Tls | None) -> list[Observer]:
        """Open what is asked for; only what it needs is imported.

        Parameters
        ----------
        tls
            To the server in the shadow, if its address has TLS.

        Raises
        ------
        CommandError
            If one cannot be opened.
        """
        self.check()
        opened: list[Observer] = []
        with ExitStack() as stack:
            if self.metrics is not None:
                from lymphcad_client.metrics import open_metrics

                opened.append(open_metrics(self.metrics))
                stack.callback(opened[-1].close)
            if self.shadow is not None and self.shadow_out is not None:
                from lymphcad_client.shadow import open_shadow

                opened.append(open_shadow(self.shadow, tls, self.shadow_out))
                stack.callback(opened[-1].close)
            if self.audit is not None:
                from lymphcad_client.audit import open_audit

                opened.append(open_audit(self.audit))
            stack.pop_all()
        return opened
