"""Processes that read and draw beside this one, and are replaced when one of them dies."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lymphcad.errors import LymphcadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import TracebackType

T = TypeVar("T")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of ``mallopt`` (malloc.h)."""


class WorkerDied(LymphcadError):  # noqa: N818 - what is done about it depends on the task
    """A task ended the process that it ran in, twice: out of memory, or a fault in a decoder."""


class Workers:
    """A pool of processes.

    A process that dies takes the pool with it (`concurrent.futures`); then a new one is made, and what was lost is done
    again, each task by itself, so that only the task that kills its process twice fails.

    Parameters
    ----------
    jobs
        How many processes.
    """

    def __init__(self, jobs: int) -> None:
        _keep_memory()
        self.jobs = jobs
        self._lock = threading.Lock()
        self._pool = self._made()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; what has not begun is not done."""
        self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Task[T]:
        """Have a process call a function of a module.

        Parameters
        ----------
        function, arguments
            To be pickled.

        Returns
        -------
        Task
            What waits for it.
        """
        with self._lock:
            try:
                return Task(self, self._pool, self._pool.submit(function, *arguments), function, arguments)
            except BrokenProcessPool:
                self._pool = self._made()
                return Task(self, self._pool, self._pool.submit(function, *arguments), function, arguments)

    def again(self, broken: ProcessPoolExecutor, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """Do a task of a pool that broke by itself; no other task of the new pool is at risk.

        Raises
        ------
        WorkerDied
            If it breaks that pool, too.
        """
        with self._lock:
            if self._pool is broken:
                self._pool = self._made()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin) as alone:
            try:
                return alone.submit(function, *arguments).result()
            except BrokenProcessPool:
                raise WorkerDied("a process was ended by the system, twice by the same task: see its memory") from None

    def _made(self) -> ProcessPoolExecutor:
        # spawn: what gRPC has open in this process must not be copied into another.
        return ProcessPoolExecutor(self.jobs, multiprocessing.get_context("spawn"), _begin)


class Task(Generic[T]):
    """What was asked of `Workers`."""

    def __init__(
        self,
        workers: Workers,
        pool: ProcessPoolExecutor,
        future: Future[T],
        function: Callable[..., T],
        arguments: tuple[Any, ...],
    ) -> None:
        self._workers, self._pool, self._future = workers, pool, future
        self._function, self._arguments = function, arguments

    def result(self) -> T:
        """Wait for it, and return what the function returned or raise what it raised.

        Raises
        ------
        WorkerDied
            If it ended its process twice.
        """
        try:
            return self._future.result()
        except BrokenProcessPool:
            return self._workers.again(self._pool, self._function, self._arguments)


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
