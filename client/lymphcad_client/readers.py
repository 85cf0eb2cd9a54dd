"""Who reads the images of a table: this process, others on this machine, or a Dask cluster."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lymphcad_client.batch import score_read
from lymphcad_client.edge.cpu import cores
from lymphcad_client.reading import OwnReader, ProcessReader
from lymphcad_client.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from lymphcad.images import ImageFinder
    from lymphcad.tables import NodeRow
    from lymphcad_client.batch import Result
    from lymphcad_client.edge.scorer import EdgeScorer
    from lymphcad_client.observing import Observed
    from lymphcad_client.opening import Choice
    from lymphcad_client.reading import Reader
    from lymphcad_client.servers import Servers

_FEW = 64
"""Nodes that are scored in less time than it takes to start a process."""
_MOST = 8


@dataclass(frozen=True)
class Readers:
    """What a run needs of them.

    Attributes
    ----------
    score
        Scores nodes in order.
    workers
        Processes that can draw as well; None if there are none.
    wait_no_longer
        Lets nodes fail that no server answers now.
    """

    score: Callable[[Iterable[NodeRow]], Generator[Result, None, None]]
    workers: Workers | None
    wait_no_longer: Callable[[], None]


@contextmanager
def open_readers(
    finder: ImageFinder,
    scorer: Servers | EdgeScorer | Observed,
    choice: Choice,
    nodes: int,
    *,
    jobs: int | None = None,
    dask: str | None = None,
) -> Iterator[Readers]:
    """Start what reads, and end it.

    Parameters
    ----------
    finder
        Finds the files, in this process.
    scorer, choice
        Who scores, and how that was chosen.
    nodes
        How many nodes the table has.
    jobs
        Processes; if None, none for a short table or where this process scores, else one for each core, 8 at most.
    dask
        Address of a Dask scheduler whose workers read and score.

    Yields
    ------
    Readers
        Ready.

    Raises
    ------
    CommandError
        If the Dask cluster cannot be used.
    """
    if jobs is None:
        jobs = 0 if nodes < _FEW or choice.edge is not None else min(cores(), _MOST)
    with ExitStack() as stack:
        workers = stack.enter_context(Workers(jobs)) if jobs else None
        if dask is not None:
            from lymphcad_client.dask_cluster import Cluster

            cluster = stack.enter_context(Cluster(dask, choice, scorer.digest))
            yield Readers(lambda rows: cluster.score(rows, finder), workers, cluster.wait_no_longer)
            return
        preprocess = scorer.manifest.preprocess
        reader: Reader = OwnReader(finder, preprocess)
        if workers is not None:
            reader = ProcessReader(finder, preprocess, workers)
        yield Readers(lambda rows: score_read(rows, reader, scorer), workers, scorer.wait_no_longer)
