"""`lymphcad serve` as a container's entry point: ready, draining, stopped; and what it refuses to serve."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.server import free_ports
from processes import children

from lymphcad.cli import main
from lymphcad.errors import ServerError

pytestmark = pytest.mark.server


class Serving:
    def __init__(self, folder, *options):
        self.ports, self.ready_file = free_ports(), folder / "ready"
        self.said = None
        command = [sys.executable, "-m", "lymphcad", "serve", "--ready-file", self.ready_file, *options]
        command += ["--grpc-port", self.ports.grpc, "--metrics-port", self.ports.metrics]
        self.address = f"grpc://127.0.0.1:{self.ports.grpc}"
        environment = {**os.environ, "TMPDIR": str(folder)}
        self.process = subprocess.Popen(
            list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def wait_for(self, there, seconds=60):
        deadline = time.monotonic() + seconds
        while self.ready_file.exists() is not there:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def end(self):
        self.process.kill()
        if self.said is None:
            self.said = self.process.communicate()[1]
        return self.said


@pytest.fixture
def serving(tmp_path):
    started = []

    def start(*options):
        started.append(Serving(tmp_path, *options))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_ready_drained_and_stopped(serving, probe_bundle, slice_of):
    one = serving("--bundle", probe_bundle.path, "--drain", 4, "--log")
    one.wait_for(there=True)
    ct = slice_of(np.full((200, 200), 50))
    with TritonScorer(one.address) as scorer:
        one.process.send_signal(signal.SIGTERM)
        one.wait_for(there=False)
        assert scorer.score(ct, 100, 100).probability > 0  # it is not ready any more, and still answers
        assert one.process.wait(30) == 0
        with pytest.raises(ServerError):
            scorer.score(ct, 100, 100)
    said = one.end()
    assert "is ready at" in said
    assert "Stopped." in said
    assert "server.cc" in said  # --log passes Triton's own on


def test_a_second_signal_ends_the_drain(serving, probe_bundle):
    one = serving("--bundle", probe_bundle.path, "--drain", 600)
    one.wait_for(there=True)
    one.process.send_signal(signal.SIGTERM)
    one.wait_for(there=False)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(30) == 0


def test_a_ready_file_that_was_left_goes_and_a_server_that_dies_takes_its_own_along(serving, probe_bundle, tmp_path):
    (tmp_path / "ready").touch()
    one = serving("--bundle", probe_bundle.path)
    one.wait_for(there=False, seconds=20)
    one.wait_for(there=True)
    (triton,) = children(one.process.pid)
    os.kill(triton, signal.SIGKILL)
    assert one.process.wait(30) == 2
    assert not one.ready_file.exists()
    assert "stopped by itself" in one.end()


def refused(capsys, *options):
    with pytest.raises(SystemExit) as ended:
        main(["serve", *map(str, options)])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_what_was_not_signed_or_was_changed_is_not_served(probe_bundle, tmp_path, capsys):
    key, public = tmp_path / "key", tmp_path / "pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    assert "is not signed" in refused(capsys, "--bundle", probe_bundle.path, "--key", public)
    from lymphcad.signature import SIGNATURE, read_private_key

    copy = tmp_path / "copy"
    shutil.copytree(probe_bundle.path, copy)
    manifest = copy / "bundle.json"
    (copy / SIGNATURE).write_bytes(read_private_key(key).sign(manifest.read_bytes()))
    (copy / "cam.onnx").write_bytes(b"other")
    assert "does not match the digest" in refused(capsys, "--bundle", copy, "--key", public)
    manifest.write_bytes(manifest.read_bytes().replace(b'"probe"', b'"other"'))
    assert "not of this key or not of these contents" in refused(capsys, "--bundle", copy, "--key", public)


def test_a_network_needs_tls_and_a_server_without_known_holes(probe_bundle, authority_files, capsys):
    bundle = ["--bundle", probe_bundle.path]
    assert "--insecure" in refused(capsys, *bundle, "--host", "0.0.0.0")
    assert "--insecure" in refused(capsys, *bundle, "--metrics-host", "0.0.0.0")
    assert "give all three" in refused(capsys, *bundle, "--tls-ca", authority_files[2])
    if shutil.which("tritonserver") is None:
        cert, key, ca = authority_files
        options = ["--host", "0.0.0.0", "--tls-cert", cert, "--tls-key", key, "--tls-ca", ca]
        assert "known vulnerabilities" in refused(capsys, *bundle, *options)
        assert "known vulnerabilities" in refused(capsys, *bundle, "--host", "0.0.0.0", "--insecure")


@pytest.fixture
def authority_files(tmp_path):
    from certificates import Authority

    authority = Authority(tmp_path / "tls")
    pair = authority.sign("server")
    return pair.cert, pair.key, authority.ca


def test_options_that_exclude_each_other(probe_bundle, tmp_path, capsys):
    assert "leave them out" in refused(capsys, "--repository", tmp_path, "--bf16")
    assert "name one" in refused(capsys, "--model-version", 2)
    assert "--bundle" in refused(capsys, "--repository", tmp_path, "--key", tmp_path)
