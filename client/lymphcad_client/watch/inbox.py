"""The inbox: a study is a folder in it, and goes to ``done`` or ``refused`` once nothing more is to be done with it."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lymphcad.errors import CommandError, LymphcadError
from lymphcad_client.watch.files import free_name, sync_folder, write_whole
from lymphcad_client.watch.listing import REFUSED_FILE, REFUSED_PART

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DONE, REFUSED = "done", "refused"
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""What is wrong with the disk, and not with one study."""


class StudyHeldError(LymphcadError):
    """A study cannot be moved for a reason of its own, such as its permissions; the message is the system's."""


class Inbox:
    """The folder that studies are dropped into.

    Parameters
    ----------
    path
        An existing folder.

    Raises
    ------
    CommandError
        If there is no such folder, or ``done`` and ``refused`` cannot be made in it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise CommandError(f"there is no folder '{path}' to watch: make it, or name the one that studies come to")
        self.path = path
        try:
            for name in (DONE, REFUSED):
                (path / name).mkdir(exist_ok=True)
        except OSError as error:
            raise CommandError(
                f"the inbox '{path}' cannot have its folders {DONE} and {REFUSED} ({error.strerror}): let this"
                " user write to it, make room, or move away what is in the way"
            ) from None

    def studies(self) -> list[str]:
        """Return the names of the folders that are studies, sorted.

        Raises
        ------
        CommandError
            If the inbox cannot be read.
        """
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise CommandError(
                f"the inbox '{self.path}' cannot be read ({error.strerror}): see that the disk or share is there"
            ) from None
        # Upper and lower case are one on some shares.
        return sorted(name for name in names if not name.startswith(".") and name.casefold() not in (DONE, REFUSED))

    def done(self, name: str) -> None:
        """Move a study to ``done``, without the reason of an earlier refusal.

        Parameters
        ----------
        name
            The study's. If it is gone, nothing is to be done.

        Raises
        ------
        StudyHeldError
            If it cannot be moved.
        CommandError
            If the disk is full, or cannot be written to.
        """
        with self._moving(name):
            for own in (REFUSED_FILE, REFUSED_PART):
                if (self.path / name / own).is_file():
                    (self.path / name / own).unlink()
            self._move(name, DONE)

    def refused(self, name: str, sentence: str) -> None:
        """Write the reason into a study, and move it to ``refused``; arguments and errors as in `done`."""
        with self._moving(name):
            study = self.path / name
            write_whole(study / REFUSED_FILE, study / REFUSED_PART, f"{sentence}\n")
            self._move(name, REFUSED)

    def _move(self, name: str, to: str) -> None:
        folder = self.path / to
        folder.mkdir(exist_ok=True)
        (self.path / name).rename(folder / free_name(folder, name))
        sync_folder(folder)
        sync_folder(self.path)

    @contextmanager
    def _moving(self, name: str) -> Iterator[None]:
        try:
            with self._writing():
                yield
        except OSError as error:
            if os.path.lexists(self.path / name):
                raise StudyHeldError(error.strerror or type(error).__name__) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _DISK:
                raise CommandError(
                    f"the inbox '{self.path}' cannot be written to ({error.strerror}): make room and start again, the"
                    " study is still in it"
                ) from None
            raise
