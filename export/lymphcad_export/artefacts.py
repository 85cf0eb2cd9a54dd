"""The CNN in each precision, made and proven; where a proof fails, what costs most stays in higher precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lymphcad_export.half import half_by_cost, to_half
from lymphcad_export.onnx_graphs import cnn_file, write_edge
from lymphcad_export.quantize import Quantizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from lymphcad.bundle import Precision
    from lymphcad_export.proof import Prover


def make_proven(
    precision: Precision,
    prover: Prover,
    crops: npt.NDArray[np.float32],
    aside: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Make the CNN and the merged graph of a precision, and prove them.

    Parameters
    ----------
    precision
        Of the CNN.
    prover
        Its folder has the graphs in float32.
    crops
        float32 [N, 1, S, S], 0..1, of training images only.
    aside
        Where a failure's pictures go.
    say
        Told what is going on.

    Returns
    -------
    dict of str to Any
        What stayed in higher precision.

    Raises
    ------
    ParityError
        If nothing that could be tried holds the limits; the pictures are of what was tried last.
    """
    broken: list[str] = []
    attempts = {"fp32": _as_it_is, "fp16": _half, "int8": _quantized}[precision](prover.folder, crops)
    for kept in attempts:
        if broken:
            say(f"{broken[0]}: trying with {kept['in_words']} in float32")
        write_edge(prover.folder, precision)
        broken = prover.broken(precision)
        if not broken:
            return {name: value for name, value in kept.items() if name != "in_words"}
    raise prover.refuse(precision, broken, aside)


def _as_it_is(folder: Path, crops: npt.NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    del folder, crops
    yield {}


def _half(folder: Path, crops: npt.NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    """Convert everything to float16, then leave the costliest groups of nodes in float32."""
    source = cnn_file(folder, "fp32")
    for kept in _more_and_more(lambda: half_by_cost(source, crops)):
        to_half(source, cnn_file(folder, "fp16"), crops, kept)
        yield {"nodes_in_float32": kept, "in_words": f"the {len(kept)} costliest nodes"}


def _quantized(folder: Path, crops: npt.NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    """Quantize all convolutions, then leave the costliest groups of them in float32."""
    quantizer = Quantizer(cnn_file(folder, "fp32"), crops)
    for kept in _more_and_more(quantizer.by_cost):
        quantizer.write(cnn_file(folder, "int8"), kept)
        words = f"the {len(kept)} costliest of {len(quantizer.convolutions)} convolutions"
        yield {"convolutions_in_float32": kept, "of": len(quantizer.convolutions), "in_words": words}


def _more_and_more(by_cost: Callable[[], list[list[str]]]) -> Iterator[list[str]]:
    """Yield no name, then those of the costliest 1, 2, 4, ... groups, up to half; costs are measured when needed."""
    yield []
    groups = by_cost()
    count = 1
    while count <= len(groups) // 2:
        yield [name for group in groups[:count] for name in group]
        count *= 2
