"""The node's folder: studies as they were received, and results on their way to the PACS. Names in it are hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from typing import TYPE_CHECKING

from pydantic import ValidationError

from lymphcad.errors import CommandError
from lymphcad_client.annotations.report import RESULT_OF
from lymphcad_client.pacs.receiving import PART, hashed
from lymphcad_client.pacs.storage_node import CT_CLASSES
from lymphcad_client.watch.files import free_name, sync_folder, taken_names
from lymphcad_client.watch.outbox import DICOM, STUDY_JSON, Outbox, Record

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad_client.listen.arrivals import Arrivals
    from lymphcad_client.pacs.receiving import Identity

RECEIVED, RESULTS, STORED, FAILED = "received", "results", "stored", "failed"
RETURNED = "returned"
"""Of a study: results of ours that a PACS has sent on. They are kept like all else, and nothing is scored for them."""
NAME_LENGTH = 16
"""Of a study's name, which a number may follow in the name of its results."""
_GOING = ".going-"


class Spool:
    """The folder of a node, which no other process writes to.

    Parameters
    ----------
    path
        Made if it is not there; what a killed process has left unfinished in it is removed.

    Raises
    ------
    CommandError
        If it cannot be made, read or written to.
    """

    def __init__(self, path: Path) -> None:
        self.received = path / RECEIVED
        try:
            for name in (RECEIVED, RESULTS, STORED, FAILED):
                (path / name).mkdir(parents=True, exist_ok=True)
            for folder in self.received.iterdir():
                if folder.name.startswith(_GOING):
                    shutil.rmtree(folder)
                else:
                    for part in folder.rglob(f"{PART}*"):
                        part.unlink()  # never acknowledged
        except OSError as error:
            raise CommandError(
                f"the folder '{path}' cannot be used ({error.strerror}): let this user write to it, or name another"
            ) from None
        self.results, self.stored, self.failed = (Outbox(path / name) for name in (RESULTS, STORED, FAILED))

    def place(self, identity: Identity) -> Path:
        """Return the folder that an object goes to."""
        study = self.received / self.name(identity)
        return study / RETURNED if is_result(identity) else study

    @staticmethod
    def name(identity: Identity) -> str:
        """Return the name of an object's study."""
        return hashed(identity.study, NAME_LENGTH)

    def studies(self) -> list[str]:
        """Return the names of the received studies, the one that changed last at the end."""
        with os.scandir(self.received) as entries:
            found = [(entry.stat().st_mtime_ns, entry.name) for entry in entries if not entry.name.startswith(".")]
        return [name for _, name in sorted(found)]

    def fingerprint(self, study: str) -> str:
        """Return a SHA-256 of a study's name and of all its files that can change what is scored."""
        lines = [study]
        with os.scandir(self.received / study) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_file() and not entry.name.startswith("."):
                    status = entry.stat()
                    lines.append(f"{entry.name}\0{status.st_size}\0{status.st_mtime_ns}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def find(self, study: str, fingerprint: str) -> Record | None:
        """Return the record of a study's results if it was scored as it is, by whichever bundle.

        A node that is started with a new bundle does not score again what it has answered.
        """
        for box in (self.results, self.stored, self.failed):
            for name in taken_names(box.path, study):
                try:
                    record = Record.model_validate_json((box.path / name / STUDY_JSON).read_bytes())
                except (FileNotFoundError, NotADirectoryError, ValidationError):
                    continue
                if record.fingerprint == fingerprint:
                    return record
        return None

    def waiting(self) -> list[str]:
        """Return the names of the results that are to be stored, the oldest first."""
        folders = [path for path in self.results.path.iterdir() if not path.name.startswith(".")]
        return [path.name for path in sorted(folders, key=lambda path: path.stat().st_mtime_ns)]

    def files(self, name: str) -> list[Path]:
        """Return the DICOM files of results that wait, in a fixed order."""
        return sorted((self.results.path / name / DICOM).rglob("*.dcm"))

    def hand_on(self, name: str, box: Outbox) -> None:
        """Move results to ``stored`` or ``failed``; what was stored of a study that is gone goes, too."""
        folder = self.results.path / name
        if box is self.stored and not (self.received / name[:NAME_LENGTH]).exists():
            shutil.rmtree(folder)
            return
        folder.rename(box.path / free_name(box.path, name))
        sync_folder(box.path)
        sync_folder(self.results.path)

    def age_s(self, study: str) -> float:
        """Return for how long nothing of a study has come, s; by the files' times, so over restarts."""
        newest = max(
            (path.stat().st_mtime for path in (self.received / study).rglob("*")),
            default=(self.received / study).stat().st_mtime,
        )
        return time.time() - newest

    def remove(self, study: str, arrivals: Arrivals, seen: int) -> bool:
        """Remove a study and the record of what was stored of it, unless something of it is arriving.

        Parameters
        ----------
        study
            The study.
        arrivals
            Knows what is arriving.
        seen
            Its `Arrivals.all` when the removal was decided.

        Returns
        -------
        bool
            Whether it was removed.
        """
        going = self.received / f"{_GOING}{study}"

        def move() -> None:
            (self.received / study).rename(going)

        if not arrivals.take_away(study, seen, move):
            return False
        shutil.rmtree(going)
        for name in taken_names(self.stored.path, study):
            shutil.rmtree(self.stored.path / name)
        return True


def is_result(identity: Identity) -> bool:
    """Return whether an object is a result that LymphCAD made; its phantoms are CTs and none."""
    return identity.manufacturer.startswith(RESULT_OF) and identity.sop_class not in CT_CLASSES
