"""From a row of the table to the tensors that the graph takes, in this process or in others."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lymphcad.errors import Reason, Refusal
from lymphcad.geometry import cut_window
from lymphcad.images import read_image
from lymphcad_client.workers import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from lymphcad.bundle import Preprocess
    from lymphcad.geometry import Window
    from lymphcad.images import ImageFinder
    from lymphcad.slice import CtSlice
    from lymphcad.tables import NodeRow
    from lymphcad_client.workers import Workers

_CHUNK = 8
"""Nodes that a process is given at once: a slice with several is read once, and a message costs less than a node."""


@dataclass(frozen=True)
class Prepared:
    """A node that is ready to be scored, or why it is refused.

    Attributes
    ----------
    node
        The row of the table.
    path
        The image's file; None if it was not found.
    window
        What the graph takes; None if it is refused.
    reason, message
        Why it is refused.
    assumptions
        Sentences; often empty.
    input_sha256
        Digest of the tensors; empty if it is refused.
    study
        Digest of the Study Instance UID; empty where there is none.
    ct
        The slice, where it was read in this process.
    """

    node: NodeRow
    path: Path | None = None
    window: Window | None = None
    reason: Reason | None = None
    message: str = ""
    assumptions: str = ""
    input_sha256: str = ""
    study: str = ""
    ct: CtSlice | None = None

    @classmethod
    def refused(cls, node: NodeRow, refusal: Refusal, path: Path | None = None, study: str = "") -> Prepared:
        """Return one that is refused."""
        return cls(node, path, None, refusal.reason, refusal.args[0], study=study)


class Reader(Protocol):
    """Prepares nodes.

    Attributes
    ----------
    ahead
        How many chunks are asked for before the first is waited for.
    held
        How many nodes for each request in flight may wait for those before them.
    """

    ahead: int
    held: int

    def chunks(self, nodes: Iterable[NodeRow]) -> Iterator[list[NodeRow]]:
        """Cut a table into what is read at once."""
        ...

    def read(self, nodes: list[NodeRow]) -> Callable[[], list[Prepared]]:
        """Begin to read a chunk; the function that is returned waits for it."""
        ...


class OwnReader:
    """Reads in this process, when it is asked; keeps the last image, for tables list a slice's nodes together.

    Parameters
    ----------
    finder
        Finds the files.
    preprocess
        The bundle's.
    """

    ahead, held = 0, 2

    def __init__(self, finder: ImageFinder, preprocess: Preprocess) -> None:
        self._finder = finder
        self._images = _LastImage(preprocess)

    def chunks(self, nodes: Iterable[NodeRow]) -> Iterator[list[NodeRow]]:
        """Return one node at a time: no more images are held than needed."""
        return ([node] for node in nodes)

    def read(self, nodes: list[NodeRow]) -> Callable[[], list[Prepared]]:
        """Read now."""
        found = [find_file(node, self._finder) for node in nodes]
        ready = [one if one.path is None else self._images.prepare(one.node, one.path) for one in found]
        return lambda: ready


class ProcessReader:
    """Reads in other processes; their results have no `ct`.

    Parameters
    ----------
    finder
        Finds the files, in this process.
    preprocess
        The bundle's.
    workers
        The processes.
    """

    held = 8

    def __init__(self, finder: ImageFinder, preprocess: Preprocess, workers: Workers) -> None:
        self._finder, self._preprocess, self._workers = finder, preprocess, workers
        self.ahead = 2 * workers.jobs

    def chunks(self, nodes: Iterable[NodeRow]) -> Iterator[list[NodeRow]]:
        """Return a few nodes at a time."""
        chunk: list[NodeRow] = []
        for node in nodes:
            chunk.append(node)
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def read(self, nodes: list[NodeRow]) -> Callable[[], list[Prepared]]:
        """Have a process read the files that are found."""
        found = [find_file(node, self._finder) for node in nodes]
        files = [(one.node, one.path) for one in found if one.path is not None]
        task = self._workers.submit(read_files, files, self._preprocess)

        def wait() -> list[Prepared]:
            ready = iter(self._wait(task, files))
            return [one if one.path is None else next(ready) for one in found]

        return wait

    def _wait(self, task: Future[list[Prepared]], files: list[tuple[NodeRow, Path]]) -> list[Prepared]:
        try:
            return task.result()
        except WorkerDied:
            if len(files) > 1:  # which of them it was is found by reading each by itself
                one_by_one = [(self._workers.submit(read_files, [file], self._preprocess), file) for file in files]
                return [self._wait(one, [file])[0] for one, file in one_by_one]
            node, path = files[0]
            refusal = Refusal(
                Reason.UNREADABLE,
                "the process that read this image was ended twice by the system: see that memory is not short, or send"
                " the image again, as the scanner wrote it",
            )
            return [Prepared.refused(node, refusal, path)]


def read_files(files: Sequence[tuple[NodeRow, Path]], preprocess: Preprocess) -> list[Prepared]:
    """Prepare nodes whose files are known; what another process is asked to do.

    Parameters
    ----------
    files
        Rows of a table and their images' files.
    preprocess
        The bundle's.

    Returns
    -------
    list of Prepared
        In the same order, without `ct`.
    """
    images = _LastImage(preprocess, keep=False)
    return [images.prepare(node, path) for node, path in files]


def digest_of(window: Window) -> str:
    """Return the SHA-256 of a node's tensors: shape and pixels of IMAGE, SPACING_MM, CENTER."""
    digest = hashlib.sha256(np.array(window.image.shape, "<i4").tobytes())
    digest.update(window.image.astype("<i2", copy=False).tobytes())
    digest.update(np.array([*window.spacing_mm, *window.center], "<f4").tobytes())
    return digest.hexdigest()


def find_file(node: NodeRow, finder: ImageFinder) -> Prepared:
    """Return a node with its file's path and no window yet, or refused."""
    try:
        if node.refusal is not None:
            raise node.refusal
        return Prepared(node, finder.find(node.image))
    except Refusal as refusal:
        return Prepared.refused(node, refusal)


class _LastImage:
    """Reads images and cuts windows; keeps the last image for the next node."""

    def __init__(self, preprocess: Preprocess, *, keep: bool = True) -> None:
        self._preprocess, self._keep = preprocess, keep
        self._key: tuple[Path, int | None, float | None] | None = None
        self._ct: CtSlice | None = None

    def prepare(self, node: NodeRow, path: Path) -> Prepared:
        preprocess, study = self._preprocess, ""
        try:
            ct = self._read(node, path)
            study = hashlib.sha256(ct.study_instance_uid.encode()).hexdigest() if ct.study_instance_uid else ""
            row, col = (math.nan if value is None else value for value in (node.row, node.col))
            window = cut_window(ct, row, col, preprocess.field_of_view_mm, preprocess.size)
        except Refusal as refusal:
            return Prepared.refused(node, refusal, path, study)
        return Prepared(
            node,
            path,
            window,
            assumptions=" ".join(ct.assumptions),
            input_sha256=digest_of(window),
            study=study,
            ct=ct if self._keep else None,
        )

    def _read(self, node: NodeRow, path: Path) -> CtSlice:
        key = (path, node.frame, node.spacing_mm)
        if self._ct is None or key != self._key:
            self._ct = None
            self._ct = read_image(
                path,
                frame=node.frame,
                spacing_mm=node.spacing_mm,
                window_level_hu=self._preprocess.window_level_hu,
                window_width_hu=self._preprocess.window_width_hu,
                field_of_view_mm=self._preprocess.field_of_view_mm,
            )
            self._key = key
        return self._ct
