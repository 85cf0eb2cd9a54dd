"""UIDs that follow from what an object says: the same result has the same one wherever and whenever it is made."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from lymphcad import __version__

if TYPE_CHECKING:
    from lymphcad_client.dicom.scored_node import ScoredNode
    from lymphcad_client.dicom.source import SourceImage


def derived_uid(*parts: str | float | None) -> str:
    """Return a UID made from a name-based UUID (PS3.5, B.2; RFC 9562, version 5).

    Parameters
    ----------
    parts
        What it is made from; their order counts.

    Returns
    -------
    str
        Below the root 2.25.
    """
    name = json.dumps(["LymphCAD", *parts])
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def series_uid(kind: str, study: str, digest: str, frame_of_reference: str = "") -> str:
    """Return the Series Instance UID of a study's results of one kind.

    Parameters
    ----------
    kind
        ``sr``, ``sc`` or ``pm``.
    study
        Study Instance UID.
    digest
        Of the bundle. With the program's version it is the equipment, of which a series has one (PS3.3, A.1.2.5).
    frame_of_reference
        Of the heatmaps: a series has one frame of reference at most (PS3.3, A.1.2.6).

    Returns
    -------
    str
        A UID.
    """
    return derived_uid("series", kind, study, __version__, digest, frame_of_reference)


def node_parts(node: ScoredNode, source: SourceImage) -> tuple[str | float | None, ...]:
    """Return what tells a node from every other one: its study, image, frame and place.

    The number in the table is not in it: the same node in a longer table is the same node.

    Parameters
    ----------
    node
        The node.
    source
        The image that it lies on.

    Returns
    -------
    tuple
        For `derived_uid`.
    """
    return source.study_instance_uid, source.sop_instance_uid, source.frame, float(node.row), float(node.col)


def result_uid(kind: str, node: ScoredNode, source: SourceImage, digest: str) -> str:
    """Return the SOP Instance UID of an object of one node.

    The answer is not in it but for the call: engines differ in the last digits of a probability, and a node that is
    scored again must not lie twice in the archive; a call that turned is another result.

    Parameters
    ----------
    kind
        ``sc`` or ``pm``.
    node, source
        The node and the image that it lies on.
    digest
        Of the bundle.

    Returns
    -------
    str
        A UID.
    """
    noted = bool(node.assumptions)
    parts = (*node_parts(node, source), node.input_sha256, node.finding.call, noted)
    return derived_uid(kind, __version__, digest, *parts)
