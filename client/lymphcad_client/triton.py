"""Score on a Triton server, over gRPC, with the tensors in system shared memory where both sides see the same one."""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import os
import queue
import secrets
import time
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from lymphcad.bundle import parse_manifest
from lymphcad.errors import BundleError, Reason, ServerError
from lymphcad.finding import Finding, finding
from lymphcad.geometry import MAX_WINDOW, cut_window
from lymphcad_client.tls import open_channel, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import numpy.typing as npt

    from lymphcad.bundle import Manifest
    from lymphcad.geometry import Window
    from lymphcad.slice import CtSlice
    from lymphcad_client.tls import Tls

MODEL = "lymph_node"
BUNDLE_HEADER = "lymphcad-bundle"
"""Metadata of each request once its bundle is known: by it a balancer finds a server that serves it."""
AT_ONCE, MOST_AT_ONCE = 8, 128
"""Requests in flight: enough for two batches of each instance of the network, within these bounds."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where Linux keeps it
_REASONS = {
    grpc.StatusCode.UNAVAILABLE: Reason.SERVER_AWAY,
    grpc.StatusCode.CANCELLED: Reason.SERVER_AWAY,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.SERVER_TIMEOUT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.SERVER_BUSY,
    grpc.StatusCode.NOT_FOUND: Reason.MODEL_MISSING,
}
_GONE = ("shared memory region", "stub process")
"""In what a server says that was started anew and lacks the regions of before, or whose model's process ended."""
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification", "not match")
_RELEASE_TRIES, _RELEASE_PAUSE_S = 5, 0.01
_DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype(np.float32), "UINT8": np.dtype(np.uint8)}


class _Slot:
    """A region of system shared memory for one request at a time: the window in, the heatmap out.

    It has a name only until the server has mapped it, so that nothing is left behind however this process ends.
    """

    def __init__(self, stub: Any, size: int, timeout_s: float) -> None:
        self.image_bytes, self.heatmap_bytes = 2 * MAX_WINDOW * MAX_WINDOW, size * size
        self.name = f"lymphcad-{secrets.token_hex(8)}"
        length = self.image_bytes + self.heatmap_bytes
        file = os.open(f"{_SHARED_MEMORY}/{self.name}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(file, 0, length)  # memory that is short is an error here, not a signal later
            self._bytes = np.frombuffer(mmap.mmap(file, length), np.uint8)
            stub.SystemSharedMemoryRegister(
                messages.SystemSharedMemoryRegisterRequest(name=self.name, key=f"/{self.name}", byte_size=length),
                timeout=timeout_s,
            )
        finally:
            os.close(file)
            os.unlink(f"{_SHARED_MEMORY}/{self.name}")  # noqa: PTH108

    def put(self, image: npt.NDArray[np.int16]) -> None:
        self._bytes[: image.nbytes] = image.reshape(-1).view(np.uint8)

    def heatmap(self) -> npt.NDArray[np.uint8]:
        return self._bytes[self.image_bytes :].copy()


class TritonScorer:
    """Score nodes on a Triton server that serves the model ``lymph_node``.

    Parameters
    ----------
    server
        ``grpc://host:port``, or ``grpcs://host:port`` for TLS.
    bundle_digest
        Only this bundle may answer; any if None.
    timeout_s
        For one request.
    tls
        Certificates, for an address with TLS.

    Attributes
    ----------
    manifest, digest
        Of the bundle that the server says it serves.
    cnn_precision, computed_in
        Of the bundle's CNN graphs the one that is served, and the precision whose tolerance the server's answers keep:
        the same, or ``bf16``.
    about
        A sentence for people: who answers, and in which precision.
    at_once
        What keeps the served network's instances in batches, `AT_ONCE` to `MOST_AT_ONCE`.

    Raises
    ------
    CommandError
        If the address is not one, or a certificate cannot be read.
    ServerError
        ``server_away``, ``server_not_ready``, ``model_missing``, ``other_bundle`` or ``bad_answer``.
    """

    def __init__(
        self,
        server: str,
        *,
        bundle_digest: str | None = None,
        timeout_s: float = 30.0,
        tls: Tls | None = None,
    ) -> None:
        address = parse_address(server)
        self._address, self._secure, self._timeout = address.target, address.secure, timeout_s
        self._channel = open_channel(address, tls)
        self._metadata = () if bundle_digest is None else ((BUNDLE_HEADER, bundle_digest),)
        self._stub: Any = GRPCInferenceServiceStub(self._channel)
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        self._registered: list[_Slot] = []
        self._closed = False
        self._shares_memory = address.host in _LOOPBACK and os.path.isdir(_SHARED_MEMORY)  # noqa: PTH112
        try:
            self.check_ready()
            self._served = self._ask_what_is_served()
            self.manifest, self.digest, self.cnn_precision, self.computed_in = self._served_bundle()
            if bundle_digest is not None and bundle_digest != self.digest:
                raise ServerError(
                    Reason.OTHER_BUNDLE,
                    f"{self._address} serves bundle {self.digest[:12]}, and {bundle_digest[:12]} was asked for: serve"
                    " that bundle, or leave --bundle out",
                )
            self.at_once = self._batches_at_once()
            self.about = f"Scored in {self.computed_in} by the Triton server at {self._address}."
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
        self._closed = True
        for slot in self._registered:
            if not self._unregistered(slot):
                break
        self._channel.close()

    def _unregistered(self, slot: _Slot) -> bool:
        """Have the server let go of a region; return False if it is gone, and its mapping with it."""
        request = messages.SystemSharedMemoryUnregisterRequest(name=slot.name)
        for _ in range(_RELEASE_TRIES):
            try:
                self._stub.SystemSharedMemoryUnregister(request, timeout=self._timeout)
            except grpc.RpcError as error:  # noqa: PERF203
                call: Any = error
                if call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    return False
                time.sleep(_RELEASE_PAUSE_S)  # right after its answer a region can still be in use
            else:
                break
        return True

    def score(self, ct: CtSlice, row: float, col: float) -> Finding:
        """Score one node; see `Scorer.score`."""
        preprocess = self.manifest.preprocess
        return self.score_window(cut_window(ct, row, col, preprocess.field_of_view_mm, preprocess.size))

    def score_window(self, window: Window) -> Finding:
        """Score a node's window; see `Scorer.score_window`."""
        slot = self._slot()
        request = self._request(window, slot)
        # A slot is given back only after an answer: one whose request timed out may still be written to.
        answer = self._ask(self._stub.ModelInfer, request)
        probability = _tensor(answer, "PROBABILITY")
        if slot is None:
            heatmap = _tensor(answer, "HEATMAP")
        else:
            # A server that leaves its outputs empty is caught by PROBABILITY, which comes in the message itself.
            heatmap = self._shared_heatmap(answer, slot)
            self._slots.put(slot)
        return finding(self.manifest, self.digest, probability, heatmap)

    def check(self) -> None:
        """Ask in one small request whether the server still serves what it served when this was made.

        Behind an address another server can answer from one request to the next.

        Raises
        ------
        ServerError
            ``other_bundle`` if it serves something else, or as the constructor does.
        """
        if self._ask_what_is_served() != self._served:
            raise ServerError(
                Reason.OTHER_BUNDLE,
                f"the server at {self._address} no longer serves bundle {self.digest[:12]} as it did: connect again",
            )

    def _request(self, window: Window, slot: _Slot | None) -> Any:
        """Return the message; tritonclient's own layer over it costs a fifth of the client's time."""
        request = messages.ModelInferRequest(model_name=MODEL)
        image = request.inputs.add(name="IMAGE", datatype="INT16", shape=(1, *window.image.shape))
        request.inputs.add(name="SPACING_MM", datatype="FP32", shape=(1, 2))
        request.inputs.add(name="CENTER", datatype="FP32", shape=(1, 2))
        request.outputs.add(name="PROBABILITY")
        heatmap = request.outputs.add(name="HEATMAP")
        if slot is None:
            request.raw_input_contents.append(window.image.tobytes())
        else:
            slot.put(window.image)
            _share(image, slot.name, window.image.nbytes, 0)
            _share(heatmap, slot.name, slot.heatmap_bytes, slot.image_bytes)
        request.raw_input_contents.append(np.array(window.spacing_mm, np.float32).tobytes())
        request.raw_input_contents.append(np.array(window.center, np.float32).tobytes())
        return request

    def _shared_heatmap(self, answer: Any, slot: _Slot) -> npt.NDArray[np.uint8]:
        size = self.manifest.preprocess.size
        shapes = [list(output.shape) for output in answer.outputs if output.name == "HEATMAP"]
        if shapes != [[1, size, size]]:
            raise ServerError(
                Reason.BAD_ANSWER,
                f"HEATMAP came back as {shapes}, and [1, {size}, {size}] was expected: check the server's log and its"
                " model repository",
            )
        return slot.heatmap().reshape(1, size, size)

    def _slot(self) -> _Slot | None:
        """Take a free region, or make one; None where the server cannot see this machine's memory."""
        if not self._shares_memory:
            return None
        with contextlib.suppress(queue.Empty):
            return self._slots.get_nowait()
        try:
            slot = _Slot(self._stub, self.manifest.preprocess.size, self._timeout)
        except (grpc.RpcError, OSError, ValueError):
            # A container behind a forwarded port, a server without the extension, or no memory left: the tensors go
            # by gRPC instead. (ValueError: this connection was closed, and so the request will say.)
            self._shares_memory = False
            return None
        self._registered.append(slot)
        return slot

    def check_ready(self) -> None:
        """Ask whether the server would answer.

        Raises
        ------
        ServerError
            ``server_away``, ``server_timeout``, ``server_not_ready`` or ``model_missing``.
        """
        if not self._ask(self._stub.ServerLive, messages.ServerLiveRequest()).live:
            raise ServerError(Reason.SERVER_NOT_READY, f"the server at {self._address} is not live: see its log")
        index = self._ask(self._stub.RepositoryIndex, messages.RepositoryIndexRequest())
        if MODEL not in {model.name for model in index.models}:
            raise ServerError(
                Reason.MODEL_MISSING,
                f"the server at {self._address} has no model '{MODEL}': start it with `lymphcad serve`, or on a"
                " repository that `lymphcad repository` wrote",
            )
        if not self._ask(self._stub.ModelReady, messages.ModelReadyRequest(name=MODEL)).ready:
            raise ServerError(
                Reason.SERVER_NOT_READY,
                f"the server at {self._address} has the model '{MODEL}' but it is not ready: wait, or see its log",
            )

    def _ask_what_is_served(self) -> tuple[str, str, str]:
        """Return ``bundle.json``, and the precisions in which the CNN is served and computed."""
        found = self._ask(self._stub.ModelConfig, messages.ModelConfigRequest(name=MODEL)).config.parameters
        return found["bundle_json"].string_value, found["cnn_precision"].string_value, found["computed_in"].string_value

    def _served_bundle(self) -> tuple[Manifest, str, Any, Any]:
        text, cnn_precision, computed_in = self._served
        digest = hashlib.sha256(raw := text.encode()).hexdigest()
        try:
            manifest = parse_manifest(raw)
        except BundleError:
            raise ServerError(
                Reason.OTHER_BUNDLE,
                f"the model '{MODEL}' at {self._address} does not say which bundle it serves, or says it in another"
                " format: write its repository with `lymphcad repository` of this version",
            ) from None
        self._metadata = ((BUNDLE_HEADER, digest),)
        return manifest, digest, cnn_precision, computed_in

    def _batches_at_once(self) -> int:
        """Return how many requests keep the network busy: two batches for each of its instances."""
        config = self._ask(self._stub.ModelConfig, messages.ModelConfigRequest(name=MODEL)).config
        if config.platform == "ensemble":
            config = self._ask(self._stub.ModelConfig, messages.ModelConfigRequest(name="cnn")).config
        batch = max(config.dynamic_batching.preferred_batch_size, default=config.max_batch_size)
        instances = sum(group.count for group in config.instance_group)
        return int(min(max(2 * batch * instances, AT_ONCE), MOST_AT_ONCE))

    def _ask(self, method: Callable[..., Any], request: Any) -> Any:
        """Call the server."""
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except ValueError:
            if not self._closed:
                raise
            reason, said = Reason.SERVER_AWAY, ""
        except grpc.RpcError as error:
            call: Any = error  # what a call raises is a call, too
            reason, said = _REASONS.get(call.code(), Reason.SERVER_ERROR), call.details()
            if any(words in said.lower() for words in _GONE):
                reason = Reason.SERVER_AWAY
        away = "does not answer: start it (`lymphcad serve`), or check address and network"
        if self._secure:
            away = "does not answer, or refuses our certificate (--tls-cert): check address, network and its log"
        if any(words in said for words in _UNTRUSTED):
            away = "has a certificate that is not trusted (expired, of another name, or by another than --tls-ca)"
        sentence = {
            Reason.SERVER_AWAY: away,
            Reason.SERVER_TIMEOUT: f"did not answer within {self._timeout:g} s: see its load and its log",
            Reason.MODEL_MISSING: f"has no model '{MODEL}': write its repository with `lymphcad repository`",
        }.get(reason, f"answered with an error ({said}): see its log")
        raise ServerError(reason, f"the server at {self._address} {sentence}") from None


def _share(tensor: Any, region: str, length: int, offset: int) -> None:
    """Say that a tensor lies in shared memory (Triton's system shared memory extension)."""
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = length
    tensor.parameters["shared_memory_offset"].int64_param = offset


def _tensor(answer: Any, name: str) -> npt.NDArray[Any]:
    """Return an output, or say that it is empty or missing: numpy 2 beside the embedded server's stub does that."""
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=False):
        dtype = _DTYPES.get(output.datatype)
        if output.name == name and dtype is not None and raw and len(raw) == dtype.itemsize * math.prod(output.shape):
            value: npt.NDArray[Any] = np.frombuffer(raw, dtype).reshape(output.shape)
            return value
    raise ServerError(
        Reason.BAD_ANSWER,
        f"{name} came back empty: check the server's log, and that its Python has numpy 1.26 if it is embedded",
    )
