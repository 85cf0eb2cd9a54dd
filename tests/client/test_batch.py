"""Many nodes at once: order, memory, and what is left when a run ends early."""

from __future__ import annotations

import csv
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from lymphcad_client.batch import score_nodes
from lymphcad_client.results import COLUMNS
from lymphcad_client.table import SHOWN
from PIL import Image
from pydicom.data import get_testdata_file
from watching import place_of

from lymphcad.bundle import Manifest, Preprocess
from lymphcad.cli import main
from lymphcad.errors import Reason, Refusal
from lymphcad.finding import Finding
from lymphcad.images import ImageFinder
from lymphcad.tables import NodeRow

CT = get_testdata_file("CT_small.dcm", download=False)


class Answers:
    """A scorer that takes its time, and knows how many images are alive."""

    about = "Scored by hand."
    at_once = 8
    digest = "0" * 64
    manifest = Manifest(
        name="made",
        architecture="none",
        preprocess=Preprocess(field_of_view_mm=40, window_level_hu=50, window_width_hu=400, size=32),
        map_size=(8, 8),
        evidence_scale=1.0,
        temperature=1.0,
        threshold=0.5,
        precisions=("fp32",),
        golden={},
        training={},
        metrics={},
        versions={},
        files={},
    )

    def __init__(self):
        self.alive = self.most = 0
        self.scored = []
        self.lock = threading.Lock()
        self.dice = np.random.default_rng(1)

    def forget(self):
        self.alive -= 1

    def score_window(self, window):
        row = place_of(window)[0]
        with self.lock:
            weakref.finalize(window, self.forget)
            self.alive += 1
            self.most = max(self.most, self.alive)
            pause = self.dice.uniform(0, 0.004)
        time.sleep(pause)
        if row == 7:
            raise Refusal(Reason.NODE_OUTSIDE_IMAGE, "made for the test")
        with self.lock:
            self.scored.append(row)
        return Finding(row / 1000, "benign", 0.5, np.zeros((32, 32), np.uint8), "made@0")


@pytest.fixture
def two_images(tmp_path):
    """Nodes that alternate between two files, so that each is read again and no image is shared."""
    for name in "ab":
        shutil.copy(CT, tmp_path / name)
    return [NodeRow(line, "ab"[line % 2], float(line % 60), 5.0, str(line)) for line in range(400)]


def test_order_is_kept_and_few_images_are_held(two_images, tmp_path):
    scorer = Answers()
    found = []
    for result in score_nodes(two_images, ImageFinder(tmp_path, []), scorer):
        found.append((result.node.node, result.status))
        del result
    assert found == [(str(line), "refused" if line % 60 == 7 else "scored") for line in range(400)]
    assert scorer.most <= 18  # 16 in flight, the one that was read last, the one that was handed out
    assert scorer.scored != sorted(scorer.scored)  # they did overtake each other


def test_closing_stops_what_has_not_begun(two_images, tmp_path):
    scorer = Answers()
    results = score_nodes(two_images, ImageFinder(tmp_path, []), scorer)
    for _ in range(20):
        next(results)
    results.close()
    done = len(scorer.scored)
    assert 19 <= done <= 36
    time.sleep(0.05)
    assert len(scorer.scored) == done


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table of so many nodes on a real slice."""

    def write(nodes):
        path = tmp_path / "nodes.csv"
        rows = (f"{CT},{20 + number % 80},{20 + number // 80 % 80},n{number}" for number in range(nodes))
        path.write_text("image,row,col,node\n" + "\n".join(rows) + "\n")
        return path

    return write


def start(server, table, out, *options):
    command = [sys.executable, "-m", "lymphcad", "score", "--nodes", table, "--out", out, "--server", server, *options]
    return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(process, part, size):
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def limit_files(process, size):
    """Let no file of a process grow beyond a size from now on, as on a disk that is full."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))


def whole_rows(path):
    contents = path.read_text()
    assert contents.endswith("\n")
    header, *rows = csv.reader(contents.splitlines())
    assert tuple(header) == COLUMNS
    assert all(len(row) == len(COLUMNS) for row in rows)
    return rows


@pytest.mark.server
def test_a_full_disk_leaves_whole_rows_that_do_not_look_finished(probe_server, table, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.csv").write_text("of an earlier run")
    process = start(probe_server, table(6000), out, "--no-overlays")
    part = out / "results.csv.part"
    wait_for_rows(process, part, 2000)
    limit_files(process, 60_000)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said == ""
    rows = whole_rows(part)
    assert error.startswith("lymphcad: ")
    assert error.count("\n") == 1
    assert f"after {len(rows)} nodes, whose rows are in results.csv.part" in error
    assert [row[3] for row in rows] == [f"n{number}" for number in range(len(rows))]
    assert 60_000 - 300 < part.stat().st_size <= 60_000
    assert not (out / "results.csv").exists()


@pytest.mark.server
def test_a_picture_that_does_not_fit_is_not_left_in_half(probe_server, table, tmp_path):
    out = tmp_path / "out"
    process = start(probe_server, table(500), out)
    part = out / "results.csv.part"
    wait_for_rows(process, part, 500)
    limit_files(process, 20_000)
    process.communicate(timeout=60)
    assert process.returncode == 2
    rows = whole_rows(part)
    assert 0 < len(rows) < 400
    assert {row[9] for row in rows} == {f"overlays/{path.name}" for path in (out / "overlays").iterdir()}
    for row in rows:
        with Image.open(out / row[9]) as picture:
            picture.load()


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(probe_server, table, tmp_path, number):
    out = tmp_path / "out"
    process = start(probe_server, table(6000), out, "--no-overlays")
    part = out / "results.csv.part"
    wait_for_rows(process, part, 5000)
    process.send_signal(number)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == ""
    rows = whole_rows(part)
    assert error == f"lymphcad: stopped after {len(rows)} nodes, whose rows are in results.csv.part\n"
    assert 10 < len(rows) < 6000
    assert all(row[4] == "scored" for row in rows)
    assert not (out / "results.csv").exists()


@pytest.mark.server
def test_a_long_table_is_printed_in_part(probe_server, table, tmp_path, capsys):
    out = tmp_path / "out"
    nodes = SHOWN + 10
    with pytest.raises(SystemExit) as ended:
        main(["score", "--nodes", str(table(nodes)), "--out", str(out), "--server", probe_server, "--no-overlays"])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "and 10 more" in said
    assert f"{nodes} nodes" in said
    assert f"n{SHOWN - 1} " in said
    assert f"n{SHOWN} " not in said
    assert len(whole_rows(out / "results.csv")) == nodes
    assert not (out / "results.csv.part").exists()


@pytest.mark.server
@pytest.mark.parametrize("taken", ["", "results.csv/", "overlays"])
def test_a_folder_that_cannot_be_written_to(probe_server, table, tmp_path, capsys, taken):
    """Where the results, their folder or the pictures' should go, something else lies."""
    out = tmp_path / "out"
    if taken.endswith("/"):
        (out / taken).mkdir(parents=True)
    else:
        (out / taken).parent.mkdir(exist_ok=True)
        (out / taken).write_text("a file")
    with pytest.raises(SystemExit) as ended:
        main(["score", "--nodes", str(table(3)), "--out", str(out), "--server", probe_server])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "another" in error
    assert error.count("\n") == 1
