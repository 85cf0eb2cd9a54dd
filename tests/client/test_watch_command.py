"""`lymphcad watch` as a person or a service runs it, on the demo bundle."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from lymphcad.cli import main
from lymphcad.phantom.dicom_file import Place, write_ct
from lymphcad.phantom.sample import sample_nodes

CT = get_testdata_file("CT_small.dcm", download=False)


@pytest.fixture
def bundle(request):
    return request.config.rootpath / "bundles" / "demo"


@pytest.fixture
def boxes(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in", tmp_path / "out"


def drop_phantom(inbox, name):
    """Put a made patient's study with two nodes into the inbox."""
    study = inbox / name
    (study / "series 1").mkdir(parents=True)
    lines = ["image,row,col,node"]
    for number, (ct, row, col) in enumerate(sample_nodes(2, seed=5), start=1):
        place = Place("test", 1, number, (-100.0, -100.0, 2.5 * number), ct.spacing_mm[0])
        write_ct(study / "series 1" / f"{number}.dcm", ct.hu, place)
        lines.append(f"series 1/{number}.dcm,{row:.1f},{col:.1f},level {number}")
    (study / "nodes.csv").write_text("\n".join(lines) + "\n")
    return study


def drop_many(inbox, name, nodes):
    study = inbox / name
    study.mkdir()
    shutil.copy(CT, study / "ct.dcm")
    rows = (f"ct.dcm,{20 + number % 80},{20 + number // 80 % 80}" for number in range(nodes))
    (study / "nodes.csv").write_text("image,row,col\n" + "\n".join(rows) + "\n")
    return study


def arguments(boxes, bundle, *options):
    runner = ["--edge", bundle, "--runner", "onnxruntime"]
    return [str(part) for part in ("watch", boxes[0], "--out", boxes[1], *runner, *options)]


def run(boxes, bundle, *options):
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main(arguments(boxes, bundle, *options))
    finally:
        signal.signal(signal.SIGTERM, handler)
    return int(ended.value.code or 0)


def start(boxes, bundle, *options):
    """Start the command as a process, and wait until it watches."""
    command = [sys.executable, "-m", "lymphcad", *arguments(boxes, bundle, *options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = iter(process.stderr.readline, "")
    assert any(line.startswith("Watching.") for line in said)
    return process


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rows_of(results):
    with (results / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_studies_are_scored_once(boxes, bundle, capfd):
    drop_phantom(boxes[0], "Doe^Jane")
    assert run(boxes, bundle, "--settle", "0.1", "--once", "--json") == 0
    said, error = capfd.readouterr()
    answer = json.loads(said)
    assert answer.pop("seconds") > 0
    record = json.loads((boxes[1] / "Doe^Jane" / "study.json").read_text())
    assert answer == {
        "fingerprint": record["fingerprint"],
        "status": "done",
        "reason": "",
        "scored": 2,
        "refused": 0,
        "failed": 0,
        "already": False,
    }
    assert record["bundle"].startswith("demo@")
    assert record["scorer"] in error
    assert "Research use only" in error
    assert f"study 1 {record['fingerprint'][:8]}: done, 2 scored, 0 refused, 0 failed in" in error
    rows = rows_of(boxes[1] / "Doe^Jane")
    assert [(row["node"], row["status"]) for row in rows] == [("level 1", "scored"), ("level 2", "scored")]
    assert [row["call"] for row in rows] == ["benign", "metastatic"]  # as they were made
    assert {row["bundle"] for row in rows} == {record["bundle"]}
    assert all((boxes[1] / "Doe^Jane" / row["heatmap"]).exists() for row in rows)


def test_no_name_of_a_study_is_said(boxes, bundle, capfd):
    """Of a study that is scored, refused for either reason, and scored before."""
    (drop_phantom(boxes[0], "Doe^Good") / "nodes.csv").open("a").write("Doe^Gone.dcm,1,1,x\n")
    (drop_phantom(boxes[0], "Doe^Bad") / "nodes.csv").write_text("Doe_Jane,row\n1,1\n")
    (drop_phantom(boxes[0], "Doe^None") / "nodes.csv").write_text("image,row,col\nDoe^Gone.dcm,1,1\n")
    assert run(boxes, bundle, "--settle", "0.1", "--once", "--json", "--no-overlays") == 3
    (boxes[0] / "done" / "Doe^Good").rename(boxes[0] / "Doe^Good")
    assert run(boxes, bundle, "--settle", "0.1", "--once", "--json") == 3
    said, error = capfd.readouterr()
    assert "Doe" not in said + error
    found = [json.loads(line) for line in said.splitlines()]
    assert sorted((one["status"], one["reason"], one["already"]) for one in found) == [
        ("done", "", False),
        ("done", "", True),
        ("refused", "bad_table", False),
        ("refused", "none_scored", False),
    ]
    assert "refused, bad_table: nodes.csv cannot be used" in error
    assert "refused, none_scored: not one node could be scored, results.csv says why, 0 scored, 1 refused" in error
    assert "done, 2 scored, 1 refused, 0 failed; its results were there before" in error
    assert len(error.splitlines()) == 8


def test_a_study_that_grows_under_its_eyes(boxes, bundle):
    process = start(boxes, bundle, "--settle", "1")
    study = drop_many(boxes[0], "a", 1)
    for number in range(20):
        with (study / "nodes.csv").open("a") as table:
            table.write(f"ct.dcm,{30 + number},40\n")
        time.sleep(0.1)
    assert not any(boxes[1].glob("*/results.csv"))
    wait_for(lambda: (boxes[0] / "done" / "a").exists())
    assert len(rows_of(boxes[1] / "a")) == 21
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_only_one_watcher_at_a_time(boxes, bundle, tmp_path, capsys):
    first = start(boxes, bundle)
    other = tmp_path / "other"
    other.mkdir()
    for two in (boxes, (boxes[0], tmp_path / "out 2"), (other, boxes[1])):
        assert run(two, bundle, "--once") == 2
        said = capsys.readouterr().err
        assert "another watcher is at work on" in said
        assert said.count("\n") == 1
    first.kill()
    first.communicate()
    drop_many(boxes[0], "a", 1)
    assert run(boxes, bundle, "--once", "--settle", "0") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(boxes, bundle, number):
    drop_phantom(boxes[0], "a first")
    study = drop_many(boxes[0], "b", 6000)
    process = start(boxes, bundle, "--settle", "0")
    wait_for(lambda: any(part.stat().st_size > 500 for part in boxes[1].glob(".b-part/results.csv.part")))
    assert process.poll() is None
    process.send_signal(number)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == ""
    last = error.splitlines()[-1]
    assert last == "lymphcad: stopped after 1 study; what was not finished is still in the inbox"
    assert "Traceback" not in error
    assert sorted(path.name for path in boxes[1].iterdir()) == [".lymphcad-watch.lock", "a first"]
    assert sorted(path.name for path in study.iterdir()) == ["ct.dcm", "nodes.csv"]


def test_stopped_while_nothing_is_there(boxes, bundle):
    process = start(boxes, bundle)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "lymphcad: stopped after 0 studies; what was not finished is still in the inbox\n"


def test_wrong_commands(boxes, bundle, tmp_path, capsys):
    inbox, outbox = boxes
    (tmp_path / "file").write_text("")
    for folders, what, words in (
        ((tmp_path / "none", outbox), bundle, "there is no folder"),
        ((inbox, inbox), bundle, "lie one in the other"),
        ((inbox, inbox / "out"), bundle, "lie one in the other"),
        ((inbox, tmp_path), bundle, "lie one in the other"),
        ((inbox, tmp_path / "file"), bundle, "cannot be made"),
        ((inbox, outbox), tmp_path, "there is no bundle.json"),
    ):
        assert run(folders, what, "--once") == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    assert not (tmp_path / "done").exists()


def test_relative_folders(boxes, bundle, monkeypatch):
    monkeypatch.chdir(boxes[0].parent)
    assert run((Path("in"), Path("out")), bundle, "--once") == 0  # with nothing to do
    drop_many(boxes[0], "a", 1)
    assert run((Path("in"), Path("out")), bundle, "--once", "--settle", "0.1") == 0
    assert len(rows_of(boxes[1] / "a")) == 1
