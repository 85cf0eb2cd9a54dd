from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from lymphcad_client.results import COLUMNS
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from lymphcad.cli import main

pytestmark = pytest.mark.server


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        return list(reader)


@pytest.fixture
def study(tmp_path) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    shutil.copy(get_testdata_file("CT_small.dcm"), folder / "ct.dcm")
    shutil.copy(get_testdata_file("MR_truncated.dcm"), folder / "mr.dcm")
    localizer = dcmread(folder / "ct.dcm")
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    localizer.save_as(folder / "scout.dcm")
    (folder / "note.txt").write_text("no image at all")
    return folder


def test_every_node_has_its_row_in_order(scored_by, study, tmp_path, capsys):
    uid = dcmread(study / "ct.dcm").SOPInstanceUID
    (study / "nodes.csv").write_text(
        "node,image,row,col,comment\n"
        "a,ct.dcm,60,70,x\nb,scout.dcm,60,70,x\nc,note.txt,1,1,x\nd,ct.dcm,128,5,x\n"
        f"e,ct.dcm,here,5,x\nf,{uid},60,70,x\ng,1.2.3.4,60,70,x\nh,gone.dcm,1,1,x\ni,ct.dcm,1.5,2.25,x\n"
    )
    sources = tmp_path / "elsewhere"
    sources.mkdir()
    shutil.copy(study / "ct.dcm", sources / "copy.dcm")
    out = tmp_path / "out"
    assert run("score", sources, "--nodes", study / "nodes.csv", "--out", out, *scored_by) == 3
    rows = rows_of(out)
    assert [row["node"] for row in rows] == list("abcdefghi")
    found = [row["reason"].partition(":")[0] if row["status"] == "refused" else row["status"] for row in rows]
    assert found == [
        "scored", "localizer", "not_dicom", "node_outside_image", "node_not_a_number", "scored", "unknown_image",
        "file_missing", "scored",
    ]  # fmt: skip
    assert rows[0]["probability"] == rows[5]["probability"]
    for row in rows:
        assert bool(row["probability"]) == (row["status"] == "scored")
        if row["heatmap"]:
            with Image.open(out / row["heatmap"]) as picture:
                assert picture.size == (960, 400)
    assert "Research use only" in capsys.readouterr().out


def test_one_point_without_overlays(scored_by, study, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("score", study / "ct.dcm", "--node", "60,70", "--out", out, *scored_by)
    assert run(*arguments, "--no-overlays", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"n": 1, "scored": 1, "refused": 0, "failed": 0}
    assert rows_of(out)[0]["heatmap"] == ""
    assert not (out / "overlays").exists()


def test_wrong_commands(tmp_path, study, capsys):
    table = tmp_path / "nodes.csv"
    table.write_text("image,row\nct.dcm,1\n")
    out = tmp_path / "out"
    for arguments, words in (
        (("--nodes", table, "--out", out), "col"),
        ((study, "--out", out), "--node"),
        ((study, "--node", "1;2", "--out", out), "ROW,COL"),
        ((study / "nothing", "--node", "1,2", "--out", out), "does not exist"),
        ((study, "--node", "1,2"), "--out"),
        ((study, "--node", "1,2", "--out", out, "--server", "grpc://127.0.0.1:1"), "server_away"),
        ((study, "--node", "1,2", "--out", out, "--edge", "a", "--server", "grpc://127.0.0.1:1"), "leave --server"),
        ((study, "--node", "1,2", "--out", out, "--edge", "a", "--bundle", "a"), "--bundle out"),
        ((study, "--node", "1,2", "--out", out, "--runner", "openvino"), "--runner goes with --edge"),
        ((study, "--node", "1,2", "--out", out, "--precision", "int8"), "--precision goes with --edge"),
        ((study, "--node", "1,2", "--out", out, "--edge", study), "there is no bundle.json"),
        ((study, "--node", "1,2", "--out", out, "--format", "xml"), "csv, parquet"),
        ((study, "--node", "1,2", "--out", out, "--format", ","), "csv, parquet"),
        ((study, "--node", "1,2", "--out", out, "--dicom", "sr,jpg"), "sr, sc, pm"),
        ((study, "--node", "1,2", "--out", out, *["--server", "grpc://127.0.0.1:1"] * 2), "twice"),
    ):
        assert run("score", *arguments) == 2
        said = capsys.readouterr().err
        assert words in said
        assert "Traceback" not in said
    assert not out.exists()
