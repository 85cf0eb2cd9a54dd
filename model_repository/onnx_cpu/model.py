"""Runs ONNX graphs on the CPU inside Triton's Python backend: the engine of the server that pip installs.

One file for every model of the repository; ``config.pbtxt`` says by its parameters what this one runs:

graphs
    Names of graphs beside this file, without ``.onnx``, run one after the other on the same named tensors.
openvino
    Those of them that OpenVINO runs (it is the fastest on a CNN); ONNX Runtime runs the others, for OpenVINO's bf16
    on AMX spoils the matrix products of the preprocessing.
threads
    Of each instance.

The file needs nothing else of LymphCAD: the server's Python sees its own packages only.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import triton_python_backend_utils as pb_utils


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
    def __init__(self, path: Path, threads: int) -> None:
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
        self._request = core.compile_model(str(path), "CPU", settings).create_infer_request()
        self._inputs = [value.get_any_name() for value in self._request.model_inputs]
        self._outputs = [value.get_any_name() for value in self._request.model_outputs]

    def run(self, tensors: dict[str, np.ndarray]) -> None:
        answers = self._request.infer({name: tensors[name] for name in self._inputs}, share_inputs=True)
        tensors.update({name: answers[name] for name in self._outputs})


class TritonPythonModel:
    """Called by Triton's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graphs."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        folder = Path(args["model_repository"]) / args["model_version"]
        on_openvino = parameters.get("openvino", "").split(",")
        threads = int(parameters["threads"])
        self._steps = [
            (_OpenVino if name in on_openvino else _OnnxRuntime)(folder / f"{name}.onnx", threads)
            for name in parameters["graphs"].split(",")
        ]
        self._inputs = [value["name"] for value in config["input"]]
        self._outputs = [value["name"] for value in config["output"]]

    def execute(self, requests: list) -> list:
        """Run one batch: the requests that Triton's batcher has put together are of one shape."""
        parts = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs]
            for request in requests
        ]
        if len(requests) == 1:
            tensors = dict(zip(self._inputs, parts[0], strict=True))
        else:
            stacked = (np.concatenate(tensor) for tensor in zip(*parts, strict=True))
            tensors = dict(zip(self._inputs, stacked, strict=True))
        for step in self._steps:
            step.run(tensors)
        responses = []
        first = 0
        for part in parts:
            last = first + len(part[0])
            responses.append(self._response({name: tensors[name][first:last] for name in self._outputs}))
            first = last
        return responses

    def _response(self, outputs: dict[str, np.ndarray]) -> "pb_utils.InferenceResponse":
        """Answer one request, or say that its numbers give no score."""
        for name, value in outputs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                error = pb_utils.TritonError(f"{name} is not finite: check SPACING_MM and CENTER")
                return pb_utils.InferenceResponse(error=error)
        tensors = [pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in outputs.items()]
        return pb_utils.InferenceResponse(tensors)
