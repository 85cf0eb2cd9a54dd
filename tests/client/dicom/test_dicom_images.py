"""Overlay and heatmap, read back and compared with what they are of."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.dicom import read_slice
from lymphcad.overlay import draw_overlay

PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "StudyDescription")
PATIENT_AND_STUDY = (*PATIENT, *STUDY, "ReferringPhysicianName")


def place_of(node, row, col):
    """Return what of the patient lies at a point of a node's image, by highdicom, mm."""
    image = pydicom.dcmread(node.path)
    place = hd.spatial.ImageToReferenceTransformer.for_image(image, frame_number=node.frame)
    return place(np.array([[col + 0.5, row + 0.5]]))[0]


def check_place(heat, node, field_mm):
    """Check where the first and the last sample lie: as the graph cuts the field of view."""
    size = node.finding.heatmap.shape[0]
    measures = pydicom.dcmread(node.path)
    if node.frame is not None:
        measures = measures.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    spacing = [float(mm) for mm in measures.PixelSpacing]
    place = hd.spatial.PixelToReferenceTransformer.for_image(heat, frame_number=1)
    for row, col in ((0, 0), (size - 1, 0), (20, 100)):
        # `lymphcad_train.graphs.Preprocess`: ((sample + 0.5) / size - 0.5) * field of view.
        offsets = [((sample + 0.5) / size - 0.5) * field_mm for sample in (row, col)]
        expected = place_of(node, node.row + offsets[0] / spacing[0], node.col + offsets[1] / spacing[1])
        assert place(np.array([[col, row]]))[0] == pytest.approx(expected, abs=1e-3)


def test_the_heatmap_lies_on_the_node(results, phantom, bundle):
    field_mm = bundle.manifest.preprocess.field_of_view_mm
    for node in phantom:
        heat = hd.pm.sop.pmread(results[f"heatmap-{node.number:06d}.dcm"])
        image = pydicom.dcmread(node.path)
        assert heat.FrameOfReferenceUID == image.FrameOfReferenceUID
        check_place(heat, node, field_mm)
        (source,) = heat.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == image.SOPInstanceUID
        assert heat.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID


def test_the_heatmap_is_evidence_in_logits(results, phantom, bundle):
    for node in phantom:
        heat = hd.pm.sop.pmread(results[f"heatmap-{node.number:06d}.dcm"])
        stored = heat.get_frame(1, apply_real_world_transform=False)
        assert np.array_equal(stored, node.finding.heatmap.astype(int) * 257)
        assert stored.max() == 65535
        evidence = heat.get_frame(1, apply_real_world_transform=True)
        assert evidence.max() == pytest.approx(bundle.manifest.evidence_scale)
        assert evidence == pytest.approx(node.finding.heatmap / 255 * bundle.manifest.evidence_scale)
        (mapping,) = heat.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
        (quantity,) = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence
        assert hd.sr.CodedConcept.from_dataset(quantity) == codes.DCM.ClassActivation
        assert (heat.ContentQualification, heat.BurnedInAnnotation) == ("RESEARCH", "NO")
        assert heat.ImageComments == f"{RESEARCH_USE_ONLY}."


def test_the_heatmap_of_a_frame(enhanced, save, scored, written, tmp_path, bundle, errors):
    node = scored(1, save(enhanced), 60.25, 70, frame=2)
    (path,) = written([node], tmp_path / "out", ["pm"])
    heat = hd.pm.sop.pmread(path)
    check_place(heat, node, bundle.manifest.preprocess.field_of_view_mm)
    derived = heat.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    for source in (derived, heat.SourceImageSequence[0]):
        assert (source.ReferencedSOPClassUID, source.ReferencedFrameNumber) == (enhanced.SOPClassUID, 2)
    measures = heat.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == 3
    assert "SpacingBetweenSlices" not in measures
    assert errors(path) == []


def test_the_overlay_is_the_picture(results, phantom, bundle):
    for node in phantom:
        image = pydicom.dcmread(results[f"sc-{node.number:06d}.dcm"])
        picture = draw_overlay(read_slice(node.path), node.row, node.col, node.finding, bundle.manifest)
        assert np.array_equal(image.pixel_array, np.asarray(picture))
        assert "PixelSpacing" not in image
        assert not image.PatientOrientation
        assert (image.BurnedInAnnotation, image.ConversionType, image.ImageType[0]) == ("NO", "DI", "DERIVED")
        assert image.ImageComments == f"{RESEARCH_USE_ONLY}."
        assert image.SourceImageSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(node.path).SOPInstanceUID


def test_assumptions_show_in_the_overlay(ct, save, scored, written, tmp_path):
    path = save(ct)
    plain, noted = (
        pydicom.dcmread(written([node], tmp_path / name, ["sc"])[0])
        for name, node in (
            ("plain", scored(1, path, 60, 70)),
            ("noted", scored(1, path, 60, 70, assumptions="Something was assumed.")),
        )
    )
    assert plain.PixelData != noted.PixelData
    assert plain.SOPInstanceUID != noted.SOPInstanceUID


def test_what_lost_something_before_says_so(ct, save, scored, written, tmp_path, errors):
    ct.LossyImageCompression, ct.LossyImageCompressionRatio, ct.LossyImageCompressionMethod = "01", 8, "ISO_15444_1"
    for path in written([scored(1, save(ct), 60, 70)], tmp_path / "out", ["sc", "pm"]):
        image = pydicom.dcmread(path)
        assert (image.LossyImageCompression, image.LossyImageCompressionRatio) == ("01", 8)
        assert errors(path) == []


def test_all_is_filed_in_the_study_of_its_images(results, phantom):
    source = pydicom.dcmread(phantom[0].path)
    made = [pydicom.dcmread(path) for path in results.values()]
    assert len(made) == 9
    for one in made:
        assert [one.get(keyword) for keyword in PATIENT_AND_STUDY] == [source.get(key) for key in PATIENT_AND_STUDY]
    series = {(one.Modality, one.SOPClassUID, one.SeriesNumber, one.SeriesInstanceUID) for one in made}
    assert len(series) == 3
    assert source.SeriesInstanceUID not in {uid for _, _, _, uid in series}
    assert len({one.SOPInstanceUID for one in made}) == 9


def test_dciodvfy_finds_no_error(results, errors):
    assert {path.name: errors(path) for path in results.values()} == {name: [] for name in results}
