"""What `lymphcad capacity` says, and when it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from lymphcad_serve.capacity.known import MEASURED, Known
from lymphcad_serve.capacity.service import Service
from lymphcad_serve.capacity.sizing import NODES_A_DAY, Demand, Site, size, traffic

from lymphcad.cli import main
from lymphcad.errors import CommandError


def capacity(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["capacity", *map(str, arguments)])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_the_formula():
    """0.15 of 24,000 nodes in 3,600 s is one a second; 1 / (0.5 * 0.8) is 2.5."""
    demand = Demand(24_000, busiest_hour=0.15, study_nodes=1.0, p95_s=1e6, highest_load=0.5, spare=2)
    assert demand.rate == 1.0
    found = size(demand, Service(0.0, 1 / 0.8), nodes=500)
    assert (found.by_load, found.needed, found.replicas) == (3, 3, 5)


@pytest.mark.parametrize("p95_s", [0.45, 0.8, 1.0, 1.3, 2.0])
@pytest.mark.parametrize("policy", ["leastconn", "roundrobin"])
def test_the_fewest_replicas_that_keep_the_time(policy, p95_s):
    """Studies of 10 on replicas of 0.4 s a node: more are needed than their load says, and one fewer is too few."""
    demand, service = Demand(2_400, p95_s=p95_s), Service(0.0, 0.4)
    found = size(demand, service, policy=policy, nodes=1000)
    assert found.needed > found.by_load == 1
    assert found.outcome.percentile_s(95) <= p95_s
    fewer = size(demand, service, policy=policy, nodes=1000, replicas=found.needed - 1)
    assert fewer.outcome.percentile_s(95) > p95_s


def test_a_time_that_no_number_of_replicas_keeps():
    with pytest.raises(CommandError, match="no number of replicas makes a single answer faster"):
        size(Demand(2_400, p95_s=0.3), Service(0.0, 0.4), nodes=1000)


def test_too_few_and_too_many():
    with pytest.raises(CommandError, match=r"answer 1\.0 nodes/s, and 1\.0 come in the busiest hour"):
        size(Demand(24_000), Service(0.0, 1.0), replicas=1)
    with pytest.raises(CommandError, match="replicas would be needed"):
        size(Demand(1e9), Service(0.0, 1.0))


def test_traffic():
    """One node a second of 992 bytes in and 488 out, with 512 of message each: 12.032 and 8 kbit/s."""
    flow = traffic(Demand(24_000), 992, 488)
    assert (flow.in_bytes, flow.out_bytes) == (1504, 1000)
    assert (flow.in_mbit_s, flow.out_mbit_s) == (pytest.approx(0.012032), pytest.approx(0.008))
    assert flow.gb_a_day == pytest.approx(24_000 * 2504e-9)


def test_what_was_measured_once():
    """As the pages that are named say."""
    rates = {known: MEASURED[known].service for known in Known}
    assert rates[Known.DEMO_CPU].rate == pytest.approx(378)
    assert rates[Known.RESNET50_CPU].rate == pytest.approx(80.5)
    gpu = rates[Known.RESNET50_H100]
    for nodes, rate, within in ((1, 692, 0.01), (8, 3257, 0.1), (64, 7456, 0.01)):
        assert nodes / gpu.batch_s(nodes, 1) == pytest.approx(rate, rel=within)
    assert "the network alone" in MEASURED[Known.RESNET50_H100].source


@pytest.mark.parametrize("site", list(Site))
def test_a_site(capsys, site):
    code, said, _ = capacity(capsys, "--site", site.value)
    assert code == 0
    assert f"Assumed: {NODES_A_DAY[site]:,} nodes a day" in said
    assert "Replicas: 2 (1 by load, 1 simulated)" in said
    assert "33,280 bytes in and 16,896 out a node" in said
    assert "Research use only" in said


def test_what_is_sent_is_of_the_network_that_was_measured(capsys, probe_bundle):
    def sent(*options):
        network = json.loads(capacity(capsys, "--json", *options)[1])["network"]
        return network["in_bytes"] - 512, network["out_bytes"] - 512

    assert sent() == (2 * 128 * 128, 128 * 128)
    assert sent("--known", "resnet50-cpu") == (2 * 128 * 128, 224 * 224)
    assert sent("--known", "resnet50-cpu", "--spacing-mm", 0.25) == (2 * 192 * 192, 224 * 224)
    assert sent("--known", "resnet50-cpu", "--bundle", probe_bundle.path) == (2 * 128 * 128, 64 * 64)
    assert sent("--ms-a-node", 5) == (2 * 128 * 128, 128 * 128)


def test_json(capsys):
    options = (
        "--nodes-a-day",
        100_000,
        "--ms-a-node",
        200,
        "--instances",
        2,
        "--p95",
        5,
        "--json",
        "--memory-mb",
        1000,
    )
    code, said, _ = capacity(capsys, *options)
    found = json.loads(said)
    assert code == 0
    assert found["service"]["rate"] == pytest.approx(10.0)
    assert found["rate"] == pytest.approx(100_000 * 0.15 / 3600)
    assert found["replicas"] == found["replicas_needed"] + 1
    assert found["memory_mb"] == 1000 * found["replicas"]
    times = [found["simulated"][key] for key in ("p50_s", "p95_s", "p99_s")]
    assert times == sorted(times)
    assert times[1] <= 5
    assert capacity(capsys, *options)[1] == said
    again = json.loads(capacity(capsys, *options, "--seed", 1)[1])
    assert again["simulated"] != found["simulated"]
    fixed = json.loads(capacity(capsys, *options, "--replicas", 9)[1])
    assert fixed["replicas"] == 9
    assert fixed["simulated"]["busy"] == pytest.approx(found["rate"] / 90, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--site", "planet"), "is not one of"),
        (("--replicas", "many"), "auto or a number"),
        (("--replicas", "0"), "auto or a number"),
        (("--ms-a-node", "5", "--server", "grpc://127.0.0.1:1"), "exclude each other"),
        (("--ms-a-node", "-5"), "name times above 0"),
        (("--busiest-hour", "2"), "--busiest-hour is out of range"),
        (("--nodes-a-day", "0"), "--nodes-a-day is out of range"),
        (("--nodes-a-day", "nan"), "--nodes-a-day is out of range"),
        (("--tls-ca", "ca.pem"), "the certificates go with --server"),
        (("--server", "grpc://127.0.0.1:1"), "server_away"),
        (("--server", "127.0.0.1:1"), "is no server address"),
        (("--server", "grpc://127.0.0.1:1", "--seconds", "0"), "--seconds was 0"),
        (("--bundle", "nowhere"), "there is no bundle.json"),
        (("--spacing-mm", "0.01"), "bad_pixel_spacing"),
    ],
)
def test_a_wrong_command(capsys, arguments, says):
    code, out, err = capacity(capsys, *arguments)
    assert (code, out) == (2, "")
    assert says in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


@pytest.mark.server
def test_a_server_is_measured(capsys, serve_probe):
    code, said, err = capacity(capsys, "--server", serve_probe("embedded"), "--seconds", 0.3, "--json")
    assert code == 0, err
    found = json.loads(said)
    assert found["service"]["instances"] == 2
    assert found["service"]["preferred"] == [2]
    assert found["service"]["rate"] > 1
    assert found["service"]["source"].startswith("measured now")
    assert found["network"]["out_bytes"] == 512 + 64 * 64
    assert np.isfinite(found["simulated"]["p95_s"])
