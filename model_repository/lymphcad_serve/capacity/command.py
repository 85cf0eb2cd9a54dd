"""``lymphcad capacity``."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from lymphcad_client.options import TlsCa, TlsCert, TlsKey

from lymphcad.assets import DEMO_BUNDLE

# As in the modules beside this one, whose imports would slow `lymphcad --help`.
_Site = Literal["hospital", "region", "country"]
_Known = Literal["demo-cpu", "resnet50-cpu", "resnet50-h100"]
_Policy = Literal["leastconn", "roundrobin"]


def capacity(
    site: Annotated[_Site, typer.Option(help="Assumed: 200, 4,000 or 200,000 nodes a day.")] = "hospital",
    nodes_a_day: Annotated[float | None, typer.Option(help="Of a working day, in place of --site.")] = None,
    busiest_hour: Annotated[float, typer.Option(help="Assumed share of the day's nodes in its busiest hour.")] = 0.15,
    study_nodes: Annotated[float, typer.Option("--burst", help="Assumed nodes that a study brings at once.")] = 10.0,
    p95_s: Annotated[float, typer.Option("--p95", help="Within which 95 % are answered in that hour, seconds.")] = 1.0,
    highest_load: Annotated[float, typer.Option(help="Share of the full rate that is planned for.")] = 0.7,
    spare: Annotated[int, typer.Option(help="Replicas that may be away.")] = 1,
    replicas: Annotated[str, typer.Option(help="auto, or a number to simulate.")] = "auto",
    policy: Annotated[_Policy, typer.Option(help="Of the balancer.")] = "leastconn",
    known: Annotated[_Known, typer.Option(help="Times that were measured once.")] = "demo-cpu",
    ms_a_node: Annotated[
        float | None, typer.Option(help="Of one instance without batches, ms, in place of --known.")
    ] = None,
    instances: Annotated[int, typer.Option(help="With --ms-a-node: of the network in a replica.")] = 1,
    server: Annotated[
        str | None, typer.Option(help="Measure this idle server (grpc://host:port), in place of --known.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="With --server: of each of three measurements.")] = 5.0,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    memory_mb: Annotated[float | None, typer.Option(help="Of a replica, MB, as measured by you.")] = None,
    spacing_mm: Annotated[float, typer.Option(help="Of the CT, mm a pixel, for the network's traffic.")] = 0.45,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Whose windows and heatmaps are sent.", show_default="that of the times, or the demo bundle"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how many servers, what network and what memory a number of nodes a day needs."""
    import json

    from lymphcad_client.tls import tls_of
    from rich.console import Console

    from lymphcad.bundle import Bundle
    from lymphcad.errors import CommandError
    from lymphcad_serve.capacity.known import Known
    from lymphcad_serve.capacity.measure import sample_window
    from lymphcad_serve.capacity.report import as_json, as_text
    from lymphcad_serve.capacity.sizing import NODES_A_DAY, Demand, Site, size, traffic
    from lymphcad_serve.capacity.sources import known_times, measured_times, stated_times

    if ms_a_node is not None and server is not None:
        raise CommandError("--ms-a-node and --server exclude each other: say the time, or have it measured")
    if replicas != "auto" and (not replicas.isdigit() or int(replicas) < 1):
        raise CommandError(f"--replicas was {replicas!r}, and auto or a number from 1 on was expected")
    nodes = nodes_a_day if nodes_a_day is not None else NODES_A_DAY[Site(site)]
    demand = Demand(nodes, busiest_hour, study_nodes, p95_s, highest_load, spare)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    tls = tls_of(tls_ca, tls_cert, tls_key)
    if server is not None:
        with console.status("Measuring the server"):
            times = measured_times(server, tls, seconds, spacing_mm)
    else:
        if tls is not None:
            raise CommandError("the certificates go with --server: name the server to measure")
        times = known_times(Known(known)) if ms_a_node is None else stated_times(ms_a_node, instances)
    preprocess = times.preprocess
    if bundle is not None or preprocess is None:
        preprocess = Bundle(bundle or DEMO_BUNDLE).manifest.preprocess
    window = sample_window(preprocess, spacing_mm)
    flow = traffic(demand, window.image.nbytes, preprocess.size**2)
    with console.status("Simulating the busiest hour"):
        asked = None if replicas == "auto" else int(replicas)
        found = size(demand, times.service, replicas=asked, policy=policy, seed=seed)
    memory = memory_mb if memory_mb is not None else times.memory_mb
    if json_output:
        typer.echo(json.dumps(as_json(demand, times, found, flow, memory, policy)))
        return
    output = Console(highlight=False, soft_wrap=True)
    for line in as_text(demand, times, found, flow, memory, policy):
        output.print(line, markup=False)
