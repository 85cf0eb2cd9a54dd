"""``results.parquet``: what ``results.csv`` says, with its types, for who reads tables of millions of rows."""

from __future__ import annotations

import contextlib
import os
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow
from pyarrow import parquet

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.errors import CommandError
from lymphcad_client.outputs import PARQUET
from lymphcad_client.results import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lymphcad_client.batch import Result

_NUMBERS = ("row", "col", "probability", "threshold")
_GROUP = 10_000
"""Rows that are held and written at once."""


def write_parquet(results: Iterable[tuple[Result, str]], out: Path) -> None:
    """Write ``results.parquet``, under another name until it is whole.

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
    types = [pyarrow.float64() if name in _NUMBERS else pyarrow.string() for name in COLUMNS]
    schema = pyarrow.schema(list(zip(COLUMNS, types, strict=True)), metadata={"notice": RESEARCH_USE_ONLY})
    rows = (_row(result, picture) for result, picture in results)
    part = out / f"{PARQUET}.part"
    try:
        with part.open("wb") as file:
            with parquet.ParquetWriter(file, schema) as writer:
                while group := list(islice(rows, _GROUP)):
                    columns = [list(column) for column in zip(*group, strict=True)]
                    writer.write_table(pyarrow.table(columns, schema=schema))
            file.flush()
            os.fsync(file.fileno())  # some file systems tell only then that the disk is full
        part.replace(out / PARQUET)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise CommandError(
            f"'{out}' cannot be written to ({error.strerror}): make room, or name another --out"
        ) from None


def _row(result: Result, picture: str) -> tuple[Any, ...]:
    """Return a row; what ``results.csv`` leaves empty is null, and numbers are not rounded."""
    node, answer = result.node, result.finding
    found: tuple[Any, ...] = (None, None, None, None, None)
    if answer is not None:
        found = (answer.probability, answer.call, answer.threshold, picture or None, answer.bundle)
    return (node.image, node.row, node.col, node.node, result.status, result.reason or None, *found)
