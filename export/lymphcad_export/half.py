"""The CNN in sixteen bits: a strongly typed graph, which TensorRT 10 and 11, ONNX Runtime and OpenVINO all take."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

POOLING = ("ReduceMean", "GlobalAveragePool", "AveragePool", "Softmax")
"""Sums over many values, which are the first to lose digits in sixteen bits."""
_CROPS = 16
"""Whose activations show which layers would leave the range of float16."""


def to_half(source: Path, target: Path, crops: npt.NDArray[np.float32], keep: Sequence[str] = ()) -> None:
    """Write a float32 CNN graph in float16, with its inputs and outputs in float32.

    By AutoCast of NVIDIA's ModelOpt: layers whose activations would leave the range of float16 stay in float32.

    Parameters
    ----------
    source
        The graph, CROP to LOGITS and MAPS.
    target
        The new one.
    crops
        float32 [N, 1, S, S], 0..1, of training images only; some of them are run.
    keep
        Operators that stay in float32.
    """
    from modelopt.onnx.autocast import convert_to_mixed_precision

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "crops.npz"
        np.savez(data, CROP=crops[:_CROPS])
        for name in ("modelopt.onnx", "modelopt.onnx.autocast"):
            logging.getLogger(name).setLevel(logging.ERROR)  # each step of it is reported on the terminal otherwise
        model = convert_to_mixed_precision(
            onnx_path=str(source),
            low_precision_type="fp16",
            keep_io_types=True,
            calibration_data=str(data),
            op_types_to_exclude=list(keep) or None,
        )
    del model.metadata_props[:]
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString(deterministic=True))
