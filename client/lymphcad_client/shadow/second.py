"""Who is asked second: it may be away and come back, and may look at less of a slice than the first, or at more."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lymphcad.errors import LymphcadError, Reason, ServerError
from lymphcad.geometry import cut_window
from lymphcad.slice import CtSlice
from lymphcad_client.opening import Choice

if TYPE_CHECKING:
    from lymphcad.bundle import Preprocess
    from lymphcad.finding import Finding
    from lymphcad.geometry import Window
    from lymphcad_client.edge.scorer import EdgeScorer
    from lymphcad_client.servers import Servers
    from lymphcad_client.tls import Tls

_TIMEOUT_S = 5.0
"""For one request: a shadow that takes longer is not what anybody would put in the first one's place."""
_PAUSE_S = 1.0
"""Between two tries to reach a server that was never there."""


class WindowTooSmallError(LymphcadError):
    """The second bundle weighs pixels that the window of the first one does not hold."""


class Second(Protocol):
    """Who is asked second; safe to call from several threads.

    Attributes
    ----------
    at_once
        How many windows it is given at once.
    """

    at_once: int

    def ask(self, window: Window, preprocess: Preprocess) -> tuple[Finding, Preprocess]:
        """Score a window that was cut with the first bundle's `preprocess`; return its own `preprocess`, too.

        Raises
        ------
        Refusal
            If the node cannot be scored.
        ServerError
            If it does not answer as it must.
        WindowTooSmallError
            If it cannot be asked.
        """
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class SecondBundle:
    """A bundle in this process; one node at a time, for the first one's work needs the cores.

    Parameters
    ----------
    path
        Of the bundle.

    Raises
    ------
    LymphcadError
        As `lymphcad_client.opening.Choice.open_edge` does.
    """

    at_once = 1

    def __init__(self, path: Path) -> None:
        self._scorer = Choice(edge=path).open_edge()

    def ask(self, window: Window, preprocess: Preprocess) -> tuple[Finding, Preprocess]:
        """See `Second.ask`."""
        return _ask(self._scorer, window, preprocess)

    def close(self) -> None:
        """See `Second.close`."""
        self._scorer.close()


class SecondServer:
    """A Triton server, to which the connection is made when it is first asked.

    Parameters
    ----------
    address, tls
        See `lymphcad_client.servers.Servers`.

    Raises
    ------
    CommandError
        If the address is none, or a certificate cannot be read.
    """

    at_once = 4

    def __init__(self, address: str, tls: Tls | None) -> None:
        from lymphcad_client.tls import open_channel, parse_address

        parsed = parse_address(address)
        tls = tls if parsed.secure else None
        open_channel(parsed, tls).close()  # which reads the certificates, and connects to nothing
        # No patience: while the server is away nodes fail at once, and the queue goes on.
        self._choice = Choice((address,), timeout_s=_TIMEOUT_S, patience_s=0.0, tls=tls)
        self._lock = threading.Lock()
        self._servers: Servers | EdgeScorer | None = None
        self._away: ServerError | None = None
        self._tried = 0.0

    def ask(self, window: Window, preprocess: Preprocess) -> tuple[Finding, Preprocess]:
        """See `Second.ask`."""
        return _ask(self._connected(), window, preprocess)

    def close(self) -> None:
        """See `Second.close`."""
        with self._lock:
            if self._servers is not None:
                self._servers.close()
            self._away, self._tried = ServerError(Reason.SERVER_AWAY, "the shadow was closed"), float("inf")

    def _connected(self) -> Servers | EdgeScorer:
        with self._lock:
            if self._servers is None:
                if self._away is not None and time.monotonic() - self._tried < _PAUSE_S:
                    raise self._away
                try:
                    self._servers = self._choice.open()
                except ServerError as error:
                    self._away, self._tried = error, time.monotonic()
                    raise
            return self._servers


def second_of(address: str, tls: Tls | None) -> Second:
    """Return who is asked second; see `lymphcad_client.shadow.open_shadow`."""
    return SecondServer(address, tls) if "://" in address else SecondBundle(Path(address))


def _ask(scorer: Servers | EdgeScorer, window: Window, first: Preprocess) -> tuple[Finding, Preprocess]:
    own = scorer.manifest.preprocess
    if (first.field_of_view_mm, first.size) != (own.field_of_view_mm, own.size):
        # What it would have been given had it been asked first. A window has its node in its middle, so one of at
        # least these sides holds every pixel of it.
        sides = window.image.shape
        window = cut_window(
            CtSlice(window.image, window.spacing_mm, Path()), *window.center, own.field_of_view_mm, own.size
        )
        if any(needed > side for needed, side in zip(window.image.shape, sides, strict=True)):
            raise WindowTooSmallError("the second bundle weighs more of the slice than the first one's window holds")
    return scorer.score_window(window), own
