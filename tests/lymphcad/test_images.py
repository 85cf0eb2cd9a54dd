import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from lymphcad import images
from lymphcad.errors import CommandError, Reason, Refusal
from lymphcad.images import ImageFinder, is_copy, list_images, read_image

BUNDLE = {"window_level_hu": 50.0, "window_width_hu": 350.0, "field_of_view_mm": 60.0}


def header_only(path, uid):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid
    data.Modality = "CT"
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def reason(finder, image):
    with pytest.raises(Refusal) as error:
        finder.find(image)
    return error.value.reason


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_greyscale_is_known_by_its_first_bytes(tmp_path, kind):
    path = tmp_path / "image.dcm"
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(path, kind)
    for frame in (None, 1):
        image = read_image(path, frame=frame, spacing_mm=0.4, **BUNDLE)
        assert image.spacing_mm == (0.4, 0.4)
        assert image.hu.max() == 225
    with pytest.raises(Refusal) as error:
        read_image(path, frame=2, spacing_mm=None, **BUNDLE)
    assert error.value.reason is Reason.NO_SUCH_FRAME


@pytest.mark.parametrize(
    "start", [b"", b"\0" * 128 + b"DICM", b"\x89PNG\r\n\x1a\n".ljust(128, b"\0") + b"DICM", b"GIF8"]
)
def test_everything_else_is_for_the_dicom_reader(tmp_path, monkeypatch, start):
    asked = []
    monkeypatch.setattr(images, "read_slice", lambda path, frame: asked.append((path, frame)))
    path = tmp_path / "image.png"
    path.write_bytes(start)
    read_image(path, frame=3, spacing_mm=None, **BUNDLE)
    assert asked == [(path, 3)]


def test_a_dicom_file_knows_its_spacing_better_than_a_table(shipped):
    path = shipped("CT_small.dcm")
    alone = read_image(path, frame=None, spacing_mm=None, **BUNDLE)
    own = alone.spacing_mm[0]
    assert alone.spacing_mm == (own, own)
    for given, is_said in ((own, False), (own * 1.009, False), (own * 1.012, True), (own / 1.012, True)):
        image = read_image(path, frame=None, spacing_mm=given, **BUNDLE)
        assert image.spacing_mm == alone.spacing_mm
        assert len(image.assumptions) == is_said
        if is_said:
            assert f"{given:g} mm" in image.assumptions[0]
            assert "the file is assumed to be right" in image.assumptions[0]


def test_one_spacing_for_pixels_that_are_not_square(ct, save):
    ct.PixelSpacing = [0.5, 0.8]
    image = read_image(save(ct), frame=None, spacing_mm=0.5, **BUNDLE)
    assert image.spacing_mm == (0.5, 0.8)
    assert "0.5 x 0.8 mm" in image.assumptions[0]


def test_missing_image(tmp_path):
    with pytest.raises(Refusal) as error:
        read_image(tmp_path / "none", frame=None, spacing_mm=None, **BUNDLE)
    assert error.value.reason is Reason.FILE_MISSING


def test_find_by_path(tmp_path):
    path = tmp_path / "a" / "b.png"
    path.parent.mkdir()
    path.touch()
    finder = ImageFinder(tmp_path, [])
    assert finder.find("a/b.png") == path
    assert ImageFinder(Path("/"), []).find(str(path)) == path
    for image in ("a", "", "a/c.png", "x" * 5000, "a\0b", "1.2.x"):
        assert reason(finder, image) is Reason.FILE_MISSING


def test_find_by_uid(tmp_path):
    one = header_only(tmp_path / "study" / "s1" / "one", "1.2.3")
    two = header_only(tmp_path / "two.dcm", "1.2.4")
    (tmp_path / "study" / "notes.txt").write_text("no image")
    # the folder twice, and the file once more through it: still one file
    finder = ImageFinder(tmp_path, [tmp_path / "study", tmp_path / "study" / "s1" / ".." / "s1", one, two])
    assert finder.find("1.2.3") == one
    assert finder.find("1.2.4") == two
    assert reason(finder, "1.2.5") is Reason.UNKNOWN_IMAGE
    assert reason(finder, "1" * 65) is Reason.FILE_MISSING


def test_a_file_that_vanishes_between_finding_and_reading(shipped, tmp_path):
    path = tmp_path / "a.dcm"
    shutil.copy(shipped("CT_small.dcm"), path)
    uid = read_image(path, frame=None, spacing_mm=None, **BUNDLE).sop_instance_uid
    finder = ImageFinder(tmp_path, [tmp_path])
    assert finder.find(uid) == path
    path.unlink()
    for image in (uid, "a.dcm"):
        with pytest.raises(Refusal) as error:
            read_image(finder.find(image), frame=None, spacing_mm=None, **BUNDLE)
        assert error.value.reason is Reason.FILE_MISSING


def test_uid_of_two_files(tmp_path):
    """Copies are one image, in the order of their names; files that differ are none."""
    one = header_only(tmp_path / "one", "1.2.3")
    shutil.copy(one, tmp_path / "two")
    finder = ImageFinder(tmp_path, [tmp_path])
    assert finder.find("1.2.3") == one
    assert finder.find("1.2.3") == one
    (tmp_path / "two").write_bytes(one.read_bytes() + b"\0\0")
    assert reason(ImageFinder(tmp_path, [tmp_path]), "1.2.3") is Reason.AMBIGUOUS_IMAGE


@pytest.mark.parametrize("change", [{}, {"PatientName": "Other^Name"}])
@pytest.mark.parametrize("differs", [None, "PixelData", "PixelSpacing", "ImagePositionPatient", "SeriesInstanceUID"])
def test_copies_are_told_by_what_is_scored(shipped, tmp_path, change, differs):
    ct = pydicom.dcmread(shipped("CT_small.dcm"))
    ct.save_as(tmp_path / "one")
    for keyword, value in change.items():
        setattr(ct, keyword, value)
    other = {"PixelData": ct.PixelData[::-1], "PixelSpacing": [1, 1], "SeriesInstanceUID": "1.2"}
    if differs:
        setattr(ct, differs, other.get(differs, [1, 2, 3]))
    ct.save_as(tmp_path / "two")
    assert is_copy(tmp_path / "one", tmp_path / "two") is (differs is None)
    assert is_copy(tmp_path / "one", tmp_path / "gone") is False


def test_path_goes_before_uid_and_the_index_is_read_once(tmp_path, monkeypatch):
    file = header_only(tmp_path / "1.2.3", "1.2.9")
    header_only(tmp_path / "other", "1.2.3")
    read = []
    original = images.read_sop_instance_uid
    monkeypatch.setattr(images, "read_sop_instance_uid", lambda path: read.append(path) or original(path))
    finder = ImageFinder(tmp_path, [tmp_path])
    assert finder.find("1.2.3") == file
    assert read == []
    assert finder.find("1.2.9") == file
    assert reason(finder, "1.2.8") is Reason.UNKNOWN_IMAGE
    assert len(read) == 2


def test_list_images(tmp_path):
    names = ["b/2", "b/1.dcm", "a/z/3.png", ".hidden", ".git/config", "DICOMDIR", "b/DICOMDIR", "a.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [tmp_path / name for name in ("a/z/3.png", "a.txt", "b/1.dcm", "b/2")]
    assert list_images([tmp_path]) == sorted(found)
    assert list_images([tmp_path / ".hidden", tmp_path / "b", tmp_path / "b" / "2"]) == [
        tmp_path / ".hidden",
        tmp_path / "b" / "1.dcm",
        tmp_path / "b" / "2",
    ]
    assert list_images([]) == []


@pytest.mark.parametrize("make", [list_images, lambda sources: ImageFinder(Path(), sources)])
def test_source_that_does_not_exist(tmp_path, make):
    with pytest.raises(CommandError, match="number 2"):
        make([tmp_path, tmp_path / "secret"])
