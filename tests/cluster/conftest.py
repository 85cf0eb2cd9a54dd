"""Four real servers, two for each of two bundles, for a real balancer; and a table of nodes on a phantom's slices."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from balancers import Balancer, free_port, needs_haproxy
from google.protobuf import text_format
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports
from lymphcad_serve.target import ENSEMBLE
from lymphcad_serve.versions import IN_USE, read_config
from scoring import rows_of, start
from servers import started

from lymphcad.cli import main
from lymphcad.phantom.sample import sample_study

NODES = 700


@pytest.fixture(scope="session")
def new_bundle(tmp_path_factory, brightness):
    """Return a bundle that answers every node differently from the probe bundle."""
    from lymphcad_export.bundle import Meaning, export_bundle

    meaning = Meaning("new", "brightness", threshold=0.5, temperature=2.0, evidence_scale=1.0)
    window = {"field_of_view_mm": 40.0, "window_level_hu": 50.0, "window_width_hu": 400.0, "size": 96}
    return export_bundle(tmp_path_factory.mktemp("bundles") / "new", brightness, window, meaning)


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """Return a table of nodes on the slices of a phantom patient; one of a hundred is refused."""
    folder = tmp_path_factory.mktemp("study")
    files, _ = sample_study(lambda _: None)
    for file in files:
        (folder / file.name).write_bytes(file.data)
    dice = np.random.default_rng(0)
    with (folder / "nodes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "row", "col", "node"])
        for number in range(NODES):
            row, col = dice.uniform(150, 350, 2) if number % 100 != 50 else (9999, 9999)
            writer.writerow([files[dice.integers(len(files))].name, f"{row:.2f}", f"{col:.2f}", f"n{number}"])
    return folder / "nodes.csv"


class Machines:
    """Servers of a bundle, each of which a test kills, stops and starts again at the same address."""

    def __init__(self, bundle, folder, stack):
        self.bundle, self._models, self._stack = bundle, folder / "models", stack
        self._pause = folder / "pause"
        write_repository(bundle, self._models, Target.EMBEDDED)
        config = read_config(self._models, ENSEMBLE)
        config.instance_group[0].count = 1
        (self._models / ENSEMBLE / IN_USE).write_text(text_format.MessageToString(config))
        self._pace()
        self._ports = [free_ports(), free_ports()]
        self._servers = [stack.enter_context(Server(self._models, ports)) for ports in self._ports]
        self.addresses = [server.address for server in self._servers]

    def _pace(self):
        """Have the model wait before each batch for as long as a file says, so that a run of a test lasts."""
        model = self._models / ENSEMBLE / "1" / "model.py"
        text, at = model.read_text(), "        parts = [\n"
        assert text.count(at) == 1
        waits = f'        __import__("time").sleep(float(open({str(self._pause)!r}).read()))\n'
        model.write_text(text.replace(at, waits + at))
        self.pause(0)

    def pause(self, seconds):
        fresh = self._pause.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._pause)

    def kill(self, number, how=signal.SIGKILL):
        os.killpg(self._servers[number].pid, how)

    def start(self, number):
        self.kill(number)
        self._servers[number].stop()
        self._ports[number] = replace(free_ports(), grpc=self._ports[number].grpc)
        self._servers[number] = self._stack.enter_context(started(self._models, self._ports[number]))


@pytest.fixture(scope="session")
def machines(tmp_path_factory, probe_bundle, new_bundle):
    needs_haproxy()
    with contextlib.ExitStack() as stack:
        yield SimpleNamespace(
            old=Machines(probe_bundle, tmp_path_factory.mktemp("old"), stack),
            new=Machines(new_bundle, tmp_path_factory.mktemp("new"), stack),
        )


@pytest.fixture(scope="session")
def quiet(machines, table, tmp_path_factory):
    """Return the rows of each bundle's results when nothing happens and no balancer is there."""

    folder = tmp_path_factory.mktemp("quiet")
    runs = {
        name: start(table, folder / name, "--server", group.addresses[0], "--no-overlays")
        for name, group in vars(machines).items()
    }
    for name, process in runs.items():
        _, error = process.communicate(timeout=120)
        assert process.returncode == 3, error
        assert [row[4] for row in rows_of(folder / name)].count("scored") == NODES - NODES // 100
    return SimpleNamespace(**{name: rows_of(folder / name) for name in runs})


class Cluster:
    """A balancer before the servers of the old bundle, and its release file."""

    def __init__(self, folder, machines, stack):
        self.release, self.config = folder / "release.json", folder / "haproxy.cfg"
        self.address, metrics = f"grpc://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self._machines = machines
        self.promote(*self.group(machines.old), "--listen", self.address, "--metrics", metrics)
        self.balancer = stack.enter_context(Balancer(self.config, metrics))

    def pause(self, seconds):
        for group in vars(self._machines).values():
            group.pause(seconds)

    @staticmethod
    def group(machines):
        servers = [option for address in machines.addresses for option in ("--server", address)]
        return "--candidate", machines.bundle.path, *servers

    def promote(self, *options, code=0, reload=False):
        how = ("--reload", self.balancer.socket) if reload else ()
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in ("promote", self.release, *options, "--out", self.config, *how)])
        assert int(ended.value.code or 0) == code


@pytest.fixture
def cluster(machines, tmp_path):
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path, machines, stack)
