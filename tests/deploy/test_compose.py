"""The compose file: what the specification takes, closed, and the same cluster as Kubernetes' one."""

from __future__ import annotations

import re

import compose_spec
import pytest
import yaml
from deploying import DEPLOY, of_kind

COMPOSE = DEPLOY / "compose.yaml"


def variables() -> dict[str, str]:
    lines = (DEPLOY / "compose.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled(given: dict[str, str]) -> str:
    """Return the file with its variables in, as the specification's interpolation has it."""

    def value(found: re.Match) -> str:
        name, kind, word = found.groups()
        if given.get(name):
            return given[name]
        if kind == ":?":
            raise ValueError(name)
        return word or ""

    return re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", value, COMPOSE.read_text())


@pytest.fixture(scope="module")
def given():
    """Return the example with what it leaves open."""
    return {
        name: f"registry.example/{name.lower()}@sha256:{0:064}" if name.endswith("_IMAGE") else value or "filled"
        for name, value in variables().items()
    }


@pytest.fixture(scope="module")
def compose(given):
    return yaml.safe_load(filled(given))


def check(content: dict) -> None:
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(content)).validate()


def test_the_specification_takes_it(compose):
    check(compose)
    for name, wrong in (("read_onli", True), ("networks", ["nowhere"]), ("healthcheck", {"interval": "often"})):
        service = {**compose["services"]["balancer"], name: wrong}
        with pytest.raises(ValueError, match="balancer"):
            check({**compose, "services": {**compose["services"], "balancer": service}})
    for one in compose["services"].values():
        assert set(one.get("depends_on", {})) <= compose["services"].keys()


def test_what_must_be_set_is_in_the_example(given):
    text = COMPOSE.read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == given.keys()
    for name in re.findall(r"\$\{(\w+):\?", text):
        with pytest.raises(ValueError, match=name):
            filled({key: value for key, value in given.items() if key != name})
    # Nothing is run that was not chosen: no image and no password has a value of ours.
    for name, value in variables().items():
        assert not name.endswith("_IMAGE") or value == "" or value.endswith("@sha256:")
        assert not name.endswith("_PASSWORD") or value == ""


def test_every_container_is_closed(compose):
    for name, one in compose["services"].items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"]
        assert "cap_add" not in one
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert int(one["user"].split(":")[0]) > 0
        assert not {"privileged", "pid", "ipc", "devices", "userns_mode"} & one.keys()
        assert {"cpus", "memory", "pids"} <= one["deploy"]["resources"]["limits"].keys()
        assert "healthcheck" in one or name == "plan"
        assert one["image"].count("@sha256:") == 1
        for port in one.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
        assert not any("docker.sock" in volume for volume in one.get("volumes", []))


def test_who_shares_a_network_with_whom(compose):
    services, networks = compose["services"], compose["networks"]
    members = {
        network: {name for name, one in services.items() if network in one.get("networks", ())} for network in networks
    }
    servers = {"triton-gpu", "triton-cpu"}
    assert members == {
        "outside": {"balancer", "dashboard", "grafana", "orthanc"},
        "clients": {"balancer", "dashboard"},
        "servers": {*servers, "balancer", "prometheus"},
        "watching": {"balancer", "dashboard", "prometheus", "grafana"},
    }
    assert {name for name, one in networks.items() if one.get("internal")} == {"clients", "servers", "watching"}
    assert networks["outside"]["driver_opts"] == {"com.docker.network.bridge.enable_icc": "false"}
    for name in servers:
        assert "ports" not in services[name]
        assert services[name]["networks"]["servers"]["aliases"] == ["triton-stable"]


@pytest.mark.parametrize("profile", ["gpu", "cpu"])
def test_a_profile_is_whole(compose, profile):
    started = {name for name, one in compose["services"].items() if profile in one.get("profiles", [profile])}
    assert started - {"plan"} == {f"triton-{profile}", "balancer", "dashboard", "orthanc", "prometheus", "grafana"}
    assert ("plan" in started) == (profile == "gpu")
    for name in started:
        assert set(compose["services"][name].get("depends_on", {})) <= started
    if profile == "gpu":
        waits = compose["services"]["triton-gpu"]["depends_on"]
        assert waits == {"plan": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("profile", ["gpu", "cpu"])
def test_it_is_the_cluster_of_kubernetes(compose, rendered, profile):
    """The same words for server, plan builder, page, Prometheus and Orthanc."""
    deployments = of_kind(rendered(f"overlays/{profile}"), "Deployment")

    def pod(name):
        return deployments[name]["spec"]["template"]["spec"]

    def words(name):
        return compose["services"][name].get("entrypoint", [])[2:] + compose["services"][name]["command"]

    stable = pod("triton-stable")
    args = [word.replace("$(BUNDLE)", "stable") for word in stable["containers"][0]["args"]]
    assert sorted(words(f"triton-{profile}")) == sorted(args)
    assert compose["services"][f"triton-{profile}"]["stop_grace_period"] == "75s"
    assert stable["terminationGracePeriodSeconds"] == 75
    if profile == "gpu":
        (builder,) = stable["initContainers"]
        assert words("plan") == [word.replace("$(BUNDLE)", "stable") for word in builder["args"]]
    page = set(pod("dashboard")["containers"][0]["args"])
    assert set(words("dashboard")) == page - {"--host=127.0.0.1"} | {"--host=0.0.0.0", "--insecure"}
    assert words("prometheus") == pod("prometheus")["containers"][0]["args"]
    assert compose["services"]["orthanc"]["entrypoint"] == pod("orthanc")["containers"][0]["command"]
    for name, service in (("dashboard", "dashboard"), ("balancer", "balancer"), ("grafana", "grafana")):
        secure = pod(name)["securityContext"]
        assert compose["services"][service]["user"] == f"{secure['runAsUser']}:{secure['runAsGroup']}"


def test_what_is_mounted_is_there(compose):
    for name, one in compose["services"].items():
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
                assert volume.endswith(":ro")
            else:
                assert source in compose["volumes"]
        targets = {secret["target"] for secret in one.get("secrets", [])}
        named = {word.split("=")[1] for word in one.get("command", []) if word.startswith("--tls-")}
        assert named <= targets
