"""The results of one study as DICOM files: `write_study`."""

from __future__ import annotations

import filecmp
import hashlib
import logging
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

from lymphcad.dicom import read_slice
from lymphcad.errors import Reason, Refusal
from lymphcad_client.dicom.capture import make_capture
from lymphcad_client.dicom.heatmap import make_heatmap
from lymphcad_client.dicom.objects import Maker, finish
from lymphcad_client.dicom.report import make_report
from lymphcad_client.dicom.source import SourceImage, read_source
from lymphcad_client.watch.files import sync_folder, sync_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from lymphcad.bundle import Manifest
    from lymphcad_client.dicom.scored_node import ScoredNode

Kind = Literal["sr", "sc", "pm"]
"""Structured report, secondary capture of each node's overlay, parametric map of each node's heatmap."""
KINDS: tuple[Kind, ...] = get_args(Kind)


_log = logging.getLogger(__name__)


def study_folder(study_instance_uid: str) -> str:
    """Return the name of a study's folder: 16 hexadecimal digits of the UID's SHA-256."""
    return hashlib.sha256(study_instance_uid.encode()).hexdigest()[:16]


def write_study(
    nodes: Sequence[ScoredNode],
    manifest: Manifest,
    digest: str,
    folder: Path,
    kinds: Collection[Kind],
    *,
    not_scored: Sequence[tuple[str, str]] = (),
    when: datetime | None = None,
    tell: Callable[[str], None] = _log.warning,
) -> list[Path]:
    """Write the DICOM results of one study.

    The same nodes and bundle give the same bytes under the same UIDs. The study's folder is put in its place when it
    is whole, and takes that of an earlier one with everything in it.

    Parameters
    ----------
    nodes
        The scored nodes of the study, at least one.
    manifest, digest
        Of the bundle that answered.
    folder
        Where the study's folder goes; made if it does not exist.
    kinds
        What to write.
    not_scored
        Name and reason code of the study's nodes without an answer, for the report.
    when
        Content Date and Time of the objects, local; that of the newest image if None.
    tell
        Takes a sentence, without patient data, on each heatmap that cannot be written.

    Returns
    -------
    list of Path
        ``FOLDER/0123456789abcdef/sr.dcm``, ``sc-000001.dcm`` and ``heatmap-000001.dcm``, numbered as in the table.

    Raises
    ------
    Refusal
        If an image cannot be read, or has no study to file the result in (``no_study``), or two files have one SOP
        Instance UID and are not the same (``ambiguous_image``); then nothing is written.
    OSError
        If the files cannot be written; then nothing is left of them.
    """
    if not nodes:
        raise ValueError("a study has at least one scored node")
    known = _read_all(sorted(nodes, key=lambda node: node.number))
    maker = Maker(manifest, digest)
    moment = when or max(source.made for _, source in known)
    name = study_folder(known[0][1].study_instance_uid)
    part, target = folder / f".{name}.part", folder / name
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        names = []
        for file, made in _objects(known, maker, kinds, not_scored, moment, tell):
            (part / file).write_bytes(made)
            names.append(file)
        sync_tree(part)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return [target / file for file in names]


def _objects(
    known: Sequence[tuple[ScoredNode, SourceImage]],
    maker: Maker,
    kinds: Collection[Kind],
    not_scored: Sequence[tuple[str, str]],
    when: datetime,
    tell: Callable[[str], None],
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each file, one after the other: a study can have thousands of nodes."""
    unplaced = [node.number for node, source in known if "pm" in kinds and source.plane is None]
    for number in unplaced:
        tell(f"node {number} gets no heatmap object: its image does not say where it lies in the patient")
    if "sr" in kinds:
        yield "sr.dcm", finish(make_report(known, maker, not_scored, unplaced), known[0][1], when)
    for node, source in known:
        if "sc" in kinds:
            ct = read_slice(node.path, node.frame)
            ct = replace(ct, assumptions=(node.assumptions,) if node.assumptions else ())
            yield f"sc-{node.number:06d}.dcm", finish(make_capture(node, source, ct, maker), source, when)
        if "pm" in kinds and source.plane is not None:
            made = make_heatmap(node, source, source.plane, maker)
            yield f"heatmap-{node.number:06d}.dcm", finish(made, source, when)


def _read_all(nodes: Sequence[ScoredNode]) -> list[tuple[ScoredNode, SourceImage]]:
    """Read the headers of all images, and refuse what does not go together."""
    sources: dict[tuple[Path, int | None], SourceImage] = {}
    paths: dict[str, Path] = {}
    for node in nodes:
        at = (node.path, node.frame)
        if at in sources:
            continue
        source = sources[at] = read_source(*at)
        first = paths.setdefault(source.sop_instance_uid, node.path)
        if first != node.path and not filecmp.cmp(first, node.path, shallow=False):
            raise Refusal(
                Reason.AMBIGUOUS_IMAGE,
                "two files that differ have the same SOP Instance UID (0008,0018), so which is the image cannot be"
                " known: keep the one that is right, and score again",
            )
    if len({source.study_instance_uid for source in sources.values()}) > 1:
        raise Refusal(
            Reason.NO_STUDY, "the images are of more than one study, and a report is of one: score the table again"
        )
    return [(node, sources[node.path, node.frame]) for node in nodes]
