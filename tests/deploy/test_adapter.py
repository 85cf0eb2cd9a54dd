"""What scales the servers: the figure that prometheus-adapter computes, by Prometheus itself."""

from __future__ import annotations

import subprocess

import yaml
from deploying import DEPLOY, KUBERNETES, need, of_kind

VALUES = yaml.safe_load((KUBERNETES / "adapter.yaml").read_text())


def test_the_autoscaler_asks_for_what_the_adapter_tells(rendered):
    (rule,) = VALUES["rules"]["external"]
    (scaler,) = of_kind(rendered("overlays/gpu"), "HorizontalPodAutoscaler").values()
    (metric,) = scaler["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == rule["name"]["as"]
    assert metric["external"]["target"] == {"type": "Value", "value": "50m"}
    assert 'job="triton-stable"' in rule["seriesQuery"]
    assert VALUES["prometheus"]["url"] == "http://prometheus.lymphcad.svc"
    jobs = {
        job["job_name"]
        for job in yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    }
    assert "triton-stable" in jobs


def test_the_figure_is_the_seconds_that_a_node_waits(tmp_path):
    """Of two servers and three steps; the candidate's do not count, and nothing asked is nothing waited."""
    (rule,) = VALUES["rules"]["external"]
    rules = {"groups": [{"name": "g", "rules": [{"record": "found", "expr": rule["metricsQuery"]}]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    series = []

    def grows(metric, model, server, by, job="triton-stable"):
        labels = f'job="{job}",model="{model}",instance="{server}"'
        series.append({"series": f"{metric}{{{labels}}}", "values": f"0+{by}x20 {20 * by}+0x20"})

    for server in ("a", "b"):  # 10 nodes in 15 s; each waits 20 + 30 + 10 ms
        for model, waited in (("preprocess", 200_000), ("cnn", 300_000), ("cam", 100_000), ("lymph_node", 0)):
            grows("nv_inference_request_success", model, server, 10)
            grows("nv_inference_queue_duration_us", model, server, waited)
    grows("nv_inference_queue_duration_us", "cnn", "c", 9_000_000, "triton-candidate")
    grows("nv_inference_request_success", "cnn", "c", 10, "triton-candidate")
    tests = [
        {
            "interval": "15s",
            "input_series": series,
            "promql_expr_test": [
                {"expr": "round(1000 * found)", "eval_time": time, "exp_samples": [{"labels": "{}", "value": value}]}
                for time, value in (("4m", 60), ("8m", 0))
            ],
        }
    ]
    content = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(content))
    words = [need("promtool", "prometheus"), "test", "rules", str(tmp_path / "tests.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
