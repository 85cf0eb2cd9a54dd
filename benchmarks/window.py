"""The one window of a slice that every contender scores, and the engine that they all run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lymphcad_serve.assets import MODEL_REPOSITORY

from lymphcad.geometry import cut_window
from lymphcad.slice import CtSlice

if TYPE_CHECKING:
    from lymphcad.bundle import Bundle, Preprocess
    from lymphcad.geometry import Window

GRAPHS = ["preprocess", "cnn", "cam"]
ENGINES = 2
"""Instances of the model in the embedded server, of one thread each."""
SIDE, SPACING_MM, NODE = 512, 0.45, (255.0, 260.0)
"""A neck CT: pixels, mm a pixel, row and column of the node."""


def sample_slice() -> CtSlice:
    """Return a slice of noisy soft tissue; what it shows makes no difference to speed."""
    hu = np.random.default_rng(0).normal(60, 40, (SIDE, SIDE)).astype(np.int16)
    return CtSlice(hu, (SPACING_MM, SPACING_MM), Path("none.dcm"))


def sample_window(preprocess: Preprocess) -> Window:
    """Return what the client sends for the node on it."""
    return cut_window(sample_slice(), *NODE, preprocess.field_of_view_mm, preprocess.size)


def tensors_of(window: Window) -> dict[str, Any]:
    """Return the inputs of the first graph, a batch of one."""
    return {
        "IMAGE": window.image[np.newaxis],
        "SPACING_MM": np.array([window.spacing_mm], np.float32),
        "CENTER": np.array([window.center], np.float32),
    }


def engine(bundle: Bundle, graphs: list[str], precision: str) -> Any:
    """Return the engine that the embedded server runs, with one thread, in this process."""
    spec = importlib.util.spec_from_file_location("onnx_engine", MODEL_REPOSITORY / "onnx_cpu" / "onnx_engine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cnn = bundle.cnn(bundle.manifest.preferred).stem
    names = [cnn if name == "cnn" else name for name in graphs]
    return module.Engine(bundle.path, names, [cnn], threads=1, precision=precision)
