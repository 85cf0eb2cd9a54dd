"""What runs a bundle's merged graph on this machine, and which of those is taken."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from lymphcad.errors import CommandError, LymphcadError
from lymphcad.golden import INPUTS, read_golden, score_golden
from lymphcad_client.edge.cpu import eight_bits_are_slow

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad.bundle import Bundle, Precision

    Arrays = dict[str, npt.NDArray[Any]]

Name = Literal["auto", "openvino", "openvino-gpu", "onnxruntime", "tensorrt-rtx"]
PACKAGES: dict[Name, str] = {"openvino": "openvino", "onnxruntime": "onnxruntime"}
"""What each runner for CPUs imports, the faster one first."""


class Runner(Protocol):
    """Runs one batch at a time, from several threads at once.

    Attributes
    ----------
    precision
        Of the CNN graph that it runs.
    about
        What it is and runs on, a phrase.
    """

    precision: Precision
    about: str

    def run(self, tensors: Arrays) -> Arrays:
        """Return PROBABILITY float32 [B, 1] and HEATMAP uint8 [B, S, S].

        Parameters
        ----------
        tensors
            IMAGE int16 [B, h, w] in HU, SPACING_MM float32 [B, 2], CENTER float32 [B, 2] (row, column).

        Raises
        ------
        ServerError
            ``runner_error`` if the engine fails.
        """
        ...

    def close(self) -> None:
        """Give memory back."""
        ...


@dataclass(frozen=True)
class Chosen:
    """A runner, and why it was taken."""

    runner: Runner
    why: str


def installed() -> list[Name]:
    """Return the names of the runners for CPUs that are installed, the faster one first."""
    return [name for name, package in PACKAGES.items() if find_spec(package) is not None]


def choose_runner(
    bundle: Bundle,
    name: Name = "auto",
    *,
    precision: Precision | None = None,
    engines: Path | None = None,
    cache: Path | None = None,
) -> Chosen:
    """Open a runner on a bundle.

    Parameters
    ----------
    bundle
        Whose files match their digests.
    name
        Which runner. ``auto`` takes TensorRT-RTX if `engines` are given and this machine can run one of them, else
        OpenVINO on the CPU, else ONNX Runtime. It never takes an integrated GPU: that is asked for.
    precision
        Of the CNN; the bundle's preferred one if None.
    engines
        The folder, or one of its engines, that ``lymphcad plan --rtx`` wrote.
    cache
        A folder for compiled models; None to compile each time.

    Returns
    -------
    Chosen
        Ready; its answers have not been checked.

    Raises
    ------
    CommandError
        If the runner is not installed, or this machine cannot run it.
    BundleError
        If the bundle lacks the precision, or an engine is not the bundle's.
    """
    if name not in get_args(Name):
        raise CommandError(f"'{name}' is no runner: choose among {', '.join(get_args(Name))}")
    if engines is not None and name not in ("auto", "tensorrt-rtx"):
        raise CommandError(f"the runner {name} takes no engines: leave --engines out, or --runner {name}")
    if name == "tensorrt-rtx" or engines is not None:
        if precision not in (None, "fp16"):
            raise CommandError(f"engines are built in fp16, and {precision} was asked for: leave --precision out")
        try:
            return Chosen(_tensorrt_rtx(bundle, engines), "it was asked for, with engines")
        except LymphcadError as error:
            if name == "tensorrt-rtx":
                raise
            return _on_cpu(bundle, precision, cache, f"no engine can be run, for {error}")
    if name == "auto":
        return _on_cpu(bundle, precision, cache, "no engines for an RTX GPU were given")
    return Chosen(_open(bundle, name, precision or bundle.manifest.preferred, cache), "it was asked for")


def _on_cpu(bundle: Bundle, precision: Precision | None, cache: Path | None, because: str) -> Chosen:
    found = installed()
    if not found:
        raise CommandError(
            "no runner is installed, neither OpenVINO nor ONNX Runtime: pip install 'lymphcad[edge]', or the smaller"
            " 'lymphcad[edge-min]'"
        )
    others = "" if found[0] == "openvino" else ", and OpenVINO, which is faster, is not installed"
    runner = _open(bundle, found[0], precision or bundle.manifest.preferred, cache)
    return Chosen(runner, f"{because}{others}")


def _open(bundle: Bundle, name: Name, precision: Precision, cache: Path | None) -> Runner:
    on_openvino = name in ("openvino", "openvino-gpu")
    if find_spec("openvino" if on_openvino else "onnxruntime") is None:
        extra = "edge" if on_openvino else "edge-min"
        raise CommandError(f"the runner {name} is not installed: pip install 'lymphcad[{extra}]'")
    if on_openvino:
        from lymphcad_client.edge.openvino import OpenVino

        return OpenVino(bundle, precision, cache, device="GPU" if name == "openvino-gpu" else "CPU")
    from lymphcad_client.edge.onnxruntime import OnnxRuntime

    return OnnxRuntime(bundle, precision)


def _tensorrt_rtx(bundle: Bundle, engines: Path | None) -> Runner:
    if engines is None:
        raise CommandError(
            "the runner tensorrt-rtx runs an engine that was built ahead of time, and none was given: build it with"
            " `lymphcad plan --rtx` and name its folder with --engines"
        )
    from lymphcad_client.edge.tensorrt_rtx import TensorRtRtx

    return TensorRtRtx(bundle, engines)


def check_runner(runner: Runner, bundle: Bundle) -> None:
    """Have a runner score the bundle's golden inputs.

    Parameters
    ----------
    runner
        On the bundle.
    bundle
        Which it runs.

    Raises
    ------
    GoldenError
        If it computes something else than the bundle was proven with.
    """

    def run(tensors: Arrays) -> Arrays:
        return runner.run({name: tensors[name] for name in INPUTS if name != "CROP"})  # which stays within the graph

    tolerance = bundle.manifest.golden[runner.precision]
    score_golden(run, read_golden(bundle, runner.precision), tolerance, runner.about)


def slow_note(runner: Runner) -> str:
    """Return a sentence if eight bits bring this machine no speed; empty if they do or nobody knows."""
    return eight_bits_are_slow() if runner.precision == "int8" else ""
