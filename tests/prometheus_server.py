"""A real Prometheus on loopback, with the configuration and the rules of deploy/ on targets of a test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))


def need(program):
    """Skip a test where a program is not installed; on CI it must be."""
    if shutil.which(program) is None:
        if "CI" in os.environ:
            pytest.fail(f"no {program}: make system")
        pytest.skip(f"no {program}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def written_rules():
    """Return each rule of deploy/, by record or alert."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def wait_for(condition, seconds=60):
    """Return what a condition gives once that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


class Prometheus:
    """The server of deploy/, but quick: it scrapes several times a second and evaluates each second.

    ``targets`` has a port for each job that there is; the others have no targets, as if DNS did not know them.
    """

    def __init__(self, folder, targets):
        need("prometheus")
        self.port = free_port()
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "1s"}
        for job in config["scrape_configs"]:
            job.pop("dns_sd_configs", None)
            ports = self.port if job["job_name"] == "prometheus" else targets.get(job["job_name"])
            job["static_configs"] = [] if ports is None else [{"targets": [f"127.0.0.1:{ports}"]}]
        (folder / "rules").mkdir(parents=True)
        for file in RULES:
            groups = yaml.safe_load(file.read_text())
            for group in groups["groups"]:
                group.pop("interval", None)
            (folder / "rules" / file.name).write_text(yaml.safe_dump(groups))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.folder, self._process = folder, None

    def __enter__(self):
        command = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{self.port}"]
        command += [f"--storage.tsdb.path={self.folder / 'data'}", "--log.level=warn"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        wait_for(self._ready)
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(30)

    def _ready(self):
        assert self._process.poll() is None, self.log
        with contextlib.suppress(OSError):
            return self._get("/-/ready")

    @property
    def log(self):
        return (self.folder / "log").read_text()

    def _get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return answer.read()

    def ask(self, path, **parameters):
        """Return the data of an answer of the API, whose status must be success."""
        try:
            answer = json.loads(self._get(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, expression):
        """Return the values of an instant query, each by its labels without where it was scraped."""
        return {
            tuple(sorted((k, v) for k, v in one["metric"].items() if k not in ("__name__", "instance", "job"))): float(
                one["value"][1]
            )
            for one in self.ask("query", query=expression)["result"]
        }

    def value(self, expression):
        """Return the one value of an instant query; None if there is none."""
        found = list(self.values(expression).values())
        assert len(found) <= 1, found
        return found[0] if found else None
