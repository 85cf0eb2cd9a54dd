"""One study: its table is read, its nodes are scored, and the results are published if it is still the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lymphcad.bundle import bundle_label
from lymphcad.errors import CommandError, Reason, Refusal, TableError
from lymphcad.images import ImageFinder
from lymphcad.tables import read_nodes
from lymphcad_client.batch import score_nodes
from lymphcad_client.overlay import write_overlay
from lymphcad_client.results import write_results
from lymphcad_client.watch.listing import TABLE, list_study
from lymphcad_client.watch.outbox import Outbox, Record

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.tables import NodeRow
    from lymphcad_client.batch import Result
    from lymphcad_client.scorer import Scorer
    from lymphcad_client.watch.listing import Listing


@dataclass(frozen=True)
class Verdict:
    """What became of a study.

    Attributes
    ----------
    status
        Where it goes.
    reason
        Why it is refused: ``no_table``, ``bad_table`` or ``none_scored``; else empty.
    sentence
        The same for people; it can repeat a column's name, so it goes into the study and into no log.
    scored, refused, failed
        How many nodes.
    already
        Whether the results were there before.
    """

    status: Literal["done", "refused"]
    reason: Literal["", "no_table", "bad_table", "none_scored"] = ""
    sentence: str = ""
    scored: int = 0
    refused: int = 0
    failed: int = 0
    already: bool = False


class StudyFinder(ImageFinder):
    """Find images in a study's folder only: what lies elsewhere is of another study, and may change unseen.

    Parameters
    ----------
    study
        The folder.

    Raises
    ------
    CommandError
        If it is gone.
    """

    def __init__(self, study: Path) -> None:
        super().__init__(study, [study])
        self._study = study.resolve()

    def find(self, image: str) -> Path:
        """Return an image's file; see `ImageFinder.find`, whose error for the whole study becomes one of the node."""
        try:
            path = super().find(image)
        except CommandError:
            raise Refusal(
                Reason.UNREADABLE,
                "the study's folder, or one below it, may not be read, so the SOP Instance UID was not found: change"
                " its permissions",
            ) from None
        if not path.resolve().is_relative_to(self._study):
            raise Refusal(
                Reason.FILE_MISSING,
                "the path in the column image leads out of the study's folder: put the file into it",
            )
        return path


def score_study(study: Path, listing: Listing, outbox: Outbox, scorer: Scorer, *, overlays: bool) -> Verdict | None:
    """Score a study, unless its results are there.

    Parameters
    ----------
    study
        Its folder.
    listing
        What lies in it.
    outbox
        Where the results go.
    scorer
        Answers.
    overlays
        Whether a picture of each scored node is written.

    Returns
    -------
    Verdict or None
        None if the study is gone or was changed in between; then there are no results.

    Raises
    ------
    CommandError
        If the outbox cannot be written to.
    InterruptedByUser
        On Ctrl-C.
    """
    record = outbox.find(study.name, listing.fingerprint, scorer.digest)
    if record is not None:
        return _verdict(record, already=True)
    if not listing.has_table:
        sentence = f"there is no {TABLE} in the folder: write one beside the images, and move the folder back"
        return _if_same(study, listing, Verdict("refused", "no_table", sentence))
    try:
        rows = read_nodes(study / TABLE)
    except TableError as error:
        return _if_same(study, listing, Verdict("refused", "bad_table", f"{TABLE}: {error}"))
    try:
        finder = StudyFinder(study)
    except CommandError:
        return None
    return _score(study, listing, rows, finder, outbox, scorer, overlays=overlays)


def _score(
    study: Path,
    listing: Listing,
    rows: list[NodeRow],
    finder: StudyFinder,
    outbox: Outbox,
    scorer: Scorer,
    *,
    overlays: bool,
) -> Verdict | None:
    counts: Counter[str] = Counter()
    with outbox.part(study.name) as part:

        def count(result: Result) -> None:
            counts[result.status] += 1

        def draw(result: Result, number: int) -> str:
            return write_overlay(result, number, part, scorer.manifest)

        try:
            write_results(score_nodes(rows, finder, scorer), part, draw if overlays else None, count)
        except CommandError as error:  # it names the folder, and so the study
            if not isinstance(met := error.__context__, OSError):
                raise
            raise outbox.unusable(met) from None
        record = Record(
            fingerprint=listing.fingerprint,
            status="done" if counts["scored"] else "refused",
            n=len(rows),
            scored=counts["scored"],
            refused=counts["refused"],
            failed=counts["failed"],
            bundle=bundle_label(scorer.manifest, scorer.digest),
            bundle_sha256=scorer.digest,
            scorer=scorer.about,
        )
        verdict = _if_same(study, listing, _verdict(record, already=False))
        if verdict is not None:
            outbox.publish(part, study.name, record)
        return verdict


def _verdict(record: Record, *, already: bool) -> Verdict:
    counts = (record.scored, record.refused, record.failed)
    if record.status == "done":
        return Verdict("done", "", "", *counts, already)
    sentence = f"none of the {record.n} nodes could be scored: results.csv in the folder of results says why for each"
    return Verdict("refused", "none_scored", sentence, *counts, already)


def _if_same(study: Path, listing: Listing, verdict: Verdict) -> Verdict | None:
    """Return a verdict if it is still on what lies in the folder."""
    return verdict if list_study(study) == listing else None
