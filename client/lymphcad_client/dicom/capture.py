"""The overlay of a scored node as a secondary capture, which every viewer shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom.sc import SCImage

from lymphcad.overlay import draw_overlay
from lymphcad_client.dicom.objects import Maker, notice, source_reference
from lymphcad_client.dicom.uids import result_uid, series_uid

if TYPE_CHECKING:
    from lymphcad.slice import CtSlice
    from lymphcad_client.dicom.scored_node import ScoredNode
    from lymphcad_client.dicom.source import SourceImage

SERIES_NUMBER = 9472


def make_capture(node: ScoredNode, source: SourceImage, ct: CtSlice, maker: Maker) -> SCImage:
    """Make the secondary capture of a node (PS3.3, A.8.1).

    It has no pixel spacing: its panels have two scales, and nobody must measure on it.

    Parameters
    ----------
    node
        The scored node.
    source
        The image that it lies on.
    ct
        The same with its pixels, and with the node's assumptions.
    maker
        Who answered.

    Returns
    -------
    highdicom.sc.SCImage
        RGB, uncompressed.
    """
    picture = draw_overlay(ct, node.row, node.col, node.finding, maker.manifest)
    image = SCImage(
        pixel_array=np.asarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=source.study_instance_uid,
        series_instance_uid=series_uid("sc", source.study_instance_uid, maker.digest),
        sop_instance_uid=result_uid("sc", node, source, maker.digest),
        instance_number=source.number,
        content_qualification="RESEARCH",
        **maker.series(SERIES_NUMBER, "overlays"),
    )
    image.PatientOrientation = []  # the letters are in the picture
    # It says whether the picture names the patient (PS3.3, C.7.6.1.1.3), which it does not.
    image.BurnedInAnnotation = "NO"
    image.ImageComments = notice()
    image.DerivationDescription = (
        "A lymph node, the field of view that was scored, and the evidence for metastasis on it"
    )
    image.SourceImageSequence = [source_reference(source)]
    image.LossyImageCompression = "00"
    image.update(source.lossy)
    return image
