"""A real HAProxy on loopback, as master and worker, which a test reloads and kills."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
from processes import wait_until


def needs_haproxy():
    if shutil.which("haproxy") is None and "CI" not in os.environ:
        pytest.skip("no haproxy: apt-get install haproxy")


class Balancer:
    """HAProxy on a configuration file, from now until the end of the `with` block."""

    def __init__(self, config, metrics, **environment):
        self.config, self.metrics, self._environment = config, metrics, os.environ | environment
        self.log, self.socket = config.with_suffix(".log"), config.with_suffix(".sock")
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        command = ["haproxy", "-W", "-S", str(self.socket), "-f", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        assert wait_until(self.listens), self.log.read_text()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def listens(self):
        with contextlib.suppress(OSError):
            return self.ask("/live") == 200
        return False

    def ask(self, path):
        """Return the status of a page of its metrics."""
        try:
            with urllib.request.urlopen(f"http://{self.metrics}{path}", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def servers(self):
        """Return whether each server is used, by its backend and name."""
        states = [line for line in self._lines("haproxy_server_status") if 'state="UP"' in line]
        return {line.split('server="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) == 1 for line in states}

    def found(self, server):
        """Return what the last check of a server found, in HAProxy's words: L7OK, L6RSP (TLS failed) ..."""
        checks = [line for line in self._lines("haproxy_server_check_status") if f'server="{server}"' in line]
        return next((line.split('state="')[1].split('"')[0] for line in checks if line.endswith(" 1")), None)

    def _lines(self, metric):
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=5) as answer:
            return [line for line in answer.read().decode().splitlines() if line.startswith(f"{metric}{{")]

    def wait_for(self, **used):
        """Wait until servers are used, or not."""
        assert wait_until(lambda: used.items() <= self.servers().items()), (used, self.servers())


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
