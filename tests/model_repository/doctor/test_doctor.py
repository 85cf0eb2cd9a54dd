"""`lymphcad doctor` on real servers, well and unwell, and on files that were changed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time

import pytest
from certificates import NAME, Authority
from lymphcad_client.tls import Address, Tls
from lymphcad_serve.certificates import ServerTls, read_certificate
from lymphcad_serve.doctor.certificate import check_certificate, check_validity
from lymphcad_serve.doctor.check import Status
from lymphcad_serve.doctor.server import check_server, is_loopback
from lymphcad_serve.repository import Target, write_repository
from lymphcad_serve.server import Listening, Server, free_ports

from lymphcad.cli import main
from lymphcad.errors import CommandError


@pytest.fixture
def doctor(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *map(str, arguments), "--json"])
        said = capsys.readouterr()
        code = int(ended.value.code or 0)
        assert "Traceback" not in said.err
        if code == 2:
            return code, said.err
        found = json.loads(said.out)
        assert (code == 4) == bool(found["counts"]["FAIL"])
        return code, {check["name"]: check for check in found["checks"]}

    return run


def failed(checks):
    return {name for name, check in checks.items() if check["status"] == "FAIL"}


def free():
    ports = free_ports()
    return "--grpc-port", ports.grpc, "--metrics-port", ports.metrics


@pytest.mark.server
def test_a_server_that_is_well(doctor, probe_server, probe_bundle):
    code, checks = doctor("--server", probe_server, "--bundle", probe_bundle.path)
    assert (code, failed(checks)) == (0, set())
    who = probe_server.removeprefix("grpc://")
    assert checks[f"server {who}"]["found"] == "ready, computes in fp32"
    assert checks[f"bundle {who}"]["found"] == f"serves {probe_bundle.label}"
    assert checks[f"golden inputs {who}"]["found"] == f"give what they gave: {probe_server} in fp32"
    assert checks[f"triton {who}"]["found"].startswith("version 2.")
    assert checks[f"latency {who}"]["status"] == "OK"
    assert not [name for name in checks if name.startswith("port ")]


@pytest.mark.server
def test_a_server_of_another_bundle(doctor, serve_probe, probe_bundle, half_bundle):
    address = serve_probe("embedded")
    who = address.removeprefix("grpc://")
    code, checks = doctor("--server", address, "--bundle", half_bundle.path)
    assert (code, failed(checks)) == (4, {f"bundle {who}"})
    found = checks[f"bundle {who}"]["found"]
    assert found == f"serves {probe_bundle.label}, and {half_bundle.label} was to be served"
    assert f"golden inputs {who}" not in checks
    code, checks = doctor("--server", address)
    assert code == 0
    assert checks[f"golden inputs {who}"]["status"] == "SKIP"


def test_a_server_that_is_gone(doctor, probe_bundle):
    port = free_ports().grpc
    code, checks = doctor("--server", f"grpc://127.0.0.1:{port}", "--server", f"grpcs://localhost:{port}")
    assert code == 4
    assert failed(checks) == {f"server 127.0.0.1:{port}", f"certificate localhost:{port}", f"server localhost:{port}"}
    assert checks[f"server 127.0.0.1:{port}"]["found"].startswith("server_away: ")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def client(authority):
    return authority.sign("client", names=(), days=(-1, 400))


@pytest.mark.server
def test_a_server_with_mutual_tls(doctor, authority, client, probe_bundle, tmp_path):
    pair = authority.sign("server", names=(NAME, "localhost"), days=(-1, 20))
    write_repository(probe_bundle, tmp_path / "models", Target.EMBEDDED)
    tls = ("--tls-ca", authority.ca, "--tls-cert", client.cert, "--tls-key", client.key)
    with Server(
        tmp_path / "models", free_ports(), listening=Listening(tls=ServerTls(pair.cert, pair.key, authority.ca))
    ) as server:
        port = server.address.rpartition(":")[2]
        address, who = f"grpcs://localhost:{port}", f"localhost:{port}"
        code, checks = doctor("--server", address, "--bundle", probe_bundle.path, *tls)
        assert (code, failed(checks)) == (0, set())
        # It ends in twenty days.
        assert checks[f"certificate {who}"]["status"] == "WARN"
        assert "19 days" in checks[f"certificate {who}"]["found"]
        assert f"for '{who.partition(':')[0]}', TLSv1.3" in checks[f"trust {who}"]["found"]
        assert checks[f"mutual TLS {who}"]["found"] == "it refuses who shows no certificate"
        assert checks["our certificate"]["status"] == "OK"
        assert checks[f"server {who}"]["status"] == "OK"
        assert checks[f"golden inputs {who}"]["status"] == "OK"
        # Another name than its certificate has; a stranger's authority; no certificate of ours.
        _, checks = doctor("--server", f"grpcs://127.0.0.1:{port}", *tls)
        assert "IP address mismatch" in checks[f"trust 127.0.0.1:{port}"]["found"]
        assert "not trusted" in checks[f"server 127.0.0.1:{port}"]["found"]
        stranger = Authority(tmp_path / "other", "other").ca
        _, checks = doctor("--server", address, "--tls-ca", stranger, *tls[2:])
        assert failed(checks) == {f"trust {who}", f"server {who}"}
        assert "clients refuse it" in checks[f"trust {who}"]["found"]
        _, checks = doctor("--server", address, "--tls-ca", authority.ca)
        assert failed(checks) == {f"server {who}"}
        assert "--tls-cert" in checks[f"server {who}"]["found"]


_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{
  access_log off;
  server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key}; }}
}}
"""


@contextlib.contextmanager
def nginx(folder, pair):
    """Yield the address of a real nginx that speaks HTTP/2 with TLS to everybody, as a balancer may."""
    if shutil.which("nginx") is None:
        assert "CI" not in os.environ, "no nginx: apt-get install nginx-light"
        pytest.skip("no nginx")
    port = free_ports().grpc
    (folder / "conf").write_text(_NGINX.format(folder=folder, port=port, cert=pair.cert, key=pair.key))
    process = subprocess.Popen(["nginx", "-c", str(folder / "conf"), "-e", str(folder / "log")])
    try:
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield Address(f"localhost:{port}", "localhost", True)
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize(
    ("days", "validity", "refused"),
    [
        ((-90, -1), "expired on", "certificate has expired"),
        ((1, 30), "is valid from", "certificate is not yet valid"),
        ((-1, 90), None, None),
    ],
)
def test_certificates_that_a_server_would_not_start_with(authority, client, tmp_path, days, validity, refused):
    tls = Tls(authority.ca, client.cert, client.key)
    with nginx(tmp_path, authority.sign("nginx", days=days)) as address:
        shown, trust, mutual, ours = check_certificate(address, tls)
        # It has no Triton behind it, and says nothing of its own that a client could take for one.
        *_, server = check_server(f"grpcs://{address.target}", tls, None)
    assert (mutual.status, mutual.found) == (Status.WARN, "it answers whoever connects")
    assert ours.status is Status.OK
    assert server.status is Status.FAIL
    if validity is None:
        assert (shown.status, trust.status) == (Status.OK, Status.OK)
        assert "89 days), for triton.test, localhost" in shown.found
    else:
        assert (shown.status, trust.status) == (Status.FAIL, Status.FAIL)
        assert validity in shown.found
        assert refused in trust.found


def test_how_long_a_certificate_is_valid(authority):
    def status(*days):
        return check_validity("it", read_certificate(authority.sign("one", days=days).cert)).status

    assert status(-1, 31) is Status.OK
    assert status(-1, 29) is Status.WARN
    assert status(-9, -1) is Status.FAIL
    assert status(1, 9) is Status.FAIL


def test_certificates_that_do_not_fit_together(authority, client, tmp_path):
    other = authority.sign("another")
    with nginx(tmp_path, other) as address:
        _, trust, *_ = check_certificate(address, Tls(authority.ca, client.cert, other.key))
    assert trust.status is Status.FAIL
    assert "KEY_VALUES_MISMATCH" in trust.found


def test_files_that_are_well(doctor, probe_bundle, tmp_path):
    models = tmp_path / "models"
    write_repository(probe_bundle, models, Target.EMBEDDED)
    code, checks = doctor("--bundle", probe_bundle.path, "--repository", models, *free())
    assert (code, failed(checks)) == (0, set())
    assert checks["bundle"]["found"] == f"{probe_bundle.label}, 6 files as they were made"
    assert "edge.fp32.onnx in openvino" in checks["golden inputs"]["found"]
    assert "the model lymph_node" in checks["repository"]["found"]
    assert checks["signature"]["status"] == "SKIP"
    assert checks["clock and files"]["status"] == "OK"


def test_a_repository_that_was_changed(doctor, probe_bundle, tmp_path):
    models = tmp_path / "models"
    write_repository(probe_bundle, models, Target.EMBEDDED)
    file = models / "lymph_node" / "1" / "cam.onnx"
    file.write_bytes(file.read_bytes() + b"1")
    code, checks = doctor("--repository", models, *free())
    assert (code, failed(checks)) == (4, {"repository"})
    assert "cam.onnx in the repository" in checks["repository"]["found"]


def test_a_bundle_that_was_changed(doctor, probe_bundle, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(probe_bundle.path, folder)
    with (folder / "cam.onnx").open("ab") as file:
        file.write(b"1")
    ahead = time.time() + 3600
    os.utime(folder / "golden.npz", (ahead, ahead))
    code, checks = doctor("--bundle", folder, *free())
    assert (code, failed(checks)) == (4, {"bundle"})
    assert "cam.onnx in the bundle" in checks["bundle"]["found"]
    assert "golden inputs" not in checks
    assert checks["clock and files"]["status"] == "WARN"
    assert "minutes from now" in checks["clock and files"]["found"]


def test_signatures(doctor, probe_bundle, tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    folder, key = tmp_path / "bundle", Ed25519PrivateKey.generate()
    shutil.copytree(probe_bundle.path, folder)
    public = tmp_path / "key.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    _, checks = doctor("--bundle", folder, "--key", public, *free())
    assert failed(checks) == {"bundle"}
    assert "is not signed" in checks["bundle"]["found"]
    (folder / "bundle.sig").write_bytes(key.sign((folder / "bundle.json").read_bytes()))
    _, checks = doctor("--bundle", folder, "--key", public, *free())
    assert checks["signature"] == {"name": "signature", "status": "OK", "found": "of the key's owner", "todo": ""}
    _, checks = doctor("--bundle", folder, *free())
    assert checks["signature"]["status"] == "WARN"


def test_a_full_port(doctor):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, checks = doctor("--grpc-port", port, "--metrics-port", free_ports().metrics)
    assert (code, failed(checks)) == (4, {f"port {port}"})


def test_a_plan_on_a_machine_without_a_gpu(doctor, half_bundle, write_plan, tmp_path, monkeypatch):
    monkeypatch.setattr("lymphcad_serve.doctor.examine.find_gpu", lambda: "there is none")
    plan = write_plan(half_bundle, tmp_path / "cnn.plan")
    code, checks = doctor("--bundle", half_bundle.path, "--plan", plan, *free())
    assert (code, failed(checks)) == (4, {"gpu"})
    assert checks["plan"]["status"] == "OK"
    _, checks = doctor("--target", "gpu", *free())
    assert "gpu" in failed(checks)
    _, checks = doctor(*free())
    assert checks["gpu"]["status"] == "SKIP"


def test_who_looks_at_another_machine_need_not_serve(doctor, monkeypatch):
    monkeypatch.setattr("lymphcad_serve.doctor.packages.installed_server", not_installed)
    monkeypatch.setenv("PATH", "/nowhere")
    _, checks = doctor("--server", "grpc://no-such-host.invalid:8001")
    assert failed(checks) == {"server no-such-host.invalid:8001"}
    assert checks["tritonserver"]["status"] == "SKIP"
    assert checks["TLS no-such-host.invalid:8001"]["status"] == "WARN"
    _, checks = doctor("--server", "grpc://127.0.0.1:1")
    assert "tritonserver" in failed(checks)


def not_installed():
    raise CommandError("there is none")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--plan", "cnn.plan"), "--plan and --key are held against a bundle"),
        (("--key", "key.pem"), "--plan and --key are held against a bundle"),
        (("--server", "127.0.0.1:8001"), "is no server address"),
        (("--tls-ca", "ca.pem"), "the certificates go with a server with TLS"),
        (("--server", "grpc://127.0.0.1:1", "--tls-ca", "ca.pem"), "the certificates go with a server with TLS"),
        (("--target", "fpga"), "fpga"),
    ],
)
def test_a_wrong_command(doctor, arguments, says):
    code, said = doctor(*arguments)
    assert code == 2
    assert says in said


def test_lines_for_people(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *map(str, free())])
    said = capsys.readouterr().out.splitlines()
    assert not ended.value.code
    assert said[0].startswith("OK    python: ")
    assert all(line[:4].strip() in Status.__members__ for line in said[:-1])
    assert said[-1].endswith(" SKIP")
    assert " 0 FAIL" in said[-1]


def test_loopback():
    assert is_loopback("grpc://127.0.0.1:1")
    assert is_loopback("grpcs://localhost:1")
    assert is_loopback("grpc://[::1]:1")
    assert not is_loopback("grpc://triton-stable:8001")
    with pytest.raises(CommandError):
        is_loopback("triton")
