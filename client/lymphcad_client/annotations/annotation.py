"""What an annotation object says, before anybody has looked for the image that it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.errors import Refusal

MAX_NAME = 200
"""Characters of a node's name; more are cut off."""


@dataclass(frozen=True)
class InImage:
    """A place in an image.

    Attributes
    ----------
    image
        SOP Instance UID.
    frames
        The frames that the object names, from 1; often none.
    row, col
        Zero-based pixel coordinates: 0, 0 is the middle of the first pixel.
    """

    image: str
    frames: tuple[int, ...]
    row: float
    col: float


@dataclass(frozen=True)
class InSpace:
    """A place in the patient.

    Attributes
    ----------
    frame_of_reference
        Frame of Reference UID.
    at_mm
        x, y, z in that frame of reference, mm.
    """

    frame_of_reference: str
    at_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Annotation:
    """One annotation.

    Attributes
    ----------
    name
        What its author calls it; empty if it has no name.
    tracking_uid
        Tracking UID; empty if it has none.
    place
        Where it is, or why it cannot be said.
    """

    name: str
    tracking_uid: str
    place: InImage | InSpace | Refusal


@dataclass(frozen=True)
class AnnotationObject:
    """A structured report or presentation state.

    Attributes
    ----------
    path
        The file.
    source
        ``SR`` or ``GSPS``.
    sop_class, sop_instance, study
        UIDs.
    written
        Date and time of its content, digits as DICOM writes them; they sort by time.
    is_result
        Whether LymphCAD wrote it.
    evidence
        SOP Instance UIDs that it says it was made from.
    annotations
        In the order of the object.
    digest
        SHA-256 of the object; copies have the same.
    """

    path: Path
    source: str
    sop_class: str
    sop_instance: str
    study: str
    written: str
    is_result: bool
    evidence: frozenset[str]
    annotations: tuple[Annotation, ...]
    digest: str
