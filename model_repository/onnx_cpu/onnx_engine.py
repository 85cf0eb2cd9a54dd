"""Runs ONNX graphs one after the other on the CPU, each in the engine that is fastest on it.

It needs nothing else of LymphCAD, and nothing of Triton: the server's model runs it, and so does what the server is
measured against.
"""

import os
import sys
from pathlib import Path

# As in lymphcad/__init__.py, which the server does not import: neither engine reports its use to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import openvino  # noqa: E402

PRECISIONS = ("f32", "bf16")
"""Of what OpenVINO computes in floating point; a quantised layer stays int8 in both."""


class Engine:
    """A chain of graphs.

    Parameters
    ----------
    folder
        Where the graphs lie.
    graphs
        Their names without ``.onnx``, in the order in which they run on the same named tensors.
    on_openvino
        Those of them that OpenVINO runs (it is the fastest on a CNN); ONNX Runtime runs the others, for bf16 spoils
        the matrix products of the preprocessing.
    threads
        Of the whole engine.
    precision
        One of `PRECISIONS`. Always said, for left to itself OpenVINO takes bf16 wherever the CPU has it.

    Raises
    ------
    ValueError
        If the precision is another one, or bf16 on a CPU that would only emulate it.
    """

    def __init__(self, folder: Path, graphs: list[str], on_openvino: list[str], threads: int, precision: str) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"the precision is {precision!r}, and one of {', '.join(PRECISIONS)} was expected")
        self._steps = [
            _OpenVino(folder / f"{name}.onnx", threads, precision)
            if name in on_openvino
            else _OnnxRuntime(folder / f"{name}.onnx", threads)
            for name in graphs
        ]

    def run(self, tensors: dict[str, np.ndarray]) -> None:
        """Add what the graphs compute to the tensors; a later run may overwrite it."""
        for step in self._steps:
            step.run(tensors)


class _OnnxRuntime:
    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, tensors: dict[str, np.ndarray]) -> None:
        answers = self._session.run(self._outputs, {name: tensors[name] for name in self._inputs})
        tensors.update(zip(self._outputs, answers, strict=True))


class _OpenVino:
    def __init__(self, path: Path, threads: int, precision: str) -> None:
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ValueError("bf16 was asked for, and this CPU has no instructions for it: serve without --bf16")
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": precision,
        }
        self._request = core.compile_model(str(path), "CPU", settings).create_infer_request()
        self._inputs = [value.get_any_name() for value in self._request.model_inputs]
        self._outputs = [value.get_any_name() for value in self._request.model_outputs]
        # OpenVINO's binding initialises itself in its first call. Two first calls at once wait for each other for ever,
        # one with the GIL, the other with the initialisation (seen in 2026.4.1), so the first is made here, alone.
        self.run({value.get_any_name(): _blank(value) for value in self._request.model_inputs})

    def run(self, tensors: dict[str, np.ndarray]) -> None:
        answers = self._request.infer(
            {name: tensors[name] for name in self._inputs}, share_inputs=True, share_outputs=True
        )
        tensors.update({name: answers[name] for name in self._outputs})


def _blank(wanted: "openvino.ConstOutput") -> np.ndarray:
    """Return zeros that a graph takes, one where a dimension is free."""
    shape = [side.get_length() if side.is_static else 1 for side in wanted.get_partial_shape()]
    return np.zeros(shape, wanted.get_element_type().to_dtype())
