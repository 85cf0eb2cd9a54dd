"""What a tritonserver says of a model: how it batches, and how long its batches took (its statistics extension)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from lymphcad_client.tls import open_channel, parse_address
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from lymphcad.errors import Reason, ServerError
from lymphcad_serve.target import ENSEMBLE

if TYPE_CHECKING:
    from types import TracebackType

    from lymphcad_client.tls import Tls

_NETWORK = "cnn"
_NS = 1e-9


@dataclass(frozen=True)
class Batching:
    """How the network is batched; see `lymphcad_serve.capacity.service.Service`."""

    instances: int
    preferred: tuple[int, ...]
    most: int
    delay_s: float


@dataclass(frozen=True)
class Counts:
    """What the network has done since the server started, or between two times.

    Attributes
    ----------
    nodes, batches
        How many.
    queued_s
        In the queue, all nodes together, seconds.
    by_size
        For each size of a batch: how many there were, and what they took together, seconds.
    """

    nodes: int = 0
    batches: int = 0
    queued_s: float = 0.0
    by_size: tuple[tuple[int, int, float], ...] = ()

    def _combined(self, other: Counts, sign: int) -> Counts:
        sizes = {size: (count, seconds) for size, count, seconds in self.by_size}
        for size, count, seconds in other.by_size:
            before = sizes.get(size, (0, 0.0))
            sizes[size] = (before[0] + sign * count, before[1] + sign * seconds)
        return Counts(
            self.nodes + sign * other.nodes,
            self.batches + sign * other.batches,
            self.queued_s + sign * other.queued_s,
            tuple((size, *of) for size, of in sorted(sizes.items()) if of[0]),
        )

    def __add__(self, other: Counts) -> Counts:
        return self._combined(other, 1)

    def __sub__(self, earlier: Counts) -> Counts:
        return self._combined(earlier, -1)

    @property
    def batch_s(self) -> float:
        """Mean time of a batch, seconds."""
        return sum(seconds for _, _, seconds in self.by_size) / sum(count for _, count, _ in self.by_size)


class Statistics:
    """A connection that asks one server for its statistics; a context manager.

    Parameters
    ----------
    address
        ``grpc://host:port`` or ``grpcs://host:port``, of a server itself: behind a balancer each answer may be
        another's.
    tls
        Certificates, for an address with TLS.
    timeout_s
        For one request.

    Attributes
    ----------
    batching
        As the server was configured.

    Raises
    ------
    CommandError
        As `lymphcad_client.tls.open_channel` does.
    ServerError
        ``server_away`` or ``server_error``.
    """

    def __init__(self, address: str, tls: Tls | None = None, timeout_s: float = 30.0) -> None:
        self._address, self._timeout = address, timeout_s
        self._channel = open_channel(parse_address(address), tls)
        self._stub: Any = GRPCInferenceServiceStub(self._channel)
        self._model = ENSEMBLE
        try:
            config = self._ask(self._stub.ModelConfig, messages.ModelConfigRequest(name=ENSEMBLE)).config
            if config.platform == "ensemble":
                self._model = _NETWORK
                config = self._ask(self._stub.ModelConfig, messages.ModelConfigRequest(name=_NETWORK)).config
        except BaseException:
            self._channel.close()
            raise
        batches = config.HasField("dynamic_batching")
        dynamic = config.dynamic_batching
        self.batching = Batching(
            max(sum(group.count for group in config.instance_group), 1),
            tuple(sorted(set(dynamic.preferred_batch_size))),
            max(config.max_batch_size, 1) if batches else 1,
            dynamic.max_queue_delay_microseconds * 1e-6,
        )

    def __enter__(self) -> Statistics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def read(self) -> Counts:
        """Return the counts until now. Raises as the constructor does."""
        answer = self._ask(self._stub.ModelStatistics, messages.ModelStatisticsRequest(name=self._model))
        total = Counts()
        for version in answer.model_stats:
            sizes = tuple(
                (
                    int(one.batch_size),
                    int(one.compute_infer.count),
                    _NS * (one.compute_input.ns + one.compute_infer.ns + one.compute_output.ns),
                )
                for one in version.batch_stats
            )
            total += Counts(
                version.inference_count, version.execution_count, _NS * version.inference_stats.queue.ns, sizes
            )
        return total

    def _ask(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            call: Any = error  # what a call raises is a call, too
            away = call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            reason = Reason.SERVER_AWAY if away else Reason.SERVER_ERROR
            raise ServerError(
                reason,
                f"the server at {self._address} gave no statistics ({call.details()}): check address and network, and"
                " that it is a tritonserver itself",
            ) from None
