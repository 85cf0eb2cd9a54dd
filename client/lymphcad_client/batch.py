"""Score a table of nodes: one result for each requested node, in order, whatever happens to it."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lymphcad.errors import Refusal, ServerError
from lymphcad.images import ImageFinder
from lymphcad_client.observing import Observed
from lymphcad_client.reading import OwnReader, ProcessReader, read_files
from lymphcad_client.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from lymphcad.finding import Finding
    from lymphcad.slice import CtSlice
    from lymphcad.tables import NodeRow
    from lymphcad_client.reading import Prepared, Reader
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
        The slice of a scored node, where this process read it.
    path
        The image's file; None if it was not found.
    input_sha256
        Digest of the tensors of a scored or failed node.
    study
        Digest of the Study Instance UID; empty where there is none.
    """

    node: NodeRow
    status: str
    reason: str
    finding: Finding | None = None
    ct: CtSlice | None = None
    path: Path | None = None
    input_sha256: str = ""
    study: str = ""


def score_many(
    nodes: Iterable[NodeRow],
    scorer: Scorer,
    *,
    base: Path | None = None,
    sources: Sequence[Path] = (),
    jobs: int = 0,
) -> Generator[Result, None, None]:
    """Score nodes, several requests in flight, results in the order of the nodes.

    Parameters
    ----------
    nodes
        E.g. what `lymphcad.tables.read_nodes` returns.
    scorer
        E.g. what `lymphcad_client.opening.open_scorer` returns.
    base
        The folder that the images' paths are relative to; the current one if None.
    sources
        Files and folders in which SOP Instance UIDs are looked for.
    jobs
        Processes that read images; with 0 this one reads them. A script that asks for processes does it below
        ``if __name__ == "__main__":``, as Python's multiprocessing wants it.

    Yields
    ------
    Result
        One a node; `ct` is None where another process read the image.

    Raises
    ------
    CommandError
        If a source does not exist.
    """
    finder = ImageFinder(base or Path(), sources)
    preprocess = scorer.manifest.preprocess
    with ExitStack() as stack:
        reader: Reader = OwnReader(finder, preprocess)
        if jobs:
            reader = ProcessReader(finder, preprocess, stack.enter_context(Workers(jobs)))
        results = stack.enter_context(closing(score_read(nodes, reader, scorer)))
        yield from results


def score_nodes(nodes: Iterable[NodeRow], finder: ImageFinder, scorer: Scorer) -> Generator[Result, None, None]:
    """Score nodes whose images this process reads and hands out with the results.

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
    return score_read(nodes, OwnReader(finder, scorer.manifest.preprocess), scorer)


def score_read(nodes: Iterable[NodeRow], reader: Reader, scorer: Scorer) -> Generator[Result, None, None]:
    """Score what a reader prepares.

    Parameters
    ----------
    nodes
        Rows of a table.
    reader
        Reads the images.
    scorer
        Answers.

    Yields
    ------
    Result
        One a node, in order; as few wait as the reader says.
    """
    pool = ThreadPoolExecutor(scorer.at_once)
    reading: deque[Callable[[], list[Prepared]]] = deque()
    scoring: deque[Future[Result] | Result] = deque()
    most = reader.held * scorer.at_once

    def start() -> None:
        for one in reading.popleft()():
            scoring.append(pool.submit(_score, one, scorer) if one.window is not None else _refused(one, scorer))

    try:
        for chunk in reader.chunks(nodes):
            reading.append(reader.read(chunk))
            if len(reading) > reader.ahead:
                start()
            while len(scoring) >= most:
                yield _finished(scoring.popleft())
        while reading:
            start()
            while len(scoring) >= most:
                yield _finished(scoring.popleft())
        while scoring:
            yield _finished(scoring.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def score_files(files: Sequence[tuple[NodeRow, Path]], scorer: Scorer) -> list[Result]:
    """Score nodes whose files are known: what a machine of a cluster is asked to do.

    Parameters
    ----------
    files
        Rows of a table and their images' files.
    scorer
        Answers.

    Returns
    -------
    list of Result
        In the same order.
    """
    prepared = read_files(files, scorer.manifest.preprocess)
    with ThreadPoolExecutor(scorer.at_once) as pool:
        return list(
            pool.map(lambda one: _refused(one, scorer) if one.window is None else _score(one, scorer), prepared)
        )


def _finished(waiting: Future[Result] | Result) -> Result:
    return waiting if isinstance(waiting, Result) else waiting.result()


def _refused(one: Prepared, scorer: Scorer) -> Result:
    if one.reason is None:
        raise ValueError("a node without a window has a reason")
    refusal = Refusal(one.reason, one.message)
    if isinstance(scorer, Observed):
        scorer.refused(refusal)
    return Result(one.node, "refused", str(refusal), path=one.path, study=one.study)


def _score(one: Prepared, scorer: Scorer) -> Result:
    if one.window is None:
        raise ValueError("only a node with a window is scored")
    try:
        finding = scorer.score_window(one.window)
    except Refusal as refusal:
        return Result(one.node, "refused", str(refusal), path=one.path, study=one.study)
    except ServerError as error:
        return Result(one.node, "failed", str(error), None, None, one.path, one.input_sha256, one.study)
    return Result(one.node, "scored", one.assumptions, finding, one.ct, one.path, one.input_sha256, one.study)
