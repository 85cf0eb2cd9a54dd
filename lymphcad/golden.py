"""Golden inputs: a few windows that travel in the bundle with the outputs that its graphs must give for them.

A server or a runner that gives others computes wrongly, whatever its digests say: another instruction set that
saturates, a driver, a fusion, a plan of another graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lymphcad.bundle import GOLDEN, Precision, Tolerance
from lymphcad.errors import ProofError
from lymphcad.geometry import cut_window

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad.bundle import Bundle, Preprocess

    Arrays = dict[str, npt.NDArray[Any]]

INPUTS = ("IMAGE", "SPACING_MM", "CENTER", "CROP")
OUTPUTS = ("LOGITS", "MAPS", "PROBABILITY", "HEATMAP")
TOLERANCES = {
    "fp32": Tolerance(probability=0.002, heatmap=1.0, relative=0.002),
    "fp16": Tolerance(probability=0.01, heatmap=2.0, relative=0.05),
    "int8": Tolerance(probability=0.05, heatmap=6.0, relative=0.3),
    "bf16": Tolerance(probability=0.05, heatmap=6.0, relative=0.3),
}
"""Written into each bundle, and read from there. Engines add in another order, and in eight bits a value next to a
step lands on either side of it: that much is no fault."""
TO_DO = "use the versions that bundle.json names, or export the bundle here"
_COUNT, _SEED = 4, 20260102


class GoldenError(ProofError):
    """Graphs do not give the golden outputs on this machine."""


def golden_inputs(preprocess: Preprocess) -> Arrays:
    """Return windows of phantom nodes.

    Parameters
    ----------
    preprocess
        Of the bundle.

    Returns
    -------
    dict of str to array
        IMAGE int16 [4, h, w], SPACING_MM float32 [4, 2], CENTER float32 [4, 2].
    """
    from lymphcad.phantom.sample import sample_nodes  # which only an export needs, not each start of a runner

    windows = [cut_window(*node, preprocess.field_of_view_mm, preprocess.size) for node in sample_nodes(_COUNT, _SEED)]
    return {
        "IMAGE": np.stack([window.image for window in windows]),
        "SPACING_MM": np.array([window.spacing_mm for window in windows], np.float32),
        "CENTER": np.array([window.center for window in windows], np.float32),
    }


def write_golden(folder: Path, inputs: Arrays, outputs: dict[Precision, Arrays]) -> None:
    """Write `GOLDEN` into a folder.

    Parameters
    ----------
    folder
        That is to become a bundle.
    inputs
        `INPUTS`.
    outputs
        `OUTPUTS` in each precision.
    """
    named = {f"{name}.{precision}": value for precision, made in outputs.items() for name, value in made.items()}
    np.savez_compressed(folder / GOLDEN, **inputs, **named)


def read_golden(bundle: Bundle, precision: Precision) -> Arrays:
    """Return `INPUTS` and `OUTPUTS` of a bundle in a precision, by their names."""
    with np.load(bundle.path / GOLDEN, allow_pickle=False) as stored:
        found = {name: stored[name] for name in INPUTS}
        return found | {name: stored[f"{name}.{precision}"] for name in OUTPUTS}


def check_golden(found: Arrays, expected: Arrays, tolerance: Tolerance, who: str, todo: str = TO_DO) -> None:
    """Refuse outputs that are too far from the golden ones.

    Parameters
    ----------
    found
        Some of CROP and `OUTPUTS`.
    expected
        At least those.
    tolerance
        Of the precision that computed them.
    who
        Computed them, for the message.
    todo
        What can be done about it, for the message.

    Raises
    ------
    GoldenError
        With the figure and the limit; also if a shape differs or a number is not finite.
    """
    for name, value in found.items():
        wanted = expected[name]
        if value.shape != wanted.shape:
            raise GoldenError(
                f"{who} gives {name} as {list(value.shape)} for the golden inputs, and {list(wanted.shape)} was"
                f" expected; {todo}"
            )
        distance, limit = _distance(name, value.astype(np.float64), wanted.astype(np.float64), tolerance)
        if not distance <= limit:  # a NaN is refused too
            raise GoldenError(
                f"{who} does not compute what the bundle was proven with: {name} of the golden inputs is off by"
                f" {distance:.3g}, and at most {limit:g} is accepted; {todo}"
            )


def score_golden(run: Callable[[Arrays], Arrays], expected: Arrays, tolerance: Tolerance, who: str) -> None:
    """Run golden inputs one by one, as they come in service, and check everything that comes of them.

    Parameters
    ----------
    run
        Is given a batch of one of everything in `expected`, takes what it needs and returns what it makes, to which it
        may add what it was given.
    expected
        What `read_golden` returns, or some of it.
    tolerance, who
        As in `check_golden`.

    Raises
    ------
    GoldenError
        As in `check_golden`.
    """
    for row in range(len(next(iter(expected.values())))):
        wanted = {name: value[row : row + 1] for name, value in expected.items()}
        answer = run(dict(wanted))
        made = {name: answer[name] for name in ("CROP", *OUTPUTS) if name in answer and name in wanted}
        check_golden(made, wanted, tolerance, who)


def widened(tolerance: Tolerance, found: Arrays, expected: Arrays) -> Tolerance:
    """Return a tolerance that holds twice what another engine is off on the machine that makes the bundle.

    Parameters
    ----------
    tolerance
        At least this.
    found, expected
        `OUTPUTS` of the two engines.

    Returns
    -------
    Tolerance
        Equal to `tolerance` where the engines agree well.
    """
    off = {
        name: 2 * _distance(name, found[name].astype(np.float64), expected[name].astype(np.float64), tolerance)[0]
        for name in OUTPUTS
    }
    return Tolerance(
        probability=max(tolerance.probability, off["PROBABILITY"]),
        heatmap=max(tolerance.heatmap, off["HEATMAP"]),
        relative=max(tolerance.relative, off["LOGITS"], off["MAPS"]),
    )


def _distance(
    name: str, found: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64], tolerance: Tolerance
) -> tuple[float, float]:
    """Return how far an output is off in the crop where it is worst, and how far it may be."""
    off, size = ((value**2).reshape(len(value), -1) for value in (found - wanted, wanted))
    if name == "PROBABILITY":
        return float(np.sqrt(off).max()), tolerance.probability
    if name == "HEATMAP":
        return float(np.sqrt(off).mean(axis=1).max()), tolerance.heatmap
    return float((np.sqrt(off.mean(axis=1)) / np.sqrt(size.mean(axis=1)).clip(min=1e-6)).max()), tolerance.relative
