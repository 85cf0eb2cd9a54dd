"""Real CT files that pydicom ships, and variants of them made on the spot."""

import os
import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian


@pytest.fixture(scope="session")
def shipped():
    """Path of a file that pydicom ships, by its name; nothing is downloaded."""

    def find(name):
        path = get_testdata_file(name, download=False)
        assert path is not None, f"pydicom no longer ships {name}"
        return Path(path)

    return find


@pytest.fixture
def ct(shipped):
    """A real slice, 128 x 128, as a dataset to change."""
    return pydicom.dcmread(shipped("CT_small.dcm"))


@pytest.fixture
def save(tmp_path):
    """Write a dataset to a file of its own."""
    count = 0

    def write(dataset, **how):
        nonlocal count
        count += 1
        path = tmp_path / f"{count}.dcm"
        dataset.save_as(path, **how)
        return path

    return write


def item(**elements):
    """Return a sequence item."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture
def enhanced(ct):
    """An Enhanced CT of two frames: its second one is the slice upside down, with another rescale and position."""
    ct.SOPClassUID = ct.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ct.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pixels = ct.pixel_array
    ct.PixelData = pixels.tobytes() + pixels[::-1].tobytes()
    ct.NumberOfFrames = 2
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.75])],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
    )
    ct.SharedFunctionalGroupsSequence = [shared]
    ct.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[-1, -2, 10 + 5 * number])],
            PixelValueTransformationSequence=[
                item(RescaleSlope=1 + number, RescaleIntercept=-1024 - number, RescaleType="HU")
            ],
        )
        for number in range(2)
    ]
    # What the data set itself says of single frames counts for nothing in an enhanced file.
    for keyword in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope"):
        delattr(ct, keyword)
    ct.RescaleIntercept = 7777
    return ct


@pytest.fixture(scope="session")
def dcmcjpeg():
    """dcmtk's encoder of JPEG: takes its arguments as strings and paths."""
    program = shutil.which("dcmcjpeg")
    if program is None:
        assert not os.environ.get("CI"), "dcmcjpeg is missing: install dcmtk"
        pytest.skip("dcmcjpeg is missing: install dcmtk")

    def run(*arguments):
        subprocess.run([program, *arguments], check=True)

    return run


@pytest.fixture
def lossless_jpeg(shipped, dcmcjpeg, tmp_path):
    """The real slice as JPEG lossless, first-order prediction."""
    path = tmp_path / "lossless.dcm"
    dcmcjpeg(shipped("CT_small.dcm"), path)
    return path
