"""A real Prometheus scrapes a tritonserver, a balancer and a client that scores: what was done is what it says."""

from __future__ import annotations

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from lymphcad_client.metrics import open_metrics
from lymphcad_client.observing import Observed
from lymphcad_client.servers import Servers
from prometheus_server import DEPLOY, Prometheus, free_port, need, wait_for, written_rules

from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import Bundle
from lymphcad.errors import Refusal
from lymphcad.slice import CtSlice

pytestmark = pytest.mark.server
LEVELS = np.random.default_rng(1).integers(-200, 200, 240).tolist()
_HAPROXY = """
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend grpc
  bind 127.0.0.1:{front} proto h2
  default_backend stable
backend stable
  server one 127.0.0.1:{triton} proto h2
frontend metrics
  bind 127.0.0.1:{metrics}
  http-request use-service prometheus-exporter if {{ path /metrics }}
"""


class Watched:
    """What was done while Prometheus looked on."""

    def __init__(self, prometheus, bundle, found):
        self.prometheus, self.bundle, self.found = prometheus, bundle, found


def made(level):
    """Return a disc of 20 mm on water, its level in HU."""
    rows, columns = np.mgrid[:200, :200]
    inside = (rows - 100) ** 2 + (columns - 100) ** 2 < 20**2
    return np.where(inside, level, 0).astype(np.int16)


def slice_of(level):
    return CtSlice(made(level), (0.5, 0.5), Path("made.dcm"))


@pytest.fixture(scope="session")
def watched(tmp_path_factory):
    """Score 240 nodes by the balancer and have one refused, all of it watched."""
    need("prometheus")
    need("haproxy")
    from lymphcad_serve.repository import Target, write_repository
    from lymphcad_serve.server import Server, free_ports

    bundle, folder = Bundle(DEMO_BUNDLE), tmp_path_factory.mktemp("watched")
    write_repository(bundle, folder / "models", Target.EMBEDDED)
    ports, client, front, balancer = free_ports(), free_port(), free_port(), free_port()
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(front=front, triton=ports.grpc, metrics=balancer))
    targets = {"triton-stable": ports.metrics, "balancer": balancer, "dashboard": client}

    process = None
    try:
        with Server(folder / "models", ports), Prometheus(folder / "prometheus", targets) as prometheus:
            process = subprocess.Popen(["haproxy", "-f", folder / "haproxy.cfg"])
            wait_for(lambda: prometheus.value('up{job="balancer"}') == 1)
            with Observed(Servers([f"grpc://127.0.0.1:{front}"]), [open_metrics(f"127.0.0.1:{client}")]) as scorer:
                first = scorer.score(slice_of(0), 100, 100)
                wait_for(lambda: prometheus.value("sum(lymphcad_observed_total)") == 3)
                with ThreadPoolExecutor(4) as pool:
                    found = list(pool.map(lambda level: scorer.score(slice_of(level), 100, 100), LEVELS))
                with pytest.raises(Refusal):
                    scorer.score(slice_of(50), 1000, 100)
                wait_for(
                    lambda: prometheus.value('lymphcad_nodes_total{status="refused",reason="node_outside_image"}') == 1
                )
                wait_for(lambda: (prometheus.value('nv_inference_request_success{model="lymph_node"}') or 0) >= 241)
                wait_for(lambda: len(prometheus.values('lymphcad:psi{window="1d"}')) == 3)
                wait_for(lambda: prometheus.value('sum(lymphcad:nodes:increase1h{status="refused"})'))
                yield Watched(prometheus, bundle, [first, *found])
    finally:
        if process is not None:
            process.kill()
            process.wait(30)


def test_what_was_done_is_what_it_says(watched):
    value, values = watched.prometheus.value, watched.prometheus.values
    assert value('nv_inference_request_success{model="lymph_node"}') == 241
    assert value('nv_inference_request_failure{model="lymph_node",reason="BACKEND"}') == 0
    assert value('lymphcad_nodes_total{status="scored"}') == 241
    assert value('sum(lymphcad_nodes_total{status="failed"})') == 0
    calls = [finding.call for finding in watched.found]
    assert 0 < calls.count("metastatic") < 241
    for call in ("benign", "metastatic"):
        assert value(f'lymphcad_calls_total{{call="{call}"}}') == calls.count(call)
    assert value("lymphcad_probability_count") == 241
    assert value("lymphcad_probability_sum") == pytest.approx(sum(one.probability for one in watched.found))
    assert value('lymphcad_spacing_mm_bucket{le="0.5"}') == 241
    assert value('lymphcad_window_hu_bucket{le="0.0"}') == 1 + sum(level <= 0 for level in LEVELS)
    assert value("lymphcad_window_hu_count") == 241
    assert value("sum(haproxy_backend_active_servers)") == 1
    assert value("sum(haproxy_backend_http_responses_total)") >= 241
    assert values("lymphcad_bundle_info") == {
        (("architecture", watched.bundle.manifest.architecture), ("bundle", watched.bundle.label)): 1
    }


def test_drift_is_that_of_the_nodes(watched):
    """Computed anew from the values themselves; the first node was counted before Prometheus looked."""
    reference = watched.bundle.manifest.reference
    values = {
        "probability": [finding.probability for finding in watched.found[1:]],
        "spacing_mm": [0.5] * 240,
        "window_hu": [made(level)[70:131, 70:131].mean() for level in LEVELS],  # 30 mm around the node
    }
    found = watched.prometheus.values('lymphcad:psi{window="1d"}')
    for quantity, seen in values.items():
        distribution = getattr(reference, quantity)
        counts = np.histogram(seen, [-np.inf, *distribution.edges, np.inf])[0]
        a, e = (np.clip(shares, 0.001, None) for shares in (counts / 240, np.asarray(distribution.shares)))
        expected = float(np.sum((a - e) * np.log(a / e)))
        key = (("bundle", watched.bundle.label), ("quantity", quantity), ("window", "1d"))
        assert found[key] == pytest.approx(expected, rel=0.05), quantity  # Prometheus extrapolates
    assert found[(("bundle", watched.bundle.label), ("quantity", "window_hu"), ("window", "1d"))] > 0.25


def test_every_rule_is_evaluated(watched):
    def all_evaluated():
        rules = [rule for group in watched.prometheus.ask("rules")["groups"] for rule in group["rules"]]
        assert [rule for rule in rules if rule["health"] == "err"] == []
        return len(rules) == len(written_rules()) and all(rule["health"] == "ok" for rule in rules)

    wait_for(all_evaluated)
    assert watched.prometheus.value("sum(prometheus_rule_evaluation_failures_total)") == 0
    targets = watched.prometheus.ask("targets")["activeTargets"]
    assert {(one["labels"]["job"], one["health"]) for one in targets} == {
        (job, "up") for job in ("triton-stable", "balancer", "dashboard", "prometheus")
    }


def test_each_metric_that_is_asked_for_is_given_out(watched):
    from lymphcad_serve.tritonserver import installed_server

    given = set(watched.prometheus.ask("label/__name__/values")) | {rule.get("record") for rule in written_rules()}
    asked = [rule["expr"] for rule in written_rules()]
    asked += [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    asked += [one["query"]["query"] for one in dashboard()["templating"]["list"] if one["type"] == "query"]
    names = {name for text in asked for name in re.findall(r"\b(?:nv|haproxy|lymphcad|prometheus)[_:][\w:]+", text)}
    of_a_gpu = {name for name in names if name.startswith("nv_gpu_")}
    assert len(of_a_gpu) >= 3
    assert names - of_a_gpu - given == set()
    # No GPU here: that the server knows the names is what can be seen.
    libraries = (installed_server()[0].parents[1] / "nvidia_pytriton.libs").glob("libtritonserver*")
    contents = b"".join(library.read_bytes() for library in libraries)
    # The compiler has taken some names apart, sixteen letters first.
    assert [name for name in of_a_gpu if name.encode()[:16] not in contents] == []


def dashboard():
    return json.loads((DEPLOY / "grafana/dashboards/lymphcad.json").read_text(encoding="utf-8"))


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] not in ("row", "text")]


EMPTY = {"GPU", "GPU memory", "GPU power", "Alerts", "Nodes not answered, by reason"}
"""Of which there is nothing here, and is nothing where all is well."""


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_each_panel_shows_something(watched, panel):
    assert panel["datasource"]["uid"] == "prometheus"
    shown = []
    for target in panel["targets"]:
        expression = target["expr"].replace("$__range", "1h").replace("$window", "1d")
        shown += watched.prometheus.ask("query", query=expression.replace("$bundle", watched.bundle.label))["result"]
    assert bool(shown) == (panel["title"] not in EMPTY)


def test_grafana_finds_what_it_is_given():
    provided = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert [source["uid"] for source in provided["datasources"]] == ["prometheus"]
    text = json.dumps(dashboard())
    assert set(re.findall(r'"uid": "(.+?)"', text)) == {"prometheus", dashboard()["uid"]}
    places = [(one["gridPos"]["x"], one["gridPos"]["y"]) for one in dashboard()["panels"]]
    assert len(set(places)) == len(places)
    ids = [one["id"] for one in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)
    assert "not a medical device" in dashboard()["description"]
