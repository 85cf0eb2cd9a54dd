"""From what a user drops on the page to series to choose from; nothing is written to disk on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lymphcad.archive import expand_archive, is_archive
from lymphcad.errors import Reason, Refusal
from lymphcad.series import RefusedFile, list_series

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lymphcad.memory_file import MemoryFile
    from lymphcad.series import Listing, Series


def open_study(files: Sequence[MemoryFile], limit_bytes: int, advance: Callable[[int, int], None]) -> Listing:
    """List the series in files and zips of files.

    Parameters
    ----------
    files
        As they were dropped.
    limit_bytes
        That they may have in all, zips expanded.
    advance
        Called with how many files were looked at and how many there are.

    Returns
    -------
    Listing
        Each file, those in zips too, is in a series or refused with a reason.
    """
    found: list[MemoryFile] = []
    refused: list[RefusedFile] = []
    left = limit_bytes
    for file in files:
        if is_archive(file.data):
            inside, outside = expand_archive(file, left)
            refused += outside
        else:
            inside = [file]
        for one in inside:
            left -= len(one.data)
            if left < 0:
                refused.append(RefusedFile(one.name, _too_much(limit_bytes)))
            else:
                found.append(one)
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        advance(done, len(found))

    listing = list_series(found, count)
    return replace(listing, refused=(*refused, *listing.refused))


def _too_much(limit_bytes: int) -> Refusal:
    return Refusal(
        Reason.ABSURD_SIZE,
        f"what was dropped holds more than {limit_bytes // 1024**2} MB in all: drop one series at a time, or have the"
        " dashboard started with a higher --upload-limit",
    )


def series_title(series: Series) -> str:
    """Return a line that tells a series from the others of its study: what a user chooses by."""
    number = "" if series.number is None else f"{series.number}: "
    count = len(series.images)
    parts = [
        series.modality or "no modality",
        f"{count} {'image' if count == 1 else 'images'}",
        "thickness not stated" if series.thickness_mm is None else f"{series.thickness_mm:g} mm",
        f"contrast: {series.contrast}" if series.contrast else "contrast not stated",
    ]
    return f"{number}{series.description or 'no description'} ({', '.join(parts)})"


def masked(text: str) -> str:
    """Return how a name or number is shown before the viewer asks: nothing of it, not even its length."""
    return "••••••" if text else "not stated"
