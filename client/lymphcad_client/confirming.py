"""Ask once for many answers whether the server still serves what it served."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Confirmation:
    """Asks a question after each answer, once for all answers that came in while it was asked before.

    Behind an address another server can answer from one request to the next, so what an answer means is known only
    if the server is asked afterwards. A question for each node would cost what it can be shared to save.

    Parameters
    ----------
    ask
        Raises if the server serves something else.
    gather_s
        How long a question waits for further answers to share it.
    """

    def __init__(self, ask: Callable[[], None], gather_s: float = 0.0) -> None:
        self._ask, self._gather_s = ask, gather_s
        self._asking, self._lock = threading.Lock(), threading.Lock()
        self._next: Future[None] | None = None

    def wait(self) -> None:
        """Return once a question that was begun after this call has been answered.

        Raises
        ------
        Exception
            What that question raised.
        """
        with self._lock:
            first = self._next is None
            mine = self._next = self._next or Future()
        if first:
            with self._asking:
                time.sleep(self._gather_s)
                with self._lock:
                    self._next = None  # it begins now: who comes later needs another
                try:
                    self._ask()
                except BaseException as error:  # noqa: BLE001 - all who wait for it get it, this caller too
                    mine.set_exception(error)
                else:
                    mine.set_result(None)
        mine.result()
