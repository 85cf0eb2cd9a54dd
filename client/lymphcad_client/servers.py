"""Several Triton servers as one scorer: who is asked, what is tried again, and when it is given up."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

from lymphcad.errors import CommandError, Reason, ServerError
from lymphcad.geometry import cut_window
from lymphcad_client.confirming import Confirmation
from lymphcad_client.triton import AT_ONCE, TritonScorer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from lymphcad.finding import Finding
    from lymphcad.geometry import Window
    from lymphcad.slice import CtSlice
    from lymphcad_client.tls import Tls

TRANSIENT = frozenset({
    Reason.SERVER_AWAY, Reason.SERVER_NOT_READY, Reason.SERVER_TIMEOUT, Reason.SERVER_BUSY, Reason.OTHER_BUNDLE,
})  # fmt: skip
"""What a server may have recovered from when it is asked again."""
ELSEWHERE = frozenset({Reason.BAD_ANSWER, Reason.MODEL_MISSING})
"""What the same server will say again, and another one may not. All else is the node's own, and is final."""
TRIES = 5
"""A node that was in flight when so many requests failed is given up: it may be what they failed of."""
_GATHER_S = 0.02
"""A question to a server costs it what a tenth of a small network does; one is enough for the answers of so long."""
_MORE_AT_ONCE = 2
"""Times a server's own `at_once`: as many again wait for the question while the server is kept busy."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 15.0


class Servers:
    """Score on whichever of several servers answers; see `lymphcad_client.scorer.Scorer`.

    A server whose request fails is not given nodes (its circuit is open) until it has been asked again, after a pause
    that doubles with each failure and is drawn at random from its upper half, and serves the same bundle. Of the others
    the one with the fewest requests in flight is asked. Nodes wait; a node fails when it was tried `TRIES` times, or
    when no server has answered anything for `patience_s`.

    After each answer the server is asked whether it still serves the bundle (`Confirmation`), and only then it counts.

    Parameters
    ----------
    addresses
        Each ``grpc://host:port``, or ``grpcs://host:port`` for TLS.
    bundle_digest
        Only this bundle may answer; the first server's if None.
    timeout_s
        For one request.
    patience_s
        How long no server may answer.
    tls
        Certificates, for addresses with TLS.

    Attributes
    ----------
    manifest, digest
        Of the bundle that the servers serve.
    about
        Who answers, and which servers did not answer when this was made.
    at_once
        Of all servers together.

    Raises
    ------
    CommandError
        If an address is not one, or stands twice.
    ServerError
        What the first server says, if none can be used; ``other_bundle`` if one serves another bundle.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        bundle_digest: str | None = None,
        timeout_s: float = 30.0,
        patience_s: float = 120.0,
        tls: Tls | None = None,
    ) -> None:
        if len(set(addresses)) < len(addresses):
            raise CommandError("the same server was given twice: name each --server once")
        self._timeout, self._patience = timeout_s, patience_s
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._servers: list[_Server] = []
        away: list[str] = []
        try:
            for address in addresses:
                server = _Server(address, timeout_s, bundle_digest, tls)
                self._servers.append(server)
                try:
                    scorer = server.connect()
                except ServerError as error:
                    if error.reason not in TRANSIENT or error.reason is Reason.OTHER_BUNDLE:
                        raise
                    server.why = error
                    away.append(address)
                    continue
                bundle_digest = scorer.digest
            used = next((server.scorer for server in self._servers if server.scorer is not None), None)
            if used is None:
                raise self._servers[0].why or ServerError(Reason.SERVER_AWAY, "no server was given")
        except BaseException:
            self.close()
            raise
        self.manifest, self.digest = used.manifest, used.digest
        at_once = sum(AT_ONCE if server.scorer is None else server.scorer.at_once for server in self._servers)
        self.at_once = _MORE_AT_ONCE * at_once
        self.about = used.about if len(addresses) == 1 else f"Scored by {len(addresses)} Triton servers."
        if away:
            self.about += f" Away at the start, and asked again from time to time: {', '.join(away)}."
        self._last_answer = time.monotonic()
        for server in self._servers:
            server.digest = used.digest
            if server.scorer is None:
                self._open_circuit(server)

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give shared memory and connections back."""
        self._closed.set()
        for server in self._servers:
            if server.mending is not None:
                server.mending.join()
            if server.scorer is not None:
                server.scorer.close()

    def wait_no_longer(self) -> None:
        """Let nodes fail that no server answers now; what is in flight is still waited for."""
        with self._changed:
            self._patience = 0.0
            self._changed.notify_all()

    def score(self, ct: CtSlice, row: float, col: float) -> Finding:
        """Score one node; see `Scorer.score`."""
        preprocess = self.manifest.preprocess
        return self.score_window(cut_window(ct, row, col, preprocess.field_of_view_mm, preprocess.size))

    def score_window(self, window: Window) -> Finding:
        """Score a node's window; see `Scorer.score_window`."""
        refused_by: set[str] = set()
        why: ServerError | None = None
        for _ in range(TRIES):
            server, scorer = self._choose(refused_by, why)
            try:
                answer = scorer.score_window(window)
                server.confirmation.wait()
            except ServerError as error:
                why = error
                self._failed(server, scorer, error)
                if error.reason in ELSEWHERE:
                    refused_by.add(server.address)
                elif error.reason not in TRANSIENT:
                    raise
            else:
                self._answered(server)
                return answer
        raise why or ServerError(Reason.SERVER_AWAY, "no server was asked")

    def _choose(self, refused_by: set[str], why: ServerError | None) -> tuple[_Server, TritonScorer]:
        """Return a server whose circuit is closed; wait for one.

        Raises
        ------
        ServerError
            Why there is none.
        """
        with self._changed:
            while True:
                others = [server for server in self._servers if server.address not in refused_by]
                ready = [(server.in_flight, server) for server in others if server.mending is None]
                if ready:
                    server = min(ready, key=lambda pair: pair[0])[1]
                    if server.scorer is None:
                        raise RuntimeError("a circuit is closed only when there is a connection")
                    server.in_flight += 1
                    return server, server.scorer
                left = self._last_answer + self._patience - time.monotonic()
                if not others or left <= 0:
                    # What keeps a server away now says more than what the node met when it was tried.
                    said = [server.why for server in others if server.why is not None]
                    raise said[0] if said else why or ServerError(Reason.SERVER_AWAY, "no server was asked")
                self._changed.wait(left)

    def _answered(self, server: _Server) -> None:
        with self._changed:
            server.in_flight -= 1
            server.failures = 0
            self._last_answer = time.monotonic()

    def _failed(self, server: _Server, scorer: TritonScorer, error: ServerError) -> None:
        with self._changed:
            server.in_flight -= 1
            # A late failure of a connection that was replaced says nothing of the new one, and a final error nothing.
            if scorer is server.scorer and error.reason in TRANSIENT | ELSEWHERE:
                server.why = error
                self._open_circuit(server)

    def _open_circuit(self, server: _Server) -> None:
        if server.mending is None and not self._closed.is_set():
            server.mending = threading.Thread(target=self._mend, args=(server,), daemon=True)
            server.mending.start()

    def _mend(self, server: _Server) -> None:
        """Ask a server again until it can be used, then close its circuit."""
        while True:
            server.failures += 1
            pause = min(_FIRST_PAUSE_S * 2 ** min(server.failures - 1, 10), _LONGEST_PAUSE_S)
            if self._closed.wait(pause * random.uniform(0.5, 1)):  # noqa: S311 - so that clients do not come all at once
                return
            try:
                server.connect()
            except ServerError as error:
                server.why = error
                continue
            with self._changed:
                server.mending = None
                self._changed.notify_all()
            return


class _Server:
    """One of the servers: its connection, and whether its circuit is open (`mending`)."""

    def __init__(self, address: str, timeout_s: float, digest: str | None, tls: Tls | None) -> None:
        self.address, self.digest, self._tls = address, digest, tls
        self.scorer: TritonScorer | None = None
        self.why: ServerError | None = None
        self.in_flight = self.failures = 0
        self.mending: threading.Thread | None = None
        self.confirmation = Confirmation(self._check, _GATHER_S)
        self._timeout = timeout_s

    def connect(self) -> TritonScorer:
        """Connect anew: a server that was started again knows nothing of the shared memory of before."""
        fresh = TritonScorer(self.address, bundle_digest=self.digest, timeout_s=self._timeout, tls=self._tls)
        old, self.scorer = self.scorer, fresh
        if old is not None:
            old.close()
        return fresh

    def _check(self) -> None:
        if self.scorer is not None:
            self.scorer.check()
