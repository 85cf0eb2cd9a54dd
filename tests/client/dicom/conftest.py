"""Studies to write results for, and the tools that look at the results."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian

pytest.importorskip("highdicom")

from lymphcad_client.dicom.scored_node import ScoredNode
from lymphcad_client.dicom.study import write_study

from lymphcad.bundle import Bundle
from lymphcad.finding import finding
from lymphcad.phantom.sample import sample_study

DEMO = Path(__file__).parents[3] / "bundles" / "demo"
INPUT = "0123456789abcdef" * 4


@pytest.fixture(scope="session")
def bundle():
    return Bundle(DEMO)


@pytest.fixture(scope="session")
def scored(bundle):
    """Return a function that makes a node with an answer of the demo bundle: a heatmap that is no mirror of itself."""

    def make(number, path, row, col, frame=None, probability=0.9, node="", assumptions=""):
        size = bundle.manifest.preprocess.size
        heat = np.zeros((1, size, size), np.uint8)
        heat[0, 10 : 10 + 3 * number, 30:90] = 100 + number
        heat[0, 20, 100] = 255
        answer = finding(bundle.manifest, bundle.digest, np.array([[probability]], np.float32), heat)
        return ScoredNode(number, node or f"N{number}", path, frame, row, col, answer, INPUT, assumptions)

    return make


@pytest.fixture(scope="session")
def written(bundle):
    """Return a function that writes all results of nodes, or some."""

    def write(nodes, folder, kinds=("sr", "sc", "pm"), digest=bundle.digest, **more):
        return write_study(nodes, bundle.manifest, digest, folder, kinds, **more)

    return write


@pytest.fixture(scope="session")
def phantom(tmp_path_factory, scored):
    """Return the nodes of the sample study, two called benign and two metastatic."""
    files, table = sample_study(lambda _: None)
    folder = tmp_path_factory.mktemp("phantom")
    for file in files:
        (folder / file.name).write_bytes(file.data)
    rows = csv.DictReader(io.StringIO(table.decode()))
    return [
        scored(
            number,
            folder / row["image"],
            float(row["row"]),
            float(row["col"]),
            probability=0.123456789 + number / 5,
            node=row["node"],
        )
        for number, row in enumerate(rows, start=1)
    ]


@pytest.fixture(scope="session")
def results(tmp_path_factory, phantom, written):
    """Return the files of the sample study's results by their names; one node more was refused."""
    paths = written(phantom, tmp_path_factory.mktemp("results"), not_scored=[("N5", "node_in_padding")])
    return {path.name: path for path in paths}


@pytest.fixture
def ct():
    """Return a real slice, 128 x 128, as a dataset to change."""
    return pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))


@pytest.fixture
def save(tmp_path):
    """Write a dataset to a file of its own."""
    count = 0

    def write(dataset):
        nonlocal count
        count += 1
        path = tmp_path / f"{count}.dcm"
        dataset.save_as(path)
        return path

    return write


def item(**elements):
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


TILTED = [1, 0, 0, 0, 0.8, -0.6]


@pytest.fixture
def enhanced(ct):
    """Return an Enhanced CT of two frames, 0.5 x 0.75 mm pixels, tilted, with its planes in the functional groups."""
    ct.SOPClassUID = ct.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ct.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pixels = ct.pixel_array
    ct.PixelData = pixels.tobytes() + pixels[::-1].tobytes()
    ct.NumberOfFrames = 2
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.75], SliceThickness=3)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=TILTED)],
        CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
        PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")],
    )
    ct.SharedFunctionalGroupsSequence = [shared]
    ct.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[-1, -2, 10 + 5 * number])]) for number in range(2)
    ]
    for keyword in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope"):
        delattr(ct, keyword)
    return ct


def _tool(name, package):
    if shutil.which(name) is None:
        assert not os.environ.get("CI"), f"{name} is missing: install {package}"
        pytest.skip(f"{name} is missing: install {package}")

    def run(path):
        return subprocess.run([name, str(path)], capture_output=True, text=True, check=False, errors="replace")

    return run


@pytest.fixture(scope="session")
def errors():
    """Return a function that says what dciodvfy has against a file, and checks that it knew what to look for."""
    run = _tool("dciodvfy", "dicom3tools")

    def check(path):
        said = run(path)
        lines = (said.stdout + said.stderr).splitlines()
        assert {"SCImage", "ParametricMap", "Comprehensive3DSR", "CTImage"} & set(lines)
        return [line for line in lines if line.startswith("Error")]

    return check


@pytest.fixture(scope="session")
def dsrdump():
    return _tool("dsrdump", "dcmtk")
