"""Sources as hospitals have them: foreign names, missing values, wrong ones, damaged files."""

from __future__ import annotations

import logging
import random

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lymphcad import dicom_header
from lymphcad.errors import Reason, Refusal

NAMES = {
    "Korean": ("\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
    "Japanese": ("\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "half-width Japanese": ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    "Latin": ("ISO_IR 100", "Müller^Jörg"),
    "Unicode": ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    "Chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
}


TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")
TYPE_2 += ("AccessionNumber", "ReferringPhysicianName")
DATES = ("ContentDate", "AcquisitionDate", "SeriesDate")


def set_name(ct, character_set, name):
    ct.SpecificCharacterSet = character_set.split("\\")
    ct.PatientName = name


@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=NAMES)
def test_names_of_patients_stay_as_they_are(character_set, name, ct, save, scored, written, tmp_path, errors):
    set_name(ct, character_set, name)
    source = save(ct)
    for path in written([scored(1, source, 60, 70)], tmp_path / "out"):
        made = pydicom.dcmread(path)
        assert str(made.PatientName) == name
        assert made.SpecificCharacterSet == ct.SpecificCharacterSet
        assert made.PatientName.original_string == pydicom.dcmread(source).PatientName.original_string
        assert set(errors(path)) <= set(errors(source))  # it does not know half-width Japanese


@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=NAMES)
def test_a_name_of_a_node_in_another_script(character_set, name, ct, save, scored, written, tmp_path, errors):
    set_name(ct, character_set, name)
    (path,) = written([scored(1, save(ct), 60, 70, node="결절 é 1")], tmp_path / "out", ["sr"])
    made = pydicom.dcmread(path)
    assert (made.SpecificCharacterSet, str(made.PatientName)) == ("ISO_IR 192", name)
    group = made.ContentSequence[-2].ContentSequence[0]
    assert group.ContentSequence[0].TextValue == "결절 é 1"
    assert errors(path) == []


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("ISO_IR 100", "ISO-IR 100", "ISO_IR 100"),
        ("ISO_IR 192", "ISO IR 192", "ISO_IR 192"),
        ("GB18030", "rot_13", None),
    ],
)
def test_a_character_set_that_is_misspelt(right, wrong, expected, ct, save, scored, written, tmp_path):
    set_name(ct, right, "Müller^Jörg")
    path = save(ct)
    raw = pydicom.dcmread(path).PatientName.original_string
    assert path.read_bytes().count(right.encode()) == 1
    path.write_bytes(path.read_bytes().replace(right.encode(), wrong.ljust(len(right)).encode()))
    made = pydicom.dcmread(*written([scored(1, path, 60, 70)], tmp_path / "out", ["pm"]))
    assert made.get("SpecificCharacterSet") == expected
    assert made.PatientName.original_string == raw  # in the bytes that it came in, whatever they mean


def test_what_may_be_missing_may_be_missing(ct, save, scored, written, tmp_path, errors):
    for keyword in (*TYPE_2, "SpecificCharacterSet", "SliceThickness", "InstanceNumber", *DATES):
        ct.pop(keyword, None)
    for path in written([scored(1, save(ct), 60, 70)], tmp_path / "out"):
        made = pydicom.dcmread(path)
        assert "PatientID" in made
        assert not made.PatientID
        assert (made.ContentDate, made.StudyDate) == ("19000101", "")
        assert errors(path) == []


def test_values_that_are_wrong_are_left_out(ct, save, scored, written, tmp_path, errors):
    ct.PatientIdentityRemoved = "YES"
    for keyword, value in {
        "PatientBirthDate": "unknown",
        "PatientSex": "female",
        "StudyDate": "2004-01-19",
        "StudyTime": "noon",
        "ContentDate": "20041399",
        "AcquisitionDate": "",
        "SeriesDate": "20040120",
        "SeriesTime": "07:30",
        "InstanceNumber": "-3",
    }.items():
        ct.add_new(keyword, "LO", value)
    for path in written([scored(1, save(ct), 60, 70)], tmp_path / "out"):
        made = pydicom.dcmread(path)
        assert [made[key].value for key in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")] == [""] * 4
        assert (made.ContentDate, made.ContentTime, made.InstanceNumber) == ("20040120", "000000", 1)
        assert made.PatientID == ct.PatientID
        assert "PatientIdentityRemoved" not in made
        assert errors(path) == []


def refused(nodes, folder, written, **more):
    """Return the reason, and check that nothing was written and nobody named."""
    with pytest.raises(Refusal) as caught:
        written(nodes, folder, **more)
    assert not list(folder.rglob("*.dcm*"))
    assert "CompressedSamples" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", ["", "1.2.x", "12", "1." + "2" * 64, "1..2", None])
def test_an_image_that_cannot_be_referred_to_is_refused(keyword, value, ct, save, scored, written, tmp_path):
    if value is None:
        delattr(ct, keyword)
    else:
        ct.add_new(keyword, "LO", value)
    assert refused([scored(1, save(ct), 60, 70)], tmp_path / "out", written) is Reason.NO_STUDY


def test_a_uid_with_zeros_in_front_is_filed_under_it(ct, save, scored, written, tmp_path):
    ct.add_new("StudyInstanceUID", "UI", "1.2.003.4")
    for path in written([scored(1, save(ct), 60, 70)], tmp_path / "out"):
        assert pydicom.dcmread(path).StudyInstanceUID == "1.2.003.4"


def test_a_picture_has_no_study(scored, written, tmp_path):
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(tmp_path / "a.png")
    assert refused([scored(1, tmp_path / "a.png", 30, 30)], tmp_path / "out", written) is Reason.NO_STUDY


def test_a_file_that_went_or_changed_is_refused(ct, enhanced, save, scored, written, tmp_path):
    out = tmp_path / "out"
    assert refused([scored(1, tmp_path / "gone.dcm", 60, 70)], out, written) is Reason.FILE_MISSING
    path = save(enhanced)
    for frame in (None, 3):
        assert refused([scored(1, path, 60, 70, frame=frame)], out, written) is Reason.NO_SUCH_FRAME
    path.write_bytes(path.read_bytes()[:700])
    assert refused([scored(1, path, 60, 70)], out, written) is Reason.TRUNCATED


def test_what_inflates_without_end_is_refused(ct, save, scored, written, tmp_path, monkeypatch):
    ct.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(ct)
    assert len(written([scored(1, path, 60, 70)], tmp_path / "good")) == 3
    monkeypatch.setattr(dicom_header, "MAX_INFLATED_BYTES", 1000)
    assert refused([scored(1, path, 60, 70)], tmp_path / "out", written) is Reason.ABSURD_SIZE


def test_one_uid_with_two_contents_is_refused(ct, save, scored, written, tmp_path):
    first, copy = save(ct), save(ct)
    assert len(written([scored(1, first, 60, 70), scored(2, copy, 61, 70)], tmp_path / "good")) == 5
    ct.PixelData = bytes(len(ct.PixelData))
    nodes = [scored(1, first, 60, 70), scored(2, save(ct), 61, 70)]
    assert refused(nodes, tmp_path / "out", written) is Reason.AMBIGUOUS_IMAGE


def test_two_studies_are_refused(ct, save, scored, written, tmp_path):
    first = save(ct)
    ct.StudyInstanceUID, ct.SOPInstanceUID = "1.2.3", "1.2.4"
    assert (
        refused([scored(1, first, 60, 70), scored(2, save(ct), 60, 70)], tmp_path / "out", written) is Reason.NO_STUDY
    )


def test_a_study_is_written_whole_or_not_at_all(ct, save, scored, written, tmp_path):
    first, out = save(ct), tmp_path / "out"
    ct.SOPInstanceUID = "1.2.3.6"
    second = save(ct)
    nodes = [scored(1, first, 60, 70), scored(2, second, 60, 70)]
    written(nodes, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(before) == 5
    second.write_bytes(second.read_bytes()[:-1000])  # the header is there, the pixels are not
    with pytest.raises(Refusal):
        written(nodes, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path.name for path in written(nodes[:1], out)] == ["sr.dcm", "sc-000001.dcm", "heatmap-000001.dcm"]
    assert len([path for path in out.rglob("*") if path.is_file()]) == 3  # nothing of the longer one stays


def test_damaged_headers_end_in_a_refusal_or_a_result(ct, save, scored, written, tmp_path):
    path = save(ct)
    whole, chance, ends = path.read_bytes(), random.Random(7), set()
    for _ in range(60):
        damaged = bytearray(whole)
        for at in chance.choices(range(300, 3000), k=20):
            damaged[at] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            ends.add(len(written([scored(1, path, 60, 70)], tmp_path / "out", ["sr", "pm"], tell=lambda _: None)) > 0)
        except Refusal as refusal:
            ends.add(refusal.reason)
    assert {True, Reason.NO_STUDY} < ends


def test_nobody_is_named_in_logs_and_warnings(ct, save, scored, written, tmp_path, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    # No caret, and too long: both are what libraries warn of.
    ct.PatientName, ct.PatientID = "Secretname", "Secretid" * 10
    ct.ReferringPhysicianName = ct.StudyDescription = "Secretdoctor" * 8
    del ct.FrameOfReferenceUID
    assert len(written([scored(1, save(ct), 60, 70, node="Secretnode")], tmp_path / "out")) == 2
    secrets = ("Secret", ct.StudyInstanceUID, ct.SOPInstanceUID, str(tmp_path))
    said = [*(record.getMessage() for record in caplog.records), *(str(warning.message) for warning in recwarn)]
    assert any("no heatmap object" in line for line in said)
    assert not [line for line in said if any(secret in line for secret in secrets)]
