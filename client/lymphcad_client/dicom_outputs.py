"""DICOM results of a whole run, one study after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lymphcad.errors import CommandError, Reason, Refusal
from lymphcad_client.dicom.scored_node import ScoredNode
from lymphcad_client.dicom.study import write_study
from lymphcad_client.outputs import DICOM_FOLDER
from lymphcad_client.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import Console

    from lymphcad.images import ImageFinder
    from lymphcad_client.dicom.study import Kind
    from lymphcad_client.journal import Journal
    from lymphcad_client.scorer import Scorer


def write_dicom(
    journal: Journal, kinds: Sequence[Kind], finder: ImageFinder, scorer: Scorer, out: Path, console: Console
) -> int:
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
        The folder; they go into its folder `DICOM_FOLDER`.
    console
        For progress, and to say what has none.

    Returns
    -------
    int
        How many scored nodes have no DICOM result, for a reason that was said.

    Raises
    ------
    CommandError
        If the folder cannot be written to.
    """

    def say(sentence: str) -> None:
        console.print(sentence, highlight=False, soft_wrap=True, markup=False)

    studies = journal.studies()
    without = 0
    with progress(console, "Writing DICOM", "studies", len(studies)) as advance:
        for study in studies:
            try:
                if not study:
                    raise Refusal(Reason.NO_STUDY, "their images, PNG or JPEG or anonymised, name no study to file in")
                _write(journal, study, kinds, finder, scorer, out, say)
            except Refusal as refusal:
                count = sum(result.finding is not None for _, result, _ in journal.results(study))
                say(f"{count} scored {'node has' if count == 1 else 'nodes have'} no DICOM result, {refusal}")
                without += count
            except OSError as error:
                raise CommandError(
                    f"'{out / DICOM_FOLDER}' cannot be written to ({error.strerror}): make room; the same command with"
                    " --resume goes on"
                ) from None
            advance()
    return without


def _write(
    journal: Journal,
    study: str,
    kinds: Sequence[Kind],
    finder: ImageFinder,
    scorer: Scorer,
    out: Path,
    say: Callable[[str], None],
) -> None:
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
    write_study(scored, scorer.manifest, scorer.digest, out / DICOM_FOLDER, kinds, not_scored=not_scored, tell=say)
