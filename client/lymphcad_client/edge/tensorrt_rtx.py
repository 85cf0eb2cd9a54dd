"""TensorRT-RTX: the runner for an NVIDIA RTX GPU. No engine has ever run on one (docs/plan.md)."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from lymphcad.bundle import CAM, PREPROCESS
from lymphcad.errors import CommandError, Reason, ServerError
from lymphcad.plan import Machine, check_plan
from lymphcad.tensorrt_library import first_line, load
from lymphcad_client.edge.cuda import CudaError, Memory, load_cuda, this_gpu
from lymphcad_client.edge.rtx_engine import INSTEAD, check_gpu, choose_engine, execute, open_engine

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad.bundle import Bundle, Precision
    from lymphcad_client.edge.onnxruntime import Graph
    from lymphcad_client.edge.rtx_engine import Opened

    Arrays = dict[str, npt.NDArray[Any]]
    Floats = npt.NDArray[np.float32]

EXTRA = "edge-rtx"


class TensorRtRtx:
    """The CNN in TensorRT-RTX on the GPU, between two graphs on the CPU; see `lymphcad_client.edge.runner.Runner`.

    One batch is on the GPU at a time.

    Parameters
    ----------
    bundle
        Whose files match their digests.
    engines
        The folder that ``lymphcad plan --rtx`` wrote, or one of its engines.

    Raises
    ------
    CommandError
        If a package or the GPU is missing, there is no engine for it, or it cannot be loaded.
    BundleError
        If the bundle lacks the precision fp16, or the engine is not the bundle's, was changed, or was built by another
        version of TensorRT-RTX or for another GPU.
    """

    def __init__(self, bundle: Bundle, engines: Path) -> None:
        self.precision: Precision = "fp16"
        manifest = bundle.manifest
        bundle.cnn(self.precision)  # so that it is said if there is none
        graph = _onnxruntime()
        library, version = load("tensorrt_rtx", EXTRA)
        cuda = load_cuda()
        gpu = this_gpu(cuda)
        check_gpu(library, version, gpu)
        engine = choose_engine(engines, gpu)
        sidecar = check_plan(engine, manifest, Machine(version, gpu.name, gpu.compute_capability))
        self.about = f"TensorRT-RTX {version} on {gpu.name}, engine {engine.name}"
        self._preprocess = graph(bundle, bundle.path / PREPROCESS)
        self._cam = graph(bundle, bundle.path / CAM)
        self._largest, size = sidecar.max_batch, manifest.preprocess.size
        self._shapes: dict[str, tuple[int, ...]] = {"LOGITS": (2,), "MAPS": (2, *manifest.map_size)}
        self._lock = threading.Lock()
        self._opened: Opened | None = open_engine(library, engine)
        sizes = {
            name: self._largest * int(np.prod(shape)) * np.dtype(np.float32).itemsize
            for name, shape in {"CROP": (1, size, size), **self._shapes}.items()
        }
        try:
            self._memory: Memory | None = Memory(cuda, sizes)
        except CudaError as error:
            raise CommandError(
                f"{gpu.name} has no memory for {engine.name} ({error}): close what else uses it, {INSTEAD}"
            ) from None

    def run(self, tensors: Arrays) -> Arrays:
        """Score a batch; see `Runner.run`."""
        crops: Floats = np.ascontiguousarray(self._preprocess.run(tensors, ["CROP"])["CROP"])
        parts = [crops[first : first + self._largest] for first in range(0, len(crops), self._largest)]
        with self._lock:
            answers = [self._compute(part) for part in parts]
        found = {name: np.concatenate([answer[name] for answer in answers]) for name in self._shapes}
        return self._cam.run(found, ["PROBABILITY", "HEATMAP"])

    def close(self) -> None:
        """Give memory back."""
        with self._lock:
            memory, self._memory = self._memory, None
            self._opened = None  # before what it computes in
            if memory is not None:
                # A GPU that failed was said where it failed, and no score depends on this any more.
                with contextlib.suppress(CudaError):
                    memory.free()
        self._preprocess.close()
        self._cam.close()

    def _compute(self, crops: Floats) -> Arrays:
        memory, opened = self._memory, self._opened
        if memory is None or opened is None:
            raise ServerError(Reason.RUNNER_ERROR, "the runner was closed while it was asked: open it again")
        opened.log.clear()
        answers = {name: np.empty((len(crops), *shape), np.float32) for name, shape in self._shapes.items()}
        try:
            memory.write("CROP", crops)
            for name, answer in answers.items():
                memory.spoil(name, answer.nbytes)
            shapes = {name: answer.shape for name, answer in answers.items()}
            if not execute(opened.context, crops.shape, shapes, memory):
                raise ServerError(
                    Reason.RUNNER_ERROR,
                    f"TensorRT-RTX did not run the engine ({first_line(opened.log)}): build it again with"
                    f" `lymphcad plan --rtx`, {INSTEAD}",
                )
            for name, answer in answers.items():
                memory.read(name, answer)
            memory.wait()
        except CudaError as error:
            raise ServerError(
                Reason.RUNNER_ERROR, f"the GPU failed ({error}): start again with what else uses it closed, {INSTEAD}"
            ) from None
        return answers


def _onnxruntime() -> type[Graph]:
    """Return what opens the graphs before and after the engine."""
    try:
        from lymphcad_client.edge.onnxruntime import Graph
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise CommandError(
            f"the package onnxruntime is not installed: pip install 'lymphcad[{EXTRA}]' brings it"
        ) from None
    return Graph
