"""What `lymphcad score` leaves in its folder, and what it does with what an earlier run left."""

from __future__ import annotations

import csv
import json

import pytest
from lymphcad_client.progress import progress
from rich.console import Console
from scoring import finished, rows_of

from lymphcad.phantom.sample import STUDY_LABELS, sample_study


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Return the table of the sample study, on disk."""
    folder = tmp_path_factory.mktemp("phantom")
    files, table = sample_study(lambda _: None)
    for file in files:
        (folder / file.name).write_bytes(file.data)
    (folder / "nodes.csv").write_bytes(table)
    return folder / "nodes.csv"


@pytest.fixture(scope="module")
def edge(request):
    pytest.importorskip("onnxruntime")
    return "--edge", request.config.rootpath / "bundles" / "demo", "--runner", "onnxruntime", "--no-overlays"


def contents(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in (out / "dicom").rglob("*.dcm")}


def test_dicom_results(phantom, edge, tmp_path):
    pytest.importorskip("highdicom")
    out = tmp_path / "out"
    finished(phantom, out, *edge, "--dicom", "sr,sc,pm")
    first = contents(out)
    (study,) = {name.split("/")[1] for name in first}
    names = {"sr.dcm", *(f"{kind}-{number:06d}.dcm" for kind in ("sc", "heatmap") for number in range(1, 5))}
    assert set(first) == {f"dicom/{study}/{name}" for name in names}
    finished(phantom, out, *edge, "--dicom", "sr,sc,pm", "--resume")
    assert contents(out) == first
    _, error = finished(phantom, out, *edge, "--resume", code=2)
    assert "another choice of DICOM results" in error
    assert rows_of(out)[0][4] == "scored"
    assert contents(out) == first
    finished(phantom, out, *edge)  # a run of its own, whose folder must not hold results of the one before
    assert contents(out) == {}


def test_what_is_refused_stands_in_the_report(phantom, edge, tmp_path):
    highdicom = pytest.importorskip("highdicom")
    table, out = phantom.parent / "odd.csv", tmp_path / "out"
    rows = list(csv.reader(phantom.open()))
    rows.append([rows[1][0], "9999", "1", "far away"])
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    finished(table, out, *edge, "--dicom", "sr", code=3)
    (path,) = (out / "dicom").rglob("*.dcm")
    assert b"far away" in path.read_bytes()
    assert b"node_outside_image" in path.read_bytes()
    assert len(highdicom.sr.srread(path).content.get_planar_roi_measurement_groups()) == len(STUDY_LABELS)


def test_what_has_no_study_has_no_dicom_result(edge, tmp_path):
    pytest.importorskip("highdicom")
    from PIL import Image

    Image.new("L", (96, 96), 120).save(tmp_path / "a.png")
    table, out = tmp_path / "nodes.csv", tmp_path / "out"
    table.write_text("image,row,col,spacing_mm\na.png,48,48,0.5\n")
    said, error = finished(table, out, *edge, "--dicom", "sr", "--json", code=3)
    assert json.loads(said) == {"n": 1, "scored": 1, "refused": 0, "failed": 0}
    assert "1 scored node has no DICOM result, no_study" in error
    assert rows_of(out)[0][4] == "scored"


def test_a_refused_command_leaves_what_was_there(phantom, edge, tmp_path):
    out = tmp_path / "out"
    finished(phantom, out, *edge)
    before = (out / "results.csv").read_bytes()
    other = tmp_path / "other.csv"
    other.write_text("image,row,col\nnothing.dcm,1,1\n")
    _, error = finished(other, out, *edge, "--resume", code=2)
    assert "the table of nodes is another one" in error
    assert (out / "results.csv").read_bytes() == before


@pytest.mark.parametrize("jobs", [0, 2])
def test_the_same_with_processes(phantom, edge, tmp_path, jobs):
    out = tmp_path / str(jobs)
    finished(phantom, out, *edge[:4], "--jobs", jobs)
    finished(phantom, tmp_path / "other", *edge[:4])
    assert rows_of(out) == rows_of(tmp_path / "other")
    for number in range(1, 5):
        name = f"overlays/{number:06d}.png"
        assert (out / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_lines_where_there_is_no_terminal(capsys, monkeypatch):
    times = iter([0.0, 5.0, 10.0, 12.0, 25.0])
    monkeypatch.setattr("lymphcad_client.progress.time.monotonic", lambda: next(times))
    with progress(Console(stderr=True), "Scoring", "nodes", 100, 20) as advance:
        for _ in range(4):
            advance()
    assert capsys.readouterr().err.splitlines() == [
        "Scoring: 22 of 100 nodes, 0.2 nodes/s, 390 s left",
        "Scoring: 24 of 100 nodes, 0.2 nodes/s, 475 s left",
    ]
