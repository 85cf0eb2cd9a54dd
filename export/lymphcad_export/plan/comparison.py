"""Compare an engine with ONNX Runtime: a GPU build can be wrong without failing, TensorRT 11.2 gave NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lymphcad.golden import OUTPUTS, check_golden, read_golden
from lymphcad.plan import Comparison
from lymphcad_export.scores import open_cam, open_graphs

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from lymphcad.bundle import Bundle

    Floats = npt.NDArray[np.float32]
    Run = Callable[[Floats], dict[str, Floats]]

_TO_DO = "nothing was published: try another version of TensorRT"


def compare(run: Run, bundle: Bundle, batches: tuple[int, ...]) -> Comparison:
    """Compare an engine with ONNX Runtime on the golden inputs, in batches of every size that it was tuned for.

    Parameters
    ----------
    run
        The engine: CROP, float32 [B, 1, S, S], to LOGITS and MAPS.
    bundle
        Whose FP16 graph it was built from, and whose tolerances hold.
    batches
        Values of B.

    Returns
    -------
    Comparison
        Within the tolerances.

    Raises
    ------
    GoldenError
        If a value is not finite or too far from ONNX Runtime's.
    """
    reference = open_graphs(bundle.path, "fp16", "onnxruntime")(read_golden(bundle, "fp16"))
    crops, cam = reference["CROP"], open_cam(bundle.path)
    expected = {name: reference[name] for name in OUTPUTS}
    probability, heatmap = [], []
    for batch in batches:
        # As many batches as there are crops: each crop comes as often, and the larger the batch, in the more places.
        rows = np.arange(len(crops) * batch) % len(crops)
        answers = [run(np.ascontiguousarray(crops[part])) for part in np.split(rows, len(crops))]
        found = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
        found |= cam(found)
        for first in range(0, len(rows), len(crops)):
            each = {name: value[first : first + len(crops)] for name, value in found.items()}
            check_golden(each, expected, bundle.manifest.golden["fp16"], f"the engine in a batch of {batch}", _TO_DO)
        probability.append(np.abs(found["PROBABILITY"] - expected["PROBABILITY"][rows]).max())
        heatmap.append(np.abs(found["HEATMAP"].astype(np.int16) - expected["HEATMAP"][rows]).mean())
    return Comparison(
        crops=len(crops) * sum(batches), probability_max=float(max(probability)), heatmap_mean=float(max(heatmap))
    )
