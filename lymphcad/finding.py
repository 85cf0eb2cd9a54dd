"""The answer for one node: a calibrated probability, the call at the bundle's threshold, and the heatmap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.bundle import bundle_label
from lymphcad.errors import Reason, ServerError

if TYPE_CHECKING:
    import numpy.typing as npt

    from lymphcad.bundle import Manifest


@dataclass(frozen=True)
class Finding:
    """The answer for one node.

    Attributes
    ----------
    probability
        That the node is metastatic, 0..1, calibrated.
    call
        ``metastatic`` at or above the threshold, else ``benign``.
    threshold
        The bundle's operating point.
    heatmap
        uint8 [S, S], evidence for metastasis over the field of view; 255 is the bundle's evidence scale.
    bundle
        Name and digest of the bundle that answered.
    """

    probability: float
    call: str
    threshold: float
    heatmap: npt.NDArray[np.uint8]
    bundle: str


def finding(
    manifest: Manifest, digest: str, probability: npt.NDArray[np.float32], heatmap: npt.NDArray[np.uint8]
) -> Finding:
    """Check an engine's answer and give it its meaning.

    Parameters
    ----------
    manifest, digest
        The bundle's.
    probability
        float32 [1, 1].
    heatmap
        uint8 [1, S, S].

    Returns
    -------
    Finding
        Valid.

    Raises
    ------
    ServerError
        ``bad_answer`` if shape, type or range is not the contract's.
    """
    size = manifest.preprocess.size
    for name, value, shape, dtype in (
        ("PROBABILITY", probability, (1, 1), np.float32),
        ("HEATMAP", heatmap, (1, size, size), np.uint8),
    ):
        if value.shape != shape or value.dtype != dtype:
            raise ServerError(
                Reason.BAD_ANSWER,
                f"{name} came back as {value.dtype} {list(value.shape)}, and {np.dtype(dtype)} {list(shape)} was"
                " expected: check the engine's log and the graphs that it loaded",
            )
    score = float(probability[0, 0])
    if not 0 <= score <= 1:
        raise ServerError(
            Reason.BAD_ANSWER, f"PROBABILITY came back as {score}, and 0 to 1 was expected: check the engine's log"
        )
    call = manifest.classes[int(score >= manifest.threshold)]
    return Finding(score, call, manifest.threshold, heatmap[0], bundle_label(manifest, digest))
