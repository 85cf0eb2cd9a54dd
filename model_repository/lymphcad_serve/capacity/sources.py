"""Where a server's times come from: a figure of ours, one of the reader's, or a measurement now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lymphcad_client.triton import TritonScorer

from lymphcad.errors import CommandError
from lymphcad_serve.capacity.known import MEASURED, Known, Measured
from lymphcad_serve.capacity.measure import closed_loop, fit, levels_for, sample_window
from lymphcad_serve.capacity.service import Service
from lymphcad_serve.capacity.statistics import Statistics

if TYPE_CHECKING:
    from lymphcad_client.tls import Tls

_WARM_S = 1.0


def known_times(known: Known) -> Measured:
    """Return times that were measured once."""
    return MEASURED[known]


def stated_times(ms_a_node: float, instances: int) -> Measured:
    """Return times that a reader states: each node by itself, always as long.

    Parameters
    ----------
    ms_a_node
        Of one instance, ms.
    instances
        Of the network in a replica.

    Raises
    ------
    CommandError
        If one is not above 0.
    """
    return Measured(Service(0.0, ms_a_node / 1000, instances), None, f"--ms-a-node {ms_a_node:g}, without batches")


def measured_times(server: str, tls: Tls | None, seconds: float, spacing_mm: float) -> Measured:
    """Measure an idle server.

    Parameters
    ----------
    server
        Its own address, not a balancer's.
    tls
        For an address with TLS.
    seconds
        Of each of up to three closed loops.
    spacing_mm
        Of the slice that is sent, mm.

    Returns
    -------
    Measured
        With what the served bundle cuts.

    Raises
    ------
    CommandError
        If somebody else asks the server meanwhile, or the seconds are none.
    ServerError
        If it does not answer as it must.
    """
    if not 0 < seconds <= 600:
        raise CommandError(f"--seconds was {seconds:g}, and up to 600 were expected")
    with TritonScorer(server, tls=tls) as scorer, Statistics(server, tls) as statistics:
        window = sample_window(scorer.manifest.preprocess, spacing_mm)
        callers = levels_for(statistics.batching)
        closed_loop(scorer, statistics, window, callers[-1], min(_WARM_S, seconds))
        levels = [closed_loop(scorer, statistics, window, count, seconds) for count in callers]
        service = fit(levels, statistics.batching)
        rates = ", ".join(f"{level.rate:.1f} nodes/s at {level.callers}" for level in levels)
        source = f"measured now, with callers in closed loops on this machine: {rates}"
        return Measured(service, None, source, scorer.manifest.preprocess)
