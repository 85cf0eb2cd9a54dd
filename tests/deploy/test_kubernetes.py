"""What a cluster would be told, as kustomize renders it: valid, closed, and of one piece."""

from __future__ import annotations

import itertools
import re

import kubernetes_validate
import pytest
import yaml
from deploying import DEPLOY, KUBERNETES, PodLike, containers_of, of_kind, pod_of, reaches, selects

OVERLAYS = ["overlays/cpu", "overlays/gpu"]
VERSIONS = ["1.32", "1.35", "1.37"]


@pytest.fixture(params=[*OVERLAYS, "load", "everything"])
def objects(request, rendered, with_everything):
    return with_everything if request.param == "everything" else rendered(request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_of_three_kubernetes_versions(objects, version):
    for one in objects:
        assert kubernetes_validate.validate(one, version, strict=True) == version


def test_a_schema_finds_what_is_wrong(rendered):
    one = of_kind(rendered("overlays/gpu"), "Deployment")["triton-stable"]
    wrong = {**one, "spec": {**one["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_every_container_is_closed(objects):
    """Pod Security Standards, restricted; and what that leaves open."""
    checked = 0
    for one in objects:
        if (pod := pod_of(one)) is None:
            continue
        spec = pod["spec"]
        secure = spec["securityContext"]
        assert secure["runAsNonRoot"] is True
        assert secure["runAsUser"] > 0
        assert secure["runAsGroup"] > 0
        assert secure["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName", "hostAliases"} & spec.keys()
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))
        for container in containers_of(one):
            own = container["securityContext"]
            assert own == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))
            for kind in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"][kind].keys()
            assert re.fullmatch(r"[\w./-]+@sha256:[0-9a-f]{64}", container["image"])
            assert "imagePullPolicy" not in container
            for variable in container.get("env", []):
                if re.search("PASSWORD|TOKEN|SECRET|KEY", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"]
            checked += 1
    assert checked
    for namespace in of_kind(objects, "Namespace").values():
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_nothing_secret_and_no_rights_are_in_the_manifests(objects):
    assert {one["kind"] for one in objects} <= {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Namespace",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Pod",
        "PodDisruptionBudget",
        "Service",
    }
    assert all(one["kind"] == "Namespace" or one["metadata"]["namespace"] == "lymphcad" for one in objects)
    assert all(one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "lymphcad" for one in objects if pod_of(one))
    # From outside of the cluster nothing is reached.
    assert all(one["spec"].get("type", "ClusterIP") == "ClusterIP" for one in of_kind(objects, "Service").values())


def others() -> list[PodLike]:
    return [
        PodLike("outsider"),
        PodLike("client", {"lymphcad.io/client": "true"}),
        PodLike("elsewhere", {"lymphcad.io/client": "true"}, "default"),
        PodLike("impostor", {"app.kubernetes.io/name": "balancer"}, "default"),
        PodLike("dns", {"k8s-app": "kube-dns"}, "kube-system"),
        PodLike("adapter", {"app.kubernetes.io/name": "prometheus-adapter"}, "monitoring"),
        PodLike("proxy", {}, "proxies", {"lymphcad.io/proxy": "true"}),
    ]


def connections(objects) -> set[tuple[str, str, int]]:
    """Return who opens a connection to whom, of all pods and of `others`, in the cluster."""
    policies = list(of_kind(objects, "NetworkPolicy").values())
    pods = [PodLike(one["metadata"]["name"], pod["metadata"]["labels"]) for one in objects if (pod := pod_of(one))]
    everybody = [*pods, *others()]
    ports = {53, 443, 3000, 4242, 8000, 8001, 8002, 8042, 8404, 8443, 8501, 9090}
    return {
        (source.name, target.name, port)
        for source, target, port in itertools.product(everybody, everybody, ports)
        if source.name != target.name
        and "lymphcad" in (source.namespace, target.namespace)
        and reaches(policies, source, target, port)
    }


SERVERS = ("triton-stable", "triton-candidate")
ALLOWED = {
    *(("balancer", server, 8001) for server in SERVERS),
    *(("prometheus", server, 8002) for server in SERVERS),
    ("prometheus", "balancer", 8404),
    ("prometheus", "dashboard", 9090),
    ("dashboard", "balancer", 8443),
    ("client", "balancer", 8443),
    ("client", "orthanc", 4242),
    ("client", "orthanc", 8042),
    ("grafana", "prometheus", 9090),
    ("adapter", "prometheus", 9090),
    *((name, "dns", 53) for name in ("balancer", "dashboard", "prometheus", "grafana", "client", "outsider")),
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_who_reaches_whom(rendered, overlay):
    assert connections(rendered(overlay)) == ALLOWED


def test_sign_in_opens_the_page_alone(with_everything):
    opened = connections(with_everything) - ALLOWED
    # The provider that signs people in may be anywhere.
    assert opened == {("proxy", "dashboard", 8501)} | {
        ("dashboard", one.name, 443) for one in others() if one.namespace != "lymphcad"
    }
    assert connections(with_everything) >= ALLOWED


def test_nothing_else_reaches_the_ports_of_triton(rendered):
    found = {(source, port) for source, target, port in connections(rendered("overlays/gpu")) if target in SERVERS}
    assert found == {("balancer", 8001), ("prometheus", 8002)}
    # The evaluation would see an open cluster.
    bare = [one for one in rendered("overlays/gpu") if one["kind"] != "NetworkPolicy"]
    assert ("outsider", "triton-stable", 8000) in connections(bare)


def test_services_lead_to_ports_of_pods(objects):
    pods = [pod for one in objects if (pod := pod_of(one))]
    for name, one in of_kind(objects, "Service").items():
        chosen = [pod for pod in pods if selects({"matchLabels": one["spec"]["selector"]}, pod["metadata"]["labels"])]
        assert len(chosen) == 1, name
        named = {port["name"] for container in chosen[0]["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in one["spec"]["ports"]} <= named
    for one in of_kind(objects, "PodDisruptionBudget").values():
        assert sum(selects(one["spec"]["selector"], pod["metadata"]["labels"]) for pod in pods) == 1


def test_the_names_that_the_parts_use_for_each_other(rendered):
    services = of_kind(rendered("overlays/gpu"), "Service")
    ports = {name: {port["port"] for port in one["spec"]["ports"]} for name, one in services.items()}
    assert ports == {
        "triton-stable": {8001, 8002},
        "triton-candidate": {8001, 8002},
        "balancer": {8443},
        "balancer-metrics": {8404},
        "dashboard": {9090},
        "prometheus": {9090},
        "orthanc": {8042, 4242},
    }
    # Each server is told by its own name: one address would divide connections, not requests.
    headless = {name for name, one in services.items() if one["spec"].get("clusterIP") == "None"}
    assert headless == {*SERVERS, "balancer-metrics", "dashboard"}


def test_what_pods_take_is_there_or_named_in_the_documentation(objects):
    text = (DEPLOY.parent / "docs" / "deploy.md").read_text()
    volumes = of_kind(objects, "PersistentVolumeClaim").keys() | ({"bundles"} if len(objects) == 1 else set())
    maps = of_kind(objects, "ConfigMap").keys()
    for one in objects:
        spec = (pod_of(one) or {}).get("spec", {})
        names = {volume["name"] for volume in spec.get("volumes", [])}
        for container in containers_of(one):
            mounted = [mount["name"] for mount in container["volumeMounts"]]
            assert set(mounted) <= names
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                if "configMapKeyRef" in source:
                    assert source["configMapKeyRef"]["name"] in maps
                if "secretKeyRef" in source:
                    assert f"secret generic {source['secretKeyRef']['name']} " in text
                    assert f"--from-literal={source['secretKeyRef']['key']}=" in text
        for volume in spec.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in volumes
            if "configMap" in volume:
                name = volume["configMap"]["name"]
                assert name in maps or f"configmap {name} " in text
            if "secret" in volume:
                assert f"secret generic {volume['secret']['secretName']} " in text


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_server_is_ready_when_it_says_so_and_drains_before_it_ends(rendered, overlay):
    for name in SERVERS:
        spec = of_kind(rendered(overlay), "Deployment")[name]["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        words = dict(word.partition("=")[::2] for word in container["args"])
        ask = {"exec": {"command": ["test", "-e", words["--ready-file"]]}}
        assert container["readinessProbe"] == {**ask, "periodSeconds": 2, "failureThreshold": 1}
        assert container["startupProbe"].items() >= ask.items()
        alive = container["livenessProbe"]["httpGet"]
        assert alive == {"path": "/metrics", "port": "metrics"}
        # Balancers learn of it within the probe's period and their own; Triton then has 30 s for what it has begun.
        assert float(words["--drain"]) >= 5 * container["readinessProbe"]["periodSeconds"]
        assert spec["terminationGracePeriodSeconds"] >= float(words["--drain"]) + 30 + 10
        assert {"--tls-cert", "--tls-key", "--tls-ca"} <= words.keys()
        assert "--insecure" not in words
        written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert written == {"/run/lymphcad", "/tmp"}


def test_the_plan_is_built_on_the_gpu_of_its_server(rendered):
    for name in SERVERS:
        spec = of_kind(rendered("overlays/gpu"), "Deployment")[name]["spec"]["template"]["spec"]
        (builder,), (server,) = spec["initContainers"], spec["containers"]
        assert (
            builder["resources"]["limits"]["nvidia.com/gpu"] == server["resources"]["limits"]["nvidia.com/gpu"] == "1"
        )
        assert "--plan=/plan/current/cnn.plan" in server["args"]
        assert builder["args"] == ["/bundles/$(BUNDLE)", "--out=/plan/current", "--cache=/plans"]
        assert builder["env"] == server["env"]
        assert spec["containers"][0]["args"][0] == "--bundle=/bundles/$(BUNDLE)"
    assert (
        "initContainers" not in of_kind(rendered("overlays/cpu"), "Deployment")[SERVERS[0]]["spec"]["template"]["spec"]
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_servers_are_spread_and_scaled(rendered, overlay):
    objects = rendered(overlay)
    deployments = of_kind(objects, "Deployment")
    for name in (*SERVERS, "balancer"):
        spec = deployments[name]["spec"]["template"]["spec"]
        assert {one["topologyKey"] for one in spec["topologySpreadConstraints"]} >= {"kubernetes.io/hostname"}
        for one in spec["topologySpreadConstraints"]:
            assert one["labelSelector"] == deployments[name]["spec"]["selector"]
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler").values()
    assert scaler["spec"]["scaleTargetRef"]["name"] == "triton-stable"
    assert "replicas" not in deployments["triton-stable"]["spec"]  # it is the autoscaler's
    assert deployments["triton-candidate"]["spec"]["replicas"] == 0


def test_another_bundle_starts_a_rolling_upgrade_of_its_group_alone(kubectl, rendered, tmp_path):
    from deploying import kustomize

    root = "../" * (len(tmp_path.parts) - 1) + str(KUBERNETES / "overlays" / "gpu").lstrip("/")
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{root}]\nconfigMapGenerator:\n"
        "  - {name: bundle-candidate, namespace: lymphcad, behavior: replace, literals: [name=next]}\n"
    )
    before, after = (of_kind(found, "Deployment") for found in (rendered("overlays/gpu"), kustomize(kubectl, tmp_path)))
    assert {name for name in before if before[name] != after[name]} == {"triton-candidate"}


def test_every_file_of_the_parts_is_in_a_configmap(rendered):
    """A rule or a page that is written and forgotten here would never be looked at."""
    given = [text for one in of_kind(rendered("overlays/gpu"), "ConfigMap").values() for text in one["data"].values()]
    files = [
        DEPLOY / "balancer" / "haproxy.cfg",
        DEPLOY / "prometheus" / "prometheus.yml",
        DEPLOY / "orthanc" / "orthanc.json",
        *(DEPLOY / "prometheus" / "rules").glob("*.yml"),
        *(file for file in (DEPLOY / "grafana").rglob("*.*") if file.name != "kustomization.yaml"),
    ]
    assert len(files) > 6
    for file in files:
        assert file.read_text() in given, file.relative_to(DEPLOY)


def test_every_file_of_the_folder_is_yaml_that_something_uses():
    used = {"kustomization.yaml", "adapter.yaml"}
    for file in KUBERNETES.rglob("kustomization.yaml"):
        content = yaml.safe_load(file.read_text())
        used |= {name for name in content.get("resources", []) if name.endswith(".yaml")}
        used |= {patch["path"] for patch in content.get("patches", []) if "path" in patch}
    assert {file.name for file in KUBERNETES.rglob("*") if file.is_file()} == used
