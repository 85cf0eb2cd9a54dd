"""Series from files in memory: each file is in one or refused, and the slices stand as in the patient."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

import lymphcad.series
from lymphcad.dicom import read_slice
from lymphcad.errors import Reason, Refusal
from lymphcad.memory_file import MemoryFile
from lymphcad.series import list_series, read_series
from lymphcad.tables import read_nodes

ODD = ("MR_small.dcm", "MR_truncated.dcm", "rtplan.dcm", "no_meta.dcm", "badVR.dcm", "CT_small.dcm", "rtdose.dcm")


def memory(dataset, name: str) -> MemoryFile:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=False)
    return MemoryFile(name, stream.getvalue())


@pytest.fixture
def neck(ct):
    """Return a function that makes one slice of a series, at a height and with an Instance Number."""

    def make(z: float | None, instance: int | None = None, **elements: object) -> MemoryFile:
        changed = copy.deepcopy(ct)
        changed.SOPInstanceUID = changed.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        changed.SeriesInstanceUID, changed.StudyInstanceUID = "1.2.3", "1.2"
        changed.InstanceNumber = instance
        changed.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        if z is None:
            del changed.ImagePositionPatient
        else:
            changed.ImagePositionPatient = [0, 0, z]
        for keyword, value in elements.items():
            setattr(changed, keyword, value)
        return memory(changed, f"{instance}.dcm")

    return make


def heights(stack) -> list[float]:
    return [ct.position_mm[2] for ct in stack.slices]


def test_a_file_in_memory_is_read_as_the_same_file_on_disk(shipped):
    path = shipped("CT_small.dcm")
    from_disk, from_memory = read_slice(path), read_slice(MemoryFile("a/b.dcm", path.read_bytes()))
    assert (from_disk.hu == from_memory.hu).all()
    assert from_memory.path == Path("a/b.dcm")
    assert from_disk.sop_instance_uid == from_memory.sop_instance_uid


def test_the_header_of_an_enhanced_file_goes_with_the_file(enhanced):
    from lymphcad import dicom_header

    before = dicom_header._last_header._parsed
    file = memory(enhanced, "e.dcm")
    assert [read_slice(file, frame).position_mm[2] for frame in (1, 2)] == [10, 15]
    assert file.headers._parsed is not None
    assert dicom_header._last_header._parsed is before


def test_no_pixel_of_a_file_is_in_what_a_log_would_show():
    assert "secret" not in repr(MemoryFile("a.dcm", b"secret"))


def test_a_table_in_memory_is_read_as_one_on_disk(tmp_path):
    text = b"image,row,col\na.dcm,1,2\n,3,4\n"
    (tmp_path / "nodes.csv").write_bytes(text)
    on_disk, in_memory = read_nodes(tmp_path / "nodes.csv"), read_nodes(MemoryFile("nodes.csv", text))
    assert [row.image for row in in_memory] == ["a.dcm", ""]
    assert [str(row.refusal) for row in on_disk] == [str(row.refusal) for row in in_memory]


def test_slices_stand_from_head_to_feet_whatever_their_order_and_numbers(neck):
    files = [neck(z, instance) for instance, z in enumerate((5.0, -2.5, 0.0, 2.5))]
    stack = read_series(*list_series(files).series)
    assert heights(stack) == [5.0, 2.5, 0.0, -2.5]
    assert stack.note == ""


def test_a_feet_first_or_prone_image_is_ordered_by_the_patient_not_the_table(neck):
    prone = [neck(z, number, ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]) for number, z in enumerate((0.0, 10.0, 5.0))]
    assert heights(read_series(*list_series(prone).series)) == [10.0, 5.0, 0.0]


def test_a_tilted_series_is_ordered_along_its_normal(neck):
    tilt = [1, 0, 0, 0, 0.9, -0.435889894354]
    at = [(0, 4, 0), (0, 0, 5), (0, -4, 10)]
    files = [neck(0.0, n, ImageOrientationPatient=tilt, ImagePositionPatient=list(p)) for n, p in enumerate(at)]
    assert heights(read_series(*list_series(files).series)) == [10, 5, 0]


def test_without_positions_the_instance_numbers_order_and_the_note_says_so(neck):
    files = [neck(None, instance) for instance in (3, 1, 2)]
    stack = read_series(*list_series(files).series)
    assert [ct.path.name for ct in stack.slices] == ["1.dcm", "2.dcm", "3.dcm"]
    assert "Instance Numbers" in stack.note


def test_the_note_claims_no_instance_numbers_that_are_not_there(neck):
    files = [MemoryFile(name, neck(None).data) for name in ("b.dcm", "a.dcm")]
    stack = read_series(*list_series(files).series)
    assert [ct.path.name for ct in stack.slices] == ["a.dcm", "b.dcm"]
    assert "file names" in stack.note


def test_slices_tilted_differently_stand_by_number_and_it_is_said(neck):
    tilt = [1, 0, 0, 0, 0.9, -0.435889894354]
    files = [neck(0.0, 1), neck(10.0, 3), neck(5.0, 2, ImageOrientationPatient=tilt)]
    stack = read_series(*list_series(files).series)
    assert heights(stack) == [0.0, 5.0, 10.0]
    assert "tilted differently" in stack.note


def test_series_stand_by_study_and_number_whatever_the_order_of_files(neck):
    of = [("2", 1, "2.1"), ("1", None, "1.4"), ("1", 10, "1.3"), ("1", 2, "1.2"), ("1", 2, "1.1")]
    files = [
        neck(0.0, n, StudyInstanceUID=study, SeriesNumber=number, SeriesInstanceUID=uid)
        for n, (study, number, uid) in enumerate(of)
    ]
    listed = [series.series_instance_uid for series in list_series(files).series]
    assert listed == ["1.1", "1.2", "1.3", "1.4", "2.1"]


def test_two_phases_in_one_series_are_said(neck):
    stack = read_series(*list_series([neck(z, n) for n, z in enumerate((0.0, 5.0, 0.0, 5.0))]).series)
    assert len(stack.slices) == 4
    assert "2 slices lie where another one does" in stack.note


def test_slices_of_other_sizes_keep_their_own_geometry(neck):
    odd = neck(5.0, 2, PixelSpacing=[0.3, 0.4])
    stack = read_series(*list_series([neck(0.0, 1), odd]).series)
    assert stack.slices[0].spacing_mm == (0.3, 0.4)
    assert "2 pixel spacings" in stack.note


def test_an_image_that_cannot_be_scored_is_listed_and_the_rest_opens(neck):
    files = [neck(0.0, 1), neck(5.0, 2, Modality="PT"), neck(10.0, 3)]
    stack = read_series(*list_series(files).series)
    assert heights(stack) == [10.0, 0.0]
    ((name, reason),) = [(file.name, file.refusal.reason) for file in stack.refused]
    assert (name, reason) == ("2.dcm", Reason.NOT_CT)


def test_the_frames_of_an_enhanced_file_are_slices(enhanced):
    enhanced.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = 1.25
    (series,) = list_series([memory(enhanced, "e.dcm")]).series
    assert series.thickness_mm == 1.25
    assert [image.name for image in series.images] == ["e.dcm, frame 1", "e.dcm, frame 2"]
    stack = read_series(series)
    assert [(ct.frame, ct.position_mm[2]) for ct in stack.slices] == [(2, 15), (1, 10)]


def test_what_a_series_is_chosen_by(neck):
    file = neck(
        0.0, 1, SeriesDescription="Neck <b>axial</b>", SeriesNumber=4, SliceThickness=2.5, ContrastBolusAgent="Iohexol",
        PatientName="Doe^Jane^Q", PatientID="17", StudyDescription="CT neck", StudyDate="20260102",
    )  # fmt: skip
    (series,) = list_series([file]).series
    assert (series.modality, series.description, series.number) == ("CT", "Neck <b>axial</b>", 4)
    assert (series.thickness_mm, series.contrast) == (2.5, "Iohexol")
    assert (series.patient_name, series.patient_id) == ("Doe, Jane Q", "17")
    assert (series.study_description, series.study_date) == ("CT neck", "20260102")
    assert (series.rows, series.columns) == (128, 128)


def test_contrast_is_not_stated_unless_it_is(neck):
    (series,) = list_series([neck(0.0, 1, ContrastBolusAgent="")]).series
    assert series.contrast == ""
    with_sequence = neck(0.0, 1, ContrastBolusAgent="", ContrastBolusAgentSequence=[Dataset()])
    assert list_series([with_sequence]).series[0].contrast == "yes"


@pytest.mark.parametrize(
    ("character_set", "written", "expected"),
    [
        ("ISO_IR 192", "Müller^Jürgen", "Müller, Jürgen"),
        ("ISO_IR 100", "Müller^Jürgen", "Müller, Jürgen"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "Yamada, Tarou"),
        ("ISO_IR 192", "=王^小東", "王, 小東"),
        ("ISO_IR 192", "^Jane", "Jane"),
        ("ISO_IR 192", "", ""),
    ],
)
def test_names_are_read_in_their_character_set(neck, character_set, written, expected):
    file = neck(0.0, 1, SpecificCharacterSet=character_set, PatientName=written)
    assert list_series([file]).series[0].patient_name == expected


def test_an_unknown_character_set_does_not_keep_a_study_closed(neck):
    file = neck(0.0, 1, SeriesDescription="Neck")
    damaged = file.data.replace(b"ISO_IR 100", b"ISO_IR 999")
    assert damaged != file.data
    assert list_series([MemoryFile("a", damaged)]).series[0].description == "Neck"


@pytest.mark.parametrize("codec", [b"undefined", b"punycode", b"utf_16", b"idna"])
def test_a_file_cannot_choose_a_codec_that_dicom_does_not_have(neck, codec):
    data = neck(0.0, 1, SeriesDescription="Neck-axial").data
    damaged = data.replace(b"ISO_IR 100", codec.ljust(10))
    assert damaged != data
    (series,) = list_series([MemoryFile("a", damaged)]).series
    assert series.description == "Neck-axial"


@pytest.mark.parametrize("name", ["ISO_IR 192", "ISO-IR 192", "utf-8"])
def test_a_misspelt_character_set_is_understood(neck, name):
    data = neck(0.0, 1, SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Jürgen").data
    spelt = data.replace(b"ISO_IR 192", name.encode().ljust(10))
    assert list_series([MemoryFile("a", spelt)]).series[0].patient_name == "Müller, Jürgen"


def test_the_same_file_twice_is_read_once_and_said(neck):
    file = neck(0.0, 1)
    listing = list_series([file, MemoryFile("copy.dcm", file.data)])
    assert [image.name for image in listing.series[0].images] == ["1.dcm"]
    assert [(one.name, one.refusal.reason) for one in listing.refused] == [("copy.dcm", Reason.AMBIGUOUS_IMAGE)]


@pytest.mark.parametrize("kind", ["memory", "path"])
def test_the_very_same_source_twice_is_read_once_and_said(shipped, kind):
    path = shipped("CT_small.dcm")
    source = path if kind == "path" else MemoryFile("a.dcm", path.read_bytes())
    listing = list_series([source, source, source])
    assert [len(series.images) for series in listing.series] == [1]
    assert [one.refusal.reason for one in listing.refused] == [Reason.AMBIGUOUS_IMAGE] * 2


def test_of_two_files_that_claim_to_be_one_image_neither_is_believed(neck):
    one, other = neck(0.0, 1), neck(5.0, 2)
    first, second = (pydicom.dcmread(io.BytesIO(file.data)) for file in (one, other))
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    listing = list_series([one, memory(second, "2.dcm"), neck(10.0, 3)])
    assert [image.name for image in listing.series[0].images] == ["3.dcm"]
    assert {file.name for file in listing.refused} == {"1.dcm", "2.dcm"}


def test_a_file_that_belongs_to_no_series_is_refused(neck):
    dataset = pydicom.dcmread(io.BytesIO(neck(0.0, 1).data))
    del dataset.SeriesInstanceUID
    (refused,) = list_series([memory(dataset, "a.dcm")]).refused
    assert refused.refusal.reason is Reason.UNREADABLE


def test_series_of_every_modality_are_listed_and_their_images_refused(shipped):
    files = [MemoryFile(name, shipped(name).read_bytes()) for name in ("MR_small.dcm", "rtplan.dcm", "CT_small.dcm")]
    listing = list_series(files)
    found = {series.modality: read_series(series) for series in listing.series}
    assert set(found) == {"MR", "RTPLAN", "CT"}
    assert [len(found[modality].slices) for modality in ("CT", "MR", "RTPLAN")] == [1, 0, 0]
    assert [file.refusal.reason for file in found["MR"].refused] == [Reason.NOT_CT]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_file_is_in_a_series_or_refused(data):
    files = []
    for number, name in enumerate(data.draw(st.lists(st.sampled_from(ODD), max_size=6))):
        contents = bytearray(Path(get_testdata_file(name, download=False)).read_bytes())
        for at in data.draw(st.lists(st.integers(0, 1500), max_size=3)):
            contents[at % len(contents)] ^= data.draw(st.integers(0, 255))
        files.append(MemoryFile(f"{number}-{name}", bytes(contents[: data.draw(st.sampled_from([None, 200, 1000]))])))
    listing = list_series(files)
    listed = [image.source.name for series in listing.series for image in series.images if image.frame in (None, 1)]
    assert sorted([*listed, *(file.name for file in listing.refused)]) == sorted(file.name for file in files)
    for series in listing.series:
        stack = read_series(series)
        assert len(stack.slices) + len(stack.refused) == len(series.images)


def test_a_series_too_large_for_memory_is_refused_before_it_is_read(neck):
    files = [neck(0.0, 1, Rows=60000, Columns=60000)]
    (series,) = list_series(files).series
    with pytest.raises(Refusal, match="at most 2048 MB"):
        read_series(series)


def test_a_small_first_image_does_not_hide_how_large_the_others_are(neck, monkeypatch):
    monkeypatch.setattr(lymphcad.series, "MAX_STACK_BYTES", 4 * 2 * 128 * 128)
    small = neck(0.0, 0, Rows=16, Columns=16, PixelData=bytes(512))
    (few,) = list_series([small, *(neck(float(n), n) for n in range(1, 4))]).series
    assert len(read_series(few).slices) == 4
    (many,) = list_series([small, *(neck(float(n), n) for n in range(1, 9))]).series
    seen: list[int] = []
    with pytest.raises(Refusal) as refused:
        read_series(many, seen.append)
    assert refused.value.reason is Reason.ABSURD_SIZE
    assert len(seen) < len(many.images)


def test_more_frames_than_any_scanner_makes_are_not_listed(neck):
    (refused,) = list_series([neck(0.0, 1, NumberOfFrames=2**31 - 1)]).refused
    assert refused.refusal.reason is Reason.ABSURD_SIZE


def test_progress_is_told_file_by_file(neck):
    seen: list[int] = []
    listing = list_series([neck(float(z), z) for z in range(4)], seen.append)
    read_series(*listing.series, seen.append)
    assert np.sum(seen) == 8
