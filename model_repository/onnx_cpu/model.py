"""Runs ONNX graphs on the CPU inside Triton's Python backend: the engine of the server that pip installs.

One file for every model of the repository; ``config.pbtxt`` says by its parameters what this one runs:

graphs, openvino, threads, precision
    See `onnx_engine.Engine`; threads are those of each instance.
sha256
    Of the files beside this one, ``name:digest`` with commas.

A model whose files have changed, or whose golden inputs do not give the outputs that came with the bundle, does not
load, and the server does not become ready.

The file needs nothing else of LymphCAD than ``onnx_engine.py`` beside it: the server's Python sees its own packages
only.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from onnx_engine import Engine


class TritonPythonModel:
    """Called by Triton's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graphs."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        folder = Path(args["model_repository"]) / args["model_version"]
        for entry in parameters["sha256"].split(","):
            name, _, digest = entry.partition(":")
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{name} was changed since the repository was written: write it again from the bundle")
        self._engine = Engine(
            folder,
            parameters["graphs"].split(","),
            parameters["openvino"].split(","),
            int(parameters["threads"]),
            parameters["precision"],
        )
        self._inputs = [value["name"] for value in config["input"]]
        self._outputs = [value["name"] for value in config["output"]]
        self._check_golden(folder / "golden.npz")

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
        self._engine.run(tensors)
        responses = []
        first = 0
        for part in parts:
            last = first + len(part[0])
            responses.append(self._response({name: tensors[name][first:last] for name in self._outputs}))
            first = last
        return responses

    def _check_golden(self, path: Path) -> None:
        """Refuse to load where this machine computes something else than the bundle was proven with."""
        with np.load(path, allow_pickle=False) as golden:
            probability, heatmap, relative = golden["tolerance"]
            made = [name for name in golden.files if name not in ("tolerance", *self._inputs)]
            for row in range(len(golden[self._inputs[0]])):
                tensors = {name: golden[name][row : row + 1] for name in self._inputs}
                self._engine.run(tensors)
                for name in made:
                    wanted = golden[name][row : row + 1].astype(np.float64)
                    off = np.abs(tensors[name] - wanted)
                    if name == "PROBABILITY":
                        found, limit = off.max(), probability
                    elif name == "HEATMAP":
                        found, limit = off.mean(), heatmap
                    else:
                        size = max(np.sqrt(np.mean(wanted**2)), 1e-6)
                        found, limit = np.sqrt(np.mean(off**2)) / size, relative
                    if not found <= limit:
                        raise ValueError(
                            f"{name} of the golden inputs is off by {found:.3g}, and at most {limit:g} is accepted:"
                            " this machine does not compute what the bundle was proven with"
                        )

    def _response(self, outputs: dict[str, np.ndarray]) -> "pb_utils.InferenceResponse":
        """Answer one request, or say that its numbers give no score."""
        for name, value in outputs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                error = pb_utils.TritonError(f"{name} is not finite: check SPACING_MM and CENTER")
                return pb_utils.InferenceResponse(error=error)
        tensors = [pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in outputs.items()]
        return pb_utils.InferenceResponse(tensors)
