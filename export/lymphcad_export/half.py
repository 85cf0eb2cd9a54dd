"""The CNN in sixteen bits: a strongly typed graph, which TensorRT 10 and 11, ONNX Runtime and OpenVINO all take."""

from __future__ import annotations

import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from lymphcad_export.quantize import GROUPS, LOOKED_AT, logits_of

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy.typing as npt

_CROPS = 16
"""Whose activations show which layers would leave the range of float16."""


def to_half(source: Path, target: Path, crops: npt.NDArray[np.float32], keep: Collection[str] = ()) -> None:
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
        Names of nodes that stay in float32.
    """
    target.write_bytes(_converted(source, crops, keep).SerializeToString(deterministic=True))


def half_by_cost(source: Path, crops: npt.NDArray[np.float32]) -> list[list[str]]:
    """Return the nodes in groups of neighbours, the group first that moves the logits most by itself in float16."""
    names = [node.name for node in onnx.load(source).graph.node]
    crops = crops[:LOOKED_AT]
    exact = logits_of(source.read_bytes(), crops)
    costs = []
    for part in np.array_split(np.arange(len(names)), min(GROUPS, len(names))):
        group = [names[at] for at in part]
        made = _converted(source, crops, set(names) - set(group))
        off = logits_of(made.SerializeToString(), crops) - exact
        costs.append((float(np.sqrt(np.mean((off[:, 1] - off[:, 0]) ** 2))), group))
    return [group for _, group in sorted(costs, key=lambda cost: -cost[0])]


def _converted(source: Path, crops: npt.NDArray[np.float32], keep: Collection[str]) -> onnx.ModelProto:
    from modelopt.onnx.autocast import convert_to_mixed_precision

    for name in ("modelopt.onnx", "modelopt.onnx.autocast"):
        logging.getLogger(name).setLevel(logging.ERROR)  # each step of it is reported on the terminal otherwise
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "crops.npz"
        np.savez(data, CROP=crops[:_CROPS])
        model: onnx.ModelProto = convert_to_mixed_precision(
            onnx_path=str(source),
            low_precision_type="fp16",
            keep_io_types=True,
            calibration_data=str(data),
            nodes_to_exclude=[f"^{re.escape(name)}$" for name in sorted(keep)] or None,
        )
    del model.metadata_props[:]
    onnx.checker.check_model(model)
    return model
