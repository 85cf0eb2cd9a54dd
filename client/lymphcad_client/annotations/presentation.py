"""Annotations of a Grayscale Softcopy Presentation State: its graphics, and texts that point at something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lymphcad.dicom_header import text, uid
from lymphcad.errors import Reason, Refusal
from lymphcad.functional_groups import items
from lymphcad_client.annotations.annotation import Annotation, InImage
from lymphcad_client.annotations.elements import (
    GRAPHIC_DATA,
    GRAPHIC_TYPE,
    REFERENCED_IMAGES,
    REFERENCED_SERIES,
    Reader,
    referenced,
)
from lymphcad_client.annotations.shape import read_shape

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt

ANNOTATIONS = 0x00700001

_TEXTS, _GRAPHICS = 0x00700008, 0x00700009
_ANCHOR_UNITS, _GRAPHIC_UNITS = 0x00700004, 0x00700005
_TEXT, _ANCHOR = 0x00700006, 0x00700014
_TRACKING_ID, _TRACKING_UID = 0x00620020, 0x00620021
_HALF_PIXEL = 0.5

_Image = tuple[str, tuple[int, ...]]


def read_presentation(root: Any, reader: Reader) -> list[Annotation]:
    """Read the annotations of a presentation state (PS3.3, C.10.5).

    Each graphic is an annotation; the text beside it is its name. Where there is no graphic, each text is one, at its
    anchor point.

    Parameters
    ----------
    root
        The data set, with its graphic annotation sequence and the series that it applies to.
    reader
        For its elements.

    Returns
    -------
    list of Annotation
        In the order of the object.

    Raises
    ------
    Refusal
        ``unreadable`` if an element that should be a sequence is none.
    """
    everything = _unique(
        image for series in items(root, REFERENCED_SERIES) for image in referenced(series, REFERENCED_IMAGES)
    )
    found: list[Annotation] = []
    for group in items(root, ANNOTATIONS):
        # without images of its own a group applies to all of the presentation state
        images = _unique(referenced(group, REFERENCED_IMAGES)) or everything
        graphics, texts = items(group, _GRAPHICS), items(group, _TEXTS)
        names = [reader.name(one, _TEXT) for one in texts]
        for number, graphic in enumerate(graphics):
            name = names[number] if len(names) == len(graphics) else names[0] if len(names) == 1 else ""
            found.append(_annotation(graphic, reader, name, _graphic(graphic, images, reader)))
        if not graphics:
            found += [
                _annotation(one, reader, name, _anchor(one, images, reader))
                for one, name in zip(texts, names, strict=True)
            ]
    return found


def _unique(images: Iterable[_Image]) -> list[_Image]:
    return list(dict.fromkeys(images))


def _annotation(one: Any, reader: Reader, name: str, place: InImage | Refusal) -> Annotation:
    return Annotation(reader.name(one, _TRACKING_ID) or name, uid(one, _TRACKING_UID), place)


def _graphic(graphic: Any, images: list[_Image], reader: Reader) -> InImage | Refusal:
    try:
        _check_units(text(graphic, _GRAPHIC_UNITS))
        points = reader.points(graphic, GRAPHIC_DATA, 2)
        return _place(text(graphic, GRAPHIC_TYPE), points, images)
    except Refusal as refusal:
        return refusal


def _anchor(one: Any, images: list[_Image], reader: Reader) -> InImage | Refusal:
    try:
        points = reader.points(one, _ANCHOR, 2)
        if len(points) == 0:
            raise Refusal(
                Reason.NOT_A_POINT,
                "the text has no anchor point, so it marks nothing on the image: mark the node with a point",
            )
        _check_units(text(one, _ANCHOR_UNITS))
        return _place("POINT", points, images)
    except Refusal as refusal:
        return refusal


def _check_units(units: str) -> None:
    if units != "PIXEL":
        found = "DISPLAY, a part of the screen" if units == "DISPLAY" else "missing or unknown"
        raise Refusal(
            Reason.NOT_A_POINT,
            f"the graphic's annotation units are {found}, and PIXEL was expected: draw it on the image itself",
        )


def _place(graphic_type: str, points: npt.NDArray[np.float64], images: list[_Image]) -> InImage:
    shape = read_shape(graphic_type, points)
    if len(images) != 1:
        raise Refusal(
            Reason.AMBIGUOUS_IMAGE if images else Reason.UNKNOWN_IMAGE,
            f"the graphic applies to {len(images) or 'no'} images, and one was expected: draw it on one slice",
        )
    col, row = shape.centre
    # 0\0 is the corner of the first pixel (PS3.3, C.10.5), and ours is its middle
    return InImage(*images[0], row - _HALF_PIXEL, col - _HALF_PIXEL)
