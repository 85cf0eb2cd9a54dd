"""Compare an engine with ONNX Runtime: a GPU build can be wrong without failing, TensorRT 11.2 gave NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from lymphcad.phantom.anatomy import draw_neck, paint_neck
from lymphcad.phantom.canvas import Canvas, scan
from lymphcad.phantom.cohort import SIZE
from lymphcad.phantom.node import paint_node, place_node
from lymphcad.phantom.signs import draw_signs
from lymphcad.plan import Comparison
from lymphcad_export.parity import MAX_PROBABILITY_DIFFERENCE, ParityError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from lymphcad.bundle import Bundle

    Floats = npt.NDArray[np.float32]
    Run = Callable[[Floats], dict[str, Floats]]

NODES = 16
MAX_HEATMAP_DIFFERENCE = 1.0
"""Mean of a crop, grey levels of 255."""


def compare(run: Run, onnx: bytes, bundle: Bundle, batches: tuple[int, ...]) -> Comparison:
    """Compare an engine with ONNX Runtime on phantom nodes, in batches of every size that it was tuned for.

    Parameters
    ----------
    run
        The engine: CROP, float32 [B, 1, S, S], to LOGITS and MAPS.
    onnx
        The graph that it was built from.
    bundle
        Whose preprocessing cuts the crops, and whose heatmap and temperature are applied.
    batches
        Values of B.

    Returns
    -------
    Comparison
        Within the limits.

    Raises
    ------
    ParityError
        If a value is not finite or too far from ONNX Runtime's.
    """
    crops = phantom_crops(bundle)
    cam = _session((bundle.path / "cam.onnx").read_bytes())
    expected = _ask(cam, _ask(_session(onnx), {"CROP": crops}))
    furthest = furthest_heat = 0.0
    for batch in batches:
        # The nodes repeated: a larger batch has them in other places.
        rows = np.arange(batch) % NODES
        found = run(np.ascontiguousarray(crops[rows]))
        broken = [name for name, value in found.items() if not np.isfinite(value).all()]
        if broken:
            raise ParityError(
                f"the engine's {' and '.join(broken)} are not finite in a batch of {batch}: nothing was published; try"
                " another version of TensorRT"
            )
        answer = _ask(cam, found)
        furthest = max(furthest, float(np.abs(answer["PROBABILITY"] - expected["PROBABILITY"][rows]).max()))
        heat = np.abs(answer["HEATMAP"].astype(np.int16) - expected["HEATMAP"][rows])
        furthest_heat = max(furthest_heat, float(heat.mean(axis=(1, 2)).max()))
    for what, value, limit in (
        ("a probability", furthest, MAX_PROBABILITY_DIFFERENCE["fp16"]),
        ("a heatmap, in grey levels on average,", furthest_heat, MAX_HEATMAP_DIFFERENCE),
    ):
        if value > limit:
            raise ParityError(
                f"the engine is too far from ONNX Runtime on the same crops, nothing was published: {what} differs by"
                f" {value:.4g}, and at most {limit:g} is accepted; try another version of TensorRT"
            )
    return Comparison(crops=sum(batches), probability_max=furthest, heatmap_mean=furthest_heat)


def phantom_crops(bundle: Bundle) -> Floats:
    """Return what a bundle's preprocessing makes of `NODES` phantom nodes, float32 [N, 1, S, S]."""
    images, spacings, centers = [], [], []
    for number in range(NODES):
        rng = np.random.default_rng(number)
        neck, signs = draw_neck(rng, SIZE), draw_signs(rng, number % 2)
        shape = place_node(neck, signs, rng)
        canvas = Canvas(SIZE, neck.spacing_mm, neck.middle, neck.turn)
        paint_neck(canvas, neck, number / NODES, rng)
        paint_node(canvas, shape, signs, rng)
        images.append(scan(canvas.hu, rng, neck.blur_mm / neck.spacing_mm, neck.noise_hu))
        spacings.append([neck.spacing_mm] * 2)
        centers.append(canvas.pixel(shape.x, shape.y))
    pairs = {"SPACING_MM": np.array(spacings, np.float32), "CENTER": np.array(centers, np.float32)}
    return _ask(_session((bundle.path / "preprocess.onnx").read_bytes()), {"IMAGE": np.stack(images), **pairs})["CROP"]


def _session(model: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def _ask(session: onnxruntime.InferenceSession, tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, Floats]:
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, tensors), strict=True))
