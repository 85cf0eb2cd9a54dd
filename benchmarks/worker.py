"""What calls: a process of its own that takes one order a line, runs it, and answers with a line of JSON.

``python -m benchmarks.worker raw BUNDLE PRECISION`` is the raw loop, with nothing between it and the engines;
``python -m benchmarks.worker callers BUNDLE GRPC_ADDRESS HTTP_PORT`` calls Triton through the product's own client, and
FastAPI, from as many threads as the order says.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from lymphcad_client.triton import TritonScorer

from benchmarks.window import ENGINES, GRAPHS, NODE, engine, sample_slice, sample_window, tensors_of
from lymphcad.bundle import Bundle
from lymphcad.finding import finding
from lymphcad.geometry import cut_window

if TYPE_CHECKING:
    from collections.abc import Callable

_LEAD_S = 0.3


def drive(calls: list[Callable[[], float]], seconds: float) -> dict[str, Any]:
    """Call from as many threads as there are calls, each as fast as it is answered.

    Parameters
    ----------
    calls
        Score the window and return the probability.
    seconds
        Length of what is counted, after a lead of 0.3 s.

    Returns
    -------
    dict
        ``rate``, answers a second; ``images``, all answers, those of the lead and the tail too; ``probability``, one of
        the answers.
    """
    start = time.perf_counter() + _LEAD_S
    ended: list[list[float]] = [[] for _ in calls]
    answers = [0.0] * len(calls)

    def run(number: int) -> None:
        while not ended[number] or ended[number][-1] < start + seconds:
            answers[number] = calls[number]()
            ended[number].append(time.perf_counter())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [at for some in ended for at in some]
    counted = sum(start <= at < start + seconds for at in times)
    return {"rate": counted / seconds, "images": len(times), "probability": answers[0]}


class Raw:
    """The raw loop: one thread an engine, as in the server, all graphs one after the other.

    Parameters
    ----------
    bundle
        Whose graphs run.
    precision
        Of the CNN's floating-point layers.
    """

    def __init__(self, bundle: Bundle, precision: str) -> None:
        self._engines = [engine(bundle, GRAPHS, precision) for _ in range(ENGINES)]
        self._steps = {name: engine(bundle, [name], precision) for name in GRAPHS}
        self._window = sample_window(bundle.manifest.preprocess)

    def rates(self, order: dict[str, Any]) -> dict[str, Any]:
        """Drive all engines."""
        return drive([partial(self._score, one) for one in self._engines], order["seconds"])

    def steps(self, order: dict[str, Any]) -> dict[str, float]:
        """Return the median time of each graph by itself, ms, one thread."""
        tensors = tensors_of(self._window)
        took: dict[str, list[float]] = {name: [] for name in self._steps}
        for _ in range(order["runs"]):
            times = [time.perf_counter()]
            for step in self._steps.values():
                step.run(tensors)
                times.append(time.perf_counter())
            for name, (first, last) in zip(took, pairwise(times), strict=True):
                took[name].append(1000 * (last - first))
        return {name: median(times) for name, times in took.items()}

    def _score(self, one: Any) -> float:
        tensors = tensors_of(self._window)
        one.run(tensors)
        return float(tensors["PROBABILITY"][0, 0])


class Callers:
    """Calls the two servers; each call cuts the window out of the slice and checks the answer, as the client does.

    Parameters
    ----------
    bundle
        What both serve.
    grpc_address
        Triton's.
    http_port
        FastAPI's, on loopback.
    """

    def __init__(self, bundle: Bundle, grpc_address: str, http_port: int) -> None:
        self._manifest, self._digest = bundle.manifest, bundle.digest
        self._slice = sample_slice()
        self._triton = TritonScorer(grpc_address)
        self._port = http_port

    def rates(self, order: dict[str, Any]) -> dict[str, Any]:
        """Drive one of the servers."""
        if order["of"] == "served":
            return drive([self._call_triton] * order["callers"], order["seconds"])
        connections = [http.client.HTTPConnection("127.0.0.1", self._port) for _ in range(order["callers"])]
        try:
            return drive([partial(self._call_fastapi, one) for one in connections], order["seconds"])
        finally:
            for one in connections:
                one.close()

    def _call_triton(self) -> float:
        return self._triton.score(self._slice, *NODE).probability

    def _call_fastapi(self, connection: http.client.HTTPConnection) -> float:
        preprocess, size = self._manifest.preprocess, self._manifest.preprocess.size
        window = cut_window(self._slice, *NODE, preprocess.field_of_view_mm, size)
        (rows, columns), (row_mm, column_mm), (row, column) = window.image.shape, window.spacing_mm, window.center
        asked = f"rows={rows}&columns={columns}&row_mm={row_mm}&column_mm={column_mm}&row={row}&column={column}"
        connection.request("POST", f"/score?{asked}", window.image.tobytes())
        answer = connection.getresponse().read()
        probability = np.frombuffer(answer, np.float32, count=1).reshape(1, 1)
        heatmap = np.frombuffer(answer, np.uint8, offset=4).reshape(1, size, size)
        return finding(self._manifest, self._digest, probability, heatmap).probability


def main() -> None:
    role, bundle = sys.argv[1], Bundle(Path(sys.argv[2]))
    if role == "raw":
        target: Any = Raw(bundle, sys.argv[3])
    else:
        target = Callers(bundle, sys.argv[3], int(sys.argv[4]))
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(getattr(target, order["do"])(order)), flush=True)


if __name__ == "__main__":
    main()
