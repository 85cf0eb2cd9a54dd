"""What a worker of a Dask cluster does: it opens the scorer of a run once, and reads and scores what it is given."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import lymphcad
from lymphcad.errors import CommandError, ServerError
from lymphcad_client.batch import Result, score_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lymphcad.tables import NodeRow
    from lymphcad_client.edge.scorer import EdgeScorer
    from lymphcad_client.opening import Choice
    from lymphcad_client.servers import Servers

_AGAIN_S = 1.0
"""Between two attempts to open a scorer whose servers are away."""


@dataclass(frozen=True)
class Run:
    """What the tasks of one run have in common.

    Attributes
    ----------
    name
        Of this run and no other.
    choice
        Who scores; with absolute paths.
    digest
        The only bundle that may answer.
    version
        Of the caller's LymphCAD.
    """

    name: str
    choice: Choice
    digest: str
    version: str


@dataclass(frozen=True)
class Work:
    """One task. Some versions of Dask log the arguments of a task that fails; images' paths do not belong there.

    Attributes
    ----------
    run
        What to score with.
    files
        Rows of a table and their images' files.
    """

    run: Run
    files: Sequence[tuple[NodeRow, Path]] = field(repr=False)


class _Opened:
    """A scorer that this process has open, and how many tasks use it now."""

    def __init__(self, scorer: Servers | EdgeScorer) -> None:
        self.scorer, self.users = scorer, 0


_OPENING, _COUNTING = threading.Lock(), threading.Lock()
_OPEN: dict[str, _Opened] = {}
"""By the name of the run. A scorer stays open until a task of another run finds it idle, or the process ends."""
_STOPPED: set[str] = set()


def version_here() -> str:
    """Return the version of LymphCAD where this is called."""
    return lymphcad.__version__


def wait_no_longer_here(name: str) -> None:
    """Let nodes of a run fail that no server answers now.

    Parameters
    ----------
    name
        Of the run.
    """
    _STOPPED.add(name)
    opened = _OPEN.get(name)
    if opened is not None:
        opened.scorer.wait_no_longer()


def score_here(work: Work) -> list[Result]:
    """Score nodes in the worker that calls this.

    Parameters
    ----------
    work
        The nodes, and what to score with.

    Returns
    -------
    list of Result
        In the same order, without `ct`.

    Raises
    ------
    LymphcadError
        If the scorer cannot be opened here at all, or this is another version of LymphCAD.
    """
    wanted = work.run.version
    if wanted != lymphcad.__version__:
        raise CommandError(
            f"a Dask worker has LymphCAD {lymphcad.__version__}, and the caller {wanted}: install the same version"
        )
    try:
        with _scorer(work.run) as scorer:
            return score_files(work.files, scorer)
    except ServerError as error:
        return [Result(node, "failed", str(error), path=path) for node, path in work.files]


@contextmanager
def _scorer(run: Run) -> Iterator[Servers | EdgeScorer]:
    opened = _take(run)
    try:
        yield opened.scorer
    finally:
        with _COUNTING:
            opened.users -= 1


def _take(run: Run) -> _Opened:
    """Return a run's scorer, and count a user; wait for servers that are away as long as the run would."""
    deadline = time.monotonic() + run.choice.patience_s
    while True:
        try:
            with _OPENING:
                opened = _OPEN.get(run.name) or _open(run)
                with _COUNTING:
                    opened.users += 1
                return opened
        except ServerError:
            if run.name in _STOPPED or time.monotonic() > deadline:
                raise
        time.sleep(_AGAIN_S)


def _open(run: Run) -> _Opened:
    with _COUNTING:
        idle = [name for name, opened in _OPEN.items() if not opened.users]
        closing = [_OPEN.pop(name) for name in idle]
    for one in closing:
        one.scorer.close()
    scorer = run.choice.open(run.digest)
    if scorer.digest != run.digest:
        scorer.close()
        raise CommandError(
            "a Dask worker's bundle is another one than the caller's: copy the same bundle to all machines"
        )
    opened = _OPEN[run.name] = _Opened(scorer)
    return opened
