"""Dask clusters of processes of their own, which a test kills one by one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class DaskCluster:
    """A scheduler and workers, each with its nanny, that listen on 127.0.0.1."""

    def __init__(self, folder, workers=2, **environment):
        self._folder, self._environment = Path(folder), environment
        self._ended, self.log = contextlib.ExitStack(), self._folder / "log"
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
        # A task whose workers die twice is given up, in place of four times.
        known = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"} | self._environment | environment
        options = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0", *options)
        with self.log.open("a") as log:
            command = [sys.executable, "-m", "dask", name, *options]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=known, cwd=self._folder)
        self._ended.callback(end, process)
        return process

    def start_scheduler(self, **environment):
        self.scheduler = self._start("scheduler", "--port", self.address.rpartition(":")[2], **environment)

    def start_worker(self, **environment):
        options = ("--nthreads", "1", "--local-directory", str(self._folder))
        self.nannies.append(self._start("worker", self.address, *options, **environment))

    def wait_for_workers(self, count, seconds=60):
        from distributed import Client

        with Client(self.address, set_as_default=False, timeout=seconds) as client:
            client.wait_for_workers(count, timeout=seconds)

    def worker_pids(self):
        """Return the processes that do the work; a nanny starts one again when it is killed."""
        alive = [psutil.Process(nanny.pid) for nanny in self.nannies if nanny.poll() is None]
        return [child.pid for nanny in alive for child in nanny.children() if "spawn_main" in " ".join(child.cmdline())]

    def end_workers(self):
        for nanny in self.nannies:
            end(nanny)


def end(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()
