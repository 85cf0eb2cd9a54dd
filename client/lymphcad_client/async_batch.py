"""Score a table of nodes from asyncio: `lymphcad_client.batch.score_many` in a thread of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lymphcad_client.batch import score_many

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence
    from pathlib import Path

    from lymphcad.tables import NodeRow
    from lymphcad_client.batch import Result
    from lymphcad_client.scorer import Scorer


async def score_many_async(
    nodes: Iterable[NodeRow],
    scorer: Scorer,
    *,
    base: Path | None = None,
    sources: Sequence[Path] = (),
    jobs: int = 0,
) -> AsyncGenerator[Result, None]:
    """Score nodes, several requests in flight, results in the order of the nodes; the event loop goes on meanwhile.

    Cancel the task, or close the generator (`contextlib.aclosing`), to stop early: what the scorer is answering is
    waited for, nothing more is begun.

    Parameters
    ----------
    nodes, scorer, base, sources, jobs
        As in `lymphcad_client.batch.score_many`; `nodes` is iterated in the thread.

    Yields
    ------
    Result
        One a node.

    Raises
    ------
    CommandError
        If a source does not exist.
    """
    results = score_many(nodes, scorer, base=base, sources=sources, jobs=jobs)
    del nodes  # a generator is closed where its last reference goes, which is to be that thread
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1)
    try:
        while (result := await loop.run_in_executor(thread, next, results, None)) is not None:
            yield result
    finally:
        # In the same thread, so after the call in progress: a generator that is being executed cannot be closed.
        closed = loop.run_in_executor(thread, results.close)
        thread.shutdown(wait=False)
        await asyncio.shield(closed)
