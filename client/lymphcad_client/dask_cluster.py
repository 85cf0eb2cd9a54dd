"""Score on a Dask cluster: each worker reads and scores, the journal stays with the caller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import CancelledError, Client, KilledWorker, Security, wait
from distributed.comm import connect

import lymphcad
from lymphcad.errors import CommandError, LymphcadError, Reason, Refusal
from lymphcad_client.batch import Result
from lymphcad_client.dask_worker import Run, Work, score_here, version_here, wait_no_longer_here
from lymphcad_client.reading import find_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from types import TracebackType

    from lymphcad.images import ImageFinder
    from lymphcad.tables import NodeRow
    from lymphcad_client.opening import Choice
    from lymphcad_client.reading import Prepared

_CHUNK = 16
"""Nodes of one task."""
_CONNECT_S, _LOOK_S = 10.0, 2.0
"""For a connection to the scheduler; between two questions whether there are workers."""
_GONE = (
    "the Dask scheduler went away, or somebody cancelled what it was given: see that it runs, and give the same command"
    " with --resume"
)

Files = list[tuple["NodeRow", Path]]


class Cluster:
    """An existing Dask cluster whose workers have LymphCAD, and see the images under the same paths.

    A worker that dies takes nothing with it: Dask gives its tasks to another. A task whose workers die again and
    again (Dask's ``allowed-failures``) is done node by node while nothing else runs, so that only the node that ends
    them is refused.

    Parameters
    ----------
    address
        Of the scheduler.
    choice
        Who scores; opened by each worker for itself, once.
    digest
        The only bundle that may answer.

    Raises
    ------
    CommandError
        If the scheduler does not answer, there is no worker, or one of them lacks this version of LymphCAD.
    """

    def __init__(self, address: str, choice: Choice, digest: str) -> None:
        paths = {name: getattr(choice, name) for name in ("bundle", "edge", "engines", "key")}
        paths = {name: path and path.absolute() for name, path in paths.items()}
        self._run = Run(uuid.uuid4().hex, replace(choice, **paths), digest, lymphcad.__version__)
        self._waiting: deque[tuple[list[Prepared], Files, Any]] = deque()
        for name in ("distributed", "distributed.client"):  # of a scheduler that dies they write tracebacks
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            asyncio.run(asyncio.wait_for(_greet(address), _CONNECT_S))  # a Client waits for ever for what is no Dask
            self._client = Client(address, timeout=_CONNECT_S, set_as_default=False)
        # TypeError: of TLS that is not configured.
        except (OSError, ValueError, TypeError, ImportError, asyncio.TimeoutError) as error:
            raise CommandError(
                f"there is no Dask scheduler at '{address}' ({_said(error)}): write its address as tcp://host:8786, and"
                " see that it runs"
            ) from None
        try:
            self._tasks = 2 * self._check()
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def wait_no_longer(self) -> None:
        """Let nodes fail that no server answers now; what is in flight is still waited for."""
        with contextlib.suppress(CancelledError, OSError, asyncio.TimeoutError):  # then nobody is waiting
            self._client.run(wait_no_longer_here, self._run.name, on_error="ignore")

    def score(self, nodes: Iterable[NodeRow], finder: ImageFinder) -> Generator[Result, None, None]:
        """Score nodes, several tasks at once, results in order.

        Parameters
        ----------
        nodes
            Rows of a table.
        finder
            Finds the files, in this process.

        Yields
        ------
        Result
            One a node, without `ct`.

        Raises
        ------
        CommandError
            If the scheduler goes away, no worker is left for `patience_s`, or a worker cannot score.
        LymphcadError
            What a worker says that cannot open the scorer.
        """
        chunk: list[Prepared] = []
        for node in nodes:
            chunk.append(find_file(node, finder))
            if len(chunk) == _CHUNK:
                self._begin(chunk)
                chunk = []
            if len(self._waiting) > self._tasks:
                yield from self._finish()
        if chunk:
            self._begin(chunk)
        while self._waiting:
            yield from self._finish()

    def _begin(self, chunk: list[Prepared]) -> None:
        # Absolute, not resolved: where a link leads is each machine's own.
        files = [(one.node, one.path.absolute()) for one in chunk if one.path is not None]
        self._waiting.append((chunk, files, self._submit(files)))

    def _submit(self, files: Files) -> Any:
        return self._client.submit(score_here, Work(self._run, files), pure=False)

    def _finish(self) -> Iterable[Result]:
        chunk, files, task = self._waiting.popleft()
        scored = iter(self._results(files, task))
        for one in chunk:
            if one.path is not None:
                yield next(scored)
            elif one.reason is not None:
                yield Result(one.node, "refused", str(Refusal(one.reason, one.message)))

    def _results(self, files: Files, task: Any) -> list[Result]:
        """Return a task's results; where its workers died, those of its nodes one by one."""
        found = self._result(task)
        if found is not None:
            return found
        # When a worker dies, every task that it was given counts as what may have ended it: now none is beside it.
        self._wait([other for _, _, other in self._waiting])
        return [self._alone(file) for file in files]

    def _alone(self, file: tuple[NodeRow, Path]) -> Result:
        found = self._result(self._submit([file]))
        if found is not None:
            return found[0]
        refusal = Refusal(
            Reason.UNREADABLE,
            "each Dask worker that took this image was ended: see that memory is not short, or send the image again, as"
            " the scanner wrote it",
        )
        return Result(file[0], "refused", str(refusal), path=file[1])

    def _result(self, task: Any) -> list[Result] | None:
        """Wait for a task and return its results; None if its workers died again and again."""
        self._wait([task])
        if task.status == "error":
            error = task.exception()
            if isinstance(error, KilledWorker):
                return None
            if isinstance(error, LymphcadError):
                raise error
            raise CommandError(
                f"a Dask worker cannot score ({_said(error)}): see that all machines have the same packages, and the"
                " worker's log"
            ) from error
        try:
            results: list[Result] = task.result(timeout=_CONNECT_S + self._run.choice.patience_s)
        except (CancelledError, OSError, asyncio.TimeoutError):
            raise CommandError(_GONE) from None
        return results

    def _wait(self, tasks: Sequence[Any]) -> None:
        """Wait until tasks are done or failed, as long as there are workers."""
        patience, last = self._run.choice.patience_s, time.monotonic()
        while not self._done(tasks):
            if self._threads():
                last = time.monotonic()
            elif time.monotonic() - last > patience:
                raise CommandError(
                    f"the Dask cluster has had no worker for {patience:.0f} s: start some with `dask worker`, and give"
                    " the same command with --resume"
                )

    def _done(self, tasks: Sequence[Any]) -> bool:
        """Wait a while for tasks, and return whether they are done or failed."""
        try:
            with self._client.as_current():
                wait(tasks, timeout=_LOOK_S)
        except asyncio.TimeoutError:
            return False
        except (CancelledError, OSError):
            raise CommandError(_GONE) from None
        return True

    def _threads(self) -> int:
        """Return how many threads the workers have; 0 if the scheduler does not answer."""
        try:
            found: dict[str, int] = self._client.sync(self._client.scheduler.ncores, callback_timeout=_LOOK_S)
        except (OSError, asyncio.TimeoutError):
            return 0
        return sum(found.values())

    def _check(self) -> int:
        """Return how many threads the workers have."""
        threads = self._threads()
        if not threads:
            raise CommandError("the Dask cluster has no worker: start some with `dask worker`")
        try:
            versions = {self._client.run_on_scheduler(version_here), *self._client.run(version_here).values()}
        except Exception as error:  # noqa: BLE001 - whatever a machine without LymphCAD raises when it is called
            raise CommandError(
                f"a machine of the Dask cluster cannot use LymphCAD ({_said(error)}): install the same version on all,"
                " with the extra dask"
            ) from None
        if versions != {lymphcad.__version__}:
            raise CommandError(
                f"the Dask cluster has LymphCAD {', '.join(sorted(versions))}, and this is {lymphcad.__version__}:"
                " install the same version"
            )
        return threads


async def _greet(address: str) -> None:
    comm = await connect(address, timeout=_CONNECT_S / 2, **Security().get_connection_args("client"))
    await comm.close()


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or ("no answer" if isinstance(error, OSError) else type(error).__name__)
