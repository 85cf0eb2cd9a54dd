from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from lymphcad_client.batch import score_nodes
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports
from processes import wait_until
from pydicom.data import get_testdata_file

from lymphcad.images import ImageFinder
from lymphcad.tables import NodeRow

pytestmark = pytest.mark.server
NODES = 120


@pytest.fixture
def server(tmp_path, probe_bundle):
    write_repository(probe_bundle, tmp_path / "models", Target.EMBEDDED)
    with Server(tmp_path / "models", free_ports()) as server:
        yield server


@pytest.fixture
def nodes():
    image = get_testdata_file("CT_small.dcm")
    return [NodeRow(line, image, 60.0, 70.0, str(line)) for line in range(1, NODES + 1)]


def test_killed_in_the_middle_of_a_batch(server, nodes):
    with TritonScorer(server.address) as scorer:
        results = []
        for result in score_nodes(nodes, ImageFinder(Path(), []), scorer):
            results.append(result)
            if len(results) == 20:
                os.killpg(server.pid, signal.SIGKILL)
                killed = time.monotonic()
        assert time.monotonic() - killed < 20
    assert [result.node for result in results] == nodes
    states = [result.status for result in results]
    assert set(states) == {"scored", "failed"}
    assert states[:20] == ["scored"] * 20
    # Of the eight requests that are in flight when it dies, a later one can have been answered and an earlier one not.
    first_failed = states.index("failed")
    assert "scored" not in states[first_failed + 8 :]
    away = [result.reason.partition(":")[0] for result in results if result.status == "failed"]
    assert set(away) == {"server_away"}


def test_a_server_that_hangs_is_given_up_and_its_memory_is_not_used_again(server, nodes):
    finder = ImageFinder(Path(), [])
    with TritonScorer(server.address, timeout_s=1.5) as scorer:
        before = next(score_nodes(nodes[:1], finder, scorer))
        assert before.status == "scored"
        os.killpg(server.pid, signal.SIGSTOP)
        threading.Timer(4, os.killpg, (server.pid, signal.SIGCONT)).start()
        hung = next(score_nodes(nodes[:1], finder, scorer))
        assert hung.reason.startswith("server_timeout")
        assert scorer._slots.empty()
        time.sleep(4)
        after = next(score_nodes(nodes[:1], finder, scorer))
        assert after.status == "scored"
        assert after.finding.probability == before.finding.probability
    # Those of tests beside this one have their names for a moment.
    assert wait_until(lambda: not list(Path("/dev/shm").glob("lymphcad-" + "[0-9a-f]" * 16)))
