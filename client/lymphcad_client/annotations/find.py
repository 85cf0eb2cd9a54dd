"""Find the nodes that the annotation objects of a study mark: `find_nodes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lymphcad.errors import Reason, Refusal
from lymphcad.images import list_images
from lymphcad.tables import NodeRow
from lymphcad_client.annotations.annotation import AnnotationObject, InImage
from lymphcad_client.annotations.files import read_file
from lymphcad_client.annotations.images import Image, Spot, StudyImages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lymphcad_client.annotations.annotation import Annotation


@dataclass(frozen=True)
class FoundNode:
    """A node, and where it was found.

    Attributes
    ----------
    row
        As a table of nodes has it.
    source
        ``SR`` or ``GSPS``.
    tracking_uid
        Tracking UID; empty if the annotation has none.
    sop_class, sop_instance
        UIDs of the annotation object.
    """

    row: NodeRow
    source: str
    tracking_uid: str
    sop_class: str
    sop_instance: str


class Where(NamedTuple):
    """Which annotation.

    Attributes
    ----------
    path
        The file.
    number
        The annotation's number in it, from 1; 0 for the file as a whole.
    """

    path: Path
    number: int

    def __str__(self) -> str:
        """Return path and number, as the command prints it."""
        return f"{self.path}, annotation {self.number}" if self.number else str(self.path)


class Refused(NamedTuple):
    """An annotation, or a file, of which nothing came.

    Attributes
    ----------
    where
        Which.
    refusal
        Why.
    """

    where: Where
    refusal: Refusal


@dataclass(frozen=True)
class FoundNodes:
    """The nodes of a study. Every annotation and every file is in one of these.

    Attributes
    ----------
    nodes
        In the order of their objects, oldest first, and in each of its annotations.
    refused
        Annotations and files of which nothing came.
    left_out
        Reports that LymphCAD itself wrote: its results, which are no request.
    superseded
        Annotations whose tracking UID a newer object of the same study has, too.
    without
        Annotation objects without an annotation, such as a presentation state that sets the window only.
    images
        Image files.
    others
        Files of other kinds, such as a dose report, or one that is not DICOM.
    """

    nodes: list[FoundNode]
    refused: list[Refused]
    left_out: int = 0
    superseded: int = 0
    without: int = 0
    images: int = 0
    others: int = 0

    @property
    def rows(self) -> list[NodeRow]:
        """The rows of the nodes."""
        return [node.row for node in self.nodes]


def find_nodes(
    sources: Sequence[Path],
    *,
    include_results: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> FoundNodes:
    """Find the nodes that structured reports (PS3.16, TID 1500) and presentation states (PS3.3, A.33.1) mark.

    Parameters
    ----------
    sources
        Files and folders: a study's images and its annotation objects.
    include_results
        Whether reports that LymphCAD itself wrote are read like others.
    report
        Called with the number of files read and of all files.

    Returns
    -------
    FoundNodes
        `row` and `col` are zero-based pixel coordinates; `image` is a SOP Instance UID.

    Raises
    ------
    CommandError
        If a source does not exist or a folder may not be read.
    """
    images: list[Image] = []
    objects: list[AnnotationObject] = []
    refused: list[Refused] = []
    others = 0
    paths = list({path.resolve(): path for path in reversed(list_images(sources))}.values())[::-1]
    for number, path in enumerate(paths, start=1):
        try:
            found = read_file(path)
        except Refusal as refusal:
            refused.append(Refused(Where(path, 0), refusal))
        else:
            if isinstance(found, Image):
                images.append(found)
            elif found is None:
                others += 1
            else:
                objects.append(found)
        if report is not None:
            report(number, len(paths))
    kept = [one for one in objects if include_results or not one.is_result]
    left_out = len(objects) - len(kept)
    kept, twice = _once(kept)
    refused += twice
    newest = {(one.study, a.tracking_uid): one for one in kept for a in one.annotations}
    study = StudyImages(images)
    nodes: list[FoundNode] = []
    superseded = total = 0
    for one in kept:
        for number, annotation in enumerate(one.annotations, start=1):
            total += 1
            if annotation.tracking_uid and newest[one.study, annotation.tracking_uid] is not one:
                superseded += 1
                continue
            try:
                spot = _spot(annotation, one, study)
            except Refusal as refusal:
                refused.append(Refused(Where(one.path, number), refusal))
                continue
            row = NodeRow(
                len(nodes) + 2, spot.image, spot.row, spot.col, annotation.name or str(total), frame=spot.frame
            )
            nodes.append(FoundNode(row, one.source, annotation.tracking_uid, one.sop_class, one.sop_instance))
    without = sum(not one.annotations for one in kept)
    return FoundNodes(nodes, refused, left_out, superseded, without, len(images), others)


def _once(objects: list[AnnotationObject]) -> tuple[list[AnnotationObject], list[Refused]]:
    """Return the objects, copies but once, oldest first; and those of which two differ and have one UID."""
    by_uid: dict[str, list[AnnotationObject]] = {}
    for one in objects:
        by_uid.setdefault(one.sop_instance or str(one.path), []).append(one)
    kept, refused = [], []
    for same in by_uid.values():
        if len({one.digest for one in same}) == 1:
            kept.append(same[0])
            continue
        refusal = Refusal(
            Reason.AMBIGUOUS_IMAGE,
            f"{len(same)} annotation objects have one SOP Instance UID, and they differ: keep the right one",
        )
        refused += [Refused(Where(one.path, 0), refusal) for one in same]
    return sorted(kept, key=lambda one: (one.written, one.sop_instance)), refused


def _spot(annotation: Annotation, one: AnnotationObject, study: StudyImages) -> Spot:
    place = annotation.place
    if isinstance(place, Refusal):
        raise place
    if isinstance(place, InImage):
        return study.in_image(place)
    return study.in_space(place, one.evidence)
