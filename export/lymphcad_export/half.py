"""The CNN's weights in sixteen bits: half the file, the same float32 arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

_SMALLEST = 1024
"""Elements; smaller tensors (biases, normalisation) stay in float32, for they weigh nothing."""


def halve_weights(path: Path) -> None:
    """Store a float32 graph's weights as float16; engines turn them back into float32 when they load the graph.

    Parameters
    ----------
    path
        The graph; overwritten.

    Raises
    ------
    CommandError
        If a weight is too large for float16.
    """
    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise CommandError("a weight is too large for float16: export with --precision fp32")
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
