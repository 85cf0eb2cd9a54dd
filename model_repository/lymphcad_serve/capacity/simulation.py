"""A discrete-event simulation of replicas behind a balancer."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from lymphcad_serve.capacity.service import Service

Policy = Literal["leastconn", "roundrobin"]
"""By the names of HAProxy: the replica with the fewest requests in flight, or each in turn."""
_NEVER = float("inf")


@dataclass(frozen=True)
class Outcome:
    """What came of a simulation; the arrays are float64 [N] or int64 [N], in the order of arrival.

    Attributes
    ----------
    waited_s
        In the queue, seconds.
    answered_s
        From arrival to answer, `Service.overhead_s` included, seconds.
    replica
        Which answered.
    batch
        Size of the batch that a node was in.
    answers
        How often each was answered.
    busy
        Share of time that an instance was busy, from the first arrival to the last answer.
    in_system
        Nodes that wait or are computed, on average over that time, as counted event by event.
    most_in_system
        The most of them at once.
    span_s
        That time, seconds.
    """

    waited_s: npt.NDArray[np.float64]
    answered_s: npt.NDArray[np.float64]
    replica: npt.NDArray[np.int64]
    batch: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]
    busy: float
    in_system: float
    most_in_system: int
    span_s: float

    def percentile_s(self, percent: float) -> float:
        """Return the time to an answer that so many per cent of the nodes do not exceed, seconds."""
        return float(np.percentile(self.answered_s, percent))


@dataclass
class _Replica:
    """One of the replicas. All its busy instances are equally fast, so they share one clock of work done (`work`)."""

    queue: deque[int] = field(default_factory=deque)
    running: list[tuple[float, int, list[int]]] = field(default_factory=list)
    """A heap of batches: `work` at which each is done, its number, the nodes in it."""
    work: float = 0.0
    at: float = 0.0
    turn: int = 0
    """Of its latest event; earlier ones are out of date."""
    in_flight: int = 0
    busy_s: float = 0.0


def simulate(
    arrivals: npt.NDArray[np.float64],
    service: Service,
    replicas: int,
    generator: np.random.Generator,
    policy: Policy = "leastconn",
) -> Outcome:
    """Let nodes arrive, wait, be batched and answered.

    Parameters
    ----------
    arrivals
        float64 [N], at least one, seconds, ascending.
    service
        Of each replica.
    replicas
        How many, at least one.
    generator
        Seeded.
    policy
        Of the balancer. Of replicas with equally many requests in flight the next in turn is taken.

    Returns
    -------
    Outcome
        Everything that arrived was answered.
    """
    return _Run(arrivals, service, replicas, generator, policy).outcome()


class _Run:
    def __init__(
        self,
        arrivals: npt.NDArray[np.float64],
        service: Service,
        replicas: int,
        generator: np.random.Generator,
        policy: Policy,
    ) -> None:
        count = len(arrivals)
        self._arrivals: list[float] = arrivals.tolist()
        self._service, self._policy = service, policy
        self._replicas = [_Replica() for _ in range(replicas)]
        self._factors = _factors(service.variation, count, generator)
        self._events: list[tuple[float, int, int]] = []
        self._started, self._ended = np.full(count, np.nan), np.full(count, np.nan)
        self._by, self._batch = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._answers = np.zeros(count, np.int64)
        self._batches = self._next = self._in_system = self._most = 0
        self._area, self._last = 0.0, self._arrivals[0]

    def outcome(self) -> Outcome:
        first = self._last
        arrived, count = 0, len(self._arrivals)
        while arrived < count or self._in_system:
            coming = self._arrivals[arrived] if arrived < count else _NEVER
            if self._events and self._events[0][0] <= coming:
                now, number, turn = heapq.heappop(self._events)
                replica = self._replicas[number]
                if turn == replica.turn:
                    self._count(now, 0)
                    self._advance(replica, now)
                    self._finish(number, now)
                    self._start(number, now)
                continue
            self._count(coming, 1)
            number = self._choose()
            replica = self._replicas[number]
            self._advance(replica, coming)
            replica.queue.append(arrived)
            replica.in_flight += 1
            self._by[arrived] = number
            self._start(number, coming)
            arrived += 1
        span = self._last - first
        busy_s = sum(replica.busy_s for replica in self._replicas)
        at = np.array(self._arrivals)
        return Outcome(
            self._started - at,
            self._ended - at + self._service.overhead_s,
            self._by,
            self._batch,
            self._answers,
            busy_s / (span * self._service.instances * len(self._replicas)),
            self._area / span,
            self._most,
            span,
        )

    def _count(self, now: float, more: int) -> None:
        """Count who is there until now, and who comes."""
        self._area += self._in_system * (now - self._last)
        self._last = now
        self._in_system += more
        self._most = max(self._most, self._in_system)

    def _choose(self) -> int:
        replicas = self._replicas
        order = [(self._next + step) % len(replicas) for step in range(len(replicas))]
        number = order[0] if self._policy == "roundrobin" else min(order, key=lambda one: replicas[one].in_flight)
        self._next = (number + 1) % len(replicas)
        return number

    def _advance(self, replica: _Replica, now: float) -> None:
        busy = len(replica.running)
        if busy:
            replica.work += (now - replica.at) / self._service.slowness(busy)
            replica.busy_s += busy * (now - replica.at)
        replica.at = now

    def _finish(self, number: int, now: float) -> None:
        replica = self._replicas[number]
        # What is done within a nanosecond is done: the clock of work was added up of parts.
        while replica.running and replica.running[0][0] <= replica.work + 1e-9:
            _, _, nodes = heapq.heappop(replica.running)
            for node in nodes:
                self._ended[node] = now
                self._answers[node] += 1
            replica.in_flight -= len(nodes)
            self._in_system -= len(nodes)

    def _start(self, number: int, now: float) -> None:
        """Give free instances what they take, and say when this replica must be looked at again."""
        replica, service = self._replicas[number], self._service
        wake = _NEVER
        while replica.queue and len(replica.running) < service.instances:
            due = self._arrivals[replica.queue[0]] + service.delay_s
            # The time of an event is compared with itself, so that adding and subtracting cannot miss it.
            taken = service.take(len(replica.queue), service.delay_s if now >= due else now - due + service.delay_s)
            if not taken:
                wake = due
                break
            nodes = [replica.queue.popleft() for _ in range(taken)]
            self._started[nodes], self._batch[nodes] = now, taken
            need = service.batch_s(taken, 1) * self._factors[self._batches]
            heapq.heappush(replica.running, (replica.work + need, self._batches, nodes))
            self._batches += 1
        if replica.running:
            left = max(replica.running[0][0] - replica.work, 0.0)
            wake = min(wake, now + left * service.slowness(len(replica.running)))
        replica.turn += 1
        if wake < _NEVER:
            heapq.heappush(self._events, (wake, number, replica.turn))


def _factors(variation: float, count: int, generator: np.random.Generator) -> list[float]:
    """Return for each batch how much longer than the mean it takes."""
    if variation == 0:
        return [1.0] * count
    shape = variation**-2
    drawn: list[float] = generator.gamma(shape, 1 / shape, count).tolist()
    return drawn
