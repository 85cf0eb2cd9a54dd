"""`lymphcad nodes`, its exit codes and what it says; and the example."""

from __future__ import annotations

import csv
import errno
import json
import subprocess
import sys
from pathlib import Path

import lymphcad_client
import pytest
from annotating import annotated, ct_series, graphic, plain, planar, presentation, report, scoord, write
from lymphcad_client.annotations import command, find, table

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.cli import main
from lymphcad.images import ImageFinder
from lymphcad.tables import read_nodes

EXAMPLE = Path(lymphcad_client.__file__).parents[1] / "examples" / "nodes_from_sr.py"


@pytest.fixture(scope="module")
def cts():
    return ct_series(2)


@pytest.fixture
def study(tmp_path, cts):
    """Return a study with a report of two nodes and a presentation state of one."""
    folder = tmp_path / "study"
    folder.mkdir()
    groups = [planar(scoord("POINT", [[col, 5]], cts[0]), f"node {col}", f"1.2.{col}") for col in (7, 8)]
    write(folder, *cts)
    write(folder, report(groups, cts, ContentDate="20240301"))
    write(folder, presentation([annotated(cts[1:], [graphic("POINT", [(5, 5)])])], cts))
    return folder


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["nodes", *map(str, arguments)])
    return ended.value.code


def test_a_table(study, cts, tmp_path, capsys):
    out = tmp_path / "nodes.csv"
    assert run(study, "--out", out) == 0
    said, error = capsys.readouterr()
    assert said.startswith(f"3 nodes: {out}\n")
    assert RESEARCH_USE_ONLY in said
    assert error == ""
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row.values())[:7] for row in rows] == [
        (cts[1].SOPInstanceUID, "4.5", "4.5", "1", "", "GSPS", ""),
        (cts[0].SOPInstanceUID, "4.5", "6.5", "node 7", "", "SR", "1.2.7"),
        (cts[0].SOPInstanceUID, "4.5", "7.5", "node 8", "", "SR", "1.2.8"),
    ]
    finder = ImageFinder(out.parent, [study])
    assert all(finder.find(row.image).is_file() for row in read_nodes(out))


def test_some_are_refused(study, cts, tmp_path, capsys):
    write(
        study, report([plain()], cts), report([planar(scoord("POINT", [[1, 1]], cts[0]))], cts, manufacturer="LymphCAD")
    )
    (study / "cut.dcm").write_bytes(min(study.iterdir()).read_bytes()[:700])
    (study / "remark.txt").write_text("nothing")
    out = tmp_path / "nodes.csv"
    assert run(study, "--out", out, "--json") == 3
    said, error = capsys.readouterr()
    told = json.loads(said)
    refused = told.pop("refused")
    assert told == {"nodes": 3, "superseded": 0, "left_out": 1, "without": 0, "images": 2, "others": 1}
    assert {(Path(one["file"]).parent, one["annotation"], one["reason"]) for one in refused} == {
        (study, 1, "not_a_point"),
        (study, None, "truncated"),
    }
    assert all(one["sentence"][0].islower() and not one["sentence"].startswith(one["reason"]) for one in refused)
    assert "not_a_point" in error
    assert "truncated" in error
    assert len(read_nodes(out)) == 3
    assert run(study, "--out", out, "--include-results") == 3
    said, _ = capsys.readouterr()
    assert said.startswith("4 nodes")
    assert "2 annotations or files refused" in said
    assert "1 files that are neither" in said


def test_all_are_refused(study, cts, tmp_path, capsys):
    """No table is there to be taken for this study's."""
    for path in sorted(study.iterdir())[2:]:
        path.unlink()
    write(study, report([plain()], cts))
    out = tmp_path / "nodes.csv"
    out.write_text("image,row,col\nof another study,1,1\n")
    assert run(study, "--out", out) == 3
    assert not out.exists()
    said, _ = capsys.readouterr()
    assert said.startswith("0 nodes; no table was written")


def test_no_annotation(tmp_path, cts, capsys):
    study, out = tmp_path / "study", tmp_path / "nodes.csv"
    study.mkdir()
    own = report([planar(scoord("POINT", [[1, 1]], cts[0]))], cts, manufacturer="LymphCAD")
    write(study, *cts, own, presentation([], cts))
    assert run(study, "--out", out) == 2
    said, error = capsys.readouterr()
    assert said == ""
    assert error.startswith(
        "lymphcad: no annotation was found in 4 files (2 images, 1 results of LymphCAD, see --include-results)"
    )
    assert "Grayscale Softcopy Presentation States" in error
    assert error.count("\n") == 1
    assert not out.exists()
    (study / "cut.dcm").write_bytes(min(study.iterdir()).read_bytes()[:700])
    assert run(study, "--out", out) == 2
    error = capsys.readouterr().err
    assert "truncated: " in error
    assert "no annotation was found in 5 files" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "nodes.csv"], "no study"),
        (["{study}"], "--out"),
        (["{study}", "--out", "{study}"], "is a folder"),
        (["{study}", "--out", "{study}/gone/nodes.csv"], "does not exist"),
        (["{study}", "--out", "{study}/" + "x" * 250], "cannot be written"),
        (["{study}/gone", "--out", "{study}/nodes.csv"], "does not exist"),
    ],
)
def test_wrong_commands(study, capsys, arguments, words):
    before = sorted(study.iterdir())
    assert run(*(argument.format(study=study) for argument in arguments)) == 2
    said, error = capsys.readouterr()
    assert said == ""
    assert words in error
    assert error.count("\n") == 1
    assert sorted(study.iterdir()) == before


def test_ctrl_c_writes_nothing(study, tmp_path, capsys, monkeypatch):
    def stop(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(find, "read_file", stop)
    assert run(study, "--out", tmp_path / "nodes.csv") == 130
    assert "stopped" in capsys.readouterr().err
    assert not (tmp_path / "nodes.csv").exists()


def test_a_full_disk_leaves_the_old_table(study, tmp_path, capsys, monkeypatch):
    out = tmp_path / "nodes.csv"
    out.write_text("old")

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(table.os, "fsync", full)
    assert run(study, "--out", out) == 2
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nodes.csv", "study"]


def test_plain_lines_where_there_is_no_terminal(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "PLAIN_LINE_S", 0.0)
    assert run(study, "--out", tmp_path / "nodes.csv") == 0
    assert capsys.readouterr().err.splitlines() == [f"{n} of 4 files read" for n in range(1, 5)]


def test_the_example(study, tmp_path):
    out = tmp_path / "nodes.csv"
    ran = subprocess.run([sys.executable, EXAMPLE, study, out], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[1] == "node 7: row 4.5, column 6.5 (SR)"
    assert ran.stderr == ""
    assert len(read_nodes(out)) == 3
    ran = subprocess.run([sys.executable, EXAMPLE, study / "gone", out], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
