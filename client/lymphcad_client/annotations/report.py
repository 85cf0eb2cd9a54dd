"""Annotations of a structured report: the measurement groups of TID 1500, and coordinates that stand by themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lymphcad.dicom_header import text, uid
from lymphcad.errors import Reason, Refusal
from lymphcad.functional_groups import items
from lymphcad_client.annotations.annotation import Annotation, InImage, InSpace
from lymphcad_client.annotations.elements import (
    GRAPHIC_DATA,
    GRAPHIC_TYPE,
    REFERENCED_INSTANCES,
    REFERENCED_SERIES,
    Reader,
    code,
    referenced,
)
from lymphcad_client.annotations.shape import POINT, Shape, read_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT, VALUE_TYPE, CONCEPT = 0x0040A730, 0x0040A040, 0x0040A043
CURRENT_EVIDENCE, OTHER_EVIDENCE = 0x0040A375, 0x0040A385
RESULT_OF = "LymphCAD"
"""Manufacturer, or algorithm, of the reports that LymphCAD itself writes."""

_TEXT, _UID, _IDENTIFIER = 0x0040A160, 0x0040A124, 0x0040DB73
_FRAME_OF_REFERENCE = 0x30060024
_GROUP, _TRACKING_ID, _TRACKING_UID = ("125007", "DCM"), ("112039", "DCM"), ("112040", "DCM")
_ALGORITHM = ("111001", "DCM")
_HALF_PIXEL = 0.5

_Tree = dict[tuple[int, ...], Any]
"""Content items by their position."""


@dataclass
class _Group:
    """A measurement group, or coordinates outside of any."""

    name: str = ""
    tracking_uid: str = ""
    coordinates: list[Any] = field(default_factory=list)


def is_result(root: Any, manufacturer: str) -> bool:
    """Return whether LymphCAD wrote a report, by its manufacturer or the algorithm that it names (TID 4019)."""
    if manufacturer.startswith(RESULT_OF):
        return True
    names = (text(item, _TEXT) for _, item, _ in _walk(root) if code(item, CONCEPT) == _ALGORITHM)
    return any(name.startswith(RESULT_OF) for name in names)


def evidence(root: Any) -> frozenset[str]:
    """Return the SOP Instance UIDs of the evidence of a report (PS3.3, C.17.2.3)."""
    studies = [study for tag in (CURRENT_EVIDENCE, OTHER_EVIDENCE) for study in items(root, tag)]
    series = [one for study in studies for one in items(study, REFERENCED_SERIES)]
    return frozenset(image for one in series for image, _ in referenced(one, REFERENCED_INSTANCES))


def read_report(root: Any, reader: Reader) -> list[Annotation]:
    """Read the annotations of a structured report.

    A measurement group (PS3.16, TID 1410, 1411, 1501) is one annotation, whatever it consists of: of several shapes the
    one that tells most of the node counts, see `_place`. Coordinates outside of any group are one annotation each.

    Parameters
    ----------
    root
        The data set, with its content sequence.
    reader
        For its elements.

    Returns
    -------
    list of Annotation
        In the order of the content tree.

    Raises
    ------
    Refusal
        ``unreadable`` if an element that should be a sequence is none.
    """
    groups: list[_Group] = []
    tree: _Tree = {}
    for path, item, group in _walk(root, groups):
        tree[path] = item
        concept, kind = code(item, CONCEPT), text(item, VALUE_TYPE)
        if kind in ("SCOORD", "SCOORD3D"):
            if group is None:
                groups.append(group := _Group())
            group.coordinates.append(item)
        elif group is None:
            continue
        elif concept == _TRACKING_ID and not group.name:
            group.name = reader.name(item, _TEXT)
        elif concept == _TRACKING_UID and not group.tracking_uid:
            group.tracking_uid = uid(item, _UID)
    return [Annotation(group.name, group.tracking_uid, _of_group(group, tree, reader)) for group in groups]


def _walk(root: Any, groups: list[_Group] | None = None) -> Iterator[tuple[tuple[int, ...], Any, _Group | None]]:
    """Yield the content items in their order: position in the tree, item, and the group that it belongs to."""
    stack: list[tuple[tuple[int, ...], Any, _Group | None]] = [((1,), root, None)]
    while stack:
        path, item, group = stack.pop()
        if groups is not None and code(item, CONCEPT) == _GROUP:
            groups.append(group := _Group())
        yield path, item, group
        children = list(enumerate(items(item, CONTENT), start=1))
        stack.extend(((*path, number), child, group) for number, child in reversed(children))


def _of_group(group: _Group, tree: _Tree, reader: Reader) -> InImage | InSpace | Refusal:
    try:
        return _place(group, tree, reader)
    except Refusal as refusal:
        return refusal


def _place(group: _Group, tree: _Tree, reader: Reader) -> InImage | InSpace:
    """Return the place of the shape that tells most: the largest contour, else the point, else the longest line."""
    found: list[tuple[tuple[int, bool, float], Shape, Any]] = []
    refusals: list[Refusal] = []
    for item in group.coordinates:
        in_image = text(item, VALUE_TYPE) == "SCOORD"
        try:
            shape = read_shape(text(item, GRAPHIC_TYPE), reader.points(item, GRAPHIC_DATA, 2 if in_image else 3))
        except Refusal as refusal:
            refusals.append(refusal)
            continue
        found.append(((shape.kind, in_image, shape.size), shape, item))
    if not found:
        if refusals:
            raise refusals[0]
        raise Refusal(
            Reason.NOT_A_POINT,
            "the measurement group has no coordinates (a segmentation, or numbers alone), and a point or contour was"
            " expected: mark the node with one",
        )
    rank, shape, item = max(found, key=lambda one: one[0])
    if shape.kind == POINT:
        places = {_resolve(one, at, tree, reader) for same, at, one in found if same == rank}
        if len(places) > 1:
            raise Refusal(
                Reason.NOT_A_POINT,
                f"the measurement group has {len(places)} points, and one was expected: give each node its own group",
            )
    return _resolve(item, shape, tree, reader)


def _resolve(item: Any, shape: Shape, tree: _Tree, reader: Reader) -> InImage | InSpace:
    """Return the place of coordinates: in the image that they are selected from, or in a frame of reference."""
    if text(item, VALUE_TYPE) == "SCOORD3D":
        x, y, z = shape.centre
        return InSpace(uid(item, _FRAME_OF_REFERENCE), (x, y, z))
    images = _selected_from(item, tree, reader)
    if len(images) != 1:
        raise Refusal(
            Reason.AMBIGUOUS_IMAGE if images else Reason.UNKNOWN_IMAGE,
            f"the coordinates are selected from {len(images) or 'no'} images, and one was expected: mark the node on"
            " one slice",
        )
    col, row = shape.centre
    # 0\0 is the corner of the first pixel (PS3.3, C.18.6), and ours is its middle
    return InImage(*images[0], row - _HALF_PIXEL, col - _HALF_PIXEL)


def _selected_from(item: Any, tree: _Tree, reader: Reader) -> list[tuple[str, tuple[int, ...]]]:
    """Return the images of coordinates, once each, be they children or references to items elsewhere in the tree."""
    found: dict[tuple[str, tuple[int, ...]], None] = {}
    for child in items(item, CONTENT):
        at = tuple(reader.numbers(child, _IDENTIFIER))  # the position of an item, from the root (PS3.3, C.17.3.2.5)
        image = tree.get(at) if at else child
        if image is not None and text(image, VALUE_TYPE) == "IMAGE":
            found.update(dict.fromkeys(referenced(image, REFERENCED_INSTANCES)))
    return list(found)
