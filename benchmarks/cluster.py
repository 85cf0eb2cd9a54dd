"""What a second server gives: ``python -m benchmarks.cluster [--json]``.

Two tritonservers, each held to a core of its own, behind a real HAProxy that is configured as `lymphcad promote` does
it. Contenders in turn: the first server, the second one, both. A heavy network, so that client and balancer, which
share the cores with the servers, do not matter much.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import text_format
from lymphcad_client.servers import Servers
from lymphcad_serve.release.haproxy import render
from lymphcad_serve.release.release import Group, new_release, served
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports
from lymphcad_serve.target import ENSEMBLE
from lymphcad_serve.versions import IN_USE, read_config

from benchmarks.processes import cpu_seconds, family, machine
from benchmarks.serving import RESNET50_WINDOW, untrained
from lymphcad.bundle import Bundle
from lymphcad.errors import ServerError
from lymphcad.geometry import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_FLIGHT = 8
"""Requests for each server."""
_START_S = 10.0
_AIM = 1.8


class Cluster:
    """Servers on cores of their own, and a balancer before some of them.

    Parameters
    ----------
    bundle
        What they serve.
    cores
        One server on each.
    folder
        For repository, configurations and logs.
    stack
        Ends everything.
    """

    def __init__(self, bundle: Bundle, cores: list[int], folder: Path, stack: contextlib.ExitStack) -> None:
        self._bundle, self._folder, self._stack = bundle, folder, stack
        models = folder / "models"
        write_repository(bundle, models, Target.EMBEDDED)
        config = read_config(models, ENSEMBLE)
        config.instance_group[0].count = 1
        (models / ENSEMBLE / IN_USE).write_text(text_format.MessageToString(config))
        self.servers = []
        for core in cores:
            with _held_to(core):
                self.servers.append(stack.enter_context(Server(models, free_ports())))

    def balancer(self, servers: list[Server]) -> tuple[str, int]:
        """Start a balancer before servers; return its address and process id."""
        ports = free_ports()
        address, metrics = f"grpc://127.0.0.1:{ports.grpc}", f"127.0.0.1:{ports.metrics}"
        group = Group(bundle=served(self._bundle), servers=tuple(server.address for server in servers))
        config = self._folder / f"haproxy.{ports.grpc}.cfg"
        config.write_text(render(new_release(group, address, metrics, None)), encoding="utf-8")
        log = self._stack.enter_context(config.with_suffix(".log").open("wb"))
        process = subprocess.Popen(["haproxy", "-f", str(config)], stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return address, process.pid


@contextlib.contextmanager
def _held_to(core: int) -> Iterator[None]:
    """Hold what this process starts meanwhile to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def drive(scorer: Servers, windows: list[Window], in_flight: int, seconds: float) -> float:
    """Return the answers a second in a window of time, with so many requests in flight before, in and after it."""
    ended: list[float] = []
    stop = threading.Event()

    def ask(number: int) -> None:
        while not stop.is_set():
            scorer.score_window(windows[number % len(windows)])
            ended.append(time.perf_counter())
            number += in_flight

    with ThreadPoolExecutor(in_flight) as pool:
        asking = [pool.submit(ask, number) for number in range(in_flight)]
        time.sleep(seconds / 4)
        start = time.perf_counter()
        time.sleep(seconds)
        end = time.perf_counter()
        stop.set()
    for one in asking:
        one.result()
    return sum(start <= at < end for at in ended) / (end - start)


def measure(bundle: Bundle, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure one server, the other one, and both.

    Parameters
    ----------
    bundle
        What is served.
    seconds
        Of a window.
    rounds
        In which each contender has its turn.

    Returns
    -------
    dict
        ``nodes_s``, medians by contender; ``ratio`` of both to the mean of the two; ``cpu_ms`` of client and balancer
        a node where both serve, and ``node_ms``, what a node takes a core.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise RuntimeError("two cores are needed, and this process has one")
    dice = np.random.default_rng(0)
    windows = [
        Window(dice.integers(-200, 300, (128, 128), dtype=np.int16), (64.0, 64.0), (0.5, 0.5)) for _ in range(16)
    ]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = Cluster(bundle, cores, folder, stack)
        first, second = cluster.servers
        contenders = {"first": [first], "second": [second], "both": [first, second]}
        balancers = {name: cluster.balancer(servers) for name, servers in contenders.items()}
        time.sleep(1)
        scorers = {name: stack.enter_context(_connected(address)) for name, (address, _) in balancers.items()}
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        costs: dict[str, list[float]] = {"client": [], "balancer": []}
        for turn in range(-1, rounds):  # the first one warms up
            for name in list(contenders)[:: 1 if turn % 2 else -1]:
                pids = {"client": [os.getpid()], "balancer": [balancers[name][1]]}
                before = {who: cpu_seconds(one) for who, one in pids.items()}
                began = time.perf_counter()
                rate = drive(scorers[name], windows, IN_FLIGHT * len(contenders[name]), seconds)
                whole = rate * (time.perf_counter() - began)
                if turn < 0:
                    continue
                rates[name].append(rate)
                if name == "both":
                    for who, one in pids.items():
                        costs[who].append(1000 * (cpu_seconds(one) - before[who]) / whole)
        served_by = [len(family(server.pid)) - 1 for server in cluster.servers]
    found = {name: median(values) for name, values in rates.items()}
    single = (found["first"] + found["second"]) / 2
    return {
        "nodes_s": {name: round(value, 2) for name, value in found.items()},
        "lowest_highest": {name: [round(min(values), 2), round(max(values), 2)] for name, values in rates.items()},
        "ratio": round(found["both"] / single, 3),
        "cpu_ms": {who: round(median(values), 2) for who, values in costs.items()},
        "node_ms": round(1000 / single, 1),
        "instances": served_by,
    }


def _connected(address: str) -> Servers:
    deadline = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(ServerError):
            return Servers([address])
        if time.monotonic() > deadline:
            return Servers([address])
        time.sleep(0.2)


def render_results(results: dict[str, Any]) -> str:
    """Return results as Markdown."""
    found, about, settings = results["found"], results["machine"], results["settings"]
    lines = [
        f"Medians of {settings['rounds']} rounds of {settings['seconds']:g} s, {settings['what']}; each server held"
        f" to one core of {about['cores']} of {about['cpu']} ({', '.join(about['flags'])}), as client and HAProxy.",
        "",
        "| servers | nodes/s | lowest, highest |",
        "| --- | --- | --- |",
    ]
    for name in found["nodes_s"]:
        low, high = found["lowest_highest"][name]
        lines.append(f"| {name} | {found['nodes_s'][name]} | {low}, {high} |")
    cost = found["cpu_ms"]
    return "\n".join(
        [
            *lines,
            "",
            f"Both give {found['ratio']:.2f} times one (aim: {_AIM}). Of the {found['node_ms']} ms that a node takes a"
            f" core, the client takes {cost['client']} and HAProxy {cost['balancer']}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="what is served; without it, an untrained ResNet50 in float32")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="JSON on standard output; the table goes to standard error")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.bundle:
            bundle, what = Bundle(options.bundle), options.bundle.name
        else:
            made = Path(folder) / "resnet50"
            bundle = untrained(made, "resnet50", RESNET50_WINDOW, mirrored=False, int8=False)
            what = f"an untrained ResNet50, float32, {bundle.manifest.preprocess.size} px"
        found = measure(bundle, options.seconds, options.rounds)
    results = {
        "found": found,
        "settings": {"seconds": options.seconds, "rounds": options.rounds, "what": what},
        "machine": machine(),
    }
    if options.json:
        print(json.dumps(results, indent=2))
    print(render_results(results), file=sys.stderr if options.json else sys.stdout)


if __name__ == "__main__":
    main()
