"""The pictures beside ``results.csv``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lymphcad.errors import CommandError
from lymphcad.images import read_image
from lymphcad.overlay import draw_overlay
from lymphcad.png import png_bytes
from lymphcad_client.workers import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lymphcad.bundle import Manifest
    from lymphcad.finding import Finding
    from lymphcad.slice import CtSlice
    from lymphcad.tables import NodeRow
    from lymphcad_client.batch import Result
    from lymphcad_client.workers import Workers

_AHEAD = 8


class Pictures:
    """Draws the overlays of a run, in other processes where there are any.

    Parameters
    ----------
    out
        The folder of results.
    manifest
        Of the bundle that answers.
    workers
        The processes; with None this one draws, from the slices that it read.
    """

    waiting: int
    """How many pictures may be begun before the first is waited for."""

    def __init__(self, out: Path, manifest: Manifest, workers: Workers | None) -> None:
        self.waiting = 0 if workers is None else _AHEAD * workers.jobs
        self._out, self._manifest, self._workers = out, manifest, workers

    def draw(self, number: int, result: Result) -> Callable[[], str]:
        """Begin to draw the overlay of a node.

        Parameters
        ----------
        number
            Of the node in the table, from 1.
        result
            Of it.

        Returns
        -------
        Callable
            Waits until the picture is written, and returns its path relative to `out`; "" for a node without a score.
            Raises `OSError` if it cannot be written.
        """
        if result.finding is None:
            return lambda: ""
        if self._workers is None:
            return lambda: write_overlay(result, number, self._out, self._manifest)
        arguments = (result.path, result.node, result.finding, number, self._out, self._manifest)
        task = self._workers.submit(draw_file, *arguments)

        def wait() -> str:
            try:
                return task.result()
            except WorkerDied:
                raise CommandError(
                    "the process that drew an overlay was ended twice by the system: see that memory is not short, or"
                    " leave the pictures out with --no-overlays"
                ) from None

        return wait


def draw_file(path: Path, node: NodeRow, answer: Finding, number: int, out: Path, manifest: Manifest) -> str:
    """Read a node's image again and write its overlay; what another process is asked to do.

    Parameters
    ----------
    path, node
        The image's file and the row of the table.
    answer
        For the node.
    number, out, manifest
        As in `write_overlay`, which see for the value and what is raised; and what `lymphcad.images.read_image` raises
        if the file was changed.
    """
    preprocess = manifest.preprocess
    ct = read_image(
        path,
        frame=node.frame,
        spacing_mm=node.spacing_mm,
        window_level_hu=preprocess.window_level_hu,
        window_width_hu=preprocess.window_width_hu,
        field_of_view_mm=preprocess.field_of_view_mm,
    )
    return _write(ct, node, answer, number, out, manifest)


def write_overlay(result: Result, number: int, out: Path, manifest: Manifest) -> str:
    """Write the overlay of a scored node.

    Parameters
    ----------
    result
        A scored node, with its slice.
    number
        Its number in the table, from 1: the file's name, for the user's own names can hold patient data.
    out
        The folder of results.
    manifest
        Of the bundle that answered.

    Returns
    -------
    str
        The PNG's path relative to `out`.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    if result.ct is None or result.finding is None:
        raise ValueError("only a scored node whose slice is at hand has an overlay")
    return _write(result.ct, result.node, result.finding, number, out, manifest)


def _write(ct: CtSlice, node: NodeRow, answer: Finding, number: int, out: Path, manifest: Manifest) -> str:
    if node.row is None or node.col is None:
        raise ValueError("a scored node has a place")
    relative = f"overlays/{number:06d}.png"
    target = out / relative
    target.parent.mkdir(exist_ok=True)
    picture = png_bytes(draw_overlay(ct, node.row, node.col, answer, manifest))
    try:
        target.write_bytes(picture)
    except OSError:  # no half of a picture stays behind on a full disk
        target.unlink(missing_ok=True)
        raise
    return relative
