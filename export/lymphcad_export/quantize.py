"""The CNN in eight bits: convolutions with a scale for each output channel, activations calibrated on real crops."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

OPERATORS = ("Conv", "Add", "Relu", "MaxPool")
"""What is quantized: convolutions with batch normalisation folded in, the sums of residual branches, and what stands
between them, so that a tensor stays in eight bits. Measured on ResNet50: a tenth faster in both engines than without
Relu, and not less exact."""
_BATCH = 8


def quantize_cnn(path: Path, crops: npt.NDArray[np.float32]) -> None:
    """Replace a float32 CNN graph by one with explicit quantization (QuantizeLinear, DequantizeLinear).

    Weights are signed and symmetric, a scale for each output channel; activations unsigned, a scale for each tensor.
    The input's normalisation, the 1x1 convolution that makes the maps, their mean and the bias stay in float32: they
    cost nothing, and the heatmap is read off them.

    Parameters
    ----------
    path
        The graph, CROP to LOGITS and MAPS; overwritten.
    crops
        float32 [N, 1, S, S], 0..1, of training images only.
    """
    model = onnx.load(path)
    kept = [node.name for node in model.graph.node if {"LOGITS", "MAPS"} & set(node.output)]
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


class _Crops(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, crops: npt.NDArray[np.float32]) -> None:
        self._batches = iter([crops[first : first + _BATCH] for first in range(0, len(crops), _BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"CROP": batch}
