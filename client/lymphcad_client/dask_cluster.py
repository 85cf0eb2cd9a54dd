"""Score on a Dask cluster: each worker reads and scores, the journal stays with the caller."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from distributed import CancelledError, Client, KilledWorker
from distributed.comm import CommClosedError

import lymphcad
from lymphcad.errors import CommandError, Reason, Refusal, ServerError
from lymphcad_client.batch import Result, score_files
from lymphcad_client.reading import find_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

    from lymphcad.images import ImageFinder
    from lymphcad.tables import NodeRow
    from lymphcad_client.edge.scorer import EdgeScorer
    from lymphcad_client.opening import Choice
    from lymphcad_client.reading import Prepared
    from lymphcad_client.servers import Servers

_CHUNK = 16
"""Nodes of one task."""
_CONNECT_S = 10

Files = list[tuple["NodeRow", "Path"]]


class Cluster:
    """An existing Dask cluster whose workers have LymphCAD, and see the images under the same paths.

    A worker that dies takes nothing with it: Dask gives its tasks to another. A task that ends its worker again and
    again (Dask's ``allowed-failures``) is done node by node, and the node that does it is refused.

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
        If the scheduler does not answer, there is no worker, or a worker lacks this version of LymphCAD.
    """

    def __init__(self, address: str, choice: Choice, digest: str) -> None:
        self._choice, self._digest = choice, digest
        try:
            self._client = Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError):
            raise CommandError(
                f"there is no Dask scheduler at '{address}': write its address as tcp://host:8786, and see that it runs"
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
            If the scheduler goes away, or no worker can open the scorer.
        """
        waiting: deque[tuple[list[Prepared], Files, Any]] = deque()
        chunk: list[Prepared] = []
        for node in nodes:
            chunk.append(find_file(node, finder))
            if len(chunk) == _CHUNK:
                waiting.append(self._begin(chunk))
                chunk = []
            if len(waiting) > self._tasks:
                yield from self._finish(*waiting.popleft())
        if chunk:
            waiting.append(self._begin(chunk))
        while waiting:
            yield from self._finish(*waiting.popleft())

    def _begin(self, chunk: list[Prepared]) -> tuple[list[Prepared], Files, Any]:
        files = [(one.node, one.path.resolve()) for one in chunk if one.path is not None]
        return chunk, files, self._submit(files)

    def _submit(self, files: Files) -> Any:
        return self._client.submit(score_here, files, self._choice, self._digest, pure=False)

    def _finish(self, chunk: list[Prepared], files: Files, task: Any) -> Iterable[Result]:
        scored = iter(self._wait(files, task))
        for one in chunk:
            if one.path is not None:
                yield next(scored)
            elif one.reason is not None:
                yield Result(one.node, "refused", str(Refusal(one.reason, one.message)))

    def _wait(self, files: Files, task: Any) -> list[Result]:
        try:
            found: list[Result] = task.result()
        except KilledWorker:
            if len(files) > 1:
                return [self._wait([file], self._submit([file]))[0] for file in files]
            refusal = Refusal(
                Reason.UNREADABLE,
                "each Dask worker that took this image was ended: see that memory is not short, or send the image"
                " again, as the scanner wrote it",
            )
            return [Result(files[0][0], "refused", str(refusal), path=files[0][1])]
        except (CancelledError, CommClosedError, OSError):
            raise CommandError(
                "the Dask scheduler went away: start it again, and give the same command with --resume"
            ) from None
        return found

    def _check(self) -> int:
        """Return how many threads the workers have."""
        threads = int(sum(self._client.nthreads().values()))
        if not threads:
            raise CommandError("the Dask cluster has no worker: start some with `dask worker`")
        try:
            versions = set(self._client.run(version_here).values())
        except Exception as error:  # noqa: BLE001 - whatever a worker without LymphCAD raises when it is called
            said = " ".join(str(error).split())
            raise CommandError(f"a Dask worker cannot use LymphCAD ({said}): install the same version there") from None
        if versions != {lymphcad.__version__}:
            raise CommandError(
                f"Dask workers have LymphCAD {', '.join(sorted(versions))}, and this is {lymphcad.__version__}: install"
                " the same version"
            )
        return threads


def version_here() -> str:
    """Return the version of LymphCAD where this is called."""
    return lymphcad.__version__


_OPENING = threading.Lock()
_OPEN: dict[tuple[Choice, str], Servers | EdgeScorer] = {}
"""What a worker has opened; it keeps it until it ends."""


def score_here(files: Sequence[tuple[NodeRow, Path]], choice: Choice, digest: str) -> list[Result]:
    """Score nodes in the worker that calls this.

    Parameters
    ----------
    files
        Rows of a table and their images' files.
    choice
        Who scores.
    digest
        The only bundle that may answer.

    Returns
    -------
    list of Result
        In the same order, without `path`.

    Raises
    ------
    LymphcadError
        If the scorer cannot be opened here at all.
    """
    try:
        with _OPENING:
            scorer = _OPEN.get((choice, digest))
            if scorer is None:
                scorer = choice.open()
                if scorer.digest != digest:
                    scorer.close()
                    raise CommandError(
                        "a Dask worker's bundle is another one than the caller's: copy the same bundle to all machines"
                    )
                _OPEN[choice, digest] = scorer
    except ServerError as error:
        return [Result(node, "failed", str(error)) for node, _ in files]
    return score_files(files, scorer)
