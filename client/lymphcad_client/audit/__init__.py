"""The audit trail: who asked for what, and what was answered, in a file in which no line can be changed unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad_client.observing import Observer


def open_audit(path: Path, key: Path | None = None) -> Observer:
    """Open an audit trail, or begin one.

    Parameters
    ----------
    path
        Of its newest file.
    key
        File of its key; ``PATH.key`` if None. It is made for a trail that is begun.

    Returns
    -------
    Observer
        Its `saw` raises ServerError ``audit_failed`` where the line could not be written.

    Raises
    ------
    CommandError
        If the folder cannot be written to, the key is missing or another one, or the trail was changed at its end.
    """
    from lymphcad_client.audit.auditor import Auditor  # here, for `lymphcad --help` imports this package

    return Auditor(path, key)
