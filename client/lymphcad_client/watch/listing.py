"""What lies in a study's folder, and since when it has been the same."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

TABLE = "nodes.csv"
REFUSED_FILE = "REFUSED.txt"
REFUSED_PART = ".REFUSED.txt.part"
"""Under which the file is written; a kill leaves it."""


@dataclass(frozen=True)
class Listing:
    """What lies in a study's folder.

    Attributes
    ----------
    fingerprint
        SHA-256 of the study's name and of all paths below its folder, with the files' sizes and times of change. Two
        studies never share it, however alike their files are.
    has_table
        Whether it has a `TABLE`.
    """

    fingerprint: str
    has_table: bool


def list_study(folder: Path) -> Listing | None:
    """List a study; the file of a refusal, which we put there, is left out.

    Parameters
    ----------
    folder
        The study.

    Returns
    -------
    Listing or None
        None if the folder is gone. A folder below it that may not be read is listed as such.
    """
    if folder.is_symlink() or not folder.is_dir():
        return None
    lines: list[str] = []
    has_table = False

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            lines.append(f"{os.path.relpath(error.filename, folder)}\0unreadable")

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        at = os.path.relpath(parent, folder)
        if at == ".":
            names = [name for name in names if name not in (REFUSED_FILE, REFUSED_PART)]
        for name in (*folders, *names):
            path = os.path.normpath(os.path.join(at, name))  # noqa: PTH118 - a text, and thousands of them
            try:
                found = os.lstat(os.path.join(parent, name))  # noqa: PTH118
            except FileNotFoundError:
                continue  # it went in between, so the next listing is another one
            except OSError:
                lines.append(f"{path}\0unreadable")
                continue
            if stat.S_ISDIR(found.st_mode):
                lines.append(f"{path}\0folder")
                continue
            has_table = has_table or (path == TABLE and stat.S_ISREG(found.st_mode))
            lines.append(f"{path}\0{found.st_size}\0{found.st_mtime_ns}")
    whole = "\0\0".join([folder.name, *sorted(lines)])
    return Listing(hashlib.sha256(os.fsencode(whole)).hexdigest(), has_table)


class Settling:
    """Since when each study has been seen unchanged."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, float]] = {}

    def unchanged(self, name: str, fingerprint: str, now: float) -> float:
        """Return for how many seconds a study has been seen as it is now.

        Parameters
        ----------
        name
            The study's.
        fingerprint
            As it is now.
        now
            On a clock that only goes forward, s.
        """
        before, since = self._seen.get(name, ("", now))
        if before != fingerprint:
            since = now
        self._seen[name] = (fingerprint, since)
        return now - since

    def forget_others(self, names: Collection[str]) -> None:
        """Forget the studies that are not among those named."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
