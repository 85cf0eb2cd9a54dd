"""The structured report of a study: Comprehensive 3D SR by TID 1500, a measurement group for each scored node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom import sr
from pydicom.sr.codedict import codes

from lymphcad import __version__
from lymphcad_client.dicom import codes as own
from lymphcad_client.dicom.objects import MAKER, Maker, notice, reference_image
from lymphcad_client.dicom.uids import derived_uid, node_parts, series_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lymphcad_client.dicom.scored_node import ScoredNode
    from lymphcad_client.dicom.source import SourceImage

SERIES_NUMBER = 9471
_CONTAINS = sr.RelationshipTypeValues.CONTAINS


def make_report(
    nodes: Sequence[tuple[ScoredNode, SourceImage]],
    maker: Maker,
    not_scored: Sequence[tuple[str, str]],
    unplaced: Sequence[int] = (),
) -> sr.Comprehensive3DSR:
    """Make the report of a study (PS3.3, A.35.13; PS3.16, TID 1500, 1410 and 4019).

    Parameters
    ----------
    nodes
        The scored nodes of the study and their images, at least one, in the order of the table.
    maker
        Who answered.
    not_scored
        Name and reason code of each node of the study that has no answer.
    unplaced
        Numbers of the nodes whose heatmap could not be written, for want of a place in the patient.

    Returns
    -------
    highdicom.sr.Comprehensive3DSR
        Complete, or partial where nodes were not scored; unverified.
    """
    groups = [_group(node, source, maker, without_map=node.number in unplaced) for node, source in nodes]
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(maker)),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    # TID 1500, row 12: what is said of the study as a whole.
    remarks = sr.ContainerContentItem(own.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    remarks.ContentSequence = sr.ContentSequence(
        [_text(codes.DCM.Comment, notice())]
        + [_text(own.NOT_SCORED, f"{printable(name)}: {code}") for name, code in not_scored]
    )
    report[0].ContentSequence.append(remarks)
    study = nodes[0][1].study_instance_uid
    made = sr.Comprehensive3DSR(
        evidence=[reference_image(source) for _, source in nodes],
        content=report,
        series_instance_uid=series_uid("sr", study, maker.digest),
        sop_instance_uid=_uid(nodes, maker, not_scored, unplaced),
        instance_number=1,
        is_complete=not not_scored,
        is_final=False,
        is_verified=False,
        coding_schemes=[own.own_scheme()],
        **maker.series(SERIES_NUMBER, "report"),
    )
    if not_scored:
        made.CompletionFlagDescription = f"{len(not_scored)} of {len(not_scored) + len(nodes)} nodes were not scored"
    return made


def _uid(
    nodes: Sequence[tuple[ScoredNode, SourceImage]],
    maker: Maker,
    not_scored: Sequence[tuple[str, str]],
    unplaced: Sequence[int],
) -> str:
    """Return the report's SOP Instance UID: another one as soon as it says anything else, as in `uids.result_uid`."""
    parts: list[str | float | None] = ["sr", __version__, maker.digest, len(nodes)]
    for node, source in nodes:
        parts += [*node_parts(node, source), node.input_sha256, node.finding.call, node.node, node.assumptions]
        parts.append(node.number in unplaced)
    return derived_uid(*parts, *(part for pair in not_scored for part in pair))


def _observer(maker: Maker) -> sr.ObserverContext:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", __version__, maker.digest),
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=f"{MAKER} {__version__}, bundle {maker.bundle}",
    )
    return sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)


def _group(
    node: ScoredNode, source: SourceImage, maker: Maker, *, without_map: bool
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """Return a node's measurement group (TID 1410): a point, two measurements and an evaluation."""
    answer = node.finding
    frames = None if source.frame is None else [source.frame]
    image = sr.SourceImageForMeasurement(source.sop_class_uid, source.sop_instance_uid, frames)
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=derived_uid("node", *node_parts(node, source)), identifier=printable(node.node) or str(node.number)
        ),
        referenced_region=_region(node, source),
        geometric_purpose=codes.DCM.Center,
        finding_category=codes.SCT.AnatomicalStructure,
        finding_type=codes.SCT.LymphNode,
        finding_sites=[sr.FindingSite(codes.SCT.CervicalLymphNode)],
        algorithm_id=sr.AlgorithmIdentification(
            name=MAKER,
            version=f"{__version__}, bundle {maker.bundle}",
            parameters=[f"bundle SHA-256 {maker.digest}", f"input SHA-256 {node.input_sha256}"],
        ),
        # With six decimals, as in results.csv.
        measurements=[
            sr.Measurement(
                own.PROBABILITY, round(answer.probability, 6), codes.UCUM.NoUnits, referenced_images=[image]
            ),
            sr.Measurement(own.THRESHOLD, round(answer.threshold, 6), codes.UCUM.NoUnits),
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(own.CALL, own.CALLS[answer.call])],
    )
    notes = [node.assumptions] if node.assumptions else []
    if without_map:
        notes.append("There is no heatmap object: the image does not say where it lies in the patient.")
    group[0].ContentSequence.extend(_text(codes.DCM.Comment, printable(note)) for note in notes)
    return group


def _region(node: ScoredNode, source: SourceImage) -> sr.ImageRegion3D | sr.ImageRegion:
    """Return the node's centre in the patient, or else on the image.

    There the upper left corner of the first pixel is 0, 0 (PS3.3, C.18.6.1.1), and columns come first; ours counts
    from the middle of that pixel.
    """
    if source.plane is not None:
        point = np.array([source.plane.point_mm(node.row, node.col)])
        return sr.ImageRegion3D(sr.GraphicTypeValues3D.POINT, point, source.plane.frame_of_reference_uid)
    frames = None if source.frame is None else [source.frame]
    image = sr.SourceImageForRegion(source.sop_class_uid, source.sop_instance_uid, frames)
    return sr.ImageRegion(sr.GraphicTypeValues.POINT, np.array([[node.col + 0.5, node.row + 0.5]]), image)


def _text(name: sr.CodedConcept, value: str) -> sr.TextContentItem:
    return sr.TextContentItem(name, value, relationship_type=_CONTAINS)


def printable(value: str) -> str:
    """Return a user's text without control characters, which have a meaning of their own in DICOM (PS3.5, 6.1.3)."""
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())
