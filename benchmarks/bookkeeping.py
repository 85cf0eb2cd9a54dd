"""What it costs to keep results: the journal and ``results.csv``, without reading or scoring anything."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from lymphcad_client.batch import Result
from lymphcad_client.journal import Journal
from lymphcad_client.results import write_finished

from lymphcad.finding import finding
from lymphcad.tables import read_nodes

if TYPE_CHECKING:
    from lymphcad.bundle import Bundle

_RUNS = 3


def bookkeeping_ms(table: Path, bundle: Bundle) -> dict[str, float]:
    """Keep a result of every node of a table as ``lymphcad score`` does, with the disk that it waits for.

    Parameters
    ----------
    table
        Of nodes.
    bundle
        That is said to have scored them.

    Returns
    -------
    dict
        ``journal`` and ``csv``, wall time of a node, ms, medians of 3 runs.
    """
    nodes, size = read_nodes(table), bundle.manifest.preprocess.size
    heatmap = np.zeros((1, size, size), np.uint8)
    scores = np.random.default_rng(0).random((len(nodes), 1, 1), np.float32)
    results = [
        Result(node, "scored", "", finding(bundle.manifest, bundle.digest, score, heatmap), input_sha256="0" * 64)
        for node, score in zip(nodes, scores, strict=True)
    ]
    took: dict[str, list[float]] = {"journal": [], "csv": []}
    for _ in range(_RUNS):
        with tempfile.TemporaryDirectory() as name:
            start = time.perf_counter()
            made_for = {"bundle": bundle.digest, "overlays": False, "heatmaps": False}
            with Journal(Path(name), nodes, made_for, resume=False) as journal:
                for number, result in enumerate(results, start=1):
                    journal.write(number, result, "")
                journal.commit()
                kept = time.perf_counter()
                write_finished(((result, picture) for _, result, picture in journal.results()), Path(name))
                end = time.perf_counter()
        took["journal"].append(1000 * (kept - start) / len(nodes))
        took["csv"].append(1000 * (end - kept) / len(nodes))
    return {what: round(median(times), 4) for what, times in took.items()}
