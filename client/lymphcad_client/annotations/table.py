"""Write a table of nodes, as `lymphcad.tables.read_nodes` reads it."""

from __future__ import annotations

import contextlib
import csv
import os
from typing import TYPE_CHECKING

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lymphcad_client.annotations.find import FoundNode

COLUMNS = ("image", "row", "col", "node", "frame", "source", "tracking_uid", "sop_class")
"""The last three inform; the reader of tables ignores them."""


def write_nodes(path: Path, nodes: Sequence[FoundNode]) -> None:
    """Write a table of nodes, whole or not at all; a file of that name is replaced.

    Parameters
    ----------
    path
        The table: UTF-8, CSV.
    nodes
        In their order.

    Raises
    ------
    CommandError
        If it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for node in nodes:
                row = node.row
                frame = "" if row.frame is None else row.frame
                place = (row.image, row.row, row.col, row.node, frame)
                writer.writerow((*place, node.source, node.tracking_uid, node.sop_class))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise CommandError(
            f"'{path}' cannot be written ({error.strerror}): make room, or name another file with --out"
        ) from None
