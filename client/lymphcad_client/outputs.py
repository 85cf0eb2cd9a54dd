"""What a finished run leaves beside its journal: tables, and results for the PACS."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeVar

from lymphcad.errors import CommandError
from lymphcad_client.results import RESULTS, write_finished

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from lymphcad.images import ImageFinder
    from lymphcad_client.batch import Result
    from lymphcad_client.journal import Journal
    from lymphcad_client.scorer import Scorer

Kind = Literal["sr", "sc", "pm"]
Word = TypeVar("Word", bound=str)
PARQUET, DICOM_FOLDER = "results.parquet", "dicom"
FORMATS = ("csv", "parquet")
KINDS: tuple[Kind, ...] = ("sr", "sc", "pm")
"""As in `lymphcad_client.dicom.study`, which needs an extra."""


@dataclass(frozen=True)
class Asked:
    """Which outputs were asked for.

    Attributes
    ----------
    formats
        Of `FORMATS`.
    dicom
        Of `KINDS`; empty for none.
    """

    formats: tuple[str, ...]
    dicom: tuple[Kind, ...]

    @classmethod
    def parse(cls, formats: str, dicom: str | None) -> Asked:
        """Read what a command line says.

        Raises
        ------
        CommandError
            If a word is not known.
        ModuleNotFoundError
            If a package is missing that writes them: better now than after the last node.
        """
        found = cls(_words("--format", formats, FORMATS), _words("--dicom", dicom, KINDS) if dicom is not None else ())
        for package, needed in (("pyarrow", "parquet" in found.formats), ("highdicom", found.dicom)):
            if needed and find_spec(package) is None:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return found


def clear_outputs(out: Path, *, anew: bool) -> None:
    """Remove what an earlier run left that is not true any more.

    Parameters
    ----------
    out
        The folder.
    anew
        Whether this run begins with its first node; then DICOM results go as well, for they would be sent with its own.

    Raises
    ------
    CommandError
        If the folder cannot be written to.
    """
    try:
        for name in (RESULTS, PARQUET):
            (out / name).unlink(missing_ok=True)
        if anew and (out / DICOM_FOLDER).is_dir():
            shutil.rmtree(out / DICOM_FOLDER)
    except OSError as error:
        raise CommandError(f"'{out}' cannot be written to ({error.strerror}): name another folder with --out") from None


def write_outputs(
    journal: Journal, asked: Asked, finder: ImageFinder, scorer: Scorer, out: Path, console: Console
) -> int:
    """Write what was asked for, from a journal that has every node.

    Parameters
    ----------
    journal
        Of the run.
    asked
        What to write.
    finder
        Finds the images, of which DICOM results repeat the patient's and the study's part.
    scorer
        Who scored.
    out
        The folder.
    console
        For progress, and for what has no DICOM result.

    Returns
    -------
    int
        How many scored nodes have no DICOM result though one was asked for.

    Raises
    ------
    CommandError
        If the folder cannot be written to.
    """
    without = 0
    if "parquet" in asked.formats:
        from lymphcad_client.parquet import write_parquet

        write_parquet(_rows(journal), out)
    if asked.dicom:
        from lymphcad_client.dicom_outputs import write_dicom

        without = write_dicom(journal, asked.dicom, finder, scorer, out, console)
    # Last: where it stands, everything else does.
    if "csv" in asked.formats:
        write_finished(_rows(journal), out)
    return without


def _rows(journal: Journal) -> Iterator[tuple[Result, str]]:
    return ((result, picture) for _, result, picture in journal.results())


def _words(option: str, text: str, known: tuple[Word, ...]) -> tuple[Word, ...]:
    said = {word.strip() for word in text.split(",") if word.strip()}
    words = tuple(word for word in known if word in said)
    if not words or len(words) < len(said):
        raise CommandError(f"{option} {text!r} is not known: name one or more of {', '.join(known)}, with commas")
    return words
