"""Many nodes at once: order, memory, and what is left when a run ends early."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
import weakref
from dataclasses import replace

import grpc
import numpy as np
import psutil
import pytest
from lymphcad_client.batch import score_nodes
from lymphcad_client.table import SHOWN
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports
from PIL import Image
from pydicom.data import get_testdata_file
from scoring import finished, journalled, limit_files, rows_of, start, wait_for_nodes
from servers import started
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
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


def answered(address):
    """Return how many nodes a server has answered."""
    with grpc.insecure_channel(address.removeprefix("grpc://")) as channel:
        asked = messages.ModelStatisticsRequest(name="lymph_node")
        return sum(
            one.inference_stats.success.count
            for one in GRPCInferenceServiceStub(channel).ModelStatistics(asked).model_stats
        )


def children(process):
    return psutil.Process(process.pid).children(recursive=True)


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table of so many nodes on a real slice."""

    def write(nodes):
        path = tmp_path / "nodes.csv"
        rows = (f"{CT},{20 + number % 80},{20 + number // 80 % 80},n{number}" for number in range(nodes))
        path.write_text("image,row,col,node\n" + "\n".join(rows) + "\n")
        return path

    return write


@pytest.mark.server
def test_a_full_disk_leaves_a_journal_that_goes_on(probe_server, table, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.csv").write_text("of an earlier run")
    nodes = table(3000)
    options = ("--server", probe_server, "--no-overlays")
    process = start(nodes, out, *options)
    wait_for_nodes(process, out, 200)
    limit_files(process, 120_000)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said == ""
    assert error.startswith("lymphcad: the journal in ")
    assert "make room" in error
    assert error.count("\n") == 1
    assert not (out / "results.csv").exists()
    kept = journalled(out)
    assert 200 <= kept < 3000
    said, _ = finished(nodes, out, *options, "--resume", "--json")
    assert json.loads(said) == {"n": 3000, "scored": 3000, "refused": 0, "failed": 0}
    assert [row[3] for row in rows_of(out)] == [f"n{number}" for number in range(3000)]


@pytest.mark.server
@pytest.mark.parametrize("jobs", [0, 2])
def test_a_picture_that_does_not_fit_is_not_left_in_half(probe_server, table, tmp_path, jobs):
    out, nodes = tmp_path / "out", table(300)
    options = ("--server", probe_server, "--jobs", jobs)
    process = start(nodes, out, *options)
    wait_for_nodes(process, out, 5)
    for one in [process, *children(process)]:
        limit_files(one, 20_000)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.count("\n") == 1
    pictures = list((out / "overlays").iterdir())
    assert 5 <= len(pictures) < 300
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
    finished(nodes, out, *options, "--resume")
    assert [row[9] for row in rows_of(out)] == [f"overlays/{number:06d}.png" for number in range(1, 301)]
    for number in range(1, 301):
        assert (out / f"overlays/{number:06d}.png").exists()


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(probe_server, table, tmp_path, number):
    out, nodes = tmp_path / "out", table(3000)
    options = ("--server", probe_server, "--no-overlays")
    process = start(nodes, out, *options)
    wait_for_nodes(process, out, 100)
    process.send_signal(number)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == ""
    kept = journalled(out)
    assert error == (
        f"lymphcad: stopped after {kept} of 3000 nodes, which are kept: the same command with --resume goes on\n"
    )
    assert 100 <= kept < 3000
    assert not (out / "results.csv").exists()
    _, error = finished(nodes, out, *options, code=2)
    assert f"({kept} of 3000 nodes): go on with --resume" in error
    before = answered(probe_server)
    finished(nodes, out, *options, "--resume")
    assert answered(probe_server) - before == 3000 - kept  # and no node twice
    rows = rows_of(out)
    assert [row[3] for row in rows] == [f"n{number}" for number in range(3000)]
    assert {row[4] for row in rows} == {"scored"}


@pytest.mark.server
def test_stopped_while_no_server_answers(probe_bundle, table, tmp_path):
    """Nodes that wait for a server are not done: they are neither scored nor failed."""
    models = tmp_path / "models"
    write_repository(probe_bundle, models, Target.EMBEDDED)
    out, nodes = tmp_path / "out", table(3000)
    with Server(models, free_ports()) as server:
        process = start(nodes, out, "--server", server.address, "--no-overlays")
        wait_for_nodes(process, out, 100)
        os.killpg(server.pid, signal.SIGKILL)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        assert process.returncode == 130
        kept = journalled(out)
        assert f"stopped after {kept} of 3000 nodes" in error
        assert not journalled(out, "failed")
        finished(nodes, out, "--server", server.address, "--resume", "--no-overlays", code=2)  # there is none
    ports = replace(free_ports(), grpc=int(server.address.rpartition(":")[2]))
    with started(models, ports):
        finished(nodes, out, "--server", server.address, "--resume", "--no-overlays")
    assert {row[4] for row in rows_of(out)} == {"scored"}


@pytest.mark.server
def test_killed_again_and_again(serve_probe, table, tmp_path):
    """Killed with -9 at any point, a run that goes on has every node once, with the same values."""
    server, nodes = serve_probe("embedded"), table(2000)
    options = ("--server", server, "--no-overlays", "--resume")
    finished(nodes, tmp_path / "quiet", *options)
    out, dice, kills = tmp_path / "out", np.random.default_rng(3), 0
    while kills < 8:
        process = start(nodes, out, *options)
        try:
            process.communicate(timeout=dice.uniform(0.5, 2.0))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    assert kills >= 2
    finished(nodes, out, *options)
    assert rows_of(out) == rows_of(tmp_path / "quiet")


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
    assert len(rows_of(out)) == nodes
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
