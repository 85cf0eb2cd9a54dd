"""What the edge variant costs: ``python -m benchmarks.edge [--json]``.

In one run: the time from the command line to the first probability printed, with the compiled model in the cache and
without; the peak memory of a scoring run; images a second of the edge scorer, of the raw loop of the same engine, of
torch in eager float32 and of ONNX Runtime in float32, in windows that take turns; and the size of what pip installs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.edge_worker import ONE_BY_ONE, SIDE_BY_SIDE
from benchmarks.processes import Worker, machine
from benchmarks.score import write_tables
from benchmarks.serving import RESNET50_WINDOW, untrained
from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Bundle

RUNNERS = ("openvino", "onnxruntime")
PRODUCT_LAYOUT = {"openvino": ONE_BY_ONE, "onnxruntime": SIDE_BY_SIDE}
EXTRAS = ("edge", "edge-min")
ROOT = Path(__file__).parents[1]
_SMALL_PARENT = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(json.dumps({
    "seconds": time.perf_counter() - start, "kib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
}))
"""
"""Starts what is measured: Linux counts a child's peak from what its parent had."""
_PROBABILITY = re.compile(rb"0\.\d{3}")


@dataclass(frozen=True)
class Profile:
    """A bundle in eight bits, and the same network in float32.

    Attributes
    ----------
    name
        Of the profile.
    bundle, floats
        The two; neither weights nor calibration matter to speed.
    """

    name: str
    bundle: Bundle
    floats: Bundle


def profiles(folder: Path) -> list[Profile]:
    """Return the paper's choice, untrained, and the one for small machines, which the repository ships."""
    resnet50 = [
        untrained(folder / f"resnet50-{int8}", "resnet50", RESNET50_WINDOW, mirrored=False, int8=int8)
        for int8 in (True, False)
    ]
    demo = Bundle(DEMO_BUNDLE)
    return [Profile("resnet50", *resnet50), Profile("lite0", demo, _in_float(demo, folder / "lite0"))]


def _in_float(bundle: Bundle, folder: Path) -> Bundle:
    about = bundle.manifest
    window, mirrored = about.preprocess.model_dump(), about.training.get("mirrored", False)
    return untrained(folder, about.architecture, window, mirrored=mirrored, int8=False)


class Score:
    """Runs of ``lymphcad score --edge``, each a process of its own.

    Parameters
    ----------
    folder
        For images, results and caches.
    nodes
        Rows of the long table.
    """

    def __init__(self, folder: Path, nodes: int) -> None:
        self._folder, self._count = folder, 0
        self.one, self.many = write_tables(folder / "study", nodes)

    def first_answer_s(self, bundle: Bundle, runner: str, cache: Path) -> float:
        """Return the time until a process that scores one node of one file has printed its probability, seconds."""
        command = self._command(bundle, runner, self.one, "--no-overlays")
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_with(cache))
        assert process.stdout is not None
        said = b""
        while not _PROBABILITY.search(said):
            part = process.stdout.read1(4096)
            if not part:
                raise RuntimeError("lymphcad score printed no probability: its error stands above")
            said += part
        took = time.perf_counter() - start
        process.stdout.read()
        if process.wait():
            raise RuntimeError(f"lymphcad score ended with {process.returncode}: its error stands above")
        return took

    def peak(self, bundle: Bundle, runner: str, cache: Path) -> tuple[float, float]:
        """Return the peak memory of a run over the long table, with overlays, MB (10^6 bytes), and nodes a second."""
        command = [sys.executable, "-c", _SMALL_PARENT, *self._command(bundle, runner, self.many)]
        process = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=_with(cache), text=True)
        measured = json.loads(process.stdout.splitlines()[-1])
        rows = len(self.many.read_text().splitlines()) - 1
        return measured["kib"] * 1024 / 1e6, rows / measured["seconds"]

    def _command(self, bundle: Bundle, runner: str, table: Path, *more: str) -> list[str]:
        self._count += 1
        command = [Path(sys.executable).with_name("lymphcad"), "score", "--nodes", table, "--edge", bundle.path]
        command += ["--runner", runner, "--out", self._folder / f"out{self._count}", *more]
        return [str(part) for part in command]


def _with(cache: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(cache)}


def cold_start(score: Score, bundle: Bundle, folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Return the time to the first answer by runner, seconds, medians: ``cached`` and ``not_cached``."""
    found: dict[tuple[str, str], list[float]] = {}
    kept = folder / "cache"
    for run in range(-1, runs):  # the first one fills the cache
        for runner in RUNNERS:
            fresh = Path(tempfile.mkdtemp(dir=folder))
            for state, cache in (("cached", kept), ("not_cached", fresh)):
                took = score.first_answer_s(bundle, runner, cache)
                if run >= 0:
                    found.setdefault((runner, state), []).append(took)
            shutil.rmtree(fresh)
    return {
        runner: {state: round(median(found[runner, state]), 3) for state in ("cached", "not_cached")}
        for runner in RUNNERS
    }


def memory(score: Score, bundle: Bundle, folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Return by runner the largest peak of the runs, MB, with the cache and without, and median nodes a second."""
    result = {}
    for runner in RUNNERS:
        peaks: dict[str, list[float]] = {"cached": [], "not_cached": []}
        rates = []
        for _ in range(runs):
            fresh = Path(tempfile.mkdtemp(dir=folder))
            for state in ("not_cached", "cached"):  # in this order: the first run fills the cache of the second
                peak, rate = score.peak(bundle, runner, fresh)
                peaks[state].append(peak)
                rates.append(rate)
            shutil.rmtree(fresh)
        result[runner] = {f"{state}_mb": round(max(values), 1) for state, values in peaks.items()}
        result[runner]["nodes_s"] = round(median(rates), 1)
    return result


def throughput(profile: Profile, seconds: float, windows: int) -> dict[str, Any]:
    """Return images/s, medians over windows that take turns, and the ratios that count."""
    bundles = {"int8": profile.bundle, "fp32": profile.floats}
    contenders = [(f"{what} {runner}", (what, "int8", runner)) for runner in RUNNERS for what in ("product", "raw")]
    contenders += [("raw onnxruntime float32", ("raw", "fp32", "onnxruntime")), ("torch float32", ("torch", "fp32"))]
    with contextlib.ExitStack() as stack:
        ready: list[tuple[str, Worker, list[str]]] = []
        for name, (what, kind, *more) in contenders:
            worker = Worker("benchmarks.edge_worker", what, str(bundles[kind].path), *more)
            stack.callback(worker.close)
            ready.append((name, worker, json.loads(worker.said)))
        rates: dict[tuple[str, str], list[float]] = {}
        for window in range(-1, windows):  # the first one warms up
            for name, worker, layouts in ready if window % 2 else reversed(ready):
                for layout in layouts:
                    rate = worker.order(layout=layout, seconds=seconds)["rate"]
                    if window >= 0:
                        rates.setdefault((name, layout), []).append(rate)
    by_layout = {key: round(median(values), 1) for key, values in rates.items()}
    # A rival has the layout that is best for it; a raw loop is first of all that of the product.
    best = {name: max(rate for (one, _), rate in by_layout.items() if one == name) for name, _ in contenders}
    for runner, layout in PRODUCT_LAYOUT.items():
        best[f"raw {runner}"] = by_layout[f"raw {runner}", layout]
    product = best["product openvino"]
    return {
        "images_s": best,
        "by_layout": {f"{name}, {layout}": rate for (name, layout), rate in by_layout.items() if layout},
        "lowest_highest": {
            name + (f", {layout}" if layout else ""): [round(min(v), 1), round(max(v), 1)]
            for (name, layout), v in rates.items()
        },
        "of_raw": {runner: round(best[f"product {runner}"] / best[f"raw {runner}"], 3) for runner in RUNNERS},
        "times_torch_float32": round(product / best["torch float32"], 2),
        "times_onnxruntime_float32": round(product / best["raw onnxruntime float32"], 2),
    }


def installed_mb(extra: str, folder: Path) -> dict[str, float]:
    """Install an extra into a new virtual environment and return the size of what it added, MB: all, and byte code."""
    environment = folder / extra
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    before = _size(environment, "*"), _size(environment, "*.pyc")
    wheels = folder / f"{extra}-wheel"
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)], check=True)
    (wheel,) = wheels.iterdir()
    subprocess.run([*pip, "install", f"{wheel}[{extra}]"], check=True)  # the newest versions, as docs/edge.md has it
    added, byte_code = (_size(environment, kind) - was for kind, was in zip(("*", "*.pyc"), before, strict=True))
    shutil.rmtree(environment)
    return {"added": round(added, 1), "of_it_byte_code": round(byte_code, 1)}


def _size(folder: Path, kind: str) -> float:
    """Return the size of a folder's files of a kind, MB (10^6 bytes)."""
    return sum(file.stat().st_size for file in folder.rglob(kind) if file.is_file() and not file.is_symlink()) / 1e6


def render(results: dict[str, Any]) -> str:
    """Return results as Markdown."""
    settings, about = results["settings"], results["machine"]
    lines = [
        "| | " + " | ".join(results["profiles"]) + " |",
        "| --- |" + " --- |" * len(results["profiles"]),
    ]
    found = list(results["profiles"].values())

    def row(name: str, cells: list[str]) -> None:
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    for runner in RUNNERS:
        cold = [one["cold_start_s"][runner] for one in found]
        row(f"first probability, s, {runner}: cached (not)", [f"{c['cached']} ({c['not_cached']})" for c in cold])
    for runner in RUNNERS:
        peak = [one["peak"][runner] for one in found]
        row(f"peak memory, MB, {runner}: cached (not)", [f"{p['cached_mb']} ({p['not_cached_mb']})" for p in peak])
    for name in found[0]["throughput"]["images_s"]:
        row(f"images/s, {name}", [f"{one['throughput']['images_s'][name]}" for one in found])
    for runner, layout in PRODUCT_LAYOUT.items():
        other = f"raw {runner}, {SIDE_BY_SIDE if layout == ONE_BY_ONE else ONE_BY_ONE}"
        row(f"images/s, {other}", [f"{one['throughput']['by_layout'][other]}" for one in found])
    for runner in RUNNERS:
        row(f"product / raw loop, {runner}", [f"{one['throughput']['of_raw'][runner]:.2f}" for one in found])
    row("product, openvino / torch float32", [f"{one['throughput']['times_torch_float32']:.1f}" for one in found])
    row("product, openvino / ONNX Runtime float32", [
        f"{one['throughput']['times_onnxruntime_float32']:.1f}" for one in found
    ])  # fmt: skip
    installed = [
        f"`{extra}` {size['added']:.0f} ({size['added'] - size['of_it_byte_code']:.0f} without byte code)"
        for extra, size in results.get("installed_mb", {}).items()
    ]
    sizes = [f"Installed, MB (10^6 bytes): {', '.join(installed)}.", ""] if installed else []
    return "\n".join([
        f"{about['cores']} cores of {about['cpu']} ({', '.join(about['flags'])}). Medians: {settings['runs']} starts,"
        f" {settings['windows']} windows of {settings['seconds']:g} s; peak memory the largest of"
        f" {settings['memory_runs']} runs over {settings['nodes']} nodes with overlays.",
        "",
        *lines,
        "",
        *sizes,
        "Versions: " + ", ".join(f"{name} {number}" for name, number in about["versions"].items()) + ".",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="one int8 bundle in place of both profiles")
    parser.add_argument("--float-bundle", type=Path, help="and that network in float32; untrained without it")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a window")
    parser.add_argument("--windows", type=int, default=5, help="windows of each contender")
    parser.add_argument("--runs", type=int, default=11, help="starts of each runner and state of the cache")
    parser.add_argument("--memory-runs", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=400, help="of a scoring run")
    parser.add_argument("--no-sizes", action="store_true", help="install nothing: needs no network")
    parser.add_argument("--json", action="store_true", help="JSON on standard output; the table goes to standard error")
    options = parser.parse_args()
    results: dict[str, Any] = {"profiles": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.bundle:
            bundle = Bundle(options.bundle)
            given = options.float_bundle
            floats = Bundle(given) if given else _in_float(bundle, folder / "float")
            taken = [Profile(bundle.manifest.name, bundle, floats)]
        else:
            taken = profiles(folder)
        score = Score(folder, options.nodes)
        for profile in taken:
            results["profiles"][profile.name] = {
                "bundle": profile.bundle.label,
                "cold_start_s": cold_start(score, profile.bundle, folder, options.runs),
                "peak": memory(score, profile.bundle, folder, options.memory_runs),
                "throughput": throughput(profile, options.seconds, options.windows),
            }
        if not options.no_sizes:
            results["installed_mb"] = {extra: installed_mb(extra, folder) for extra in EXTRAS}
    results["settings"] = {
        name: getattr(options, name) for name in ("seconds", "windows", "runs", "memory_runs", "nodes")
    }
    results["machine"] = machine()
    if options.json:
        print(json.dumps(results, indent=2))
    print(render(results), file=sys.stderr if options.json else sys.stdout)


if __name__ == "__main__":
    main()
