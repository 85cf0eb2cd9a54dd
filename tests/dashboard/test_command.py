"""`lymphcad dashboard` as a person or a service runs it."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import urllib.error

import numpy as np
import pytest
from pages import started

from lymphcad.assets import DEMO_BUNDLE
from lymphcad.bundle import sha256
from lymphcad.cli import main

pytest.importorskip("streamlit")
EDGE = ("--runner", "onnxruntime")


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs the command in this process and returns its exit code."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["dashboard", "--no-open", "--port", "0", *map(str, arguments)])
        return int(ended.value.code or 0)

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def page(tmp_path):
    file = tmp_path / "page.py"
    file.write_text("import streamlit as st\nst.title('made for the test')\n")
    return file


def copy_of_demo(folder):
    shutil.copytree(DEMO_BUNDLE, folder)
    return folder


def test_wrong_commands(run, tmp_path, capsys):
    changed = copy_of_demo(tmp_path / "changed")
    (changed / "cam.onnx").write_bytes(b"another")
    taken = socket.create_server(("127.0.0.1", 0))
    number = taken.getsockname()[1]
    for arguments, words in (
        (("--edge", tmp_path / "none"), "there is no bundle.json"),
        (("--edge", changed), "cam.onnx in the bundle"),
        (("--edge", DEMO_BUNDLE, "--server", "grpc://127.0.0.1:1"), "leave --server"),
        (("--server", "http://127.0.0.1:1"), "is no server address"),
        (("--server", "grpc://127.0.0.1:1", "--precision", "int8"), "--precision goes with --edge"),
        (("--server", "grpc://127.0.0.1:1", "--key", "pub.pem"), "--key goes with --edge"),
        (("--precision", "fp32"), "fp32 was asked for"),
        ((*EDGE, "--compare", tmp_path), "there is no bundle.json"),
        ((*EDGE, "--compare", "http://127.0.0.1:1"), "is no server address"),
        (("--report", tmp_path), "there is no report.html"),
        (("--port", number), f"cannot listen on port {number} of '127.0.0.1' (Address already in use"),
        (("--host", "203.0.113.7", "--insecure"), "of '203.0.113.7' (Cannot assign requested address"),
        (("--host", "no-such-name.invalid", "--insecure"), "of 'no-such-name.invalid' ("),
        (("--host", "0.0.0.0"), "'0.0.0.0' can be reached from other machines, and nobody would have to sign in"),
        (("--host", "::"), "--insecure"),
        (("--host", "a.name"), "--insecure"),
    ):
        assert run(*arguments) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    taken.close()


def test_another_answer_than_the_bundle_was_proven_with(run, tmp_path, capsys):
    bundle = copy_of_demo(tmp_path / "other")
    with np.load(bundle / "golden.npz") as stored:
        golden = {name: stored[name] for name in stored.files}
    (name,) = (name for name in golden if name.startswith("PROBABILITY"))
    golden[name] = 1 - golden[name]
    np.savez(bundle / "golden.npz", **golden)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"]["golden.npz"] = sha256(bundle / "golden.npz")
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    assert run("--edge", bundle, *EDGE) == 4
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_away_is_no_error_and_a_stop_neither(page, tmp_path, number):
    options = ("--server", "grpc://127.0.0.1:1", "--compare", str(DEMO_BUNDLE), *EDGE)
    with started(page, tmp_path, *options) as dashboard:
        assert dashboard.said.startswith("server_away: the server at 127.0.0.1:1 does not answer")
        assert "\ndemo@" in dashboard.said
        assert dashboard.url.startswith("http://127.0.0.1:")
        assert dashboard.get("/_stcore/health")[0] == b"ok"
        assert dashboard.stop(number) == 0
        assert dashboard.said.endswith("\nStopped.\n")
        assert dashboard.said.count("\n") == 4
        with pytest.raises(urllib.error.URLError):
            dashboard.get("/")


def test_everything_is_asked_of_this_machine_and_of_no_other_page(page, tmp_path):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with started(page, tmp_path, *EDGE) as dashboard:
        policy = dashboard.get("/")[1]["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "http" not in policy
        host = dashboard.url.removeprefix("http://")
        stream = f"ws://{host}/_stcore/stream"
        port = host.rpartition(":")[2]
        here = {"origin": dashboard.url, "subprotocols": ["streamlit"], "proxy": None}
        with connect(stream, **here):
            pass
        for origin in ("http://evil.example", "null", f"http://localhost:{port}", "http://127.0.0.1:1"):
            with pytest.raises(InvalidStatus, match="403"):
                connect(stream, **here | {"origin": origin})
        # A name of the attacker's that leads here: the browser says it in both.
        rebound = f"ws://evil.example:{port}/_stcore/stream"
        with pytest.raises(InvalidStatus, match="403"):
            connect(rebound, **here | {"origin": f"http://evil.example:{port}", "address": ("127.0.0.1", int(port))})


def test_everybody_may_be_let_in(page, tmp_path):
    from websockets.sync.client import connect

    with started(page, tmp_path, *EDGE, "--host", "0.0.0.0", "--insecure") as dashboard:
        port = dashboard.url.rpartition(":")[2]
        assert dashboard.url == f"http://{socket.gethostname()}:{port}"
        there = {"address": ("127.0.0.1", int(port)), "subprotocols": ["streamlit"], "proxy": None}
        with connect(f"ws://any.example:{port}/_stcore/stream", origin=f"http://any.example:{port}", **there):
            pass
