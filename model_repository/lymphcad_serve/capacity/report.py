"""What `lymphcad capacity` says."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lymphcad import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from lymphcad_serve.capacity.known import Measured
    from lymphcad_serve.capacity.simulation import Policy
    from lymphcad_serve.capacity.sizing import Demand, Sizing, Traffic

_PERCENTILES = (50, 95, 99)


def as_json(
    demand: Demand, times: Measured, found: Sizing, flow: Traffic, memory_mb: float | None, policy: Policy
) -> dict[str, Any]:
    """Return everything that was assumed and found, times in seconds."""
    outcome, service = found.outcome, times.service
    return {
        "assumed": asdict(demand) | {"policy": policy},
        "service": asdict(service) | {"rate": service.rate, "source": times.source},
        "rate": demand.rate,
        "replicas_by_load": found.by_load,
        "replicas_needed": found.needed,
        "replicas": found.replicas,
        "nodes_a_day_at_full_load": 86400 * found.needed * service.rate,
        "simulated": {
            "nodes": len(outcome.answers),
            "busy": outcome.busy,
            "mean_s": float(outcome.answered_s.mean()),
            **{f"p{percent}_s": outcome.percentile_s(percent) for percent in _PERCENTILES},
            "most_at_once": outcome.most_in_system,
        },
        "network": asdict(flow),
        "memory_mb": None if memory_mb is None else memory_mb * found.replicas,
        "notice": RESEARCH_USE_ONLY,
    }


def as_text(
    demand: Demand, times: Measured, found: Sizing, flow: Traffic, memory_mb: float | None, policy: Policy
) -> list[str]:
    """Return the same for people, a line for each theme."""
    outcome, service = found.outcome, times.service
    latencies = ", ".join(f"p{percent} {_time(outcome.percentile_s(percent))}" for percent in _PERCENTILES)
    memory = (
        "not measured: name a replica's with --memory-mb"
        if memory_mb is None
        else f"{memory_mb:.0f} MB a replica, {memory_mb * found.replicas:.0f} MB together"
    )
    return [
        f"Assumed: {demand.nodes_a_day:,.0f} nodes a day, {100 * demand.busiest_hour:g} % of them in the busiest hour"
        f" ({demand.rate:.3g} nodes/s), {demand.study_nodes:g} at once from a study; 95 % answered within"
        f" {demand.p95_s:g} s, at most {100 * demand.highest_load:g} % of the full rate, {demand.spare} spare;"
        f" balancer: {policy}.",
        f"A replica: {service.rate:.1f} nodes/s when full, {_time(service.batch_s(1, 1) + service.overhead_s)} for a"
        f" node alone ({times.source}).",
        f"Replicas: {found.replicas} ({found.by_load} by load, {found.needed} simulated).",
        f"Busiest hour, {found.needed} replicas, {len(outcome.answers):,} simulated nodes: {latencies}; instances busy"
        f" {100 * outcome.busy:.2g} % of the time, at most {outcome.most_in_system} nodes at once.",
        f"At full load all day those without the spare ones answer {86400 * found.needed * service.rate:,.0f} nodes.",
        f"Network: {flow.in_bytes:,} bytes in and {flow.out_bytes:,} out a node; {flow.in_mbit_s:.3g} and"
        f" {flow.out_mbit_s:.3g} Mbit/s in the busiest hour, {flow.gb_a_day:.3g} GB a day.",
        f"Memory: {memory}.",
        f"{RESEARCH_USE_ONLY}.",
    ]


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
