"""``results.csv``: one row for each requested node, under another name until the last one is written."""

from __future__ import annotations

import csv
import io
import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.errors import CommandError, InterruptedByUser

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from lymphcad_client.batch import Result

COLUMNS = ("image", "row", "col", "node", "status", "reason", "probability", "call", "threshold", "heatmap", "bundle")
RESULTS = "results.csv"
UNFINISHED = "results.csv.part"
NOTICE = "RESEARCH_USE_ONLY.txt"
NOTICE_TEXT = f"{RESEARCH_USE_ONLY}.\n"
"""What stands in it."""


def results_csv(results: Iterable[tuple[Result, str]]) -> bytes:
    """Return the bytes of a whole ``results.csv``, for what hands results over without a folder.

    Parameters
    ----------
    results
        In the order of the table; each with the relative path of its picture, or "" where it has none.

    Returns
    -------
    bytes
        UTF-8, what `write_results` writes for the same results.
    """
    return b"".join([_line(COLUMNS), *(_line(_row(result, picture)) for result, picture in results)])


def write_results(
    results: Generator[Result, None, None],
    out: Path,
    draw: Callable[[Result, int], str] | None,
    count: Callable[[Result], None],
) -> None:
    """Write ``results.csv``, and the notice that goes with it.

    The rows stand in ``results.csv.part`` until the last one is written, each whole as soon as its node is scored, so
    that what was interrupted does not look finished and is not lost. A ``results.csv`` of an earlier run goes first:
    its pictures are about to be replaced.

    Parameters
    ----------
    results
        In the order of the table; closed at the end.
    out
        An existing folder.
    draw
        Writes the overlay of a scored node, given its number from 1, and returns its path relative to `out`.
    count
        Called with each result once its row is written.

    Raises
    ------
    CommandError
        If the folder cannot be written to, or its disk is full.
    InterruptedByUser
        On Ctrl-C.
    """
    written = 0
    try:
        with closing(results):
            with _writing(out, written):
                (out / NOTICE).write_text(NOTICE_TEXT, encoding="utf-8")
                file = _Rows(out)
            with closing(file):
                for number, result in enumerate(results, start=1):
                    with _writing(out, written):
                        file.write(_row(result, draw(result, number) if draw and result.finding else ""))
                    written = number
                    count(result)
                with _writing(out, written):
                    file.finish()
    except KeyboardInterrupt:
        raise InterruptedByUser(f"stopped{_kept(written)}") from None


def write_finished(results: Iterable[tuple[Result, str]], out: Path) -> None:
    """Write a whole ``results.csv`` of what is finished, and the notice that goes with it.

    Parameters
    ----------
    results
        In the order of the table; each with the relative path of its picture, or "" where it has none.
    out
        An existing folder.

    Raises
    ------
    CommandError
        If the folder cannot be written to, or its disk is full.
    """
    with _writing(out, 0):
        (out / NOTICE).write_text(NOTICE_TEXT, encoding="utf-8")
        with (out / UNFINISHED).open("wb") as file:
            file.write(_line(COLUMNS))
            file.writelines(_line(_row(result, picture)) for result, picture in results)
            file.flush()
            os.fsync(file.fileno())  # some file systems tell only then that the disk is full
        (out / UNFINISHED).replace(out / RESULTS)


@contextmanager
def _writing(out: Path, rows: int) -> Iterator[None]:
    """Say in one sentence that the folder cannot be written to, and how many rows are there."""
    try:
        yield
    except OSError as error:
        raise CommandError(
            f"'{out}' cannot be written to ({error.strerror}){_kept(rows)}: make room, or name another --out"
        ) from None


def _kept(rows: int) -> str:
    return f" after {rows} {'node' if rows == 1 else 'nodes'}, whose rows are in {UNFINISHED}" if rows else ""


class _Rows:
    """The file of results while it is written: it always ends with a whole row."""

    def __init__(self, out: Path) -> None:
        self._final, self._part = out / RESULTS, out / UNFINISHED
        self._final.unlink(missing_ok=True)
        self._file = self._part.open("wb", buffering=0)
        self._length = 0
        self.write(COLUMNS)

    def write(self, row: Sequence[str]) -> None:
        rest = memoryview(_line(row))
        length = self._length + len(rest)
        try:
            while rest:  # a disk that is nearly full takes a part
                rest = rest[self._file.write(rest) :]
        except BaseException:
            self._file.truncate(self._length)
            raise
        self._length = length

    def finish(self) -> None:
        """Give the file its name."""
        os.fsync(self._file.fileno())  # some file systems tell only then that the disk is full
        self._part.replace(self._final)

    def close(self) -> None:
        self._file.close()


def _line(row: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(row)
    return text.getvalue().encode()


def _row(result: Result, heatmap: str) -> Sequence[str]:
    node = result.node
    at = ["" if value is None else f"{value:.10g}" for value in (node.row, node.col)]
    start = [node.image, *at, node.node, result.status, result.reason]
    if result.finding is None:
        return [*start, "", "", "", "", ""]
    answer = result.finding
    return [*start, f"{answer.probability:.6f}", answer.call, f"{answer.threshold:.6f}", heatmap, answer.bundle]
