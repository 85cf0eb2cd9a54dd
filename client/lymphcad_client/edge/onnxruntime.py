"""ONNX Runtime: the small runner, for any CPU."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import onnxruntime

from lymphcad.errors import CommandError, Reason, ServerError
from lymphcad_client.edge.cpu import cores

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad.bundle import Bundle, Precision

    Arrays = dict[str, npt.NDArray[Any]]

_OUTPUTS = ["PROBABILITY", "HEATMAP"]


class Graph:
    """One of a bundle's graphs in ONNX Runtime on the CPU, on one thread; safe to call from several.

    Parameters
    ----------
    bundle
        Whose files match their digests.
    file
        The graph.

    Raises
    ------
    CommandError
        If this version of ONNX Runtime cannot read the graph.
    """

    def __init__(self, bundle: Bundle, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its errors have no base class of their own
            raise CommandError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {file.name} ({_first_line(error)}): install the"
                f" version that bundle.json names, {bundle.manifest.versions.get('onnxruntime', 'or a newer one')}"
            ) from None

    def run(self, tensors: Arrays, outputs: list[str]) -> Arrays:
        """Return outputs by their names.

        Raises
        ------
        ServerError
            ``runner_error`` if ONNX Runtime fails, or the graph was closed.
        """
        try:
            answers = self._session.run(outputs, tensors)
        except Exception as error:  # noqa: BLE001 - as above
            raise ServerError(
                Reason.RUNNER_ERROR, f"ONNX Runtime failed ({_first_line(error)}): see that memory is not short"
            ) from None
        return dict(zip(outputs, answers, strict=True))

    def close(self) -> None:
        """Give memory back."""
        self._session = None


class OnnxRuntime:
    """The merged graph in ONNX Runtime; see `lymphcad_client.edge.runner.Runner`.

    One thread for each node that is scored, and as many nodes at once as there are cores: a small network gains less
    from more threads, and ONNX Runtime's threads spin while they wait.

    Parameters
    ----------
    bundle
        Whose files match their digests.
    precision
        Of the CNN.

    Raises
    ------
    CommandError
        If this version of ONNX Runtime cannot read the graph.
    BundleError
        If the bundle lacks the precision.
    """

    def __init__(self, bundle: Bundle, precision: Precision) -> None:
        self.precision = precision
        self.about = f"ONNX Runtime {onnxruntime.__version__} on the CPU"
        self._graph = Graph(bundle, bundle.edge(precision))
        self._free = threading.BoundedSemaphore(cores())

    def run(self, tensors: Arrays) -> Arrays:
        """Score a batch; see `Runner.run`."""
        with self._free:
            return self._graph.run(tensors, _OUTPUTS)

    def close(self) -> None:
        """Give memory back."""
        self._graph.close()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
