"""One received study: its annotations are read, the nodes scored, and the results published for the PACS."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from lymphcad.bundle import bundle_label
from lymphcad.errors import Refusal
from lymphcad_client.annotations.find import find_nodes
from lymphcad_client.batch import score_nodes
from lymphcad_client.dicom.scored_node import ScoredNode
from lymphcad_client.dicom.study import write_study
from lymphcad_client.results import write_results
from lymphcad_client.watch.outbox import DICOM, Record
from lymphcad_client.watch.study import StudyFinder

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from lymphcad_client.annotations.find import FoundNodes
    from lymphcad_client.batch import Result
    from lymphcad_client.dicom.study import Kind
    from lymphcad_client.listen.spool import Spool
    from lymphcad_client.scorer import Scorer


@dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes
    ----------
    status
        ``scored``; ``already``: its results were there before; ``waiting``: no node is marked in it, or only such as
        are refused, so it waits for more objects; ``refused``: not one of its nodes could be scored; ``failed``: the
        scorer failed, so it is to be tried again; ``changed`` while it was scored.
    scored, refused
        How many nodes.
    codes
        Why nodes were refused or failed, with how many of each.
    """

    status: Literal["scored", "already", "waiting", "refused", "failed", "changed"]
    scored: int = 0
    refused: int = 0
    codes: Counter[str] = field(default_factory=Counter)


def score_received(study: str, spool: Spool, scorer: Scorer, kinds: Collection[Kind]) -> Outcome:
    """Score a received study as it is now, unless it was.

    Parameters
    ----------
    study
        Its name in the spool.
    spool
        The node's folder.
    scorer
        Answers.
    kinds
        Of DICOM results.

    Returns
    -------
    Outcome
        With ``scored`` its results are in ``results`` of the spool, with ``refused`` its table is in ``failed``.

    Raises
    ------
    CommandError, OSError
        If the spool cannot be read or written to.
    """
    fingerprint = spool.fingerprint(study)
    record = spool.find(study, fingerprint)
    if record is not None:
        return Outcome("already", record.scored, record.refused)
    folder = spool.received / study
    found = find_nodes([folder])
    codes = Counter(one.refusal.reason.value for one in found.refused)
    if not found.nodes:
        return Outcome("waiting", 0, len(found.refused), codes)
    results: list[Result] = []
    with spool.results.part(study) as part:
        write_results(
            score_nodes(found.rows, StudyFinder(folder), scorer),
            part,
            None,
            lambda result: results.append(replace(result, ct=None)),
        )
        failed = Counter(_code(result) for result in results if result.status == "failed")
        if failed:
            return Outcome("failed", codes=failed)
        codes.update(_code(result) for result in results if result.status == "refused")
        scored = sum(result.finding is not None for result in results)
        refused = len(found.refused) + len(results) - scored
        if scored:
            try:
                _write_dicom(results, found, scorer, part / DICOM, kinds)
            except Refusal as refusal:
                codes[refusal.reason.value] += scored
                scored, refused = 0, refused + scored
        if spool.fingerprint(study) != fingerprint:
            return Outcome("changed")
        record = Record(
            fingerprint=fingerprint,
            status="done" if scored else "refused",
            n=scored + refused,
            scored=scored,
            refused=refused,
            failed=0,
            bundle=bundle_label(scorer.manifest, scorer.digest),
            bundle_sha256=scorer.digest,
            scorer=scorer.about,
        )
        box = spool.results if scored else spool.failed
        box.publish(part, study, record)
    return Outcome("scored" if scored else "refused", scored, refused, codes)


def _write_dicom(
    results: list[Result], found: FoundNodes, scorer: Scorer, folder: Path, kinds: Collection[Kind]
) -> None:
    scored = [
        ScoredNode(
            number,
            result.node.node,
            result.path,
            result.node.frame,
            result.node.row,
            result.node.col,
            result.finding,
            result.input_sha256,
            result.reason,
        )
        for number, result in enumerate(results, start=1)
        if result.finding is not None
        and result.path is not None
        and result.node.row is not None
        and result.node.col is not None
    ]
    not_scored = [(result.node.node, _code(result)) for result in results if result.finding is None]
    not_scored += [
        (f"annotation {number} that is no node", one.refusal.reason.value)
        for number, one in enumerate(found.refused, start=1)
    ]
    write_study(scored, scorer.manifest, scorer.digest, folder, kinds, not_scored=not_scored)


def _code(result: Result) -> str:
    return result.reason.partition(":")[0]
