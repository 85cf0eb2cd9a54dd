"""The structured report, read back by highdicom and by dcmtk."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import pydicom
import pytest
from lymphcad_client.dicom import codes as own
from pydicom.sr.codedict import codes

from lymphcad import RESEARCH_USE_ONLY, __version__


def read(path):
    report = hd.sr.srread(path)
    assert isinstance(report, hd.sr.Comprehensive3DSR)
    return report


def groups_of(report):
    return report.content.get_planar_roi_measurement_groups()


def texts(item, name):
    """Return the texts below an item that have a name."""
    return [found.value for found in hd.sr.utils.find_content_items(item, name=name, value_type="TEXT", recursive=True)]


def test_each_node_has_its_group(results, phantom, bundle):
    groups = groups_of(read(results["sr.dcm"]))
    assert [group.tracking_identifier for group in groups] == [node.node for node in phantom]
    assert len({group.tracking_uid for group in groups}) == 4
    for group, node in zip(groups, phantom, strict=True):
        assert group.finding_type == codes.SCT.LymphNode
        assert [site.value for site in group.finding_sites] == [codes.SCT.CervicalLymphNode]
        probability, threshold = group.get_measurements()
        assert (probability.name, threshold.name) == (own.PROBABILITY, codes.DCM.ThresholdValue)
        assert probability.unit == threshold.unit == codes.UCUM.NoUnits
        assert probability.value == float(f"{node.finding.probability:.6f}")
        assert threshold.value == pytest.approx(bundle.manifest.threshold, abs=1e-6)
        (call,) = group.get_qualitative_evaluations(own.CALL)
        assert call.value == {"benign": codes.SCT.Benign, "metastatic": codes.SCT.Metastasis}[node.finding.call]
    assert {node.finding.call for node in phantom} == {"benign", "metastatic"}


def test_it_says_who_answered(results, phantom, bundle):
    (group,) = groups_of(read(results["sr.dcm"]))[:1]
    assert texts(group[0], codes.DCM.AlgorithmName) == ["LymphCAD"]
    assert texts(group[0], codes.DCM.AlgorithmVersion) == [f"{__version__}, bundle {bundle.label}"]
    assert texts(group[0], codes.DCM.AlgorithmParameters) == [
        f"bundle SHA-256 {bundle.digest}",
        f"input SHA-256 {phantom[0].input_sha256}",
    ]
    (observer,) = read(results["sr.dcm"]).content.get_observer_contexts()
    assert observer.observer_type == codes.DCM.Device
    assert observer.observer_identifying_attributes.name == "LymphCAD"


def test_points_lie_where_the_nodes_do(results, phantom):
    for group, node in zip(groups_of(read(results["sr.dcm"])), phantom, strict=True):
        image = pydicom.dcmread(node.path)
        region = group.roi
        assert isinstance(region, hd.sr.ImageRegion3D)
        assert region.frame_of_reference_uid == image.FrameOfReferenceUID
        place = hd.spatial.ImageToReferenceTransformer.for_image(image)
        # highdicom's image coordinates have the corner of the first pixel at 0, 0, and columns first.
        expected = place(np.array([[node.col + 0.5, node.row + 0.5]]))
        assert region.value == pytest.approx(expected, abs=1e-4)
        (source,) = group.get_measurements(own.PROBABILITY)[0].referenced_images
        assert source.referenced_sop_instance_uid == image.SOPInstanceUID


def test_its_images_are_its_evidence(results, phantom):
    images = [pydicom.dcmread(node.path) for node in phantom]
    found = read(results["sr.dcm"]).get_evidence(current_procedure_only=True)
    assert sorted(found) == sorted(
        (image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID, image.SOPClassUID) for image in images
    )


def test_nothing_is_dropped_silently(results, phantom, written, tmp_path):
    report = read(results["sr.dcm"])
    assert texts(report.content[0], own.NOT_SCORED) == ["N5: node_in_padding"]
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "PARTIAL",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert report.CompletionFlagDescription == "1 of 5 nodes were not scored"
    (path,) = written(phantom, tmp_path, ["sr"])
    assert read(path).CompletionFlag == "COMPLETE"
    assert texts(read(path).content[0], own.NOT_SCORED) == []


def test_it_is_for_research_only(results):
    assert f"{RESEARCH_USE_ONLY}." in texts(read(results["sr.dcm"]).content[0], codes.DCM.Comment)
    assert all("research use only" in pydicom.dcmread(path).SeriesDescription for path in results.values())


def test_what_was_assumed_is_said(ct, save, scored, written, tmp_path):
    node = scored(1, save(ct), 60, 70, assumptions="The table says 2 mm and\nthe file 1 mm.")
    (group,) = groups_of(read(written([node], tmp_path / "out", ["sr"])[0]))
    assert texts(group[0], codes.DCM.Comment) == ["The table says 2 mm and the file 1 mm."]


def test_dcmtk_reads_it(results, dsrdump):
    said = dsrdump(results["sr.dcm"])
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.count('"Measurement Group"') == 4
    assert "Verification Flag   : UNVERIFIED" in said.stdout


def test_a_frame_has_its_own_plane(enhanced, save, scored, written, tmp_path):
    node = scored(1, save(enhanced), 60, 70.5, frame=2)
    (path,) = written([node], tmp_path / "out", ["sr"])
    (group,) = groups_of(read(path))
    # Position of frame 2 + 70.5 columns of 0.75 mm along a row + 60 rows of 0.5 mm along a column.
    assert group.roi.value[0] == pytest.approx([-1 + 70.5 * 0.75, -2 + 30 * 0.8, 15 - 30 * 0.6], abs=1e-4)
    (source,) = group.get_measurements(own.PROBABILITY)[0].referenced_images
    assert source.referenced_frame_numbers == [2]
    assert source.referenced_sop_class_uid == enhanced.SOPClassUID


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient"])
def test_without_a_place_in_the_patient_the_point_is_on_the_image(keyword, ct, save, scored, written, tmp_path, errors):
    delattr(ct, keyword)
    told = []
    node = scored(3, save(ct), 60, 70.25)
    paths = written([node], tmp_path / "out", tell=told.append)
    assert [path.name for path in paths] == ["sr.dcm", "sc-000003.dcm"]
    assert told == ["node 3 gets no heatmap object: its image does not say where it lies in the patient"]
    (group,) = groups_of(read(paths[0]))
    assert isinstance(group.roi, hd.sr.ImageRegion)
    assert group.roi.value.tolist() == [[70.75, 60.5]]
    assert group.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == ct.SOPInstanceUID
    assert "no heatmap object" in texts(group[0], codes.DCM.Comment)[0]
    assert [line for path in paths for line in errors(path)] == []


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("FrameOfReferenceUID", "1.2.x"),
        ("ImagePositionPatient", "1\\2"),
        ("ImagePositionPatient", "1e300\\2\\3"),
        ("ImagePositionPatient", "1\\2\\nan"),
        ("ImageOrientationPatient", "1\\0\\0\\1\\0\\0"),
        ("ImageOrientationPatient", "0\\0\\0\\0\\1\\0"),
        ("ImageOrientationPatient", "1\\0\\0\\0\\2\\0"),
        ("PixelSpacing", "0\\0"),
        ("PixelSpacing", "0.5"),
        ("PixelSpacing", "0.5\\inf"),
    ],
)
def test_a_place_that_cannot_be_is_none(keyword, value, ct, save, scored, written, tmp_path):
    ct.add_new(keyword, "LO", value)
    told = []
    (path,) = written([scored(1, save(ct), 60, 70)], tmp_path / "out", ["sr", "pm"], tell=told.append)
    assert len(told) == 1
    (group,) = groups_of(read(path))
    assert group.roi.value.tolist() == [[70.5, 60.5]]


def test_a_point_on_a_frame_names_it(enhanced, save, scored, written, tmp_path):
    del enhanced.FrameOfReferenceUID
    (path,) = written([scored(1, save(enhanced), 60, 70, frame=2)], tmp_path / "out", ["sr"])
    (group,) = groups_of(read(path))
    assert group.roi.value.tolist() == [[70.5, 60.5]]
    assert group.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 2


def test_a_report_of_two_series_and_two_frames_of_reference(ct, save, scored, written, tmp_path, errors):
    first = save(ct)
    ct.SeriesInstanceUID, ct.FrameOfReferenceUID, ct.SOPInstanceUID = "1.2.3.4", "1.2.3.5", "1.2.3.6"
    ct.file_meta.MediaStorageSOPInstanceUID = "1.2.3.6"
    nodes = [scored(1, first, 60, 70), scored(2, save(ct), 60, 70)]
    by_name = {path.name: path for path in written(nodes, tmp_path / "out")}
    report = read(by_name["sr.dcm"])
    references = [group.roi.frame_of_reference_uid for group in groups_of(report)]
    assert references == [pydicom.dcmread(first).FrameOfReferenceUID, "1.2.3.5"]
    assert len({series for _, series, _, _ in report.get_evidence()}) == 2
    maps = [pydicom.dcmread(by_name[f"heatmap-00000{number}.dcm"]) for number in (1, 2)]
    assert [heat.FrameOfReferenceUID for heat in maps] == references
    assert maps[0].SeriesInstanceUID != maps[1].SeriesInstanceUID
    assert [line for path in by_name.values() for line in errors(path)] == []
