"""The proof that exported graphs say what torch says, before anybody can take them for a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import openvino
import torch
from lymphcad_train.data import Samples, collate
from lymphcad_train.graphs import Whole
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from lymphcad.errors import LymphcadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from lymphcad_train.cohort import Windows

    Arrays = dict[str, npt.NDArray[Any]]

BATCH = 16
MAX_PROBABILITY_DIFFERENCE = {"fp32": 1e-3, "fp16": 5e-3}
"""Of a graph in floating point."""
MAX_FLIPPED_SHARE = 0.005
"""Of the crops, whose call an int8 graph may change; one is always allowed."""
AT_THRESHOLD = 0.01
"""A call that changed though its probability moved by no more than this was on the threshold: reported apart."""
MAX_AUROC_DIFFERENCE = 0.005


class ParityError(LymphcadError):
    """The graphs do not say what the network says, so they are not published (exit code 4)."""


@dataclass(frozen=True)
class Agreement:
    """How far an engine running the exported graphs is from torch in float32.

    Attributes
    ----------
    probability_max, probability_mean
        Largest and mean difference of the probabilities.
    heatmap_mean
        Mean difference of the heatmaps, grey levels of 255.
    flips
        Crops on the other side of the threshold.
    flips_beyond
        Those of them whose probability moved by more than `AT_THRESHOLD`.
    auroc_difference
        The engine's AUROC minus torch's.
    """

    probability_max: float
    probability_mean: float
    heatmap_mean: float
    flips: int
    flips_beyond: int
    auroc_difference: float


@dataclass(frozen=True)
class Scores:
    """Probabilities, float64 [N], and heatmaps, uint8 [N, S, S]."""

    probabilities: npt.NDArray[np.float64]
    heatmaps: npt.NDArray[np.uint8]


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


def engine_scores(folder: Path, engine: str, windows: Windows, rows: Sequence[int]) -> Scores:
    """Score rows of a run with the exported graphs.

    Parameters
    ----------
    folder
        With preprocess.onnx, cnn.onnx and cam.onnx.
    engine
        Which runs the CNN: ``onnxruntime``, or ``openvino`` in float32 where the graph is not int8. The other two
        always run in ONNX Runtime, as they are served.
    windows, rows
        As in `torch_scores`.

    Returns
    -------
    Scores
        In the order of `rows`.
    """
    preprocess, cam = _onnxruntime(folder / "preprocess.onnx"), _onnxruntime(folder / "cam.onnx")
    cnn = {"onnxruntime": _onnxruntime, "openvino": _openvino}[engine](folder / "cnn.onnx")
    found = []
    for image, spacing, center in _batches(windows, rows):
        crop = preprocess({"IMAGE": image.numpy(), "SPACING_MM": spacing.numpy(), "CENTER": center.numpy()})
        answer = cam(cnn(crop))
        found.append((answer["PROBABILITY"], answer["HEATMAP"]))
    return _scores(found)


def crops_of(folder: Path, windows: Windows, rows: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return the crops that the exported preprocessing makes of rows of a run, float32 [N, 1, S, S]."""
    preprocess = _onnxruntime(folder / "preprocess.onnx")
    return np.concatenate(
        [
            preprocess({"IMAGE": image.numpy(), "SPACING_MM": spacing.numpy(), "CENTER": center.numpy()})["CROP"]
            for image, spacing, center in _batches(windows, rows)
        ]
    )


def compare(found: Scores, reference: Scores, labels: npt.NDArray[np.int64], threshold: float) -> Agreement:
    """Compare an engine's scores with torch's.

    Parameters
    ----------
    found, reference
        Of the same rows.
    labels
        int64 [N], both classes.
    threshold
        A probability at or above it is called metastatic.

    Returns
    -------
    Agreement
        Differences.
    """
    distance = np.abs(found.probabilities - reference.probabilities)
    heat = np.abs(found.heatmaps.astype(np.int16) - reference.heatmaps)
    flips = (found.probabilities >= threshold) != (reference.probabilities >= threshold)
    aurocs = [roc_auc_score(labels, scores.probabilities) for scores in (found, reference)]
    return Agreement(
        probability_max=float(distance.max()),
        probability_mean=float(distance.mean()),
        heatmap_mean=float(heat.mean()),
        flips=int(flips.sum()),
        flips_beyond=int((flips & (distance > AT_THRESHOLD)).sum()),
        auroc_difference=float(aurocs[0] - aurocs[1]),
    )


def check(engine: str, agreement: Agreement, crops: int, precision: str) -> None:
    """Refuse graphs that are too far from torch.

    Parameters
    ----------
    engine
        For the message.
    agreement
        What was found.
    crops
        On how many.
    precision
        ``fp32``, ``fp16`` or ``int8``.

    Raises
    ------
    ParityError
        If a limit is exceeded, with the figure and the limit.
    """
    if precision in MAX_PROBABILITY_DIFFERENCE:
        limit = MAX_PROBABILITY_DIFFERENCE[precision]
        limits = [("largest difference of a probability", agreement.probability_max, limit)]
    else:
        limits = [
            (f"number of changed calls among {crops} crops", agreement.flips, max(1, int(MAX_FLIPPED_SHARE * crops))),
            ("change of the AUROC", abs(agreement.auroc_difference), MAX_AUROC_DIFFERENCE),
        ]
    for name, value, limit in limits:
        if not value <= limit:  # a NaN is refused too
            raise ParityError(
                f"the {precision} graphs in {engine} are too far from torch, nothing was published: the {name} is"
                f" {value:.4g}, and at most {limit:g} is accepted"
            )


def _batches(windows: Windows, rows: Sequence[int]) -> DataLoader[Any]:
    samples = Samples(windows, np.zeros(len(windows)), rows)
    return DataLoader(samples, BATCH, collate_fn=lambda batch: collate(batch)[:3])


def _scores(batches: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]]) -> Scores:
    probabilities, heatmaps = zip(*batches, strict=True)
    return Scores(np.concatenate(probabilities)[:, 0].astype(np.float64), np.concatenate(heatmaps))


def _onnxruntime(path: Path) -> Callable[[Arrays], Arrays]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]

    def run(tensors: Arrays) -> Arrays:
        return dict(zip(outputs, session.run(outputs, {name: tensors[name] for name in inputs}), strict=True))

    return run


def _openvino(path: Path) -> Callable[[Arrays], Arrays]:
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = [value.get_any_name() for value in model.outputs]

    def run(tensors: Arrays) -> Arrays:
        answer = model({"CROP": tensors["CROP"]})
        return {name: answer[name] for name in outputs}

    return run
