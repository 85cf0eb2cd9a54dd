"""Write the three graphs as ONNX, with the names, types and dynamic axes of the tensor contract."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import onnx
import torch
from torch.export import Dim

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad_train.graphs import Cam, Preprocess
    from torch import nn

OPSET = 20


def write_graphs(directory: Path, preprocess: Preprocess, network: nn.Module, cam: Cam, size: int) -> tuple[int, int]:
    """Export preprocess.onnx, cnn.onnx (float32) and cam.onnx.

    Parameters
    ----------
    directory
        Where to write them.
    preprocess, network, cam
        The modules; the network takes float32 [B, 1, S, S] and gives logits [B, 2] and maps [B, 2, h, w].
    size
        S, pixels.

    Returns
    -------
    tuple of int
        h and w of the maps.
    """
    batch = Dim("B", min=1, max=1024)
    image = torch.zeros(2, 96, 128, dtype=torch.int16)
    pair = torch.full((2, 2), 48.0)
    _export(
        directory / "preprocess.onnx",
        preprocess,
        {"image": image, "spacing_mm": pair / 96, "center": pair},
        ["IMAGE", "SPACING_MM", "CENTER"],
        ["CROP"],
        {"image": {0: batch, 1: Dim("H", min=16, max=4096), 2: Dim("W", min=16, max=4096)},
         "spacing_mm": {0: batch}, "center": {0: batch}},
    )  # fmt: skip
    crop = torch.zeros(2, 1, size, size)
    _export(directory / "cnn.onnx", network, {"crop": crop}, ["CROP"], ["LOGITS", "MAPS"], {"crop": {0: batch}})
    with torch.inference_mode():
        logits, maps = network(crop)
    _export(
        directory / "cam.onnx",
        cam,
        {"logits": logits.clone(), "maps": maps.clone()},
        ["LOGITS", "MAPS"],
        ["PROBABILITY", "HEATMAP"],
        {"logits": {0: batch}, "maps": {0: batch}},
    )
    return int(maps.shape[2]), int(maps.shape[3])


def _export(
    path: Path,
    module: nn.Module,
    inputs: dict[str, torch.Tensor],
    input_names: list[str],
    output_names: list[str],
    dynamic_shapes: dict[str, dict[int, Dim]],
) -> None:
    """Export one module; what tracing leaves of paths and source lines is taken out, so that digests repeat."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        program = torch.onnx.export(
            module.eval(),
            kwargs=inputs,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"torch.onnx.export gave no program for {path.name}")
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
