"""What torch, and what engines that run the exported graphs, say of the crops of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import openvino
import torch
from lymphcad_train.data import Samples, collate
from torch.utils.data import DataLoader

from lymphcad.bundle import CAM, PREPROCESS, Precision
from lymphcad.errors import CommandError
from lymphcad_export.onnx_graphs import cnn_file, edge_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from lymphcad_train.cohort import Windows
    from lymphcad_train.graphs import Whole

    Arrays = dict[str, npt.NDArray[Any]]
    Run = Callable[[Arrays], Arrays]

SERVED = "openvino"
"""The engine that serves the CNN on a CPU."""
EDGE = "edge"
"""The merged graph, in ONNX Runtime."""
GPU = "onnxruntime-cuda"
"""ONNX Runtime's CUDA provider runs the CNN."""
BATCH = 16
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_EXACT = {CUDA: {"use_tf32": "0"}}
"""Options of a provider that make it multiply float32 in float32, not in the ten bits of TF32. Only for a graph that is
all float32: ONNX Runtime's provider then avoids the tensor cores in float16 too."""


@dataclass(frozen=True)
class Scores:
    """Probabilities, float64 [N], and heatmaps, uint8 [N, S, S]."""

    probabilities: npt.NDArray[np.float64]
    heatmaps: npt.NDArray[np.uint8]


def engines() -> list[str]:
    """Return what can run a bundle's graphs here; ONNX Runtime on a GPU where its build has it and there is one."""
    cuda = CUDA in onnxruntime.get_available_providers() and torch.cuda.is_available()
    return ["onnxruntime", SERVED, EDGE, *([GPU] if cuda else [])]


def torch_scores(whole: Whole, windows: Windows, rows: Sequence[int]) -> Scores:
    """Score rows of a run with torch in float32.

    Parameters
    ----------
    whole
        Preprocessing, network and heatmap.
    windows
        Of the run.
    rows
        Which of them.

    Returns
    -------
    Scores
        In the order of `rows`.
    """
    whole.eval()
    found = []
    with torch.inference_mode():
        for image, spacing, center in _batches(windows, rows):
            found.append(whole(image, spacing, center))
    return _scores([(p.numpy(), h.numpy()) for p, h in found])


def engine_scores(folder: Path, precision: Precision, engine: str, windows: Windows, rows: Sequence[int]) -> Scores:
    """Score rows of a run with the exported graphs.

    Parameters
    ----------
    folder
        With the graphs.
    precision
        Of the CNN.
    engine
        One of `engines`.
    windows, rows
        As in `torch_scores`.

    Returns
    -------
    Scores
        In the order of `rows`.
    """
    run = open_graphs(folder, precision, engine)
    answers = (run(inputs) for inputs in _inputs(windows, rows))  # of which only the outputs are kept
    return _scores([(answer["PROBABILITY"], answer["HEATMAP"]) for answer in answers])


def crops_of(folder: Path, windows: Windows, rows: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return the crops that the exported preprocessing makes of rows of a run, float32 [N, 1, S, S]."""
    preprocess = _onnxruntime(folder / PREPROCESS)
    return np.concatenate([preprocess(inputs)["CROP"] for inputs in _inputs(windows, rows)])


def open_graphs(folder: Path, precision: Precision, engine: str) -> Run:
    """Return what runs the graphs, from IMAGE, SPACING_MM and CENTER to the outputs of all of them.

    Of the merged graph these are PROBABILITY and HEATMAP only. Preprocess and CAM run in ONNX Runtime on the CPU, as
    they are served.

    Parameters
    ----------
    folder
        With the graphs.
    precision
        Of the CNN.
    engine
        One of `engines`; OpenVINO computes in float32 where the graph is not int8.

    Returns
    -------
    callable
        Takes and gives arrays by the names of the tensors.

    Raises
    ------
    CommandError
        If the engine is `GPU` and ONNX Runtime cannot use one.
    """
    if engine == EDGE:
        return _onnxruntime(edge_file(folder, precision))
    opened: dict[str, Callable[[Path], Run]] = {
        "onnxruntime": _onnxruntime,
        GPU: lambda path: _onnxruntime(path, CUDA, exact=precision == "fp32"),
        SERVED: _openvino,
    }
    steps = [_onnxruntime(folder / PREPROCESS), opened[engine](cnn_file(folder, precision)), _onnxruntime(folder / CAM)]

    def run(tensors: Arrays) -> Arrays:
        for step in steps:
            tensors = tensors | step(tensors)
        return tensors

    return run


def open_cam(folder: Path) -> Run:
    """Return what runs the graph from LOGITS and MAPS to PROBABILITY and HEATMAP, in ONNX Runtime."""
    return _onnxruntime(folder / CAM)


def _inputs(windows: Windows, rows: Sequence[int]) -> Iterator[Arrays]:
    for image, spacing, center in _batches(windows, rows):
        yield {"IMAGE": image.numpy(), "SPACING_MM": spacing.numpy(), "CENTER": center.numpy()}


def _batches(windows: Windows, rows: Sequence[int]) -> DataLoader[Any]:
    samples = Samples(windows, np.zeros(len(windows)), rows)
    return DataLoader(samples, BATCH, collate_fn=lambda batch: collate(batch)[:3])


def _scores(batches: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]]) -> Scores:
    probabilities, heatmaps = zip(*batches, strict=True)
    return Scores(np.concatenate(probabilities)[:, 0].astype(np.float64), np.concatenate(heatmaps))


def open_session(path: Path, provider: str, *, exact: bool = False) -> Any:
    """Open a graph in ONNX Runtime.

    Parameters
    ----------
    path
        The graph.
    provider
        `CPU` or `CUDA`.
    exact
        Whether float32 is multiplied in float32 on a GPU.

    Returns
    -------
    onnxruntime.InferenceSession
        Which computes there.

    Raises
    ------
    CommandError
        If ONNX Runtime cannot use the provider.
    """
    options = _EXACT.get(provider, {}) if exact else {}
    session = onnxruntime.InferenceSession(path, providers=[(provider, options)])
    if provider not in session.get_providers():  # it takes the CPU instead, and only warns
        raise CommandError(
            f"ONNX Runtime {onnxruntime.__version__} cannot use {provider} here: on a machine with a GPU install"
            " onnxruntime-gpu for the CUDA version of torch in its place, or uninstall it to prove on the CPU alone"
        )
    return session


def _onnxruntime(path: Path, provider: str = CPU, *, exact: bool = False) -> Run:
    session = open_session(path, provider, exact=exact)
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]

    def run(tensors: Arrays) -> Arrays:
        return dict(zip(outputs, session.run(outputs, {name: tensors[name] for name in inputs}), strict=True))

    return run


def _openvino(path: Path) -> Run:
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = [value.get_any_name() for value in model.outputs]

    def run(tensors: Arrays) -> Arrays:
        answer = model({"CROP": tensors["CROP"]})
        return {name: answer[name] for name in outputs}

    return run
