"""Whether the simulation of the queue says what a server does: ``python -m benchmarks.capacity [--json]``.

A real embedded tritonserver, in windows that take turns: closed loops, to which the simulation's parameters are fitted,
and open loops of Poisson arrivals at shares of the rate that the full server had, which are compared with it. The
simulation is given the very arrivals that the server had. Callers and server share the same cores.

With ``--paced`` the server's model sleeps instead of computing, so that nobody's use of the cores changes its times:
what is left is Triton's queue and batches, and the client.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.capacity.arrivals import studies
from lymphcad_serve.capacity.measure import closed_loop, fit, levels_for, sample_window
from lymphcad_serve.capacity.simulation import simulate
from lymphcad_serve.capacity.statistics import Statistics
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports
from rich.console import Console

from benchmarks.processes import cpu_seconds, family, machine
from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Bundle

if TYPE_CHECKING:
    import numpy.typing as npt
    from lymphcad_serve.capacity.service import Service

    from lymphcad.geometry import Window

LOADS = (0.3, 0.6, 0.8)
STUDY, STUDY_LOAD = 8.0, 0.5
"""A study's nodes, and the load at which studies come."""
CALLERS = 96
_RUNS = 10
_PACED = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.010 + 0.008 * len(requests))
        outputs = [
            pb_utils.Tensor("PROBABILITY", np.full((1, 1), 0.25, np.float32)),
            pb_utils.Tensor("HEATMAP", np.zeros((1, {size}, {size}), np.uint8)),
        ]
        return [pb_utils.InferenceResponse(outputs) for _ in requests]
"""
_LEAD_S = 0.2


def open_loop(scorer: TritonScorer, window: Window, arrivals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ask at given times, whether or not earlier ones have been answered.

    Parameters
    ----------
    scorer
        Of the server.
    window
        To be scored.
    arrivals
        float64 [N], seconds from the start, ascending.

    Returns
    -------
    array
        float64 [N], from the time at which each was due to its answer, seconds: a late caller is no excuse.
    """
    took = np.full(len(arrivals), np.nan)
    due: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    start = time.perf_counter() + _LEAD_S

    def call() -> None:
        while (number := due.get()) is not None:
            scorer.score_window(window)
            took[number] = time.perf_counter() - start - arrivals[number]

    threads = [threading.Thread(target=call) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for number, at in enumerate(arrivals.tolist()):
        time.sleep(max(start + at - time.perf_counter(), 0.0))
        due.put(number)
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    if np.isnan(took).any():
        raise RuntimeError("a request was not answered: its error stands above")
    return took


def said(service: Service, arrivals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what the simulation says of the same arrivals, seconds, with several seeds."""
    runs = [simulate(arrivals, service, 1, np.random.default_rng(seed)).answered_s for seed in range(_RUNS)]
    return np.concatenate(runs)


def measure(bundle: Bundle, seconds: float, rounds: int, seed: int, *, paced: bool) -> dict[str, Any]:
    """Measure a server, fit, and compare.

    Parameters
    ----------
    bundle
        What is served.
    seconds
        Of each window.
    rounds
        Windows of each kind.
    seed
        Of the arrivals.
    paced
        Whether the model sleeps in place of the network.

    Returns
    -------
    dict
        ``closed``, the parameters that were fitted, and nodes/s by callers; ``open``, by load: mean, median and p95,
        ms, as
        measured and as simulated, and nodes/s; each as the median, the lowest and the highest of the rounds, in each of
        which the parameters are fitted anew; ``others_cores``, what other processes of the machine used. ``memory_mb``
        of the server.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        write_repository(bundle, models, Target.EMBEDDED)
        if paced:
            paced_model = _PACED.format(size=bundle.manifest.preprocess.size)
            (models / "lymph_node" / "1" / "model.py").write_text(paced_model, encoding="utf-8")
        with (
            Server(models, free_ports()) as server,
            TritonScorer(server.address) as scorer,
            Statistics(server.address) as statistics,
        ):
            window = sample_window(bundle.manifest.preprocess)
            callers = levels_for(statistics.batching)
            for count in (1, callers[-1]):  # warms up
                closed_loop(scorer, statistics, window, count, 2)
            kinds = [(f"{load:g}", load, 1.0) for load in LOADS]
            kinds.append((f"{STUDY_LOAD:g}, studies of {STUDY:g}", STUDY_LOAD, STUDY))
            fitted: list[dict[str, Any]] = []
            compared: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in kinds}
            for number in range(rounds):
                console.print(f"Round {number + 1} of {rounds}")
                ours = [os.getpid(), *family(server.pid)]
                before = _machine_cpu_seconds() - cpu_seconds(ours), time.perf_counter()
                levels = [closed_loop(scorer, statistics, window, count, seconds / 2) for count in callers]
                service, rate = fit(levels, statistics.batching), levels[-1].rate
                fitted.append(vars(service) | {f"nodes_s_{level.callers}": level.rate for level in levels})
                for name, load, nodes in kinds:
                    count = int(load * rate * seconds)
                    at = studies(load * rate, nodes, count, generator)
                    compared[name].append(_compared(service, at, open_loop(scorer, window, at)))
                used = _machine_cpu_seconds() - cpu_seconds(ours) - before[0]
                fitted[-1]["others_cores"] = used / (time.perf_counter() - before[1])
            memory = sum(_resident_mb(pid) for pid in family(server.pid))
    return {
        "closed": {key: _spread([one[key] for one in fitted]) for key in fitted[0] if key != "preferred"},
        "open": {name: {key: _spread([one[key] for one in of]) for key in of[0]} for name, of in compared.items()},
        "memory_mb": round(memory),
    }


def _compared(service: Service, asked: npt.NDArray[np.float64], took: npt.NDArray[np.float64]) -> dict[str, float]:
    expected = said(service, asked)
    found = {
        "nodes": float(len(asked)),
        "asked_nodes_s": float(len(asked) / asked[-1]),
        "answered_nodes_s": float(len(asked) / (asked + took).max()),
    }
    for name, of in (("mean", np.mean), ("p50", np.median), ("p95", lambda values: np.percentile(values, 95))):
        measured, simulated = 1000 * float(of(took)), 1000 * float(of(expected))
        found |= {f"{name}_ms": measured, f"{name}_simulated_ms": simulated, f"{name}_ratio": simulated / measured}
    return found


def _machine_cpu_seconds() -> float:
    """Return the CPU time that all processes of this machine have used, seconds."""
    user, nice, system = (int(field) for field in Path("/proc/stat").read_text().split(maxsplit=4)[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _spread(values: list[float]) -> list[float]:
    """Return median, lowest and highest of the rounds."""
    return [float(f"{value:.4g}") for value in (median(values), min(values), max(values))]


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def render(results: dict[str, Any]) -> str:
    """Return results as Markdown."""
    lines = [
        "| load | nodes/s asked, answered | mean, ms: measured, simulated | their ratio | p95, ms: measured,"
        " simulated | their ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in results["open"].items():
        figures = [f"{one['asked_nodes_s'][0]:.0f}, {one['answered_nodes_s'][0]:.0f}"]
        for key in ("mean", "p95"):
            figures.append(f"{one[f'{key}_ms'][0]:.1f}, {one[f'{key}_simulated_ms'][0]:.1f}")
            figures.append("{:.2f} ({:.2f} to {:.2f})".format(*one[f"{key}_ratio"]))
        lines.append(f"| {name} | {' | '.join(figures)} |")
    about, closed = results["machine"], results["closed"]
    served = "A model that sleeps" if results["settings"]["paced"] else results["bundle"]
    rates = [
        f"{key.rsplit('_', 1)[1]} callers {value[0]:.0f}" for key, value in closed.items() if key.startswith("nodes_s")
    ]
    return "\n".join([
        f"{served}; callers and server share {about['cores']} cores of {about['cpu']}"
        f" ({', '.join(about['flags'])}). Medians of {results['settings']['rounds']} rounds, lowest and highest in"
        f" brackets. In closed loops, nodes/s: {', '.join(rates)}. Server: {results['memory_mb']} MB."
        f" Other processes of the machine used {closed['others_cores'][0]:.2f} cores.",
        "",
        *lines,
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=DEMO_BUNDLE, help="what is served; the demo bundle without it")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="length of a window of arrivals; closed loops take half"
    )
    parser.add_argument("--rounds", type=int, default=6, help="windows of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    parser.add_argument("--paced", action="store_true", help="a model that sleeps in place of the network")
    parser.add_argument("--json", action="store_true", help="JSON on standard output; the table goes to standard error")
    options = parser.parse_args()
    bundle = Bundle(options.bundle)
    settings = {"seconds": options.seconds, "rounds": options.rounds, "seed": options.seed, "paced": options.paced}
    results = {"bundle": bundle.label, "machine": machine(), "settings": settings}
    results |= measure(bundle, options.seconds, options.rounds, options.seed, paced=options.paced)
    if options.json:
        print(json.dumps(results, indent=2))
    print(render(results), file=sys.stderr if options.json else sys.stdout)


if __name__ == "__main__":
    main()
