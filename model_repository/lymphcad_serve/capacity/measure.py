"""Measure a server in a closed loop, and fit the simulation's parameters to what it says of its batches."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.errors import CommandError
from lymphcad.geometry import cut_window
from lymphcad.slice import CtSlice
from lymphcad_serve.capacity.service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lymphcad_client.scorer import Scorer

    from lymphcad.bundle import Preprocess
    from lymphcad.geometry import Window
    from lymphcad_serve.capacity.statistics import Batching, Counts, Statistics

_SIDE, _HU = 512, 60
SPACING_MM = 0.45
"""Of the slice that is sent: a neck CT's, mm a pixel."""
MOST_CALLERS = 256
_SETTLES_S, _PATIENCE_S = 0.1, 2.0
"""A server counts a request a moment after it has answered it."""


@dataclass(frozen=True)
class Level:
    """What a number of callers saw, each of which asks again when it is answered.

    Attributes
    ----------
    callers
        How many.
    seconds
        How long.
    answered_s
        Mean time to an answer, as the callers saw it, seconds.
    deviation_s
        Its standard deviation.
    counts
        What the server counted.
    """

    callers: int
    seconds: float
    answered_s: float
    deviation_s: float
    counts: Counts

    @property
    def rate(self) -> float:
        """Nodes a second."""
        return self.counts.nodes / self.seconds


def sample_window(preprocess: Preprocess, spacing_mm: float = SPACING_MM) -> Window:
    """Return what a client sends for a node; what it shows makes no difference to speed.

    Parameters
    ----------
    preprocess
        Of the bundle.
    spacing_mm
        Between rows and between columns, mm.

    Returns
    -------
    Window
        Of even soft tissue.

    Raises
    ------
    Refusal
        If the field of view spans too many pixels at that spacing.
    """
    ct = CtSlice(np.full((_SIDE, _SIDE), _HU, np.int16), (spacing_mm, spacing_mm), Path("made.dcm"))
    return cut_window(ct, _SIDE / 2, _SIDE / 2, preprocess.field_of_view_mm, preprocess.size)


def levels_for(batching: Batching) -> tuple[int, ...]:
    """Return how many callers are needed: one; one an instance; and so many that two batches an instance are there."""
    full = min(2 * batching.instances * (batching.preferred[-1] if batching.preferred else batching.most), MOST_CALLERS)
    return tuple(sorted({1, batching.instances, max(full, 2 * batching.instances)}))


def closed_loop(scorer: Scorer, statistics: Statistics, window: Window, callers: int, seconds: float) -> Level:
    """Ask from so many threads, each again when it is answered; one alone after a pause as long as the answer took.

    A server that is never idle keeps its network in the processor's caches; at a light load it does not.

    Parameters
    ----------
    scorer, statistics
        Of the same server, which nobody else asks meanwhile.
    window
        To be scored.
    callers
        How many threads.
    seconds
        How long, at least.

    Returns
    -------
    Level
        What was seen.

    Raises
    ------
    ServerError
        If a request fails.
    CommandError
        If somebody else asked the server, too.
    """
    took: list[list[float]] = [[] for _ in range(callers)]
    together = threading.Barrier(callers)

    def run(number: int) -> float:
        together.wait()
        end = time.perf_counter() + seconds
        while (asked := time.perf_counter()) < end:
            scorer.score_window(window)
            took[number].append(time.perf_counter() - asked)
            if callers == 1:
                time.sleep(took[number][-1])
        return time.perf_counter()

    time.sleep(_SETTLES_S)
    before = statistics.read()
    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter()
        ended = max(pool.map(run, range(callers)))
    times = np.concatenate([np.array(one) for one in took])
    counts, patience = statistics.read() - before, time.monotonic() + _PATIENCE_S
    while counts.nodes < len(times) and time.monotonic() < patience:
        time.sleep(_SETTLES_S)
        counts = statistics.read() - before
    if counts.nodes != len(times):
        raise CommandError(
            f"the server was asked {counts.nodes} times while {len(times)} were ours, so its times cannot be told"
            " apart: measure a server that nobody else asks, and not through a balancer"
        )
    return Level(callers, ended - began, float(times.mean()), float(times.std()), counts)


def fit(levels: Sequence[Level], batching: Batching) -> Service:
    """Return the service whose batches take what they took.

    Three figures give three parameters: a batch of one while no other instance is busy (first_s + each_s), a batch of
    one while the others are (slowdown), and what an instance is held by a batch when there is always another waiting.
    The rate of a full server is what it was, whatever the other two were.

    Parameters
    ----------
    levels
        Of `levels_for`, ascending.
    batching
        How the server was configured.

    Returns
    -------
    Service
        Its overhead is what one caller's answer took besides queue and batch.
    """
    alone, some, full = levels[0], levels[min(1, len(levels) - 1)], levels[-1]
    one, others = alone.counts.batch_s, batching.instances - 1
    overhead = max(alone.answered_s - alone.counts.queued_s / alone.counts.nodes - one, 0.0)
    held, size = batching.instances * full.seconds / full.counts.batches, full.counts.nodes / full.counts.batches
    slowdown = 0.0
    if others:
        # The others were busy for a part of the time only.
        busy = some.counts.batches * some.counts.batch_s / (batching.instances * some.seconds)
        ones = [seconds / count for nodes, count, seconds in some.counts.by_size if nodes == 1]
        slowdown = max(((ones[0] if ones else one) / one - 1) / (others * min(busy, 1.0)), 0.0)
    first, each, slowdown = _split(one, held, size, others, slowdown)
    return Service(
        first,
        each,
        batching.instances,
        batching.preferred,
        batching.most,
        batching.delay_s,
        slowdown,
        alone.deviation_s / one,
        overhead,
    )


def _split(one: float, held: float, size: float, others: int, slowdown: float) -> tuple[float, float, float]:
    """Return first_s, each_s and slowdown: alone a batch of one takes `one`, in a full server one of `size` `held`."""
    each = (held / (1 + slowdown * others) - one) / (size - 1) if size > 1 else one
    if size > 1 and 0 <= each <= one:
        return one - each, each, slowdown
    # The figures contradict each other by noise; the rate of the full server holds.
    each = min(max(each, 0.0), one)
    share = held / (one - each + each * size)
    if others and share >= 1:
        return one - each, each, (share - 1) / others
    return (one - each) * share, each * share, 0.0
