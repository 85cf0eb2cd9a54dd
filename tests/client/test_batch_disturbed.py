"""Two thousand nodes while a server is killed again and again, and the client once: nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from lymphcad_client.journal import JOURNAL
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports
from scoring import finished, journalled, rows_of, start, wait_for_nodes
from servers import started

from lymphcad.bundle import Bundle
from lymphcad.phantom.sample import sample_study

NODES = 2000


@pytest.fixture
def phantom(tmp_path):
    """Return a table of two thousand nodes on the slices of a phantom patient, and some that are refused."""
    folder = tmp_path / "study"
    folder.mkdir()
    files, _ = sample_study(lambda _: None)
    for file in files:
        (folder / file.name).write_bytes(file.data)
    dice = np.random.default_rng(0)
    table = folder / "nodes.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "row", "col", "node"])
        for number in range(NODES):
            row, col = dice.uniform(150, 350, 2)
            if number % 100 == 50:
                row = 9999
            writer.writerow([files[dice.integers(len(files))].name, f"{row:.2f}", f"{col:.2f}", f"n{number}"])
    return table


@pytest.mark.server
def test_nothing_lost_and_nothing_twice(phantom, tmp_path, request):
    models = tmp_path / "models"
    write_repository(Bundle(request.config.rootpath / "bundles" / "demo"), models, Target.EMBEDDED)
    with contextlib.ExitStack() as stack:
        ports = [free_ports(), free_ports()]
        steady, victim = (stack.enter_context(Server(models, one)) for one in ports)
        options = ("--server", steady.address, "--server", victim.address, "--no-overlays")
        finished(phantom, tmp_path / "quiet", *options, code=3)
        out = tmp_path / "out"
        client = start(phantom, out, *options)
        for count in (200, 600, 1000):
            wait_for_nodes(client, out, count)
            os.killpg(victim.pid, signal.SIGKILL)
            if count == 600:
                client.kill()
                client.communicate()
                kept = journalled(out)
                assert 600 <= kept < NODES
                client = start(phantom, out, *options, "--resume")
            wait_for_nodes(client, out, count + 100)
            ports[1] = replace(free_ports(), grpc=ports[1].grpc)
            victim = stack.enter_context(started(models, ports[1]))
        _, error = client.communicate(timeout=120)
        assert client.returncode == 3, error
    rows = rows_of(out)
    assert [row[3] for row in rows] == [f"n{number}" for number in range(NODES)]
    assert [row[4] for row in rows].count("refused") == NODES // 100
    assert {row[4] for row in rows} == {"scored", "refused"}
    assert rows == rows_of(tmp_path / "quiet")
    journal = (out / JOURNAL).read_bytes()
    assert b"Phantom" not in journal
    assert b"2.25." not in journal
