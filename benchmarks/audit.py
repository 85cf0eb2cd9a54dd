"""What it costs to keep an audit trail: the time that an answer waits for its line, with the disk.

python -m benchmarks.audit [FOLDER]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from lymphcad_client.audit import open_audit
from lymphcad_client.audit.verify import verify
from lymphcad_client.observing import Seen

from benchmarks.window import sample_window
from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Bundle
from lymphcad.finding import finding

if TYPE_CHECKING:
    from lymphcad_client.observing import Observer

_LINES, _RUNS = 2000, 3


def audit_cost(folder: Path, threads: int) -> dict[str, float]:
    """Write lines as many requests do that end at once.

    Parameters
    ----------
    folder
        On the disk to measure.
    threads
        Requests in flight.

    Returns
    -------
    dict
        ``waits_ms``, median time that an answer waits; ``line_ms``, wall time for each line; ``verify_us`` a line;
        medians of 3 runs.
    """
    bundle = Bundle(DEMO_BUNDLE)
    size = bundle.manifest.preprocess.size
    answer = finding(
        bundle.manifest, bundle.digest, np.full((1, 1), 0.5, np.float32), np.zeros((1, size, size), np.uint8)
    )
    window = sample_window(bundle.manifest.preprocess)
    seen = Seen(window, answer, None, 0.01, bundle.manifest, bundle.digest, "benchmark")
    took: dict[str, list[float]] = {"waits_ms": [], "line_ms": [], "verify_us": []}
    for _ in range(_RUNS):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            trail = Path(name) / "trail.jsonl"
            audit = open_audit(trail)

            def one(_: int, audit: Observer = audit) -> float:
                start = time.perf_counter()
                audit.saw(seen)
                return time.perf_counter() - start

            start = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                waits = list(pool.map(one, range(_LINES)))
            took["line_ms"].append(1000 * (time.perf_counter() - start) / _LINES)
            took["waits_ms"].append(1000 * median(waits))
            audit.close()
            start = time.perf_counter()
            if not verify(trail).holds:
                raise RuntimeError("the trail does not hold")
            took["verify_us"].append(1e6 * (time.perf_counter() - start) / _LINES)
    return {what: round(median(times), 3) for what, times in took.items()}


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir())
    for requests in (1, 16, 64):
        print(json.dumps({"in_flight": requests, **audit_cost(where, requests)}))
