"""Processes that read and draw beside this one, and are replaced when one of them dies.

Each has a pipe of its own. The processes of `concurrent.futures.ProcessPoolExecutor` share one for their answers: one
that is killed while it writes leaves half an answer and a lock in it, and everybody waits for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from lymphcad.errors import CommandError, LymphcadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from multiprocessing.connection import Connection
    from types import TracebackType

T = TypeVar("T")
_STARTS = 3
"""Processes that end as they begin, one after the other, before it is given up."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of ``mallopt`` (malloc.h)."""


class WorkerDied(LymphcadError):  # noqa: N818 - what is done about it depends on the task
    """A task ended the process that it ran in, twice: out of memory, or a fault in a decoder."""


class Workers:
    """A pool of processes.

    A process that dies is replaced, and what it did is done again by a fresh one, so that only the task that ends two
    processes fails; others do not notice.

    Parameters
    ----------
    jobs
        How many processes.
    """

    def __init__(self, jobs: int) -> None:
        _keep_memory()
        self.jobs = jobs
        self._threads = ThreadPoolExecutor(jobs)
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for _ in range(jobs):
            self._idle.put(_Process())

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; what has not begun is not done."""
        self._threads.shutdown(cancel_futures=True)
        for _ in range(self.jobs):
            self._idle.get().end()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have a process call a function of a module.

        Parameters
        ----------
        function, arguments
            To be pickled.

        Returns
        -------
        Future
            Of what the function returns or raises; of `WorkerDied` if it ended two processes, and of `CommandError` if
            none can be started.
        """
        return self._threads.submit(self._call, function, arguments)

    def _call(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        process = self._idle.get()
        try:
            for _ in range(2):
                for _ in range(_STARTS):
                    if process.ready():
                        break
                    process = process.replaced()
                else:
                    raise CommandError(
                        "processes that should read images end as they begin: see that memory is not short; a script"
                        " asks for jobs below `if __name__ == '__main__':`"
                    )
                try:
                    answer, error = process.call(function, arguments)
                except (EOFError, OSError):
                    process = process.replaced()
                    continue
                if error is not None:
                    raise error.error from error
                return answer
        finally:
            self._idle.put(process)
        raise WorkerDied("a process was ended by the system, twice by the same task: see its memory")


class _Raised(Exception):  # noqa: N818 - a cause, for who reads the traceback
    """What a function raised in another process, and where."""

    def __init__(self, error: Exception, where: str) -> None:
        super().__init__(error, where)
        self.error = error

    def __str__(self) -> str:
        return f"in another process:\n{self.args[1]}"


class _Process:
    """One process, and this end of its pipe."""

    def __init__(self) -> None:
        # spawn: what gRPC has open in this process must not be copied into another.
        context = multiprocessing.get_context("spawn")
        self._ready = False
        try:
            self._pipe, other = context.Pipe()
            with other:  # which is closed here, so that its end is seen
                self._process = context.Process(target=_serve, args=(other,), daemon=True)
                self._process.start()
        except OSError as error:
            raise CommandError(
                f"no process can be started ({error.strerror}): close other programs, or read in this one with --jobs 0"
            ) from None

    def ready(self) -> bool:
        """Wait until it can be called; return False if it ended before."""
        if not self._ready:
            try:
                self._ready = self._pipe.recv()
            except (EOFError, OSError):
                return False
        return self._ready

    def call(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> tuple[T, _Raised | None]:
        """Return what a function returned, or what it raised; `EOFError` or `OSError` if the process died."""
        self._pipe.send((function, arguments))
        answer: tuple[T, _Raised | None] = self._pipe.recv()
        return answer

    def end(self) -> None:
        """End it; nobody waits for what it does."""
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def replaced(self) -> _Process:
        """Return another one in its place."""
        self.end()
        return _Process()


def _serve(pipe: Connection) -> None:
    """Do what comes through a pipe until it is closed."""
    _begin()
    with contextlib.suppress(EOFError, OSError):
        pipe.send(True)
        while True:
            function, arguments = pipe.recv()
            answer = raised = None
            try:
                answer = function(*arguments)
            except Exception as error:  # noqa: BLE001 - the caller raises it
                raised = _Raised(error, traceback.format_exc())
            pipe.send((answer, raised))
            del answer  # the next task needs the memory


def _begin() -> None:
    """Leave Ctrl-C to the process that this one works for, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_memory()
    caller = multiprocessing.parent_process()
    if caller is not None:
        threading.Thread(target=_end_with, args=(caller.sentinel,), daemon=True).start()


def _keep_memory() -> None:
    """Have the C library use again what was freed: slices and messages between processes come by the thousand.

    As it stands glibc asks the system for each of them anew, and clearing those pages was two thirds of the time that
    the system spent on a run. Other C libraries have no ``mallopt``, and need none.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        library.mallopt(_M_TRIM_THRESHOLD, 1 << 28)


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
