"""Write the graphs as ONNX, three and the one merged of them, with names, types and axes of the tensor contract."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import onnx
import torch
from onnx import compose
from torch.export import Dim

from lymphcad.bundle import CAM, PREPROCESS, Precision

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad_train.graphs import Cam, Preprocess
    from torch import nn

OPSET = 20


def write_graphs(directory: Path, preprocess: Preprocess, network: nn.Module, cam: Cam, size: int) -> tuple[int, int]:
    """Export preprocess, CNN (float32) and CAM.

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
        directory / PREPROCESS,
        preprocess,
        {"image": image, "spacing_mm": pair / 96, "center": pair},
        ["IMAGE", "SPACING_MM", "CENTER"],
        ["CROP"],
        {"image": {0: batch, 1: Dim("H", min=16, max=4096), 2: Dim("W", min=16, max=4096)},
         "spacing_mm": {0: batch}, "center": {0: batch}},
    )  # fmt: skip
    crop = torch.zeros(2, 1, size, size)
    _export(cnn_file(directory, "fp32"), network, {"crop": crop}, ["CROP"], ["LOGITS", "MAPS"], {"crop": {0: batch}})
    with torch.inference_mode():
        logits, maps = network(crop)
    _export(
        directory / CAM,
        cam,
        {"logits": logits.clone(), "maps": maps.clone()},
        ["LOGITS", "MAPS"],
        ["PROBABILITY", "HEATMAP"],
        {"logits": {0: batch}, "maps": {0: batch}},
    )
    return int(maps.shape[2]), int(maps.shape[3])


def cnn_file(directory: Path, precision: Precision) -> Path:
    """Return the file of the CNN in a precision, in a folder that is to become a bundle."""
    return directory / f"cnn.{precision}.onnx"


def edge_file(directory: Path, precision: Precision) -> Path:
    """Return the file of the merged graph, likewise."""
    return directory / f"edge.{precision}.onnx"


def write_edge(directory: Path, precision: Precision) -> None:
    """Merge preprocess, CNN and CAM into one graph, IMAGE, SPACING_MM and CENTER to PROBABILITY and HEATMAP.

    Parameters
    ----------
    directory
        With the three.
    precision
        Of the CNN that is taken.
    """
    parts = {"preprocess": PREPROCESS, "cnn": cnn_file(directory, precision).name, "cam": CAM}
    # What is within a graph gets its name as a prefix; the contract's tensors keep theirs.
    models = [onnx.load(directory / file) for file in parts.values()]
    version = max(model.ir_version for model in models)
    for name, model in zip(parts, models, strict=True):
        del model.graph.value_info[:]  # it may name outputs, which would then be renamed
        model.ir_version = version
        compose.add_prefix(model, f"{name}/", rename_inputs=False, rename_outputs=False, inplace=True)
    merged = compose.merge_models(models[0], models[1], [("CROP", "CROP")])
    merged = compose.merge_models(merged, models[2], [("LOGITS", "LOGITS"), ("MAPS", "MAPS")])
    merged.graph.name = "edge"
    onnx.checker.check_model(merged)
    edge_file(directory, precision).write_bytes(merged.SerializeToString(deterministic=True))


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
