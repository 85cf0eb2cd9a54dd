"""What is done of a table of nodes, on disk as soon as it is done: one row a node, however often a run is ended."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from lymphcad.errors import CommandError
from lymphcad.finding import Finding
from lymphcad_client.batch import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from lymphcad.tables import NodeRow

JOURNAL = "journal.sqlite"
_FORMAT = 1
_ROWS, _SECONDS = 64, 0.5
"""A commit holds at most so many nodes, and none waits longer: what is not committed is scored again, that is all."""
_SCHEMA = """
CREATE TABLE run (made_for TEXT NOT NULL);
CREATE TABLE node (
    number INTEGER PRIMARY KEY, status TEXT NOT NULL, reason TEXT NOT NULL, probability REAL, call TEXT, threshold REAL,
    bundle TEXT, picture TEXT NOT NULL, input_sha256 TEXT NOT NULL, study TEXT NOT NULL, heatmap BLOB
) WITHOUT ROWID;
CREATE INDEX node_study ON node (study);
"""
_HAS_CHANGED = {
    "bundle": "another bundle answers now than the one that this folder's journal was begun with",
    "table": "the table of nodes is another one than the one that this folder's journal was begun with",
    "overlays": "this folder's journal was begun with another choice of overlays",
    "heatmaps": "this folder's journal was begun with another choice of DICOM results",
}


class Journal:
    """The journal of a run, a SQLite file in its folder; one process at a time.

    It holds numbers of rows, digests, answers and relative paths of pictures: no path, name or UID of an image.

    Parameters
    ----------
    folder
        An existing folder.
    nodes
        The table.
    made_for
        What answers must have in common: ``bundle``, the digest; ``overlays`` and ``heatmaps``, whether there are any.
    resume
        Whether to go on with a journal that is there.

    Raises
    ------
    CommandError
        If there is one that was not finished and `resume` is false, or one of another bundle, table or choice and
        `resume` is true; if another process uses it, it is damaged, or the folder cannot be written to.
    """

    def __init__(self, folder: Path, nodes: Sequence[NodeRow], made_for: dict[str, Any], *, resume: bool) -> None:
        self._path, self._nodes = folder / JOURNAL, nodes
        self._heatmaps = bool(made_for["heatmaps"])
        made_for = {"format": _FORMAT, **made_for, "table": table_digest(nodes)}
        self._waiting: list[tuple[Any, ...]] = []
        self._committed = time.monotonic()
        with self._speaking():
            self._database = sqlite3.connect(self._path, timeout=0.2, isolation_level=None, check_same_thread=False)
            try:
                # Exclusive: a second run on the same folder is refused, and no memory is shared, which NFS lacks.
                self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = NORMAL")
                self._begin(made_for, resume=resume)
            except BaseException:
                self._database.close()
                raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, and close the file."""
        try:
            self.commit()
        finally:
            self._database.close()

    def done(self) -> set[int]:
        """Return the numbers, from 1, of the nodes that need not be scored again: all but those that failed."""
        self.commit()
        with self._speaking():
            return {number for (number,) in self._database.execute("SELECT number FROM node WHERE status != 'failed'")}

    def counts(self) -> dict[str, int]:
        """Return how many nodes are ``scored``, ``refused`` and ``failed``."""
        self.commit()
        with self._speaking():
            found = dict(self._database.execute("SELECT status, count(*) FROM node GROUP BY status"))
        return {status: int(found.get(status, 0)) for status in ("scored", "refused", "failed")}

    def write(self, number: int, result: Result, picture: str) -> None:
        """Keep what became of a node; on disk within half a second.

        Parameters
        ----------
        number
            Of the node in the table, from 1.
        result
            Of it; in place of an earlier one.
        picture
            Path of its overlay, relative to the folder; "" if it has none.
        """
        answer = result.finding
        values: tuple[Any, ...] = (None, None, None, None)
        heatmap = None
        if answer is not None:
            values = (answer.probability, answer.call, answer.threshold, answer.bundle)
            if self._heatmaps:
                heatmap = zlib.compress(answer.heatmap.tobytes(), 1)
        self._waiting.append(
            (number, result.status, result.reason, *values, picture, result.input_sha256, result.study, heatmap)
        )
        if len(self._waiting) >= _ROWS or time.monotonic() - self._committed > _SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write what waits to the disk."""
        if self._waiting:
            with self._speaking():
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    self._database.executemany(
                        f"INSERT OR REPLACE INTO node VALUES ({', '.join('?' * 11)})",  # noqa: S608 - marks alone
                        self._waiting,
                    )
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            self._waiting.clear()
        self._committed = time.monotonic()

    def results(self, study: str | None = None) -> Iterator[tuple[int, Result, str]]:
        """Yield what is done, in the order of the table.

        Parameters
        ----------
        study
            Only the nodes of a study, by its digest.

        Yields
        ------
        tuple of int, Result and str
            Number from 1; without `ct` and `path`, and with an empty heatmap where none was kept; picture.
        """
        self.commit()
        where, values = ("", ()) if study is None else ("WHERE study = ?", (study,))
        with self._speaking():
            rows = self._database.execute(f"SELECT * FROM node {where} ORDER BY number", values)  # noqa: S608 - ours
            for number, status, reason, probability, call, threshold, bundle, picture, sha256, of, heatmap in rows:
                finding = None
                if probability is not None:
                    finding = Finding(probability, call, threshold, _image(heatmap), bundle)
                node = self._nodes[number - 1]
                yield number, Result(node, status, reason, finding, input_sha256=sha256, study=of), picture

    def studies(self) -> list[str]:
        """Return the digests of the studies that have a scored node, in the order of the table; "" for no study."""
        self.commit()
        with self._speaking():
            return [
                study
                for (study,) in self._database.execute(
                    "SELECT study FROM node WHERE status = 'scored' GROUP BY study ORDER BY min(number)"
                )
            ]

    def _begin(self, made_for: dict[str, Any], *, resume: bool) -> None:
        found = self._found()
        if found is not None and not resume:
            (count,) = self._database.execute("SELECT count(*) FROM node WHERE status != 'failed'").fetchone()
            if 0 < count < found["nodes"]:
                raise CommandError(
                    f"'{self._path.parent}' has the journal of a run that was not finished ({count} of {found['nodes']}"
                    " nodes): go on with --resume, or name another folder with --out"
                )
            self._database.executescript("DROP TABLE node; DROP TABLE run;")
            found = None
        wanted = {**made_for, "nodes": len(self._nodes)}
        if found is None:
            self._database.executescript(_SCHEMA)
            self._database.execute("INSERT INTO run VALUES (?)", (json.dumps(wanted),))
        elif found != wanted:
            what = next((words for key, words in _HAS_CHANGED.items() if found.get(key) != wanted.get(key)), None)
            raise CommandError(
                f"{what or 'the journal is of another version'}: take what it was begun with, or name another folder"
                " with --out"
            )

    def _found(self) -> dict[str, Any] | None:
        """Return what an existing journal was made for."""
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        rows = self._database.execute("SELECT made_for FROM run").fetchall() if {"run", "node"} <= tables else []
        if not rows:
            # A process that was killed while it made the tables left nothing in them.
            self._database.executescript("DROP TABLE IF EXISTS node; DROP TABLE IF EXISTS run;")
            return None
        value = json.loads(rows[0][0])
        return value if isinstance(value, dict) else {}

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Say in one sentence what SQLite says in its own words."""
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            said = " ".join(str(error).split())
            busy = isinstance(error, sqlite3.OperationalError) and "locked" in said
            hint = (
                "another run writes to this folder: wait for it, or name another with --out"
                if busy
                else "make room, or name another folder with --out"
            )
            raise CommandError(f"the journal in '{self._path.parent}' cannot be used ({said}): {hint}") from None


def table_digest(nodes: Sequence[NodeRow]) -> str:
    """Return the SHA-256 of what a table asks for: its rows in order, without its other columns."""
    digest = hashlib.sha256()
    for node in nodes:
        refused = None if node.refusal is None else str(node.refusal)
        row = [node.image, node.row, node.col, node.node, node.frame, node.spacing_mm, refused]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _image(heatmap: bytes | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a heatmap that was kept, uint8 [S, S]; [0, 0] if none was."""
    if heatmap is None:
        return np.zeros((0, 0), np.uint8)
    values = np.frombuffer(zlib.decompress(heatmap), np.uint8)
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)
