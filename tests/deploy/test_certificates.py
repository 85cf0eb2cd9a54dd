"""deploy/certificates.sh makes what openssl accepts for each use, and for no other."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import yaml
from deploying import DEPLOY, need

SCRIPT = DEPLOY / "certificates.sh"


def make(*words, cwd=None):
    need("openssl", "openssl")
    return subprocess.run(["sh", str(SCRIPT), *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates") / "tls"
    done = make(folder, "lymphcad.hospital.example", "192.0.2.7", "2001:db8::7")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(folder / f"{name}-tls") for name in ("server", "balancer", "client")]
    return folder


def openssl(*words):
    return subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)


def accepted(folder, purpose, authority=None, name=None):
    words = ["-CAfile", authority or folder / "ca.crt", "-purpose", purpose]
    if name is not None:
        words += ["-verify_ip" if re.fullmatch(r"[\d.]+|.*:.*", name) else "-verify_hostname", name]
    return openssl("verify", "-x509_strict", *words, folder / "tls.crt").returncode == 0


@pytest.mark.parametrize(
    ("name", "purposes"),
    [
        ("server-tls", {"sslserver", "sslclient"}),
        ("balancer-tls", {"sslserver", "sslclient"}),
        ("client-tls", {"sslclient"}),
    ],
)
def test_each_is_for_its_uses(made, name, purposes):
    found = {one for one in ("sslserver", "sslclient") if accepted(made / name, one)}
    assert found == purposes
    key, certificate = (
        openssl(*words).stdout
        for words in (
            ("pkey", "-in", made / name / "tls.key", "-pubout"),
            ("x509", "-in", made / name / "tls.crt", "-noout", "-pubkey"),
        )
    )
    assert key == certificate != ""
    assert (made / name / "ca.crt").read_bytes() == (made / "authority" / "tls.crt").read_bytes()


def test_each_has_the_names_by_which_it_is_reached(made):
    for name in ("triton-stable", "triton-candidate.lymphcad.svc.cluster.local", "localhost", "127.0.0.1"):
        assert accepted(made / "server-tls", "sslserver", name=name)
        assert not accepted(made / "client-tls", "sslclient", name=name)
    for name in ("balancer", "balancer.lymphcad.svc", "lymphcad.hospital.example", "192.0.2.7", "2001:db8::7"):
        assert accepted(made / "balancer-tls", "sslserver", name=name)
        assert not accepted(made / "server-tls", "sslserver", name=name)


def test_nobody_else_reads_a_key(made):
    assert made.stat().st_mode & 0o777 == 0o700
    assert (made / "authority").stat().st_mode & 0o777 == 0o700
    assert (made / "authority" / "tls.key").stat().st_mode & 0o777 == 0o600
    # Those are mounted one by one, for containers of other users.
    assert (made / "server-tls" / "tls.key").stat().st_mode & 0o777 == 0o644
    secrets = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["secrets"].values()
    assert all((made / os.path.relpath(secret["file"], "tls")).is_file() for secret in secrets)


def test_again_the_authority_stays_and_the_rest_is_new(tmp_path):
    folder = tmp_path / "tls"
    assert make(folder).returncode == 0
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert make(folder).returncode == 0
    after = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    same = {file for file in before if before[file] == after[file]}
    assert same == {file for file in before if file.name == "ca.crt" or file.parent.name == "authority"}
    assert make(folder, "--client", "radiology-1").returncode == 0
    assert accepted(folder / "client-radiology-1-tls", "sslclient")
    assert not accepted(folder / "client-radiology-1-tls", "sslserver")
    assert (
        "CN = radiology-1"
        in openssl("x509", "-in", folder / "client-radiology-1-tls/tls.crt", "-noout", "-subject").stdout
    )


def test_another_authoritys_is_not_accepted(made, tmp_path):
    assert make(tmp_path / "tls").returncode == 0
    assert not accepted(made / "client-tls", "sslclient", authority=tmp_path / "tls" / "authority" / "tls.crt")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no folder was given"),
        (["tls", "--client"], "--client takes one name"),
        (["tls", "--client", "a b"], "'a b' is no name of a client"),
        (["tls", "--client", "../x"], "'../x' is no name of a client"),
        (["tls", "good", "a,DNS:b"], "'a,DNS:b' is no name or address of a host"),
        (["tls", "300.1.2.3"], "no certificate could be made for 'balancer'"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, words, sentence):
    done = make(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"certificates.sh: {sentence}")
    assert done.stderr.count("\n") == 1
