"""From nodes a day to replicas, network and memory: the formula, and the simulation that checks its answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.errors import CommandError
from lymphcad_serve.capacity.arrivals import studies
from lymphcad_serve.capacity.simulation import simulate

if TYPE_CHECKING:
    from lymphcad_serve.capacity.service import Service
    from lymphcad_serve.capacity.simulation import Outcome, Policy

MOST_REPLICAS = 1000
MESSAGE_BYTES = 512
"""Of a request and of its answer besides window and heatmap: names, shapes, spacing, centre, probability, HTTP/2."""


class Site(str, Enum):
    """A size of site."""

    HOSPITAL = "hospital"
    REGION = "region"
    COUNTRY = "country"


NODES_A_DAY = {Site.HOSPITAL: 200, Site.REGION: 4_000, Site.COUNTRY: 200_000}
"""Assumptions, not figures from anywhere: 20 neck CTs a day of 10 nodes each; 20 such hospitals; 1,000 of them."""


@dataclass(frozen=True)
class Demand:
    """What is asked of the servers; the defaults are assumptions.

    Attributes
    ----------
    nodes_a_day
        On a working day.
    busiest_hour
        Share of them that comes in the day's busiest hour.
    study_nodes
        How many of them a study brings at once, on average.
    p95_s
        Within which 95 % are to be answered in that hour, seconds.
    highest_load
        Share of the full rate that is planned for in that hour.
    spare
        Replicas more than needed: so many may be away, for an upgrade or a fault.
    """

    nodes_a_day: float
    busiest_hour: float = 0.15
    study_nodes: float = 10.0
    p95_s: float = 1.0
    highest_load: float = 0.7
    spare: int = 1

    @property
    def rate(self) -> float:
        """Nodes a second in the busiest hour."""
        return self.nodes_a_day * self.busiest_hour / 3600

    def __post_init__(self) -> None:
        wrong = {
            "--nodes-a-day": not 0 < self.nodes_a_day < math.inf,
            "--busiest-hour": not 1 / 24 <= self.busiest_hour <= 1,
            "--study-nodes": not 1 <= self.study_nodes <= 1000,
            "--p95": not 0 < self.p95_s < math.inf,
            "--highest-load": not 0 < self.highest_load < 1,
            "--spare": self.spare < 0,
        }
        for name, out in wrong.items():
            if out:
                raise CommandError(
                    f"{name} is out of range: nodes a day and seconds are above 0, the busiest hour has 1/24 to all of"
                    " the day's nodes, a study 1 to 1,000, the highest load is between 0 and 1, and spare is 0 or more"
                )


@dataclass(frozen=True)
class Sizing:
    """What is needed.

    Attributes
    ----------
    by_load
        Replicas by the formula ``ceil(rate / (highest_load * service.rate))``.
    needed
        With which the simulation keeps p95, at least `by_load`.
    replicas
        Those and the spare ones.
    outcome
        The simulation with `needed`.
    """

    by_load: int
    needed: int
    replicas: int
    outcome: Outcome


@dataclass(frozen=True)
class Traffic:
    """Bytes and bits, client to server and back.

    Attributes
    ----------
    in_bytes, out_bytes
        A node's.
    in_mbit_s, out_mbit_s
        In the busiest hour, Mbit/s.
    gb_a_day
        Both together, GB.
    """

    in_bytes: int
    out_bytes: int
    in_mbit_s: float
    out_mbit_s: float
    gb_a_day: float


def size(
    demand: Demand,
    service: Service,
    *,
    replicas: int | None = None,
    policy: Policy = "leastconn",
    nodes: int = 20_000,
    seed: int = 0,
) -> Sizing:
    """Return how many replicas a demand needs.

    Parameters
    ----------
    demand, service
        What is asked, and what a replica does.
    replicas
        Simulate so many; as many as are needed if None.
    policy
        Of the balancer.
    nodes
        To simulate, all of the busiest hour.
    seed
        Of the simulation.

    Returns
    -------
    Sizing
        Which keeps p95 if `replicas` is None.

    Raises
    ------
    CommandError
        If the given replicas cannot keep up, or no number of them keeps p95.
    """

    def tried(count: int) -> Outcome:
        generator = np.random.default_rng(seed)
        return simulate(studies(demand.rate, demand.study_nodes, nodes, generator), service, count, generator, policy)

    by_load = math.ceil(demand.rate / (demand.highest_load * service.rate))
    if replicas is not None:
        if demand.rate >= replicas * service.rate:
            raise CommandError(
                f"{replicas} replicas answer {replicas * service.rate:.1f} nodes/s, and {demand.rate:.1f} come in the"
                f" busiest hour, so the queue only grows: give at least {by_load}"
            )
        return Sizing(by_load, replicas, replicas, tried(replicas))
    if by_load > MOST_REPLICAS:
        raise CommandError(
            f"{by_load} replicas would be needed, and at most {MOST_REPLICAS} are planned for: give a faster server"
        )
    count, outcome = by_load, tried(by_load)
    if outcome.percentile_s(95) > demand.p95_s:
        # So many leave nearly every node of a study alone on a replica: more make no difference.
        too_few, count = by_load, by_load + math.ceil(4 * demand.study_nodes) + 20
        outcome = tried(count)
        if outcome.percentile_s(95) > demand.p95_s:
            raise CommandError(
                f"with {count} replicas 95 % are answered within {outcome.percentile_s(95):.3g} s, and"
                f" {demand.p95_s:g} s were asked for: no number of replicas makes a single answer faster, so give a"
                " faster server or more time"
            )
        while count - too_few > 1:
            middle = (count + too_few) // 2
            found = tried(middle)
            if found.percentile_s(95) > demand.p95_s:
                too_few = middle
            else:
                count, outcome = middle, found
    return Sizing(by_load, count, count + demand.spare, outcome)


def traffic(demand: Demand, window_bytes: int, heatmap_bytes: int) -> Traffic:
    """Return what goes over the network where client and server are on different machines.

    Parameters
    ----------
    demand
        How many nodes.
    window_bytes, heatmap_bytes
        Of a node: int16 [h, w] in, uint8 [S, S] out.

    Returns
    -------
    Traffic
        With `MESSAGE_BYTES` each way.
    """
    out, back = window_bytes + MESSAGE_BYTES, heatmap_bytes + MESSAGE_BYTES
    mbit = 8e-6 * demand.rate
    return Traffic(out, back, out * mbit, back * mbit, (out + back) * demand.nodes_a_day * 1e-9)
