"""``lymphcad score`` as a user runs it, measured from outside: how long it takes, and what it and the server use."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from benchmarks.processes import cpu_seconds, family

if TYPE_CHECKING:
    from collections.abc import Callable

    from lymphcad_serve.server import Server

_LOOK_S = 0.25
_MB = 1e6


@dataclass(frozen=True)
class Run:
    """One run of the command.

    Attributes
    ----------
    nodes
        All of which were scored.
    wall_s
        From the start of the process to its end, seconds.
    client_s, server_s
        CPU time, user and system, of the process with all that it started, and of the server with its stubs, seconds.
    probabilities
        Of the first nodes, in order.
    """

    nodes: int
    wall_s: float
    client_s: float
    server_s: float
    probabilities: list[float]


def run_score(
    table: Path, nodes: int, server: Server, options: list[str], *, keep: int, look: Callable[[int], None] | None = None
) -> Run:
    """Score a table.

    Parameters
    ----------
    table
        Of nodes.
    nodes
        How many it has.
    server
        What answers.
    options
        Of the command, besides those that every run has.
    keep
        How many probabilities to return.
    look
        Called with the process id every 0.25 s; None for no look at all.

    Returns
    -------
    Run
        What was measured.

    Raises
    ------
    RuntimeError
        If the command fails, or not every node is scored.
    """
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "lymphcad", "score", "--nodes", str(table), "--out", name]
        command += ["--server", server.address, "--no-overlays", "--json", *options]
        served = family(server.pid)
        before, start = cpu_seconds(served), time.perf_counter()
        process = subprocess.Popen(command, stdout=said)
        pid, status, usage = 0, 0, None
        while not pid:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG if look else 0)
            if look and not pid:
                look(process.pid)
                time.sleep(_LOOK_S)
        assert usage is not None
        wall, used = time.perf_counter() - start, cpu_seconds(served) - before
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        if process.returncode or json.loads(said.read())["scored"] != nodes:
            raise RuntimeError(f"lymphcad score ended with {process.returncode} or left nodes out: see above")
        with (Path(name) / "results.csv").open(newline="") as file:
            found = [float(row["probability"]) for row, _ in zip(csv.DictReader(file), range(keep), strict=False)]
    return Run(nodes, wall, usage.ru_utime + usage.ru_stime, used, found)


def memory_of(table: Path, nodes: int, server: Server, options: list[str], every: int) -> dict[str, Any]:
    """Score a table and look at the command's memory on the way.

    Parameters
    ----------
    table, nodes, server, options
        As in `run_score`.
    every
        A sample is taken each time so many nodes more have been answered, as the server counts them, and at the end.

    Returns
    -------
    dict
        ``samples``, lists of nodes, resident memory of the main process and of the command with all that it started,
        MB of 10^6 bytes; ``main_grown_mb`` and ``grown_mb``, by how much the largest of the later samples is above the
        first.
    """
    samples: list[list[float]] = []
    latest: list[float] = []
    with grpc.insecure_channel(server.address.removeprefix("grpc://")) as channel:
        stub = GRPCInferenceServiceStub(channel)

        def answered() -> int:
            stats = stub.ModelStatistics(messages.ModelStatisticsRequest(name="lymph_node")).model_stats
            return sum(one.inference_stats.success.count for one in stats)

        before, due = answered(), every

        def look(pid: int) -> None:
            nonlocal latest, due
            count = answered() - before
            sizes = [resident_mb(one) for one in family(pid)]
            if sizes[0] > 0:  # while it still is a process
                latest = [count, round(sizes[0], 1), round(sum(sizes), 1)]
                if count >= due:
                    samples.append(latest)
                    due = every * (count // every + 1)

        run_score(table, nodes, server, options, keep=0, look=look)
    if not samples:
        raise RuntimeError(f"the run of {nodes} nodes ended before a sample was taken at {every}: ask for more nodes")
    if samples[-1] is not latest:
        samples.append(latest)
    first, later = samples[0], samples[1:] or samples
    return {
        "samples": samples,
        "main_grown_mb": round(max(sample[1] for sample in later) - first[1], 1),
        "grown_mb": round(max(sample[2] for sample in later) - first[2], 1),
    }


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process, MB of 10^6 bytes; 0 if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MB
    return 0.0
