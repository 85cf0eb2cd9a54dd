"""The rules by themselves: promtool has them checked, and sees each alert fire and not fire."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_server import DEPLOY, RULES, need, written_rules

CASES = sorted((Path(__file__).parent / "prometheus").glob("*.test.yml"))
ALERTS = [rule for rule in written_rules() if "alert" in rule]


def promtool(*words):
    need("promtool")
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configuration_and_rules_are_sound():
    said = promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert f"{len(RULES)} rule files found" in said
    promtool("check", "rules", "--lint-fatal", *RULES)


@pytest.mark.parametrize("cases", CASES, ids=lambda file: file.name.partition(".")[0])
def test_cases(cases):
    assert "SUCCESS" in promtool("test", "rules", cases)


def fired():
    """Return each alert with whether a case expects it, over all cases that look at it."""
    found = {}
    for test in (test for cases in CASES for test in yaml.safe_load(cases.read_text())["tests"]):
        for case in test.get("alert_rule_test", []):
            found.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
        for case in test.get("promql_expr_test", []):
            if case["expr"].startswith("ALERTS"):
                names = {re.search('alertname="(.+?)"', one["labels"])[1] for one in case["exp_samples"]}
                for alert in (rule["alert"] for rule in ALERTS):
                    found.setdefault(alert, set()).add(alert in names)
    return found


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_each_alert_was_seen_firing_and_not(alert):
    assert fired()[alert] == {True, False}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_to_do(rule):
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    text = (DEPLOY.parent / page).read_text(encoding="utf-8")
    assert anchor == rule["alert"].lower()
    assert f"### {rule['alert']}\n" in text
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"].endswith(".")


def test_rules_ask_for_jobs_that_are_scraped():
    jobs = {
        job["job_name"] for job in yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    }
    for rule in written_rules():
        for operator, asked in re.findall(r'job(=~|=)"(.+?)"', rule["expr"]):
            assert any(re.fullmatch(asked, job) if operator == "=~" else asked == job for job in jobs), rule


def test_what_is_recorded_is_used():
    dashboard = (DEPLOY / "grafana/dashboards/lymphcad.json").read_text()
    for rule in written_rules():
        if "record" in rule:
            users = [one["expr"] for one in written_rules() if one is not rule and one.get("record") != rule["record"]]
            assert any(rule["record"] in text for text in (dashboard, *users)), rule["record"]


def test_a_cluster_gets_every_file():
    made = yaml.safe_load((DEPLOY / "prometheus/kustomization.yaml").read_text())["configMapGenerator"]
    named = [file for one in made for file in one["files"]]
    assert sorted(named) == sorted(["prometheus.yml", *(f"rules/{file.name}" for file in RULES)])
