"""What a server does with a queue: how long a batch takes, and when Triton's dynamic batcher takes which requests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lymphcad.errors import CommandError


@dataclass(frozen=True)
class Service:
    """One replica: a tritonserver with its instances of the network.

    A batch of n nodes takes ``(first_s + each_s * n) * (1 + slowdown * (k - 1))`` seconds while k instances are busy,
    drawn from a gamma distribution of that mean and the coefficient of variation `variation`.

    Attributes
    ----------
    first_s, each_s
        Of a batch, and of each node in it, seconds, while one instance is busy.
    instances
        Of the network.
    preferred
        Triton's ``preferred_batch_size``, ascending; may be empty.
    most
        Largest batch, ``max_batch_size``; 1 without dynamic batching.
    delay_s
        Triton's ``max_queue_delay_microseconds``, seconds.
    slowdown
        By how much each further busy instance slows every one down, as a share: they share cores or a GPU.
    variation
        Standard deviation of a batch's time over its mean; 0 is constant, 1 exponential.
    overhead_s
        What an answer takes besides queue and batch, seconds: client, messages, network.

    Raises
    ------
    CommandError
        If a value is out of range.
    """

    first_s: float
    each_s: float
    instances: int = 1
    preferred: tuple[int, ...] = ()
    most: int = 1
    delay_s: float = 0.0
    slowdown: float = 0.0
    variation: float = 0.0
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        times = (self.first_s, self.each_s, self.delay_s, self.slowdown, self.variation, self.overhead_s)
        if not all(math.isfinite(value) and value >= 0 for value in times) or self.first_s + self.each_s <= 0:
            raise CommandError(
                f"a batch was said to take {self.first_s:g} s and {self.each_s:g} s a node: name times above 0"
            )
        sizes = self.preferred
        bounded = (1, *sizes, self.most)
        if self.instances < 1 or len(set(sizes)) < len(sizes) or list(bounded) != sorted(bounded):
            raise CommandError(
                f"{self.instances} instances with batches of {list(sizes)}, at most {self.most}, were given: name"
                " at least one instance, and batch sizes in ascending order up to the largest"
            )

    @property
    def largest(self) -> int:
        """The largest batch that is made while requests wait."""
        return self.preferred[-1] if self.preferred else self.most

    @property
    def rate(self) -> float:
        """Nodes a second with every instance busy in the largest batches: no replica answers more."""
        return self.instances * self.largest / self.batch_s(self.largest, self.instances)

    def batch_s(self, nodes: int, busy: int) -> float:
        """Return the mean time of a batch while so many instances are busy, seconds."""
        return (self.first_s + self.each_s * nodes) * self.slowness(busy)

    def slowness(self, busy: int) -> float:
        """Return how many times longer a batch takes with so many instances busy than alone."""
        return 1 + self.slowdown * (busy - 1)

    def take(self, waiting: int, oldest_s: float) -> int:
        """Return how many requests a free instance takes; 0 if they wait for more.

        As Triton's dynamic batcher decides (``dynamic_batch_scheduler.cc``, ``GetDynamicBatch``): the largest preferred
        size that is there; once the oldest has waited for `delay_s`, everything.

        Parameters
        ----------
        waiting
            Requests in the queue.
        oldest_s
            How long the first of them has waited, seconds.

        Returns
        -------
        int
            At most `most`.
        """
        there = min(waiting, self.most)
        expired = self.delay_s > 0 and oldest_s >= self.delay_s
        fitting = [size for size in self.preferred if size <= there]
        if fitting and not expired:
            return fitting[-1]
        return there if expired or self.delay_s == 0 or there >= self.largest else 0
