"""The heatmap of a scored node as a parametric map, which lies where the node does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import highdicom as hd
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage

from lymphcad_client.dicom.objects import Maker, notice, reference_image, source_reference
from lymphcad_client.dicom.uids import derived_uid, result_uid, series_uid

if TYPE_CHECKING:
    from lymphcad_client.dicom.scored_node import ScoredNode
    from lymphcad_client.dicom.source import Plane, SourceImage

SERIES_NUMBER = 9473
_LARGEST = 65535
_STEP = _LARGEST // 255
"""Between two levels of the heatmap: spread over all 16 bits, they look right in viewers that find no window, too."""


def make_heatmap(node: ScoredNode, source: SourceImage, plane: Plane, maker: Maker) -> ParametricMap:
    """Make the parametric map of a node (PS3.3, A.75): its samples as they are, in a geometry of their own.

    Parameters
    ----------
    node
        The scored node.
    source
        The image that it lies on.
    plane
        Where that lies.
    maker
        Who answered.

    Returns
    -------
    highdicom.pm.ParametricMap
        One frame of uint16 [S, S], `manifest.preprocess.field_of_view_mm` wide and high around the node: the heatmap's
        levels times 257.
        Real world values are evidence for metastasis, in logits (PS3.3, C.7.6.16.2.11).
    """
    size = node.finding.heatmap.shape[0]
    step_mm = maker.manifest.preprocess.field_of_view_mm / size
    # The first sample's centre is (S - 1) / 2 steps before the node's, along rows and along columns.
    back = [(size - 1) / 2 * step_mm / mm for mm in plane.spacing_mm]
    first = plane.point_mm(node.row - back[0], node.col - back[1])
    image = reference_image(source)
    image.SOPClassUID = CTImageStorage  # so that highdicom asks for no functional groups; the references follow below
    made = ParametricMap(
        source_images=[image],
        pixel_array=node.finding.heatmap.astype(np.uint16) * np.uint16(_STEP),
        series_instance_uid=series_uid("pm", source.study_instance_uid, maker.digest, plane.frame_of_reference_uid),
        sop_instance_uid=result_uid("pm", node, source, maker.digest),
        instance_number=source.number,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_evidence(maker.manifest.evidence_scale)],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=(_LARGEST + 1) / 2, window_width=_LARGEST + 1)],
        content_label="EVIDENCE",
        content_description="Evidence for metastasis of a lymph node",
        pixel_measures=hd.PixelMeasuresSequence(pixel_spacing=(step_mm, step_mm), slice_thickness=source.thickness_mm),
        plane_orientation=hd.PlaneOrientationSequence("PATIENT", plane.orientation),
        plane_positions=[hd.PlanePositionSequence("PATIENT", first)],
        **maker.series(SERIES_NUMBER, "heatmaps"),
    )
    made.ImageComments = notice()
    # Made up as well: one frame has no neighbour.
    del made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    _name_source(made, source)
    # highdicom makes up a new one each time.
    organization = derived_uid("dimensions", made.SOPInstanceUID)
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for dimension in made.DimensionIndexSequence:
        dimension.DimensionOrganizationUID = organization
    return made


def _evidence(scale: float) -> RealWorldValueMapping:
    return RealWorldValueMapping(
        lut_label="EVIDENCE",
        lut_explanation=f"Evidence for metastasis, logits, 0 to {scale:.6g} (or more)",
        unit=codes.UCUM.NoUnits,
        value_range=(0, _LARGEST),
        slope=scale / _LARGEST,
        intercept=0.0,
        quantity_definition=codes.DCM.ClassActivation,
    )


def _name_source(made: ParametricMap, source: SourceImage) -> None:
    """Refer to the image, and to the frame of it, as what it is."""
    made.SourceImageSequence = [source_reference(source)]
    made.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPClassUID = source.sop_class_uid
    for group in made.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence", ()):
            for item in derivation.SourceImageSequence:
                item.ReferencedSOPClassUID = source.sop_class_uid
                if source.frame is not None:
                    item.ReferencedFrameNumber = source.frame
