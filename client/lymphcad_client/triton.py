"""Score on a Triton server, over gRPC, with the tensors in system shared memory where both sides see the same one."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from lymphcad.bundle import parse_manifest
from lymphcad.errors import BundleError, CommandError, Reason, ServerError
from lymphcad.finding import Finding, finding
from lymphcad.geometry import MAX_WINDOW, cut_window

if TYPE_CHECKING:
    from types import TracebackType

    import numpy.typing as npt

    from lymphcad.geometry import Window
    from lymphcad.slice import CtSlice

MODEL = "lymph_node"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_REASONS = {
    "StatusCode.UNAVAILABLE": Reason.SERVER_AWAY,
    "StatusCode.DEADLINE_EXCEEDED": Reason.SERVER_TIMEOUT,
    "StatusCode.NOT_FOUND": Reason.MODEL_MISSING,
}


class _Slot:
    """A region of system shared memory for one request at a time: the window in, the heatmap out."""

    def __init__(self, client: Any, size: int) -> None:
        self._client = client
        self.image_bytes = 2 * MAX_WINDOW * MAX_WINDOW
        self.heatmap_bytes = size * size
        self.name = f"lymphcad-{secrets.token_hex(8)}"
        self._handle = shm.create_shared_memory_region(self.name, f"/{self.name}", self.image_bytes + size * size)
        try:
            client.register_system_shared_memory(self.name, f"/{self.name}", self.image_bytes + size * size)
        except InferenceServerException:
            shm.destroy_shared_memory_region(self._handle)
            raise

    def put(self, image: npt.NDArray[np.int16]) -> None:
        shm.set_shared_memory_region(self._handle, [image])

    def heatmap(self, shape: list[int]) -> npt.NDArray[np.uint8]:
        view = shm.get_contents_as_numpy(self._handle, np.uint8, shape, offset=self.image_bytes)
        return np.array(view, copy=True)

    def close(self) -> None:
        with contextlib.suppress(InferenceServerException):  # the server may be gone, and its mapping with it
            self._client.unregister_system_shared_memory(self.name)
        shm.destroy_shared_memory_region(self._handle)


class TritonScorer:
    """Score nodes on a Triton server that serves the ensemble ``lymph_node``.

    Parameters
    ----------
    server
        ``grpc://host:port``.
    bundle_digest
        Only this bundle may answer; any if None.
    timeout_s
        For one request.

    Attributes
    ----------
    manifest, digest
        Of the bundle that the server says it serves.

    Raises
    ------
    CommandError
        If the address is not one.
    ServerError
        ``server_away``, ``server_not_ready``, ``model_missing``, ``other_bundle`` or ``bad_answer``.
    """

    def __init__(self, server: str, *, bundle_digest: str | None = None, timeout_s: float = 30.0) -> None:
        scheme, separator, self._address = server.partition("://")
        host, colon, port = self._address.rpartition(":")
        if scheme != "grpc" or not separator or not colon or not host or not port.isdigit():
            raise CommandError(f"'{server}' is no server address: write it as grpc://127.0.0.1:8001")
        self._timeout = timeout_s
        self._client: Any = triton.InferenceServerClient(self._address)
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._all_slots: list[_Slot] = []
        self._shares_memory = host in _LOOPBACK
        try:
            self._check_ready()
            self.manifest, self.digest = self._served_bundle()
            if bundle_digest is not None and bundle_digest != self.digest:
                raise ServerError(
                    Reason.OTHER_BUNDLE,
                    f"{self._address} serves bundle {self.digest[:12]}, and {bundle_digest[:12]} was asked for: serve"
                    " that bundle, or leave --bundle out",
                )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TritonScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give shared memory and the connection back."""
        while self._all_slots:
            self._all_slots.pop().close()
        self._client.close()

    def score(self, ct: CtSlice, row: float, col: float) -> Finding:
        """Score one node; see `Scorer.score`."""
        preprocess = self.manifest.preprocess
        window = cut_window(ct, row, col, preprocess.field_of_view_mm, preprocess.size)
        slot = self._slot()
        try:
            probability, heatmap = self._infer(window, slot)
        except InferenceServerException as error:
            raise self._server_error(error) from None
        finally:
            if slot is not None:
                self._slots.put(slot)
        return finding(self.manifest, self.digest, probability, heatmap)

    def _infer(self, window: Window, slot: _Slot | None) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        image = triton.InferInput("IMAGE", [1, *window.image.shape], "INT16")
        heatmap = triton.InferRequestedOutput("HEATMAP")
        if slot is None:
            image.set_data_from_numpy(window.image[np.newaxis])
        else:
            slot.put(window.image)
            image.set_shared_memory(slot.name, window.image.nbytes)
            heatmap.set_shared_memory(slot.name, slot.heatmap_bytes, slot.image_bytes)
        spacing = triton.InferInput("SPACING_MM", [1, 2], "FP32")
        spacing.set_data_from_numpy(np.array([window.spacing_mm], np.float32))
        center = triton.InferInput("CENTER", [1, 2], "FP32")
        center.set_data_from_numpy(np.array([window.center], np.float32))
        answer = self._client.infer(
            MODEL,
            [image, spacing, center],
            model_version="1",
            outputs=[triton.InferRequestedOutput("PROBABILITY"), heatmap],
            client_timeout=self._timeout,
        )
        if slot is None:
            return _tensor(answer, "PROBABILITY"), _tensor(answer, "HEATMAP")
        described = answer.get_output("HEATMAP")
        size = self.manifest.preprocess.size
        shape = [] if described is None else list(described.shape)
        if shape != [1, size, size]:
            raise ServerError(
                Reason.BAD_ANSWER,
                f"HEATMAP came back as {shape}, and [1, {size}, {size}] was expected: check the server's log and its"
                " model repository",
            )
        # A server that leaves its outputs empty is caught by PROBABILITY, which comes in the message itself.
        return _tensor(answer, "PROBABILITY"), slot.heatmap([1, size, size])

    def _slot(self) -> _Slot | None:
        """Take a free region, or make one; None where the server cannot see this machine's memory."""
        if not self._shares_memory:
            return None
        with contextlib.suppress(queue.Empty):
            return self._slots.get_nowait()
        try:
            slot = _Slot(self._client, self.manifest.preprocess.size)
        except (InferenceServerException, shm.SharedMemoryException):
            # A container behind a forwarded port, or a server without the extension: the tensors go by gRPC instead.
            self._shares_memory = False
            return None
        self._all_slots.append(slot)
        return slot

    def _check_ready(self) -> None:
        try:
            if not self._client.is_server_live(client_timeout=self._timeout):
                raise ServerError(Reason.SERVER_NOT_READY, f"the server at {self._address} is not live: see its log")
            names = {model.name: model.state for model in self._client.get_model_repository_index().models}
            if MODEL not in names:
                raise ServerError(
                    Reason.MODEL_MISSING,
                    f"the server at {self._address} has no model '{MODEL}': start it with `lymphcad serve`, or on a"
                    " repository that `lymphcad repository` wrote",
                )
            if not self._client.is_model_ready(MODEL, client_timeout=self._timeout):
                raise ServerError(
                    Reason.SERVER_NOT_READY,
                    f"the server at {self._address} has the model '{MODEL}' but it is not ready: wait, or see its log",
                )
        except InferenceServerException as error:
            raise self._server_error(error) from None

    def _served_bundle(self) -> tuple[Any, str]:
        try:
            config = self._client.get_model_config(MODEL).config
        except InferenceServerException as error:
            raise self._server_error(error) from None
        raw = config.parameters["bundle_json"].string_value.encode()
        try:
            return parse_manifest(raw), hashlib.sha256(raw).hexdigest()
        except BundleError:
            raise ServerError(
                Reason.OTHER_BUNDLE,
                f"the model '{MODEL}' at {self._address} does not say which bundle it serves, or says it in another"
                " format: write its repository with `lymphcad repository` of this version",
            ) from None

    def _server_error(self, error: InferenceServerException) -> ServerError:
        reason = _REASONS.get(str(error.status()), Reason.SERVER_ERROR)
        sentence = {
            Reason.SERVER_AWAY: "does not answer: start it (`lymphcad serve`), or check the address and the network",
            Reason.SERVER_TIMEOUT: f"did not answer within {self._timeout:g} s: see its load and its log",
            Reason.MODEL_MISSING: f"has no model '{MODEL}': write its repository with `lymphcad repository`",
        }.get(reason, f"answered with an error ({error.message()}): see its log")
        return ServerError(reason, f"the server at {self._address} {sentence}")


def _tensor(answer: Any, name: str) -> npt.NDArray[Any]:
    """Return an output, or say that it is empty or missing: numpy 2 beside the embedded server's stub does that."""
    try:
        value = answer.as_numpy(name)
    except ValueError:  # fewer bytes than the shape needs
        value = None
    if value is None or value.size == 0:
        raise ServerError(
            Reason.BAD_ANSWER,
            f"{name} came back empty: check the server's log, and that its Python has numpy 1.26 if it is embedded",
        )
    return np.asarray(value)
