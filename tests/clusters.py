"""Dask clusters of processes of their own, which a test kills one by one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class DaskCluster:
    """A scheduler and workers, each with its nanny, that listen on 127.0.0.1."""

    def __init__(self, folder, workers=2, *, allowed_failures=1, python_path=""):
        self._folder, self._failures, self._python_path = Path(folder), allowed_failures, str(python_path)
        self._ended = contextlib.ExitStack()
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.nannies = []
        self.start_scheduler()
        for _ in range(workers):
            self.start_worker()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ended.close()

    def _start(self, name, *options, **environment):
        number = len(list(self._folder.glob(f"{name}*.log")))
        known = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(self._failures)} | environment
        path = [self._python_path, known.get("PYTHONPATH", "")]
        known["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
        with (self._folder / f"{name}{number}.log").open("w") as log:
            command = [sys.executable, "-m", "dask", name, "--no-dashboard", *options]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=known, cwd=self._folder)
        self._ended.callback(end, process)
        return process

    def start_scheduler(self):
        port = self.address.rpartition(":")[2]
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", port)

    def start_worker(self, *options, **environment):
        options = ("--host", "127.0.0.1", "--nthreads", "1", "--local-directory", str(self._folder), *options)
        self.nannies.append(self._start("worker", self.address, *options, **environment))
        return self.nannies[-1]

    def wait_for_workers(self, count, seconds=60):
        from distributed import Client

        with Client(self.address, set_as_default=False, timeout=seconds) as client:
            client.wait_for_workers(count, timeout=seconds)

    def worker_pids(self):
        """Return the processes that do the work; a nanny starts one again when it is killed."""
        found = [
            child for nanny in self.nannies if nanny.poll() is None for child in psutil.Process(nanny.pid).children()
        ]
        return [child.pid for child in found if "spawn_main" in " ".join(child.cmdline())]

    def logs(self):
        return "".join(path.read_text() for path in sorted(self._folder.glob("*.log")))


def end(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
