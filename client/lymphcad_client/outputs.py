"""What a finished run leaves beside its journal: tables, and results for the PACS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lymphcad.errors import CommandError
from lymphcad_client.results import write_finished

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from lymphcad.images import ImageFinder
    from lymphcad_client.batch import Result
    from lymphcad_client.journal import Journal
    from lymphcad_client.scorer import Scorer

FORMATS = ("csv", "parquet")
KINDS = ("sr", "sc", "seg")


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
    dicom: tuple[str, ...]

    @classmethod
    def parse(cls, formats: str, dicom: str | None) -> Asked:
        """Read what a command line says.

        Raises
        ------
        CommandError
            If a word is not known.
        """
        return cls(_words("--format", formats, FORMATS), _words("--dicom", dicom, KINDS) if dicom is not None else ())


def write_outputs(
    journal: Journal, asked: Asked, finder: ImageFinder, scorer: Scorer, out: Path, console: Console
) -> None:
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

    Raises
    ------
    CommandError
        If the folder cannot be written to.
    """
    if "parquet" in asked.formats:
        from lymphcad_client.parquet import write_parquet

        write_parquet(_rows(journal), out)
    if asked.dicom:
        from lymphcad_client.dicom_outputs import write_dicom

        write_dicom(journal, asked.dicom, finder, scorer, out, console)
    # Last: where it stands, everything else does.
    if "csv" in asked.formats:
        write_finished(_rows(journal), out)


def _rows(journal: Journal) -> Iterator[tuple[Result, str]]:
    return ((result, picture) for _, result, picture in journal.results())


def _words(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words or not set(words) <= set(known):
        raise CommandError(f"{option} {text!r} is not known: name one or more of {', '.join(known)}, with commas")
    return words
