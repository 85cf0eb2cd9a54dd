"""`lymphcad watch` is killed, and started again: each study has its results once, and none is lost."""

from __future__ import annotations

import csv
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

CT = Path(get_testdata_file("CT_small.dcm", download=False))
SOME_NOT_SCORED = 3


@pytest.fixture(scope="module")
def bundle(request):
    return request.config.rootpath / "bundles" / "demo"


def drop(inbox, name, table):
    study = inbox / name
    study.mkdir(parents=True)
    shutil.copy(CT, study / "ct.dcm")
    (study / "nodes.csv").write_text(table)


def statuses(results):
    with (results / "results.csv").open(newline="") as file:
        return [row["status"] for row in csv.DictReader(file)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Return an inbox with a study of each kind, and an outbox in which a killed watcher left something."""
    folder = tmp_path_factory.mktemp("studies")
    drop(folder / "in", "good", "image,row,col\nct.dcm,60,70\nct.dcm,500,70\n")
    drop(folder / "in", "bad", "image,row\nct.dcm,60\n")
    drop(folder / "in", "none", "image,row,col\nct.dcm,600,70\n")
    drop(folder / "in" / "done", "good", "of another study")
    left = folder / "out" / ".none-part" / "overlays"
    left.mkdir(parents=True)
    (left / "000001.png").write_text("half a pict")
    (left.parent / "results.csv.part").write_text("image,row")
    (folder / "out" / "good").mkdir()
    (folder / "out" / "good" / "results.csv").write_text("of another study")
    return folder


def test_killed_before_each_step(studies, tmp_path, bundle):
    kills = Path(__file__).with_name("watch_kills.py")
    command = [sys.executable, kills, studies, tmp_path, bundle]
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    runs = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    assert len(runs) > 50
    for run in runs:
        killed = json.loads((run / "killed.json").read_text())
        step = f"killed before step {run.name}, {killed['step']}"
        code, results = json.loads((run / "ended.json").read_text())
        left = {path.name for path in (run / "in").iterdir()} - {".lymphcad-watch.lock"}
        assert left == {"done", "refused"}, step
        assert names(run / "in" / "done") == ["good", "good-2"], step
        assert names(run / "in" / "done" / "good-2") == ["ct.dcm", "nodes.csv"], step
        assert names(run / "in" / "refused") == ["bad", "none"], step
        for name in ("bad", "none"):
            refused = run / "in" / "refused" / name
            assert names(refused) == ["REFUSED.txt", "ct.dcm", "nodes.csv"], step
            assert (refused / "REFUSED.txt").read_text().count("\n") == 1, step
        assert names(run / "out") == [".lymphcad-watch.lock", "good", "good-2", "none"], step
        assert (run / "out" / "good" / "results.csv").read_text() == "of another study"
        assert statuses(run / "out" / "good-2") == ["scored", "refused"], step
        assert statuses(run / "out" / "none") == ["refused"], step
        assert json.loads((run / "out" / "good-2" / "study.json").read_text())["n"] == 2
        assert names(run / "out" / "good-2" / "overlays") == ["000001.png"], step
        assert killed["published"].items() <= results.items(), f"{step}: scored twice"
        assert code in (0, SOME_NOT_SCORED << 8), step
        assert "good" not in (run / "said.txt").read_text(), step
    assert any(json.loads((run / "killed.json").read_text())["published"].keys() >= {"good-2", "none"} for run in runs)


def test_killed_now_and_then(tmp_path, bundle):
    """From outside, wherever it is; while it is loading, too."""
    dice = random.Random(0)
    inbox, outbox = tmp_path / "in", tmp_path / "out"
    for number in range(6):
        drop(inbox, f"s{number}", "image,row,col\n" + f"ct.dcm,{20 + number},60\n" * 60)
    options = ["--edge", bundle, "--out", outbox, "--runner", "onnxruntime", "--settle", "0.1"]
    command = [str(part) for part in (sys.executable, "-m", "lymphcad", "watch", inbox, *options)]
    published: dict[str, int] = {}
    for _ in range(6):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(dice.uniform(0.3, 2.0))
        process.kill()
        process.wait()
        found = {path.parent.name: path.stat().st_ino for path in outbox.glob("[!.]*/results.csv")}
        assert published.items() <= found.items()
        published = found
    ended = subprocess.run([*command, "--once"], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    everyone = [f"s{number}" for number in range(6)]
    assert names(outbox) == [".lymphcad-watch.lock", *everyone]
    assert names(inbox / "done") == everyone
    for name in everyone:
        assert statuses(outbox / name) == ["scored"] * 60
        assert len(names(outbox / name / "overlays")) == 60
    assert names(inbox / "refused") == []
    assert names(inbox) == [".lymphcad-watch.lock", "done", "refused"]
    now = {path.parent.name: path.stat().st_ino for path in outbox.glob("[!.]*/results.csv")}
    assert published.items() <= now.items()
