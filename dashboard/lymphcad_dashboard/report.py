"""The report of `lymphcad compare`, to be shown inside the page."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

REPORT: Final = "report.html"
MAX_BYTES: Final = 64 << 20
# What every such page starts with. The policy stands before anything that a browser would run or load, so that whatever
# follows, it has no scripts and asks for nothing, wherever it is embedded.
_HEAD: Final = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy"'
    " content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
)


def load_report(folder: Path) -> str:
    """Read the report of a comparison of networks.

    Parameters
    ----------
    folder
        What `lymphcad compare --out` names.

    Returns
    -------
    str
        The page, for the srcdoc of a sandboxed frame; it needs no script, and by its own policy runs none.

    Raises
    ------
    CommandError
        If there is none, it cannot be read, is too large, or is not such a report.
    """
    path = folder / REPORT
    named = f"the {REPORT} in '{folder}'"
    another = "name the folder that `lymphcad compare` wrote"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CommandError(f"{named} is not a file: {another}")
        if status.st_size > MAX_BYTES:
            raise CommandError(
                f"{named} has {status.st_size} bytes, and a report has at most {MAX_BYTES >> 20} MiB: {another}"
            )
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise CommandError(f"{named} is not UTF-8, so it is damaged or not a report: {another}") from None
    except FileNotFoundError:
        raise CommandError(f"there is no {REPORT} in '{folder}': {another}") from None
    except OSError as error:
        raise CommandError(f"{named} cannot be read ({error.strerror}): change its permissions, or {another}") from None
    if not text.startswith(_HEAD):
        raise CommandError(f"{named} does not start as a report of LymphCAD does: {another}")
    return text
