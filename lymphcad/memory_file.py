"""A file that is in memory and nowhere else: what a browser uploads, what a zip holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lymphcad.last_header import LastHeader


@dataclass(frozen=True, eq=False)
class MemoryFile:
    """A file in memory.

    Attributes
    ----------
    name
        Relative path with forward slashes, as it was given.
    data
        Its bytes.
    headers
        The parsed header of a multi-frame file: it goes when the file does.
    """

    name: str
    data: bytes = field(repr=False)
    headers: LastHeader = field(default_factory=LastHeader, init=False, repr=False)


Source = Path | MemoryFile
"""Where an image is read from."""
