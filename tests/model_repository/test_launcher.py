"""What is left of a server when it, or what started it, ends the hard way; and servers that are started without us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lymphcad_client.triton import TritonScorer
from lymphcad_serve.server import _embedded, free_ports
from processes import children, running, wait_until

from lymphcad.cli import main
from lymphcad.errors import Reason, ServerError

pytestmark = pytest.mark.server


def test_serve_that_is_killed_takes_its_server_along(probe_bundle, tmp_path):
    ports = free_ports()
    command = [sys.executable, "-m", "lymphcad", "serve", "--bundle", probe_bundle.path]
    command += ["--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert "is ready at" in said
        servers = children(process.pid)
        stubs = [stub for server in servers for stub in children(server)]
        assert len(servers) == 1
        assert len(stubs) == 2
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert wait_until(lambda: not any(map(running, [*servers, *stubs])))
    assert not list(Path("/dev/shm").glob(f"lymphcad-{process.pid}-*"))


def test_a_bare_tritonserver_needs_the_repository_alone(probe_bundle, tmp_path, slice_of):
    """No option of ours, another working directory; and neither engine reports its use to its maker."""
    models, home = tmp_path / "models", tmp_path / "home"
    home.mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["repository", str(probe_bundle.path), str(models)])
    assert not ended.value.code
    environment = {**os.environ, "HOME": str(home)}
    environment.pop("PYTHONPATH", None)
    ports = free_ports()
    options = [
        f"--{name}-{what}"
        for name, port in (("grpc", ports.grpc), ("metrics", ports.metrics))
        for what in ("address=127.0.0.1", f"port={port}")
    ]
    options.append("--allow-http=false")
    command = [*_embedded(tmp_path, environment), f"--model-repository={models}", *options]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
    try:

        def ready() -> bool:
            try:
                TritonScorer(f"grpc://127.0.0.1:{ports.grpc}").close()
            except ServerError as error:
                if error.reason not in (Reason.SERVER_AWAY, Reason.SERVER_NOT_READY):
                    raise
                assert process.poll() is None, (tmp_path / "log").read_text()
                return False
            return True

        assert wait_until(ready, 60)
        with TritonScorer(f"grpc://127.0.0.1:{ports.grpc}") as scorer:
            image = np.full((200, 200), -150)
            dark = scorer.score(slice_of(image), 100, 100).probability
            image[90:110, 90:110] = 250
            assert scorer.score(slice_of(image), 100, 100).probability > dark
    finally:
        process.terminate()
        process.wait(30)
    assert not [path for path in home.rglob("*") if path.is_file()]
