"""Score a table of nodes: one row of results for each requested node, in order, whatever happens to it."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lymphcad.errors import Refusal, ServerError
from lymphcad.images import ImageFinder, read_image

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from lymphcad.finding import Finding
    from lymphcad.slice import CtSlice
    from lymphcad.tables import NodeRow
    from lymphcad_client.scorer import Scorer


@dataclass(frozen=True)
class Result:
    """One requested node and what became of it.

    Attributes
    ----------
    node
        The row of the table.
    status
        ``scored``, ``refused`` or ``failed``.
    reason
        Code and sentence; for a scored node, what had to be assumed.
    finding
        The answer of a scored node.
    ct
        The slice of a scored node.
    """

    node: NodeRow
    status: str
    reason: str
    finding: Finding | None = None
    ct: CtSlice | None = None


def score_nodes(nodes: Iterable[NodeRow], finder: ImageFinder, scorer: Scorer) -> Generator[Result, None, None]:
    """Score nodes, several requests in flight, results in the order of the table.

    However long the table is, no more images are held than requests are in flight. Close the generator to stop early:
    it waits for those that the scorer is answering.

    Parameters
    ----------
    nodes
        Rows of a table.
    finder
        Finds the files.
    scorer
        Answers.

    Yields
    ------
    Result
        One a node.
    """
    images = _LastImage(finder, scorer)
    pool = ThreadPoolExecutor(scorer.at_once)
    try:
        waiting: deque[Future[Result] | Result] = deque()
        for node in nodes:
            waiting.append(_start(node, images, scorer, pool))
            if len(waiting) >= 2 * scorer.at_once:
                yield _finished(waiting.popleft())
        while waiting:
            yield _finished(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(waiting: Future[Result] | Result) -> Result:
    return waiting if isinstance(waiting, Result) else waiting.result()


def _start(node: NodeRow, images: _LastImage, scorer: Scorer, pool: ThreadPoolExecutor) -> Future[Result] | Result:
    try:
        if node.refusal is not None:
            raise node.refusal
        ct = images.read(node)
    except Refusal as refusal:
        return Result(node, "refused", str(refusal))
    return pool.submit(_score, node, ct, scorer)


def _score(node: NodeRow, ct: CtSlice, scorer: Scorer) -> Result:
    row, col = (math.nan if value is None else value for value in (node.row, node.col))
    try:
        return Result(node, "scored", " ".join(ct.assumptions), scorer.score(ct, row, col), ct)
    except Refusal as refusal:
        return Result(node, "refused", str(refusal))
    except ServerError as error:
        return Result(node, "failed", str(error))


class _LastImage:
    """Reads images, and keeps the last one: tables list the nodes of a slice one after the other."""

    def __init__(self, finder: ImageFinder, scorer: Scorer) -> None:
        self._finder = finder
        self._preprocess = scorer.manifest.preprocess
        self._key: tuple[str, int | None, float | None] | None = None
        self._ct: CtSlice | None = None

    def read(self, node: NodeRow) -> CtSlice:
        key = (node.image, node.frame, node.spacing_mm)
        if self._ct is None or key != self._key:
            self._ct = None
            self._ct = read_image(
                self._finder.find(node.image),
                frame=node.frame,
                spacing_mm=node.spacing_mm,
                window_level_hu=self._preprocess.window_level_hu,
                window_width_hu=self._preprocess.window_width_hu,
                field_of_view_mm=self._preprocess.field_of_view_mm,
            )
            self._key = key
        return self._ct
