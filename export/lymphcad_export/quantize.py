"""The CNN in eight bits: convolutions with a scale for each output channel, activations calibrated on real crops."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

OPERATORS = ("Conv", "Relu", "Clip", "MaxPool")
"""What is quantized: convolutions with batch normalisation folded in, and what stands between them, so that a tensor
stays in eight bits. A Relu or Clip becomes the end of its convolution's scale, which else reaches to values that it
cuts off (EfficientNet-Lite0 on lung nodules: 4 of 414 calls changed, and on another run without it 18 of 329). The
sums of residual branches and the first convolution stay in float32. That they must is not shown: on the run of an
earlier demo bundle the logits' standard deviation was 0.031 with them in eight bits and without."""
_BATCH = 16


def quantize_cnn(path: Path, crops: npt.NDArray[np.float32]) -> None:
    """Replace a float32 CNN graph by one with explicit quantization (QuantizeLinear, DequantizeLinear).

    Weights are signed and symmetric, a scale for each output channel; activations unsigned, a scale for each tensor.
    The input's normalisation and the first convolution, the 1x1 convolution that makes the maps, their mean and the
    bias stay in float32; the heatmap is read off the last.

    Parameters
    ----------
    path
        The graph, CROP to LOGITS and MAPS; overwritten.
    crops
        float32 [N, 1, S, S], 0..1, of training images only.
    """
    original = path.read_bytes()
    model = onnx.load(path)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    kept = [convolutions[0], convolutions[-1]]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a preparation that the exporter has done: shapes, folded normalisation
    try:
        quantize_static(
            model,
            path,
            _Crops(crops),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
            calibrate_method=CalibrationMethod.MinMax,
        )
    finally:
        root.setLevel(level)
    _correct_bias(path, original, crops)


def _correct_bias(path: Path, original: bytes, crops: npt.NDArray[np.float32]) -> None:
    """Take out of the logits what rounding adds to them on average, as far as the calibration crops show it."""
    shift = _mean_logits(path.read_bytes(), crops) - _mean_logits(original, crops)
    quantized = onnx.load(path)
    bias = _bias(quantized.graph)
    if bias is None:
        return  # logits without one
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) - shift, bias.name))
    path.write_bytes(quantized.SerializeToString(deterministic=True))


def _bias(graph: onnx.GraphProto) -> onnx.TensorProto | None:
    """Return the constant that is added on the way to LOGITS last, before any mean over several looks."""
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    node = made_by.get("LOGITS")
    while node is not None and node.op_type != "Conv":
        if node.op_type == "Add":
            return next((constants[name] for name in node.input if name in constants), None)
        node = made_by.get(node.input[0])
    return None


def _mean_logits(model: bytes, crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    batches = (crops[first : first + _BATCH] for first in range(0, len(crops), _BATCH))
    mean: npt.NDArray[np.float32] = np.concatenate([session.run(["LOGITS"], {"CROP": b})[0] for b in batches]).mean(0)
    return mean


class _Crops(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, crops: npt.NDArray[np.float32]) -> None:
        self._batches = iter([crops[first : first + _BATCH] for first in range(0, len(crops), _BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"CROP": batch}
