"""Watch over a running server: say that it is ready only while it is, and stop it without losing a request."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from lymphcad_client.triton import TritonScorer

from lymphcad.errors import CommandError, Reason, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from lymphcad_serve.server import Server

_EVERY_S = 2.0
_SOON_S = 0.2


class Stopping:
    """Whether SIGTERM or SIGINT came: the first asks to stop, the second to stop at once."""

    def __init__(self) -> None:
        self.asked, self.at_once = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take both signals; a shell starts its background jobs with SIGINT ignored, so it is set, too."""
        before = {number: signal.signal(number, self._came) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _came(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked.is_set():
            self.at_once.set()
        self.asked.set()


def watch_over(server: Server, ready_file: ReadyFile, drain_s: float, stopping: Stopping) -> None:
    """Return once the server is to be stopped, and nobody is sent to it any more.

    Parameters
    ----------
    server
        Which runs, and whose golden inputs match.
    ready_file
        For whoever sends requests.
    drain_s
        How long the server still answers after it was asked to stop, so that all have seen that it is not ready.
    stopping
        Asks to stop.

    Raises
    ------
    ServerError
        ``server_away`` if the server stops by itself.
    CommandError
        If the ready file cannot be written.
    """
    next_look = 0.0
    try:
        with TritonScorer(server.address, timeout_s=_EVERY_S, tls=server.tls) as scorer:
            while not stopping.asked.wait(_SOON_S):
                _check_runs(server)
                if time.monotonic() >= next_look:
                    ready_file.say(ready=_is_ready(scorer))
                    next_look = time.monotonic() + _EVERY_S
    finally:
        ready_file.say(ready=False)
    until = time.monotonic() + drain_s
    while time.monotonic() < until and not stopping.at_once.wait(_SOON_S):
        _check_runs(server)


def _check_runs(server: Server) -> None:
    if server.poll() is not None:
        raise ServerError(Reason.SERVER_AWAY, f"tritonserver stopped by itself: {server.last_words()}")


def _is_ready(scorer: TritonScorer) -> bool:
    try:
        scorer.check_ready()
    except ServerError:
        return False
    return True


class ReadyFile:
    """A file that is there while the model is ready.

    Parameters
    ----------
    path
        None for none. What is there now goes: it may be left of a server that was killed.

    Raises
    ------
    CommandError
        If it cannot be removed.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.say(ready=False)

    def say(self, *, ready: bool) -> None:
        """Have the file there, or not.

        Raises
        ------
        CommandError
            If the folder cannot be written to.
        """
        if self._path is None:
            return
        try:
            if ready:
                self._path.touch()
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise CommandError(
                f"the ready file '{self._path}' cannot be written ({error.strerror}): name another with --ready-file"
            ) from None


@contextlib.contextmanager
def passing_on(log: Path, write: Callable[[str], object] = sys.stderr.write) -> Iterator[None]:
    """Write what is written to a log on, while this is open: a container's log is its standard error."""
    done = threading.Event()

    def follow() -> None:
        with log.open(encoding="utf-8", errors="replace") as lines:
            while True:
                last = done.is_set()
                if text := lines.read():
                    write(text)
                if last:
                    return
                done.wait(_SOON_S)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
