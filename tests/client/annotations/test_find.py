"""Nodes from structured reports and presentation states, each read back from files that highdicom or pydicom wrote."""

from __future__ import annotations

import shutil

import highdicom as hd
import numpy as np
import pydicom
import pytest
from annotating import (
    FRAME_OF_REFERENCE,
    STEP_MM,
    annotated,
    copy_of,
    ct_series,
    graphic,
    in_mm,
    item,
    plain,
    planar,
    presentation,
    reference,
    report,
    scoord,
    scoord3d,
    text_object,
    volumetric,
    write,
)
from highdicom import sr
from lymphcad_client.annotations.find import find_nodes
from lymphcad_client.annotations.table import write_nodes
from pydicom.sr.codedict import codes
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from lymphcad.errors import CommandError, Reason
from lymphcad.tables import read_nodes

SQUARE = [[20, 30], [40, 30], [40, 34], [20, 34], [20, 30]]
"""Column, row; the centre is 30, 32, and that is the corner of four pixels."""


@pytest.fixture(scope="module")
def cts():
    return ct_series()


@pytest.fixture
def study(tmp_path, cts):
    """Return the folder of a study with its slices."""
    folder = tmp_path / "study"
    folder.mkdir()
    write(folder, *cts)
    return folder


def unknown(cts):
    """Return an image that the study does not have."""
    return copy_of(cts[0], SOPInstanceUID="1.2.3")


def file_of(study, ct):
    """Return the file of a slice."""
    return next(path for path in study.iterdir() if pydicom.dcmread(path).SOPInstanceUID == ct.SOPInstanceUID)


def places(found):
    return [(node.row.node, node.row.image, node.row.row, node.row.col) for node in found.nodes]


def reasons(found):
    return [(one.where.number, one.refusal.reason) for one in found.refused]


def test_regions_of_a_report(study, cts):
    corners, ends = [(10, 20), (10, 40), (30, 40), (30, 20), (10, 20)], [(50, 20), (50, 60), (40, 40), (60, 40)]
    groups = [
        planar(scoord("POINT", [[10.5, 20.5]], cts[1]), "point", "1.2.3"),
        planar(scoord("POLYLINE", SQUARE, cts[2]), "contour"),
        planar(scoord("CIRCLE", [[50, 60], [50, 66]], cts[3]), "circle"),
        planar(scoord("ELLIPSE", [[10, 40], [30, 40], [20, 35], [20, 45]], cts[0]), "ellipse"),
        planar(scoord("POLYLINE", [[10, 20], [30, 50]], cts[0]), "diameter"),
        planar(scoord3d("POINT", [in_mm(cts[1], 60, 70)]), "point in space"),
        planar(scoord3d("POLYGON", [in_mm(cts[4], *at) for at in corners]), "polygon"),
        planar(scoord3d("ELLIPSE", [in_mm(cts[4], *at) for at in ends]), "ellipse in space"),
    ]  # fmt: skip
    [path] = write(study, report(groups, cts))
    found = find_nodes([study])
    uids = [ct.SOPInstanceUID for ct in cts]
    expected = [
        ("point", uids[1], 20, 10),
        ("contour", uids[2], 31.5, 29.5),
        ("circle", uids[3], 59.5, 49.5),
        ("ellipse", uids[0], 39.5, 19.5),
        ("diameter", uids[0], 34.5, 19.5),
        ("point in space", uids[1], 60, 70),
        ("polygon", uids[4], 20, 30),
        ("ellipse in space", uids[4], 50, 40),
    ]
    assert [place[:2] for place in places(found)] == [place[:2] for place in expected]
    assert [place[2:] for place in places(found)] == [pytest.approx(place[2:], abs=0.01) for place in expected]
    assert found.refused == []
    assert (found.images, found.others, found.without, found.left_out, found.superseded) == (5, 0, 0, 0, 0)
    first = found.nodes[0]
    assert (first.source, first.tracking_uid) == ("SR", "1.2.3")
    assert first.sop_class == pydicom.dcmread(path).SOPClassUID


@pytest.mark.parametrize("kind", [sr.EnhancedSR, sr.ComprehensiveSR, sr.Comprehensive3DSR])
@pytest.mark.parametrize(
    "syntax", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)  # fmt: skip
def test_every_class_of_report_and_transfer_syntax(study, cts, kind, syntax):
    made = report([planar(scoord("POLYLINE", SQUARE, cts[2]), "Knoten ü")], cts, kind)
    made.SpecificCharacterSet = "ISO_IR 192"
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    if syntax is not None:
        made = pydicom.Dataset(made)
        made.file_meta = pydicom.dataset.FileMetaDataset()
        made.file_meta.TransferSyntaxUID = syntax
    made.save_as(study / "sr.dcm", little_endian=little, implicit_vr=implicit, enforce_file_format=True)
    assert places(find_nodes([study])) == [("Knoten ü", cts[2].SOPInstanceUID, 31.5, 29.5)]


def test_a_volume_is_where_it_is_largest(study, cts):
    regions = [
        scoord("POLYLINE", [[0, 0], [10, 0], [10, 20], [0, 20], [0, 0]], cts[1]),
        scoord("POLYLINE", [[0, 0], [10, 0], [10, 30], [0, 30], [0, 0]], cts[2]),
        scoord("POLYLINE", [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]], cts[3]),
    ]
    write(study, report([volumetric(regions)], cts))
    assert places(find_nodes([study])) == [("node", cts[2].SOPInstanceUID, 14.5, 4.5)]


def test_the_longer_of_two_diameters_as_viewers_write_them(study, cts):
    """Measurements inferred from coordinates, in a group without a region."""
    source = sr.SourceImageForRegion.from_source_image(cts[1])
    measurements = [
        sr.Measurement(
            codes.SCT.Length,
            length,
            codes.UCUM.Millimeter,
            referenced_coordinates=[sr.CoordinatesForMeasurement("POLYLINE", np.array(line, float), source)],
        )
        for length, line in ((7.5, [[10, 10], [20, 10]]), (10.0, [[20, 10], [20, 30]]))
    ]
    write(study, report([plain(measurements)], cts))
    assert places(find_nodes([study])) == [("node", cts[1].SOPInstanceUID, 19.5, 19.5)]


def test_coordinates_outside_of_groups_and_images_by_reference(study, cts):
    """A report of no template, as Comprehensive SR allows it: the image is elsewhere in the tree."""
    made = report([planar(scoord("POINT", [[10.5, 20.5]], cts[1]))], cts, sr.ComprehensiveSR)
    image = item(RelationshipType="CONTAINS", ValueType="IMAGE", ReferencedSOPSequence=[reference(cts[3])])
    elsewhere = item(RelationshipType="R-SELECTED FROM", ReferencedContentItemIdentifier=[1, 1])
    nowhere = item(RelationshipType="R-SELECTED FROM", ReferencedContentItemIdentifier=[1, 9, 9])
    at = item(RelationshipType="CONTAINS", ValueType="SCOORD", GraphicType="POINT", GraphicData=[5.0, 6.0])
    made.ContentSequence = [image, copy_of(at, ContentSequence=[elsewhere]), copy_of(at, ContentSequence=[nowhere]), at]
    write(study, made)
    found = find_nodes([study])
    assert places(found) == [("1", cts[3].SOPInstanceUID, 5.5, 4.5)]
    assert reasons(found) == [(2, Reason.UNKNOWN_IMAGE), (3, Reason.UNKNOWN_IMAGE)]


def test_graphics_of_a_presentation_state(study, cts):
    pair, diameter = [text_object("a"), text_object("b")], [(10, 20), (30, 50)]
    tracked = {"TrackingID": "tracked", "TrackingUID": "1.2.3"}
    annotations = [
        annotated([cts[0]], [graphic("POINT", [(10.5, 20.5)])], [text_object("left, II")]),
        annotated([cts[1]], [graphic("CIRCLE", [(50, 60), (50, 66)]), graphic("POINT", [(1, 2)])], pair),
        annotated([cts[2]], [graphic("POLYLINE", SQUARE), graphic("POLYLINE", diameter)], [text_object("both")]),
        annotated([cts[3]], [graphic("ELLIPSE", [(10, 40), (30, 40), (20, 35), (20, 45)])]),
        annotated([cts[4]], [], [text_object("by its anchor", (7, 8))]),
        annotated([cts[4]], [graphic("POINT", [(3, 4)], **tracked)], [text_object("text")]),
    ]  # fmt: skip
    write(study, presentation(annotations, cts))
    found = find_nodes([study])
    uids = [ct.SOPInstanceUID for ct in cts]
    assert places(found) == [
        ("left, II", uids[0], 20, 10),
        ("a", uids[1], 59.5, 49.5),
        ("b", uids[1], 1.5, 0.5),
        ("both", uids[2], 31.5, 29.5),
        ("both", uids[2], 34.5, 19.5),
        ("6", uids[3], 39.5, 19.5),
        ("by its anchor", uids[4], 7.5, 6.5),
        ("tracked", uids[4], 3.5, 2.5),
    ]
    assert found.refused == []
    assert {(node.source, node.tracking_uid) for node in found.nodes} == {("GSPS", ""), ("GSPS", "1.2.3")}


def test_a_presentation_state_of_highdicom(study, cts):
    layer = hd.pr.GraphicLayer("NODES", order=1)
    at = hd.pr.GraphicObject("POINT", np.array([[10.5, 20.5]]), units="PIXEL")
    made = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[cts[2]],
        series_instance_uid=generate_uid(),
        series_number=5,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Maker",
        manufacturer_model_name="Model",
        software_versions="1",
        device_serial_number="1",
        content_label="NODES",
        graphic_layers=[layer],
        graphic_annotations=[
            hd.pr.GraphicAnnotation(referenced_images=[cts[2]], graphic_layer=layer, graphic_objects=[at])
        ],
    )
    write(study, made)
    assert places(find_nodes([study])) == [("1", cts[2].SOPInstanceUID, 20, 10)]


@pytest.mark.parametrize(
    ("reason", "annotation"),
    [
        (Reason.NOT_A_POINT, lambda cts: annotated([cts[0]], [graphic("POINT", [(0.5, 0.5)], units="DISPLAY")])),
        (Reason.NOT_A_POINT, lambda cts: annotated([cts[0]], [graphic("POINT", [(0.5, 0.5)], units="")])),
        (Reason.NOT_A_POINT, lambda cts: annotated([cts[0]], [graphic("CIRCLE", [(0.5, 0.5)])])),
        (Reason.NOT_A_POINT, lambda cts: annotated([cts[0]], [], [text_object("a remark")])),
        (Reason.NOT_A_POINT, lambda cts: annotated([cts[0]], [], [text_object("a", (0.5, 0.5), units="DISPLAY")])),
        (Reason.AMBIGUOUS_IMAGE, lambda _: annotated(None, [graphic("POINT", [(5, 5)])])),
        (Reason.AMBIGUOUS_IMAGE, lambda cts: annotated(cts[:2], [graphic("POINT", [(5, 5)])])),
        (Reason.NODE_OUTSIDE_IMAGE, lambda cts: annotated([cts[0]], [graphic("POINT", [(128, 5)])])),
        (Reason.NODE_OUTSIDE_IMAGE, lambda cts: annotated([cts[0]], [graphic("POINT", [(5, -0.01)])])),
        (Reason.NODE_NOT_A_NUMBER, lambda cts: annotated([cts[0]], [graphic("POINT", [(5, float("nan"))])])),
        (Reason.UNKNOWN_IMAGE, lambda cts: annotated([unknown(cts)], [graphic("POINT", [(5, 5)])])),
    ],
)  # fmt: skip
def test_refused_graphics_of_a_presentation_state(study, cts, reason, annotation):
    good = annotated([cts[1]], [graphic("POINT", [(5, 5)])])
    write(study, presentation([annotation(cts), good], cts))
    found = find_nodes([study])
    assert reasons(found) == [(1, reason)]
    assert places(found) == [("2", cts[1].SOPInstanceUID, 4.5, 4.5)]


def two_points(ct):
    """Return a region that highdicom would not write."""
    return copy_of(scoord("POLYLINE", [[5, 5], [9, 9]], ct), GraphicType="MULTIPOINT")


def far(ct, mm):
    """Return the middle of a slice, moved along its normal."""
    axes = np.array(ct.ImageOrientationPatient, float).reshape(2, 3)
    return in_mm(ct, 64, 64) + mm * np.cross(*axes)


@pytest.mark.parametrize(
    ("reason", "group"),
    [
        (Reason.UNKNOWN_IMAGE, lambda cts: planar(scoord("POINT", [[5, 5]], unknown(cts)))),
        (Reason.NODE_OUTSIDE_IMAGE, lambda cts: planar(scoord("POINT", [[5, 128]], cts[0]))),
        (Reason.NO_SUCH_FRAME, lambda cts: planar(scoord("POINT", [[5, 5]], cts[0], frame=2))),
        (Reason.OTHER_FRAME_OF_REFERENCE, lambda cts: planar(scoord3d("POINT", [far(cts[0], 0)], "1.2.3"))),
        (Reason.OFF_SLICE, lambda cts: planar(scoord3d("POINT", [far(cts[0], -STEP_MM / 2 - 0.1)]))),
        (Reason.NODE_OUTSIDE_IMAGE, lambda cts: planar(scoord3d("POINT", [in_mm(cts[0], 64, 200)]))),
        (Reason.NOT_A_POINT, lambda _: plain()),
        (Reason.NOT_A_POINT, lambda cts: planar(two_points(cts[0]))),
        (Reason.NOT_A_POINT, lambda cts: volumetric([scoord("POINT", [[5, 5]], ct) for ct in cts[:2]])),
    ],
)  # fmt: skip
def test_refused_groups_of_a_report(study, cts, reason, group):
    good = planar(scoord("POINT", [[5, 5]], cts[1]), "good")
    write(study, report([group(cts), good], [*cts, unknown(cts)]))  # highdicom wants it among the evidence
    found = find_nodes([study])
    assert reasons(found) == [(1, reason)]
    assert places(found) == [("good", cts[1].SOPInstanceUID, 4.5, 4.5)]


@pytest.mark.parametrize("mm", [0.0, -STEP_MM / 2 + 0.01, STEP_MM / 2 - 0.01])
@pytest.mark.parametrize("index", range(5))
def test_the_nearest_slice_takes_a_point_between(study, cts, index, mm):
    write(study, report([planar(scoord3d("POINT", [far(cts[index], mm)]))], cts))
    [node] = find_nodes([study]).nodes
    assert node.row.image == cts[index].SOPInstanceUID
    assert (node.row.row, node.row.col) == pytest.approx((64, 64), abs=0.01)


def test_projection_is_that_of_highdicom(study, cts):
    random = np.random.default_rng(0)
    at = np.array([[random.uniform(5, 120), random.uniform(5, 120)] for _ in range(20)])
    to_reference = hd.spatial.ImageToReferenceTransformer.for_image(cts[3])
    points = to_reference(at + 0.5)  # column, row; its origin is the pixel's corner
    write(study, report([planar(scoord3d("POINT", [point])) for point in points], cts))
    found = find_nodes([study]).nodes
    assert [(node.row.col, node.row.row) for node in found] == [pytest.approx(tuple(one), abs=0.001) for one in at]
    assert {node.row.image for node in found} == {cts[3].SOPInstanceUID}


def test_a_missing_slice_takes_nobody(study, cts):
    """Where a slice was lost, the point is on neither neighbour, though one of them has no other."""
    for lost in (2, 3):
        file_of(study, cts[lost]).unlink()
        [path] = write(study, report([planar(scoord3d("POINT", [far(cts[lost], 0)]))], cts))
        assert reasons(find_nodes([study])) == [(1, Reason.OFF_SLICE)]
        path.unlink()


def test_two_frames_of_reference_in_one_study(study, cts):
    """Each point finds its own, though the other's slices lie where it is, too."""
    others = ct_series(frame_of_reference="1.2.3.4", series="8")
    write(study, *others)
    groups = [
        planar(scoord3d("POINT", [in_mm(cts[1], 60, 70)], FRAME_OF_REFERENCE), "a"),
        planar(scoord3d("POINT", [in_mm(cts[1], 60, 70)], "1.2.3.4"), "b"),
        planar(scoord3d("POINT", [in_mm(cts[1], 60, 70)], "1.2.3"), "c"),
    ]
    write(study, report(groups, [*cts, *others]))
    found = find_nodes([study])
    assert [place[:2] for place in places(found)] == [("a", cts[1].SOPInstanceUID), ("b", others[1].SOPInstanceUID)]
    assert reasons(found) == [(3, Reason.OTHER_FRAME_OF_REFERENCE)]


def test_two_reconstructions_at_one_place(study, cts):
    """The evidence of the report says which is meant; where it does not, nobody guesses."""
    others = ct_series(series="8")
    write(study, *others)
    at = planar(scoord3d("POINT", [in_mm(cts[1], 60, 70)]))
    [first] = write(study, report([at], others))
    assert [place[1] for place in places(find_nodes([study]))] == [others[1].SOPInstanceUID]
    first.unlink()
    write(study, report([at], [*cts, *others]))
    assert reasons(find_nodes([study])) == [(1, Reason.AMBIGUOUS_IMAGE)]


def test_other_planes_at_one_place_are_not_meant(study, cts):
    """A scout view, a coronal reformat and the PET of a PET/CT share the frame of reference."""
    scout = copy_of(cts[1], SOPInstanceUID="1.2.1", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    position = [float(v) for v in in_mm(cts[1], 60, 70) - [20, 0, -20]]  # the point is in its plane
    coronal = copy_of(
        cts[1], SOPInstanceUID="1.2.2", ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=position
    )
    pet = copy_of(cts[1], SOPInstanceUID="1.2.3", SOPClassUID="1.2.840.10008.5.1.4.1.1.128")
    write(study, scout, coronal, pet)
    groups = [
        planar(scoord3d("POINT", [in_mm(cts[1], 60, 70)])),
        *[planar(scoord("POINT", [[5, 5]], one)) for one in (scout, pet)],
    ]
    write(study, report(groups, [*cts, scout, coronal, pet]))
    found = find_nodes([study])
    assert [place[1] for place in places(found)] == [cts[1].SOPInstanceUID]
    assert reasons(found) == [(2, Reason.LOCALIZER), (3, Reason.NOT_CT)]


def test_one_slice_alone_reaches_as_far_as_it_is_thick(tmp_path):
    for thickness, reach in ((6.0, 3.0), (None, 0.5)):
        [ct] = ct_series(1, thickness_mm=thickness)
        for mm, number in ((reach - 0.05, 1), (reach + 0.05, 0)):
            folder = tmp_path / f"{thickness} {mm}"
            folder.mkdir()
            write(folder, ct, report([planar(scoord3d("POINT", [far(ct, mm)]))], [ct]))
            assert len(find_nodes([folder]).nodes) == number, (thickness, mm)


def enhanced(cts):
    """Return an Enhanced CT of the slices."""
    made = copy_of(cts[0], SOPClassUID=EnhancedCTImageStorage, SOPInstanceUID="1.2.826.0.1.3680043.8.498.99")
    made.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    made.NumberOfFrames = len(cts)
    made.PixelData = b"".join(ct.PixelData for ct in cts)
    made.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=cts[0].PixelSpacing, SliceThickness=2)],
            PlaneOrientationSequence=[item(ImageOrientationPatient=cts[0].ImageOrientationPatient)],
        )
    ]
    made.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=ct.ImagePositionPatient)]) for ct in cts
    ]
    for keyword in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
        delattr(made, keyword)
    return made


def test_frames_of_a_multi_frame_image(tmp_path, cts):
    image = enhanced(cts)
    at = [in_mm(cts[3], 60, 70)]
    groups = [
        planar(scoord("POINT", [[5.5, 6.5]], image, frame=2), "frame"),
        planar(scoord3d("POINT", at), "space"),
        planar(scoord("POINT", [[5.5, 6.5]], image), "none"),
        planar(scoord("POINT", [[5.5, 6.5]], image, frame=6), "beyond"),
    ]
    made = report(groups, [image])
    several = annotated([image], [graphic("POINT", [(5.5, 6.5)])])
    several.ReferencedImageSequence[0].ReferencedFrameNumber = [1, 2]
    odd = [annotated([image], [graphic("POINT", [(5.5, 6.5)])]) for _ in range(2)]
    for one, number in zip(odd, ("1.5", "first"), strict=True):
        one.ReferencedImageSequence[0].add_new(0x00081160, "LO", number)
    write(tmp_path, image, made, presentation([several, *odd], [image]))
    found = find_nodes([tmp_path])
    assert [(n.row.node, n.row.frame, n.row.row, n.row.col) for n in found.nodes] == [
        ("frame", 2, 6, 5),
        ("space", 4, pytest.approx(60, abs=0.01), pytest.approx(70, abs=0.01)),
    ]
    by_reason = sorted(one.refusal.reason.value for one in found.refused)
    assert by_reason == ["ambiguous_image", *["no_such_frame"] * 4]


def test_copies_of_an_image_are_one(study, cts):
    write(study, cts[1])  # the same bytes
    write(study, copy_of(cts[1], PatientName="Other^Spelling"))  # the same image
    group = [planar(scoord("POINT", [[5, 5]], cts[1])), planar(scoord3d("POINT", [far(cts[1], 0)]))]
    write(study, report(group, cts))
    found = find_nodes([study])
    assert [place[1] for place in places(found)] == [cts[1].SOPInstanceUID] * 2
    assert found.refused == []


@pytest.mark.parametrize(
    "change", [{"PixelData": b"\1" * 32768}, {"ImagePositionPatient": [0, 0, 0]}, {"PixelSpacing": [0.5, 0.5]}]
)
def test_images_that_differ_and_have_one_uid(study, cts, change):
    write(study, copy_of(cts[1], **change))
    group = [planar(scoord("POINT", [[5, 5]], cts[1])), planar(scoord("POINT", [[5, 5]], cts[2]))]
    write(study, report(group, cts))
    found = find_nodes([study])
    assert reasons(found) == [(1, Reason.AMBIGUOUS_IMAGE)]
    assert [place[1] for place in places(found)] == [cts[2].SOPInstanceUID]


def test_an_image_that_is_cut_off(study, cts):
    path = file_of(study, cts[1])
    path.write_bytes(path.read_bytes()[:-1000])
    group = [planar(scoord("POINT", [[5, 5]], cts[1])), planar(scoord3d("POINT", [far(cts[1], 0)]))]
    write(study, report(group, cts))
    assert reasons(find_nodes([study])) == [(1, Reason.TRUNCATED), (2, Reason.TRUNCATED)]


def test_own_results_are_no_requests(study, cts):
    group = planar(scoord("POINT", [[5, 5]], cts[1]))
    by_algorithm = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(generate_uid(), "scored"),
        referenced_region=scoord("POINT", [[5, 5]], cts[1]),
        algorithm_id=sr.AlgorithmIdentification("LymphCAD", "0.1"),
    )
    write(study, report([group], cts, manufacturer="LymphCAD developers"), report([by_algorithm], cts))
    found = find_nodes([study])
    assert (found.nodes, found.refused, found.left_out) == ([], [], 2)
    found = find_nodes([study], include_results=True)
    assert (len(found.nodes), found.left_out) == (2, 0)


def test_a_newer_object_takes_the_place_of_an_older(study, cts):
    """A node that was moved and saved again; its author sees the last one."""
    moved, other = generate_uid(), generate_uid()

    def made(col, uid, date, time):
        return report(
            [planar(scoord("POINT", [[col, 5]], cts[1]), str(col), uid)], cts, ContentDate=date, ContentTime=time
        )

    write(
        study,
        made(7, moved, "20240102", "090000"),
        made(8, moved, "20240102", "100000"),
        made(6, moved, "20240101", "110000"),
        made(9, other, "20230101", "110000"),
    )  # fmt: skip
    found = find_nodes([study])
    assert [node.row.node for node in found.nodes] == ["9", "8"]
    assert found.superseded == 2


def test_the_newest_of_presentation_states(study, cts):
    for col, date in ((5, "20240102"), (6, "20240103"), (7, "20240101")):
        at = graphic("POINT", [(col, 5)], TrackingID=str(col), TrackingUID="1.2.3")
        write(study, presentation([annotated([cts[0]], [at])], cts, PresentationCreationDate=date))
    assert [node.row.node for node in find_nodes([study]).nodes] == ["6"]


def test_within_an_object_a_tracking_uid_may_repeat(study, cts):
    groups = [planar(scoord("POINT", [[5, 5]], ct), "node", "1.2.3") for ct in cts[:2]]
    write(study, report(groups, cts))
    assert len(find_nodes([study]).nodes) == 2


def test_objects_with_one_uid(study, cts):
    made = report([planar(scoord("POINT", [[5, 5]], cts[1]))], cts)
    write(study, made, made)
    assert len(find_nodes([study]).nodes) == 1
    write(study, copy_of(made, ContentDate="20200101"))
    found = find_nodes([study])
    assert found.nodes == []
    assert reasons(found) == [(0, Reason.AMBIGUOUS_IMAGE)] * 3


def test_files_of_other_kinds_are_counted(study, cts):
    (study / "readme.txt").write_text("nothing")
    dose = report([plain()], cts)
    dose.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.67"
    write(study, dose, presentation([], cts), copy_of(cts[0], SOPClassUID=MRImageStorage, SOPInstanceUID="1.2.3"))
    shutil.copy(next(iter(study.iterdir())), study / ".hidden")
    found = find_nodes([study])
    assert (found.images, found.others, found.without) == (6, 2, 1)
    assert found.nodes == []
    assert found.refused == []


def test_order_does_not_depend_on_the_file_names(tmp_path, cts):
    made = [
        report([planar(scoord("POINT", [[5, 5]], cts[1]), str(n))], cts, ContentDate=f"2024010{n}") for n in (3, 1, 2)
    ]
    for name in ("abc", "cba"):
        folder = tmp_path / name
        folder.mkdir()
        write(folder, *cts)
        for letter, one in zip(name, made, strict=True):
            one.save_as(folder / f"{letter}.dcm")
        assert [node.row.node for node in find_nodes([folder]).nodes] == ["1", "2", "3"]


def test_a_file_given_twice_is_read_once(study, cts):
    [path] = write(study, report([planar(scoord("POINT", [[5, 5]], cts[1]))], cts))
    (study / "link.dcm").symlink_to(path)
    found = find_nodes([study, path, study])
    assert (len(found.nodes), found.images, found.superseded) == (1, len(cts), 0)
    for one in study.iterdir():
        one.unlink()
    write(study, *cts)
    (study / "link.dcm").symlink_to(min(study.iterdir()))
    assert find_nodes([study]).images == len(cts)
    with pytest.raises(CommandError):
        find_nodes([study / "gone"])


def test_the_table_is_what_score_reads(study, cts, tmp_path):
    name = 'a, "b" \\ \n =c\0' + "x" * 300
    image = enhanced(cts)
    groups = [planar(scoord("POINT", [[5, 5]], cts[1]), name), planar(scoord("POINT", [[5, 5]], image, frame=3), "f")]
    write(study, image, report(groups, [*cts, image]))
    found = find_nodes([study])
    write_nodes(tmp_path / "nodes.csv", found.nodes)
    assert read_nodes(tmp_path / "nodes.csv") == found.rows
    assert found.rows[0].node.startswith('a, "b" \\ =c xxx')
    assert len(found.rows[0].node) == 200
    assert found.rows[1].frame == 3
    assert [path.name for path in tmp_path.iterdir() if path != study] == ["nodes.csv"]
