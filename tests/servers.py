"""Real tritonservers that answer oddly: from a repository of ours whose model was replaced."""

from __future__ import annotations

import time

from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Server

from lymphcad.errors import CommandError

_MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            image = pb.get_input_tensor_by_name(request, "IMAGE").as_numpy()
            count, size = image.shape[0], {size}
            {body}
            tensors = [pb.Tensor("PROBABILITY", probability), pb.Tensor("HEATMAP", np.zeros((count, size, size), np.uint8))]
            answers.append(pb.InferenceResponse(tensors))
        return answers
"""  # noqa: E501
RIGHT = "probability = np.full((count, 1), 0.25, np.float32)"
NONSENSE = "probability = np.full((count, 1), 7.0, np.float32)"
SLOW = f"time.sleep(0.3); {RIGHT}"
CRASHES = "import os; os.kill(os.getppid(), 9)"
FAILS = "raise ValueError('made for the test')"


def odd_repository(folder, bundle, body):
    """Write a repository that says that it serves a bundle, and answers what a line of Python makes of it."""
    write_repository(bundle, folder, Target.EMBEDDED)
    model = _MODEL.format(size=bundle.manifest.preprocess.size, body=body)
    (folder / "lymph_node" / "1" / "model.py").write_text(model, encoding="utf-8")
    return folder


def started(models, ports, seconds=30):
    """Start a server; on the ports of one that was killed, which the system may not have freed yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Server(models, ports)
        except CommandError:  # noqa: PERF203
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
