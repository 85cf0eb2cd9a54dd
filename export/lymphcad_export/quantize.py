"""The CNN in eight bits: convolutions with a scale for each output channel, activations calibrated on real crops."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy.typing as npt

OPERATORS = ("Conv", "Relu", "Clip", "MaxPool")
"""What is quantized: convolutions with batch normalisation folded in, and what stands between them, so that a tensor
stays in eight bits. A Relu or Clip becomes the end of its convolution's scale, which else reaches to values that it
cuts off (EfficientNet-Lite0 on lung nodules: 4 of 414 calls changed, and on another run without it 18 of 329). The
sums of residual branches and the first convolution stay in float32. That they must is not shown: on the run of an
earlier demo bundle the logits' standard deviation was 0.031 with them in eight bits and without."""
_BATCH = 16
_CORRECTED_ON = 256
"""Calibration crops over which the logits' shift is averaged."""
LOOKED_AT = 32
"""Calibration crops on which the cost of some convolutions is measured."""
GROUPS = 16
"""At most, whose costs are measured. Neighbours share a tensor, whose steps cost the one as much as the other."""


class Quantizer:
    """Makes explicitly quantized graphs (QuantizeLinear, DequantizeLinear) of one float32 CNN, calibrated once.

    Weights are signed and symmetric, a scale for each output channel; activations unsigned, a scale for each tensor.
    The input's normalisation and the first convolution, the 1x1 convolution that makes the maps, their mean and the
    bias stay in float32; the heatmap is read off the last.

    Parameters
    ----------
    source
        The graph, CROP to LOGITS and MAPS.
    crops
        float32 [N, 1, S, S], 0..1, of training images only.
    """

    def __init__(self, source: Path, crops: npt.NDArray[np.float32]) -> None:
        self._source, self._crops = source, crops
        graph = onnx.load(source).graph
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        self._edges = {convolutions[0].name, convolutions[-1].name}
        self._inner = convolutions[1:-1]
        self._followers = {
            node.input[0]: node.name for node in graph.node if node.op_type in ("Relu", "Clip") and node.input
        }
        with tempfile.TemporaryDirectory() as folder:
            calibrator = create_calibrator(
                source,
                list(OPERATORS),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=CalibrationMethod.MinMax,
            )
            calibrator.collect_data(_Crops(crops))
            self._ranges = calibrator.compute_data()
        self._logits = logits_of(source.read_bytes(), crops[:_CORRECTED_ON])

    @property
    def convolutions(self) -> list[str]:
        """Names of those that are quantized unless they are kept."""
        return [node.name for node in self._inner]

    def write(self, target: Path, keep: Collection[str] = ()) -> None:
        """Write the graph in eight bits; what rounding adds to the logits on average is taken out of their bias.

        Parameters
        ----------
        target
            The new graph.
        keep
            Convolutions that stay in float32.
        """
        quantized = self._quantized([], [*self._edges, *keep])
        bias = _bias(quantized.graph)
        if bias is not None:  # there are logits without one
            found = logits_of(quantized.SerializeToString(), self._crops[:_CORRECTED_ON])
            shift = (found - self._logits).mean(axis=0)
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) - shift, bias.name))
        target.write_bytes(quantized.SerializeToString(deterministic=True))

    def by_cost(self) -> list[list[str]]:
        """Return the convolutions in groups of neighbours, the group first that moves the logits most by itself."""
        crops, logits = self._crops[:LOOKED_AT], self._logits[:LOOKED_AT]
        margin = logits[:, 1] - logits[:, 0]
        costs = []
        for part in np.array_split(np.arange(len(self._inner)), min(GROUPS, len(self._inner))):
            group = [self._inner[at] for at in part]
            names = [node.name for node in group]
            followers = [self._followers[node.output[0]] for node in group if node.output[0] in self._followers]
            found = logits_of(self._quantized([*names, *followers], []).SerializeToString(), crops)
            # The mean is taken out of the bias afterwards, so it costs nothing.
            costs.append((float(np.std(found[:, 1] - found[:, 0] - margin)), names))
        return [names for _, names in sorted(costs, key=lambda cost: -cost[0])]

    def _quantized(self, only: list[str], exclude: list[str]) -> onnx.ModelProto:
        quantizer = QDQQuantizer(
            load_model_with_shape_infer(self._source),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=only,
            nodes_to_exclude=exclude,
            op_types_to_quantize=list(OPERATORS),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        return quantizer.model.model


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


def logits_of(model: bytes, crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what a CNN graph makes of crops, float32 [N, 1, S, S], in ONNX Runtime: LOGITS, float32 [N, 2]."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    batches = (crops[first : first + _BATCH] for first in range(0, len(crops), _BATCH))
    return np.concatenate([session.run(["LOGITS"], {"CROP": batch})[0] for batch in batches])


class _Crops(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, crops: npt.NDArray[np.float32]) -> None:
        self._batches = iter([crops[first : first + _BATCH] for first in range(0, len(crops), _BATCH)])

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"CROP": batch}
