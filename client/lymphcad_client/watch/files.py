"""What inbox and outbox need of a file system: names that are free, and files that are there after a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = ".lymphcad-watch.lock"
_ROOM = 240
"""Of the 255 bytes that a name may have; what we put around it needs the rest."""
_NUMBER = re.compile(r"-[0-9]+")
_NO_SUCH_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}


def stem(name: str) -> str:
    """Return a study's name, cut where a number behind it would make it too long for a file system."""
    raw = os.fsencode(name)
    return name if len(raw) <= _ROOM else raw[:_ROOM].decode("utf-8", "ignore")


def free_name(folder: Path, name: str) -> str:
    """Return NAME, or else the first of NAME-2, NAME-3 ... that a folder does not have."""
    names = (name if number == 1 else f"{stem(name)}-{number}" for number in count(1))
    return next(free for free in names if not os.path.lexists(folder / free))


def taken_names(folder: Path, name: str) -> list[str]:
    """Return those of NAME, NAME-2, NAME-3 ... that a folder has; there can be gaps."""
    start = stem(name)
    return [
        found
        for found in (path.name for path in folder.iterdir())
        if found == name or (found.startswith(start) and _NUMBER.fullmatch(found[len(start) :]))
    ]


def sync_tree(folder: Path) -> None:
    """Have a folder's files and folders written to the disk, so that a later rename does not come before them."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with Path(parent, name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


def sync_folder(folder: Path) -> None:
    """Have the names in a folder written to the disk, where the system can."""
    try:
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:  # Windows opens no folder, some network shares sync none
        if error.errno not in _NO_SUCH_SYNC:
            raise


def write_whole(path: Path, part: Path, text: str) -> None:
    """Write a text under another name first, so that nobody sees a half of it."""
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def check_apart(inbox: Path, outbox: Path) -> None:
    """Refuse folders of which one lies in the other: results would be taken for studies.

    Raises
    ------
    CommandError
        If they are the same, or one is in the other.
    """
    if _is_within(inbox, outbox) or _is_within(outbox, inbox):
        raise CommandError(
            f"the inbox '{inbox}' and the folder of results '{outbox}' lie one in the other: name two that do not"
        )


def _is_within(folder: Path, other: Path) -> bool:
    whole = folder.resolve()  # samefile sees through upper and lower case and mounts, too
    return other.exists() and any(one.exists() and one.samefile(other) for one in (whole, *whole.parents))


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other watchers out of a folder; the system lets go of it when this process dies, however it dies.

    Raises
    ------
    CommandError
        If another watcher has it, or no lock file can be made in it.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise CommandError(
            f"another watcher is at work on '{folder}': stop it first, or give this one folders of its own"
        ) from None
    except OSError as error:
        raise CommandError(
            f"no lock can be taken in '{folder}' ({error.strerror}): let this user write to it, or name another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
