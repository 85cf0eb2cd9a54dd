"""The same result is the same object: sending it again overwrites nothing and duplicates nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import datetime

import pydicom
import pytest
from lymphcad_client.dicom.study import study_folder


def uids(paths):
    return {path.name: pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in paths}


@pytest.fixture(scope="module")
def two(phantom, written, tmp_path_factory):
    """Return the UIDs of the results of the first two nodes."""
    return uids(written(phantom[:2], tmp_path_factory.mktemp("two")))


def test_again_in_another_process_the_bytes_are_the_same(ct, save, scored, written, tmp_path):
    path = save(ct)
    first = written([scored(1, path, 60, 70)], tmp_path / "first", not_scored=[("N2", "bad_row")])
    script = f"""
import sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
import numpy as np
from lymphcad.bundle import Bundle
from lymphcad.finding import finding
from lymphcad_client.dicom.scored_node import ScoredNode
from lymphcad_client.dicom.study import write_study
bundle = Bundle(Path({str(__file__)!r}).parents[3] / "bundles" / "demo")
heat = np.zeros((1, 128, 128), np.uint8)
heat[0, 10:13, 30:90] = 101
heat[0, 20, 100] = 255
answer = finding(bundle.manifest, bundle.digest, np.array([[0.9]], np.float32), heat)
node = ScoredNode(1, "N1", Path({str(path)!r}), None, 60, 70, answer, "0123456789abcdef" * 4)
write_study([node], bundle.manifest, bundle.digest, Path({str(tmp_path / "again")!r}), ("pm", "sr", "sc"),
            not_scored=[("N2", "bad_row")])
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    again = sorted((tmp_path / "again").rglob("*.dcm"))
    assert {path.name: path.read_bytes() for path in again} == {path.name: path.read_bytes() for path in first}
    assert len(again) == 3


def test_a_longer_table_is_another_report_of_the_same_nodes(phantom, results, two, written, tmp_path):
    before = {path.name: path.read_bytes() for path in written(phantom[:2], tmp_path)}
    after = {name: path.read_bytes() for name, path in results.items()}
    assert before.keys() < after.keys()
    assert {name for name, made in before.items() if after[name] != made} == {"sr.dcm"}
    reports = [two, uids([results["sr.dcm"]]), uids(written(phantom, tmp_path, ["sr"]))]
    assert len({report["sr.dcm"] for report in reports}) == 3


def test_the_order_and_the_numbers_of_the_table_make_no_other_images(phantom, two, written, tmp_path):
    turned = [replace(phantom[1], number=1), replace(phantom[0], number=2)]
    found = uids(written(turned, tmp_path))
    assert (found["sc-000001.dcm"], found["heatmap-000002.dcm"]) == (two["sc-000002.dcm"], two["heatmap-000001.dcm"])


def test_the_order_in_which_nodes_are_given_does_not_count(phantom, written, tmp_path):
    one, other = (
        [path.read_bytes() for path in written(nodes, tmp_path / name)]
        for name, nodes in (("one", phantom), ("other", phantom[::-1]))
    )
    assert one == other


def test_each_frame_is_another_image(enhanced, save, scored, written, tmp_path):
    path = save(enhanced)
    first, second = (uids(written([scored(1, path, 60, 70, frame=frame)], tmp_path)) for frame in (1, 2))
    assert not set(first.values()) & set(second.values())


def test_the_last_digits_of_an_answer_make_no_other_objects(phantom, two, written, tmp_path):
    close = replace(phantom[0].finding, probability=phantom[0].finding.probability + 1e-7)
    assert uids(written([replace(phantom[0], finding=close), phantom[1]], tmp_path)) == two


@pytest.mark.parametrize(
    ("change", "other"),
    [
        ({"row": 1.0}, {"sr.dcm", "sc-000001.dcm", "heatmap-000001.dcm"}),
        ({"col": 1.0}, {"sr.dcm", "sc-000001.dcm", "heatmap-000001.dcm"}),
        ({"input_sha256": "f" * 64}, {"sr.dcm", "sc-000001.dcm", "heatmap-000001.dcm"}),
        ({"call": "metastatic"}, {"sr.dcm", "sc-000001.dcm", "heatmap-000001.dcm"}),
        ({"node": "another name"}, {"sr.dcm"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_result_is_another_object(change, other, phantom, two, written, tmp_path):
    node = phantom[0]
    if "call" in change:
        node = replace(node, finding=replace(node.finding, **change))
    else:
        node = replace(
            node, **{name: getattr(node, name) + 1 if value == 1 else value for name, value in change.items()}
        )
    found = uids(written([node, phantom[1]], tmp_path))
    assert {name for name, uid in found.items() if uid != two[name]} == other


def test_another_bundle_makes_other_objects_in_other_series(phantom, two, results, written, tmp_path):
    paths = written(phantom[:2], tmp_path, digest="f" * 64)
    assert not set(uids(paths).values()) & set(two.values())
    before = {pydicom.dcmread(path).SeriesInstanceUID for path in results.values()}
    assert not {pydicom.dcmread(path).SeriesInstanceUID for path in paths} & before


def test_a_node_that_was_not_scored_makes_another_report(phantom, two, written, tmp_path):
    found = uids(written(phantom[:2], tmp_path, not_scored=[("N9", "not_axial")]))
    assert {name for name, uid in found.items() if uid != two[name]} == {"sr.dcm"}


def test_the_moment_is_the_images_or_the_callers(ct, save, scored, written, tmp_path):
    ct.ContentDate, ct.ContentTime = "20040119", "072730"
    nodes = [scored(1, save(ct), 60, 70)]
    when = datetime(2026, 2, 3, 4, 5, 6)
    for more, expected in (({}, ("20040119", "072730")), ({"when": when}, ("20260203", "040506"))):
        for path in written(nodes, tmp_path / "out", **more):
            made = pydicom.dcmread(path)
            assert (made.ContentDate, made.ContentTime) == expected
            assert not {"InstanceCreationDate", "DateOfSecondaryCapture"} & set(made.dir())


def test_the_folder_names_no_patient(phantom, results):
    study = pydicom.dcmread(phantom[0].path).StudyInstanceUID
    assert {path.parent.name for path in results.values()} == {study_folder(study)}
    assert len(study_folder(study)) == 16
    assert set(study_folder(study)) <= set("0123456789abcdef")
