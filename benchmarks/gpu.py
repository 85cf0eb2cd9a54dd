"""The float16 CNN on an NVIDIA GPU: ``python -m benchmarks.gpu BUNDLE [--run RUN] [--json]``.

First what it computes: the bundle's golden inputs, in batches of every size, against ONNX Runtime on the CPU, within
the bundle's tolerances. Then images/s, in rounds that take turns in one run, on crops that lie on the GPU: the bundle's
graph in ONNX Runtime's CUDA provider (which needs onnxruntime-gpu), and the bare loop, the same network in torch in
half precision, called as it is and recorded once as a CUDA graph.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from lymphcad_export.plan.comparison import compare
from lymphcad_export.plan.gpu import this_gpu
from lymphcad_export.scores import CUDA, open_session
from lymphcad_train.networks import CamNetwork, as_served
from lymphcad_train.training import WEIGHTS
from lymphcad_train.weights import load_weights

from lymphcad.bundle import Bundle
from lymphcad.errors import LymphcadError
from lymphcad.golden import read_golden

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

BATCHES = (1, 8, 64)
OUTPUTS = ("LOGITS", "MAPS")
_WARM_UP = 10


class Graph:
    """A bundle's float16 graph in ONNX Runtime on the GPU; crops and answers stay there.

    Parameters
    ----------
    bundle
        With the precision fp16.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._session = open_session(bundle.cnn("fp16"), CUDA)
        # The answer is waited for by who asks, as with torch.
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def ready(self, crops: torch.Tensor) -> tuple[Callable[[], object], Callable[[], dict[str, Floats]]]:
        """Return what runs a batch, float32 [B, 1, S, S] on the GPU, and what fetches the last answer."""
        crops = crops.float().contiguous()
        torch.cuda.synchronize()  # ONNX Runtime has a stream of its own
        binding = self._session.io_binding()
        binding.bind_input("CROP", "cuda", 0, np.float32, tuple(crops.shape), crops.data_ptr())
        for name in OUTPUTS:
            binding.bind_output(name, "cuda")

        def run(keep: torch.Tensor = crops) -> None:
            del keep  # the binding knows its address only
            self._session.run_with_iobinding(binding, self._options)

        return run, lambda: dict(zip(OUTPUTS, binding.copy_outputs_to_cpu(), strict=True))


class Torch:
    """The same network in torch, in half precision and channels last.

    Parameters
    ----------
    bundle
        Whose network it is.
    run
        Of which the bundle was exported, for its weights; random ones if None, which are as fast.
    recorded
        Whether a batch is recorded as a CUDA graph, so that no layer waits for Python.
    """

    def __init__(self, bundle: Bundle, run: Path | None, *, recorded: bool) -> None:
        network = CamNetwork(bundle.manifest.architecture)
        if run is not None:
            load_weights(network, run / WEIGHTS)
        mirrored = bool(bundle.manifest.training.get("mirrored", False))
        self._network = as_served(network, mirrored=mirrored).eval().half().cuda()
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._recorded = recorded

    def ready(self, crops: torch.Tensor) -> tuple[Callable[[], object], Callable[[], dict[str, Floats]]]:
        """Return what runs a batch; see `Graph.ready`."""
        crops = crops.half().contiguous(memory_format=torch.channels_last)
        answer: dict[str, torch.Tensor] = {}

        def run() -> None:
            with torch.inference_mode():
                answer.update(zip(OUTPUTS, self._network(crops), strict=True))

        def fetch() -> dict[str, Floats]:
            return {name: value.float().cpu().numpy() for name, value in answer.items()}

        if not self._recorded:
            return run, fetch
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(aside):  # cuDNN and cuBLAS take their memory before the recording
            for _ in range(3):
                run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay, fetch


def proof(contender: Graph | Torch, bundle: Bundle) -> dict[str, Any]:
    """Compare with ONNX Runtime on the CPU; see `lymphcad_export.plan.comparison.compare`."""

    def answer(crops: Floats) -> dict[str, Floats]:
        run, fetch = contender.ready(torch.from_numpy(crops).cuda())
        run()
        torch.cuda.synchronize()
        return fetch()

    found = compare(answer, bundle, BATCHES)
    return {
        "crops": found.crops,
        "probability_max": found.probability_max,
        "heatmap_mean": found.heatmap_mean,
        "limits": bundle.manifest.golden["fp16"].model_dump(),
    }


def rates(contenders: dict[str, Graph | Torch], bundle: Bundle, rounds: int, seconds: float) -> dict[str, Any]:
    """Return images/s by batch and contender: the median of the rounds, the lowest and the highest."""
    golden = torch.from_numpy(read_golden(bundle, "fp16")["CROP"]).cuda()
    found: dict[str, Any] = {}
    for batch in BATCHES:
        crops = golden[torch.arange(batch) % len(golden)]
        runs = {name: contender.ready(crops)[0] for name, contender in contenders.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(-1, rounds):  # the first one warms up
            for name in runs if turn % 2 else reversed(runs):
                took = _seconds_of(runs[name], _WARM_UP)
                count = max(int(seconds / took), 3)
                if turn >= 0:
                    times[name].append(batch / _seconds_of(runs[name], count))
        found[str(batch)] = {
            name: {
                "images_s": round(median(values), 1),
                "lowest_highest": [round(min(values), 1), round(max(values), 1)],
            }
            for name, values in times.items()
        }
    return found


def _seconds_of(run: Callable[[], object], count: int) -> float:
    """Return how long a call takes when many follow each other and the last is waited for."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="with the precision fp16")
    parser.add_argument("--run", type=Path, help="that it was exported from: proves torch in half precision too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a contender in a round")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    options = parser.parse_args()
    try:
        bundle, gpu = Bundle(options.bundle), this_gpu()
    except LymphcadError as error:
        raise SystemExit(str(error)) from None
    contenders: dict[str, Graph | Torch] = {
        "torch": Torch(bundle, options.run, recorded=False),
        "torch, recorded": Torch(bundle, options.run, recorded=True),
    }
    proofs: dict[str, Any] = {}
    if options.run is not None:
        proofs |= {name: proof(contender, bundle) for name, contender in contenders.items()}
    if CUDA in onnxruntime.get_available_providers():
        contenders["onnxruntime"] = Graph(bundle)
        proofs["onnxruntime"] = proof(contenders["onnxruntime"], bundle)
    else:
        print("ONNX Runtime has no CUDA provider here, so the graph itself is not run", file=sys.stderr)
    results: dict[str, Any] = {
        "bundle": bundle.label,
        "architecture": bundle.manifest.architecture,
        "size": bundle.manifest.preprocess.size,
        "proof": proofs,
        "rates": rates(contenders, bundle, options.rounds, options.seconds),
        "machine": {
            "gpu": gpu.name,
            "driver": gpu.driver,
            "versions": {
                "torch": torch.__version__,
                "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
                "onnxruntime": onnxruntime.__version__,
            },
        },
    }
    if options.json:
        print(json.dumps(results, indent=2))
    where = sys.stderr if options.json else sys.stdout
    for name, one in proofs.items():
        print(f"{name}: probabilities differ by {one['probability_max']:.2g} at most", file=where)
    for batch, one in results["rates"].items():
        print(f"batch {batch}: " + ", ".join(f"{name} {rate['images_s']}/s" for name, rate in one.items()), file=where)


if __name__ == "__main__":
    main()
