"""What scores on this machine in `benchmarks.edge`: a process of its own for each contender.

``python -m benchmarks.edge_worker CONTENDER BUNDLE``: ``product`` is the edge scorer, with as many callers as
`lymphcad score` has; ``raw`` the same engine on the same merged graph with nothing around it; both are followed by the
runner's name. ``torch`` is the network in eager float32. A raw loop is tried in each layout of the cores; the order
says which.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lymphcad_client.edge.cpu import cores

from benchmarks.window import NODE, sample_slice, sample_window, tensors_of
from benchmarks.worker import drive
from lymphcad.bundle import Bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    Calls = list[Callable[[], float]]

ONE_BY_ONE, SIDE_BY_SIDE = "all cores on one node", "a core for each node"
LAYOUTS = (ONE_BY_ONE, SIDE_BY_SIDE)


def product(bundle: Bundle, runner: Any) -> dict[str, Calls]:
    """Return the edge scorer's calls: a slice and a point in, a checked finding out."""
    from lymphcad_client.edge.scorer import EdgeScorer

    scorer, ct = EdgeScorer(bundle, runner=runner), sample_slice()
    return {"": [lambda: scorer.score(ct, *NODE).probability] * scorer.at_once}


def raw(bundle: Bundle, runner: str) -> dict[str, Calls]:
    """Return an engine's own calls, on tensors that lie ready."""
    graph = bundle.edge(bundle.manifest.preferred)
    tensors = tensors_of(sample_window(bundle.manifest.preprocess))
    return {layout: (_openvino if runner == "openvino" else _onnxruntime)(graph, tensors, layout) for layout in LAYOUTS}


def _openvino(graph: Path, tensors: dict[str, Any], layout: str) -> Calls:
    import openvino

    streams = 1 if layout == ONE_BY_ONE else cores()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": cores(),
        "ENABLE_CPU_PINNING": False,
    }  # fmt: skip
    model = openvino.Core().compile_model(graph, "CPU", settings)
    requests = [model.create_infer_request() for _ in range(streams)]

    def call(request: Any) -> float:
        return float(request.infer(tensors, share_inputs=True, share_outputs=True)["PROBABILITY"][0, 0])

    for request in requests:
        call(request)
    return [partial(call, request) for request in requests]


def _onnxruntime(graph: Path, tensors: dict[str, Any], layout: str) -> Calls:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores() if layout == ONE_BY_ONE else 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def call() -> float:
        return float(session.run(["PROBABILITY", "HEATMAP"], tensors)[0][0, 0])

    call()
    return [call] * (1 if layout == ONE_BY_ONE else cores())


def eager(bundle: Bundle) -> dict[str, Calls]:
    """Return the calls of an untrained network of the bundle's architecture in torch, eager float32."""
    import torch
    from lymphcad_train.graphs import Cam, Preprocess, Whole
    from lymphcad_train.networks import CamNetwork, as_served

    manifest = bundle.manifest
    window = manifest.preprocess
    network = as_served(CamNetwork(manifest.architecture), mirrored=manifest.training.get("mirrored", False))
    cam = Cam(manifest.temperature, manifest.evidence_scale, manifest.map_size, window.size)
    whole = Whole(Preprocess(**window.model_dump()), network, cam).eval().to(memory_format=torch.channels_last)
    tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in tensors_of(sample_window(window)).values()]
    threads = {ONE_BY_ONE: cores(), SIDE_BY_SIDE: 1}

    def call(layout: str) -> float:
        torch.set_num_threads(threads[layout])
        with torch.inference_mode():
            return float(whole(*tensors)[0][0, 0])

    for layout in LAYOUTS:
        call(layout)
    return {ONE_BY_ONE: [partial(call, ONE_BY_ONE)], SIDE_BY_SIDE: [partial(call, SIDE_BY_SIDE)] * cores()}


def main() -> None:
    contender, bundle, *runner = sys.argv[1], Bundle(Path(sys.argv[2])), *sys.argv[3:]
    calls = {"product": product, "raw": raw, "torch": eager}[contender](bundle, *runner)
    print(json.dumps(list(calls)), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(drive(calls[order["layout"]], order["seconds"])), flush=True)


if __name__ == "__main__":
    main()
