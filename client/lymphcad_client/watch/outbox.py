"""The outbox: a folder of results for each study, which gets its name when it is complete."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.errors import CommandError
from lymphcad_client.results import NOTICE, RESULTS, UNFINISHED
from lymphcad_client.watch.files import free_name, stem, sync_folder, sync_tree, taken_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STUDY_JSON = "study.json"
DICOM = "dicom"
"""Folder of DICOM results within a study's."""
_PART = "-part"
_WRITTEN = {RESULTS, UNFINISHED, NOTICE, STUDY_JSON, DICOM, "overlays"}
"""All that we write into a folder of results."""


class Record(BaseModel):
    """The contents of ``study.json``.

    Attributes
    ----------
    fingerprint
        Of what was scored; see `lymphcad_client.watch.listing.Listing`.
    status
        ``refused`` if not one node could be scored, else ``done``.
    n, scored, refused, failed
        How many nodes.
    bundle, bundle_sha256
        Label and digest of the bundle.
    scorer
        Who scored, a sentence.
    """

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    status: Literal["done", "refused"]
    n: int
    scored: int
    refused: int
    failed: int
    bundle: str
    bundle_sha256: str
    scorer: str
    notice: str = RESEARCH_USE_ONLY


class Outbox:
    """The folder that results are written to.

    Parameters
    ----------
    path
        An existing folder that no other watcher writes to: what one that was killed has left unfinished is removed.

    Raises
    ------
    CommandError
        If it cannot be read or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.writing():
            for part in path.glob(f".*{_PART}"):
                if part.is_dir() and not part.is_symlink() and {path.name for path in part.iterdir()} <= _WRITTEN:
                    shutil.rmtree(part)  # nothing but ours is in it

    def find(self, name: str, fingerprint: str, digest: str) -> Record | None:
        """Return the record of a study's results, if they are there.

        Parameters
        ----------
        name
            The study's.
        fingerprint
            Of what was scored.
        digest
            Of the bundle.
        """
        with self.writing():
            for folder in taken_names(self.path, name):
                try:
                    record = Record.model_validate_json((self.path / folder / STUDY_JSON).read_bytes())
                except (FileNotFoundError, NotADirectoryError, ValidationError):
                    continue
                if (record.fingerprint, record.bundle_sha256) == (fingerprint, digest):
                    return record
        return None

    @contextmanager
    def part(self, name: str) -> Iterator[Path]:
        """Make a hidden folder for a study's results; it is removed at the end unless it was published.

        Parameters
        ----------
        name
            The study's.

        Yields
        ------
        Path
            The folder.

        Raises
        ------
        CommandError
            If it cannot be made.
        """
        folder = self.path / f".{stem(name)}{_PART}"
        with self.writing():
            folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, part: Path, name: str, record: Record) -> None:
        """Give a folder of results its name: the study's, or the next free one with a number.

        Parameters
        ----------
        part
            Of `part`, with all results in it.
        name
            The study's.
        record
            What goes with them.

        Raises
        ------
        CommandError
            If it cannot be written; then nothing has its name.
        """
        with self.writing():
            (part / STUDY_JSON).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
            sync_tree(part)
            part.rename(self.path / free_name(self.path, name))
            sync_folder(self.path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say in one sentence that the outbox cannot be used, without a study's name."""
        try:
            yield
        except OSError as error:
            raise self.unusable(error) from None

    def unusable(self, error: OSError) -> CommandError:
        """Return the error that ends the watch."""
        return CommandError(
            f"the folder of results '{self.path}' cannot be used ({error.strerror}): make room or change its"
            " permissions, and start again; the study is still in the inbox"
        )
