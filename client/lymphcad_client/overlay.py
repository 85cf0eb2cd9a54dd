"""The pictures beside ``results.csv``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lymphcad.overlay import draw_overlay
from lymphcad.png import png_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.bundle import Manifest
    from lymphcad_client.batch import Result


def write_overlay(result: Result, number: int, out: Path, manifest: Manifest) -> str:
    """Write the overlay of a scored node.

    Parameters
    ----------
    result
        A scored node.
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
    ct, answer, node = result.ct, result.finding, result.node
    if ct is None or answer is None or node.row is None or node.col is None:
        raise ValueError("only a scored node has an overlay")
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
