"""OpenVINO: the fastest runner on most CPUs, and the one for an integrated GPU."""

from __future__ import annotations

import queue
import sys
from typing import TYPE_CHECKING, Any

from lymphcad.errors import CommandError, Reason, ServerError
from lymphcad_client.edge.cache import CompiledModel
from lymphcad_client.edge.cpu import cores

# OpenVINO imports its converter of other formats where it can, which costs time and memory at every start.
_CONVERTER = "openvino.tools.ovc"
if _CONVERTER not in sys.modules:
    sys.modules[_CONVERTER] = None  # type: ignore[assignment]
import openvino  # noqa: E402

if sys.modules.get(_CONVERTER) is None:
    del sys.modules[_CONVERTER]

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from lymphcad.bundle import Bundle, Precision

    Arrays = dict[str, npt.NDArray[Any]]

_OUTPUTS = ("PROBABILITY", "HEATMAP")
_CORES_A_STREAM = 4
"""A small network does not speed up with more; another node is scored on the rest."""


class OpenVino:
    """The merged graph in OpenVINO; see `lymphcad_client.edge.runner.Runner`.

    Parameters
    ----------
    bundle
        Whose files match their digests.
    precision
        Of the CNN.
    cache
        A folder for the compiled model; None to compile each time.
    device
        ``CPU`` or ``GPU``.

    Raises
    ------
    CommandError
        If there is no such device, or this version of OpenVINO cannot read the graph.
    BundleError
        If the bundle lacks the precision.
    """

    def __init__(self, bundle: Bundle, precision: Precision, cache: Path | None = None, *, device: str = "CPU") -> None:
        self.precision = precision
        graph = bundle.edge(precision)
        core = openvino.Core()
        # Every machine has a CPU, and asking for the others loads what drives them.
        if device != "CPU" and device not in {found.partition(".")[0] for found in core.available_devices}:
            raise CommandError(
                f"OpenVINO finds no {device} on this machine ({', '.join(core.available_devices)} only): take the"
                " runner openvino, or install the GPU's driver"
            )
        streams = max(1, cores() // _CORES_A_STREAM)
        # float32, not what a device is fastest in: bfloat16 and float16 spoil the matrix products of the preprocessing.
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": streams}
        if device == "CPU":
            settings |= {"INFERENCE_NUM_THREADS": cores(), "ENABLE_CPU_PINNING": False}
        kept, made_of = None, {}
        if cache is not None:
            made_of = {
                "bundle": bundle.digest,
                "graph": bundle.manifest.files[graph.name],
                "openvino": openvino.get_version(),
                "device": f"{core.get_property(device, 'FULL_DEVICE_NAME')}",
                "capabilities": " ".join(core.get_property(device, "OPTIMIZATION_CAPABILITIES")),
                "settings": str(settings),
            }
            kept = CompiledModel(cache / f"{bundle.digest[:16]}.{precision}.openvino-{device.lower()}", made_of)
        try:
            model, note = _compiled(core, graph, device, settings, kept)
        except RuntimeError as error:
            raise CommandError(
                f"OpenVINO {openvino.__version__} cannot load {graph.name} ({_first_line(error)}): install the version"
                f" that bundle.json names, {bundle.manifest.versions.get('openvino', 'or a newer one')}"
            ) from None
        name = " ".join(core.get_property(device, "FULL_DEVICE_NAME").split())
        self.about = " ".join(filter(None, [f"OpenVINO {openvino.__version__.split('-')[0]} on {name}", note]))
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(model.create_infer_request())

    def run(self, tensors: Arrays) -> Arrays:
        """Score a batch; see `Runner.run`."""
        request = self._requests.get()
        try:
            answer = request.infer(tensors, share_inputs=True, share_outputs=True)
            return {name: answer[name].copy() for name in _OUTPUTS}
        except RuntimeError as error:
            raise ServerError(
                Reason.RUNNER_ERROR, f"OpenVINO failed ({_first_line(error)}): see that memory is not short"
            ) from None
        finally:
            self._requests.put(request)

    def close(self) -> None:
        """Give memory back."""
        while not self._requests.empty():
            self._requests.get()


def _compiled(
    core: openvino.Core, graph: Path, device: str, settings: dict[str, Any], kept: CompiledModel | None
) -> tuple[Any, str]:
    """Return the compiled model, from the cache where it is there, and a sentence if something is to be said of it."""
    content, note = kept.read() if kept else (None, "")
    if content is not None:
        try:
            return core.import_model(content, device, settings), note
        except RuntimeError:
            note = "The compiled model in the cache could not be loaded, so it was compiled again."
    # What compiling leaves behind is large: with it gone, the compiled model is loaded as from the cache.
    content = core.compile_model(graph, device, settings).export_model().getvalue()
    if kept is not None:
        note = kept.write(content) or note
    return core.import_model(content, device, settings), note


def _first_line(error: RuntimeError) -> str:
    """Return what OpenVINO says, without the places in its source."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(("Exception from", "Check "))]
    return lines[0] if lines else "it gave no reason"
