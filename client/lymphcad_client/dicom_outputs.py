"""DICOM results of a whole run, one study after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lymphcad_client.dicom.scored_node import ScoredNode
from lymphcad_client.dicom.study import write_study
from lymphcad_client.progress import progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from lymphcad.images import ImageFinder
    from lymphcad_client.dicom.study import Kind
    from lymphcad_client.journal import Journal
    from lymphcad_client.scorer import Scorer

FOLDER = "dicom"


def write_dicom(
    journal: Journal, kinds: Sequence[Kind], finder: ImageFinder, scorer: Scorer, out: Path, console: Console
) -> None:
    """Write the DICOM results of every study of a run; the same run writes the same files again.

    Parameters
    ----------
    journal
        Of the run, with heatmaps.
    kinds
        Of results.
    finder
        Finds the images.
    scorer
        Who scored.
    out
        The folder; they go into its folder `FOLDER`.
    console
        For progress, and to say what has none.

    Raises
    ------
    CommandError
        If the folder cannot be written to.
    """
    studies = journal.studies()
    without = 0
    with progress(console, "Writing DICOM", "studies", len(studies)) as advance:
        for study in studies:
            if study:
                _write(journal, study, kinds, finder, scorer, out)
            else:
                without = sum(result.finding is not None for _, result, _ in journal.results(""))
            advance()
    if without:
        console.print(f"{without} scored nodes have no DICOM result: their images say no study.", highlight=False)


def _write(journal: Journal, study: str, kinds: Sequence[Kind], finder: ImageFinder, scorer: Scorer, out: Path) -> None:
    scored: list[ScoredNode] = []
    not_scored: list[tuple[str, str]] = []
    for number, result, _ in journal.results(study):
        node = result.node
        if result.finding is None or node.row is None or node.col is None:
            not_scored.append((node.node, result.reason.partition(":")[0]))
            continue
        scored.append(
            ScoredNode(
                number,
                node.node,
                finder.find(node.image),
                node.frame,
                node.row,
                node.col,
                result.finding,
                result.input_sha256,
                result.reason,
            )
        )
    write_study(scored, scorer.manifest, scorer.digest, out / FOLDER, kinds, not_scored=not_scored)
