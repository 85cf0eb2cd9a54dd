"""How much of the engine's speed is left behind a server: ``python -m benchmarks.serving [--json] [--bundle DIR]``.

In one run, in windows that take turns: the raw loop of the same graphs in one process, Triton through the product's own
client at 1, 4 and 8 callers, and FastAPI over the same engine at 4 and 8. All in the same precision and the same layout
of threads, servers and callers on the same cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server, free_ports

from benchmarks.processes import Worker, cpu_seconds, family, machine
from lymphcad.bundle import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVED, FASTAPI = (1, 4, 8), (4, 8)
RESNET50_WINDOW = {"field_of_view_mm": 40.0, "window_level_hu": 60.0, "window_width_hu": 400.0, "size": 224}
_STEP_RUNS = 60


@contextlib.contextmanager
def fastapi_server(bundle: Bundle, precision: str) -> Iterator[tuple[int, int]]:
    """Run `benchmarks.rival`; yields its port and process id."""
    port = free_ports().grpc
    command = [sys.executable, "-m", "benchmarks.rival", str(bundle.path), precision, str(port)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the FastAPI server did not start: its error stands above")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ready").close()
    except OSError:
        return False
    return True


def measure(bundle: Bundle, precision: str, seconds: float, windows: int) -> dict[str, Any]:
    """Measure one precision.

    Parameters
    ----------
    bundle
        What is served.
    precision
        Of the CNN's floating-point layers, ``f32`` or ``bf16``.
    seconds
        Length of a window.
    windows
        Of each contender.

    Returns
    -------
    dict
        Images/s, medians over the windows: ``raw``, ``served`` and ``fastapi`` by callers, ``ratio`` of served to raw;
        ``lowest_highest`` of the windows; ``cpu_ms``, the CPU time of callers and servers together for an image;
        ``steps_ms`` and ``preprocess_and_cam_share`` of the CNN's time.

    Raises
    ------
    RuntimeError
        If the contenders' answers differ.
    """
    with contextlib.ExitStack() as stack:
        models = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "models"
        write_repository(bundle, models, Target.EMBEDDED, bf16=precision == "bf16")
        server = stack.enter_context(Server(models, free_ports()))
        port, rival = stack.enter_context(fastapi_server(bundle, precision))
        raw = Worker("benchmarks.worker", "raw", str(bundle.path), precision)
        stack.callback(raw.close)
        callers = Worker("benchmarks.worker", "callers", str(bundle.path), server.address, str(port))
        stack.callback(callers.close)
        contenders = [("raw", 0, raw, raw.pids)]
        contenders += [("served", count, callers, [*callers.pids, *family(server.pid)]) for count in SERVED]
        contenders += [("fastapi", count, callers, [*callers.pids, rival]) for count in FASTAPI]
        rates: dict[tuple[str, int], list[float]] = {}
        cpu_ms: dict[tuple[str, int], list[float]] = {}
        answers = set()
        for window in range(-1, windows):  # the first one warms up
            for of, count, worker, pids in contenders if window % 2 else reversed(contenders):
                before = cpu_seconds(pids)
                found = worker.order(do="rates", of=of, callers=count, seconds=seconds)
                used = cpu_seconds(pids) - before
                answers.add(round(found["probability"], 2))
                if window >= 0:
                    rates.setdefault((of, count), []).append(found["rate"])
                    cpu_ms.setdefault((of, count), []).append(1000 * used / found["images"])
        if max(answers) - min(answers) > 0.011:
            raise RuntimeError(f"the contenders' probabilities differ: {sorted(answers)}")
        steps = raw.order(do="steps", runs=_STEP_RUNS)
    return {
        **_by_contender({key: round(median(values), 1) for key, values in rates.items()}),
        "ratio": {"8": round(median(rates["served", 8]) / median(rates["raw", 0]), 3)},
        "lowest_highest": _by_contender({key: [round(min(v), 1), round(max(v), 1)] for key, v in rates.items()}),
        "cpu_ms": _by_contender({key: round(median(values), 2) for key, values in cpu_ms.items()}),
        "steps_ms": {name: round(took, 3) for name, took in steps.items()},
        "preprocess_and_cam_share": round((steps["preprocess"] + steps["cam"]) / steps["cnn"], 3),
    }


def _by_contender(values: dict[tuple[str, int], Any]) -> dict[str, Any]:
    """Return {"raw": value, "served": {"1": value, ...}, "fastapi": {...}}."""
    found: dict[str, Any] = {"raw": values["raw", 0]}
    for (of, count), value in sorted(values.items()):
        if count:
            found.setdefault(of, {})[str(count)] = value
    return found


def untrained(out: Path, architecture: str, window: dict[str, Any], *, mirrored: bool, int8: bool) -> Bundle:
    """Export a network as it is made, in float32 or int8: neither weights nor calibration matter to its speed."""
    import numpy as np
    from lymphcad_export.bundle import Meaning, export_bundle
    from lymphcad_export.quantize import Quantizer
    from lymphcad_train.networks import CamNetwork, as_served

    def to_int8(folder: Path) -> dict[str, Any]:
        crops = np.random.default_rng(0).random((16, 1, window["size"], window["size"]), np.float32)
        Quantizer(folder / "cnn.fp32.onnx", crops).write(folder / "cnn.int8.onnx")
        return {"precisions": ["int8"]}

    meaning = Meaning("untrained", architecture, threshold=0.5, temperature=1.0, evidence_scale=1.0)
    network = as_served(CamNetwork(architecture), mirrored=mirrored)
    return export_bundle(out, network, window, meaning, to_int8 if int8 else None)


def render(results: dict[str, Any]) -> str:
    """Return results as Markdown."""
    heads = ["precision", "raw loop", *(f"Triton, {n}" for n in SERVED), *(f"FastAPI, {n}" for n in FASTAPI)]
    rows = [[*heads, "Triton / raw at 8", "preprocess + CAM / CNN"]]
    rows.append(["---"] * len(rows[0]))
    for precision in ("int8", "bf16"):
        if precision not in results:
            continue
        found = results[precision]
        speeds = [found["raw"], *found["served"].values(), *found["fastapi"].values()]
        share = f"{100 * found['preprocess_and_cam_share']:.1f} %"
        rows.append([precision, *(f"{speed:.1f}" for speed in speeds), f"{found['ratio']['8']:.2f}", share])
    about = results["machine"]
    settings = results["settings"]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([
        f"Images/s, medians of {settings['windows']} windows of {settings['seconds']:g} s that take turns;"
        f" {settings['architecture']} at {settings['size']} px. Callers and servers share {about['cores']} cores of"
        f" {about['cpu']} ({', '.join(about['flags'])}).",
        "",
        *lines,
        "",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in about["versions"].items()) + ".",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="an int8 bundle; without it, an untrained ResNet50 at 224 px")
    parser.add_argument("--float-bundle", type=Path, help="a float32 one; without it, the same network untrained")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a window")
    parser.add_argument("--windows", type=int, default=5, help="windows of each contender")
    parser.add_argument("--json", action="store_true", help="JSON on standard output; the table goes to standard error")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        if options.bundle:
            bundle = Bundle(options.bundle)
        else:
            bundle = untrained(made / "int8", "resnet50", RESNET50_WINDOW, mirrored=False, int8=True)
        if options.float_bundle:
            floats = Bundle(options.float_bundle)
        else:
            about_it = bundle.manifest
            floats = untrained(
                made / "float",
                about_it.architecture,
                about_it.preprocess.model_dump(),
                mirrored=about_it.training.get("mirrored", False),
                int8=False,
            )
        results["int8"] = measure(bundle, "f32", options.seconds, options.windows)
        if any("bf16" in flag for flag in about["flags"]):  # other CPUs cannot
            results["bf16"] = measure(floats, "bf16", options.seconds, options.windows)
    results["settings"] = {
        "seconds": options.seconds,
        "windows": options.windows,
        "architecture": bundle.manifest.architecture,
        "size": bundle.manifest.preprocess.size,
        "bundle": bundle.label,
    }
    results["machine"] = about
    if options.json:
        print(json.dumps(results, indent=2))
    print(render(results), file=sys.stderr if options.json else sys.stdout)


if __name__ == "__main__":
    main()
