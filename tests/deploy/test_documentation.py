"""The commands of docs/deploy.md do what pods and page need."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
import typer
import yaml
from deploying import DEPLOY, ROOT, need, of_kind, pod_of

from lymphcad.cli import app

PAGE = (ROOT / "docs" / "deploy.md").read_text()
LINES = [line.strip() for line in PAGE.splitlines() if line.startswith("    ")]


def commands(first: str) -> list[list[str]]:
    """Return the lines of code blocks that begin with a word, without their remarks."""
    return [shlex.split(line, comments=True) for line in LINES if line.startswith(f"{first} ")]


@pytest.fixture(scope="module")
def created(kubectl, tmp_path_factory):
    """Return what ``kubectl create`` of the page makes, from the certificates of the page; nothing is sent."""
    need("openssl", "openssl")
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "deploy").mkdir()
    (folder / "PUB").touch()
    (folder / "secrets.toml").touch()
    for line in LINES:
        if line.startswith("deploy/certificates.sh "):
            subprocess.run(["sh", "-ec", f"{DEPLOY.parent}/{line}"], cwd=folder, check=True, capture_output=True)
    made = {}
    for line in LINES:
        if re.match(r"kubectl -n lymphcad create (secret|configmap) ", line):
            words = (
                f"{line.partition(' #')[0].replace('kubectl', shlex.quote(str(kubectl)), 1)} --dry-run=client -o yaml"
            )
            done = subprocess.run(["sh", "-ec", words], cwd=folder, check=True, capture_output=True, text=True)
            one = yaml.safe_load(done.stdout)
            made[one["kind"], one["metadata"]["name"]] = one["data"]
    return made


def test_secrets_hold_what_is_taken_from_them(created, with_everything):
    rendered = of_kind(with_everything, "ConfigMap")
    for one in with_everything:
        spec = (pod_of(one) or {}).get("spec", {})
        for volume in spec.get("volumes", []):
            if "secret" in volume:
                found = created["Secret", volume["secret"]["secretName"]]
                assert all(found.values()) or "secrets.toml" in found
                assert found.keys() in ({"tls.crt", "tls.key", "ca.crt"}, {"secrets.toml"})
            if "configMap" in volume and volume["configMap"]["name"] not in rendered:
                assert created["ConfigMap", volume["configMap"]["name"]].keys() == {"bundle.pub"}
        for container in (*spec.get("initContainers", []), *spec.get("containers", [])):
            for variable in container.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    source = variable["valueFrom"]["secretKeyRef"]
                    assert created["Secret", source["name"]][source["key"]]


def test_its_own_commands_have_the_options_that_it_gives_them():
    found = commands("lymphcad")
    assert {words[1] for words in found} == {"verify", "doctor"}
    group = typer.main.get_command(app)
    for _, name, *words in found:
        group.get_command(None, name).make_context(name, words)


def test_folders_files_and_pages_that_it_names_are_there():
    for path in re.findall(r"\bdeploy/[\w./-]+", PAGE):
        if not path.startswith(("deploy/tls", "deploy/compose.env")):
            assert (ROOT / path.rstrip(".")).exists(), path
    for path in re.findall(r"\]\(([\w./-]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path
