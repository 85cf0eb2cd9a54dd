"""The CPU time that ``lymphcad score`` spends on a node outside the server: ``python -m benchmarks.score [--json]``.

User and system time of the client's process on a table of many nodes, each on an uncompressed 512 x 512 slice of its
own in a file of its own, less that of a table of one node, so that neither the start of Python nor the engine counts.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports

from benchmarks.processes import machine
from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Bundle
from lymphcad.phantom.cohort import write_cohort

_SAMPLES = 8


def write_tables(folder: Path, nodes: int) -> tuple[Path, Path]:
    """Write a table of one node and one of many, on copies of a few phantom slices; returns both paths."""
    write_cohort(folder, 2, _SAMPLES, 1, workers=1, advance=lambda _: None)
    with (folder / "cohort.csv").open(newline="") as file:
        samples = list(csv.DictReader(file))
    rows = ["image,row,col"]
    for number in range(nodes):
        sample = samples[number % len(samples)]
        name = f"{number}.dcm"
        shutil.copyfile(folder / sample["image"], folder / name)
        rows.append(f"{name},{sample['row']},{sample['col']}")
    one, many = folder / "one.csv", folder / "many.csv"
    one.write_text("\n".join(rows[:2]) + "\n")
    many.write_text("\n".join(rows) + "\n")
    return one, many


def cpu_seconds_of(table: Path, server: str, out: Path, *, overlays: bool) -> float:
    """Run ``lymphcad score`` on a table and return the CPU time of its process, seconds."""
    command = [sys.executable, "-m", "lymphcad", "score", "--nodes", str(table), "--out", str(out), "--server", server]
    command += ["--json", "--overlays" if overlays else "--no-overlays"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"lymphcad score ended with {process.returncode}: its error stands above")
    return usage.ru_utime + usage.ru_stime


def measure(bundle: Bundle, nodes: int, runs: int) -> dict[str, float]:
    """Return the CPU time of a node, ms, median over runs: ``no_overlays`` and ``overlays``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_repository(bundle, folder / "models", Target.EMBEDDED)
        one, many = write_tables(folder / "study", nodes)
        found: dict[str, list[float]] = {"no_overlays": [], "overlays": []}
        with Server(folder / "models", free_ports()) as server:
            for run in range(runs):
                for what, values in found.items():
                    first, all_ = (
                        cpu_seconds_of(table, server.address, folder / f"{what}{run}", overlays=what == "overlays")
                        for table in (one, many)
                    )
                    values.append(1000 * (all_ - first) / (nodes - 1))
    return {what: round(median(values), 2) for what, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=DEMO_BUNDLE, help="what is served; the demo bundle without it")
    parser.add_argument("--nodes", type=int, default=400)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {"cpu_ms_a_node": measure(Bundle(options.bundle), options.nodes, options.runs)}
    results["settings"] = {"nodes": options.nodes, "runs": options.runs}
    results["machine"] = machine()
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        found = results["cpu_ms_a_node"]
        print(f"CPU time of lymphcad score outside the server: {found['no_overlays']:.1f} ms a node without overlays,")
        print(f"{found['overlays']:.1f} ms with ({options.nodes} slices of 512 x 512, median of {options.runs} runs).")


if __name__ == "__main__":
    main()
