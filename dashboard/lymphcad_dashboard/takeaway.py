"""What a user takes away: the pictures and the table of results, as `lymphcad score` writes them, in memory."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

from lymphcad_client.results import NOTICE, NOTICE_TEXT, RESULTS, results_csv

from lymphcad.overlay import draw_overlay
from lymphcad.png import png_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lymphcad_dashboard.reading import Reading


def picture(reading: Reading) -> bytes | None:
    """Draw the overlay of a node.

    Parameters
    ----------
    reading
        Scored or not.

    Returns
    -------
    bytes or None
        A PNG; None if the node was not scored.

    Raises
    ------
    ValueError
        If a scored node comes without its slice, its point or its manifest.
    """
    result, manifest = reading.result, reading.manifest
    if result.finding is None:
        return None
    if result.ct is None or manifest is None or result.node.row is None or result.node.col is None:
        raise ValueError("a scored node goes with its slice, its point and the manifest of the bundle that answered")
    return png_bytes(draw_overlay(result.ct, result.node.row, result.node.col, result.finding, manifest))


def pictures(readings: Sequence[Reading]) -> list[tuple[str, bytes]]:
    """Draw the overlays of the nodes that were scored, under the names that `lymphcad score` gives them.

    Parameters
    ----------
    readings
        In the order of the table of results.

    Returns
    -------
    list of (str, bytes)
        ``overlays/NUMBER.png``, the number being the node's in the table, from 1, and the PNG.

    Raises
    ------
    ValueError
        As `picture` does.
    """
    drawn = ((f"overlays/{number:06d}.png", picture(reading)) for number, reading in enumerate(readings, start=1))
    return [(name, png) for name, png in drawn if png is not None]


def results_zip(readings: Sequence[Reading]) -> bytes:
    """Pack the folder that `lymphcad score` writes: results, overlays, and the notice.

    Parameters
    ----------
    readings
        In the order of the table of results.

    Returns
    -------
    bytes
        A ZIP file; the same readings give the same bytes.

    Raises
    ------
    ValueError
        As `picture` does.
    """
    drawn = iter(pictures(readings))
    named = [(one.result, next(drawn) if one.result.finding else ("", b"")) for one in readings]
    files = [
        (NOTICE, NOTICE_TEXT.encode()),
        (RESULTS, results_csv((result, name) for result, (name, _) in named)),
        *((name, png) for _, (name, png) in named if name),
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content)  # with no time of its own: the first that ZIP knows, 1980
    return buffer.getvalue()
