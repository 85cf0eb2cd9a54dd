"""The node as a whole: one thread an association receives, one scores, one stores; this one waits for the end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from lymphcad_client.listen.arrivals import Arrivals
from lymphcad_client.listen.dispatcher import Dispatcher
from lymphcad_client.listen.listener import Listener
from lymphcad_client.listen.spool import Spool
from lymphcad_client.pacs.storage_node import StorageNode

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path
    from typing import Any

    from lymphcad_client.dicom.study import Kind
    from lymphcad_client.listen.arrivals import Brought
    from lymphcad_client.listen.dispatcher import Delivery
    from lymphcad_client.listen.listener import Event
    from lymphcad_client.pacs.receiving import Identity, NotSaved, Saved
    from lymphcad_client.pacs.sending import Sent
    from lymphcad_client.scorer import Scorer


class Node:
    """Receive, score and store until it is told to stop.

    Parameters
    ----------
    spool
        Its folder.
    scorer
        Answers.
    send
        Stores files at the PACS; see `Dispatcher`.
    report
        Called from several threads with what happens: what an association brought, what a study has come to, what
        became of its results; or a sentence.
    port, ae_title, bind, allow, tls, max_object_bytes, max_associations
        See `StorageNode`.
    kinds
        Of DICOM results.
    settle_s, keep_s
        See `Listener`.
    """

    def __init__(
        self,
        spool: Spool,
        scorer: Scorer,
        send: Callable[[Sequence[Path]], Iterable[Sent]],
        report: Callable[[Event | Delivery | Brought | str], None],
        *,
        port: int,
        ae_title: str,
        kinds: Collection[Kind],
        settle_s: float,
        keep_s: float,
        bind: str = "127.0.0.1",
        allow: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        max_object_bytes: int = 512 * 1024**2,
        max_associations: int = 10,
    ) -> None:
        self._spool, self._report, self._arrivals = spool, report, Arrivals()
        self._listener = Listener(spool, self._arrivals, scorer, kinds, report, settle_s=settle_s, keep_s=keep_s)
        self._dispatcher = Dispatcher(spool, send, report)
        self._storage = StorageNode(
            port,
            ae_title,
            self._place,
            self._stored,
            on_refused=self._refused,
            on_closed=self._closed,
            on_rejected=self._rejected,
            bind=bind,
            allow=allow,
            tls=tls,
            max_object_bytes=max_object_bytes,
            max_associations=max_associations,
        )
        self._fault: BaseException | None = None

    def run(self, stop: threading.Event, listening: Callable[[int], None] = lambda _: None) -> None:
        """Work until `stop` is set; then finish the study in hand.

        Parameters
        ----------
        stop
            Set it from a signal's handler or another thread.
        listening
            Called with the port once it is listened on.

        Raises
        ------
        CommandError
            If the port cannot be listened on, or the folder cannot be used.
        """
        threads = [
            threading.Thread(target=self._guarded, args=(work.run, stop), daemon=True)
            for work in (self._listener, self._dispatcher)
        ]
        with self._storage:
            for thread in threads:
                thread.start()
            listening(self._storage.port)
            while not stop.wait(1.0):
                pass
        for thread in threads:
            while thread.is_alive():  # a join without a limit would keep signals from being seen on Windows
                thread.join(0.2)
        if self._fault is not None:
            raise self._fault

    def _guarded(self, work: Callable[[threading.Event], None], stop: threading.Event) -> None:
        """Have the whole node end if one of its threads cannot go on: it would take in what nobody scores."""
        try:
            work(stop)
        except BaseException as error:  # noqa: BLE001 - it is raised again in `run`
            self._fault = self._fault or error
            stop.set()

    def _place(self, identity: Identity) -> Path:
        self._arrivals.begin(self._spool.name(identity))
        return self._spool.place(identity)

    def _stored(self, association: Any, saved: Saved) -> None:
        self._arrivals.saved(association, self._spool.name(saved.identity), is_new=saved.is_new)

    def _refused(self, association: Any, refused: NotSaved) -> None:
        self._arrivals.refused(association, refused.reason)

    def _closed(self, association: Any) -> None:
        brought = self._arrivals.closed(association)
        if brought is not None:
            self._report(brought)

    def _rejected(self) -> None:
        self._report("an association was turned away: its AE title may not send, or too many are open")
