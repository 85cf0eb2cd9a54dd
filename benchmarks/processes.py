"""Processes that are measured, their CPU time, and what the numbers were measured on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")
_PACKAGES = ("numpy", "onnxruntime", "openvino", "nvidia-pytriton", "tritonclient", "grpcio", "fastapi", "uvicorn")


class Worker:
    """A process that takes one order a line, runs it, and answers with a line of JSON.

    Parameters
    ----------
    module
        That it runs.
    arguments
        Of the command.

    Attributes
    ----------
    said
        Its first line, once it was ready.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pids = [self._process.pid]
        self.said = self._read()

    def order(self, **order: Any) -> dict[str, Any]:
        """Have one order done."""
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._read())
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended early: its error stands above")
        return line


def family(pid: int) -> list[int]:
    """Return a process and its children, which for a tritonserver are the stubs that run its Python models."""
    children = []
    for entry in Path("/proc").iterdir():
        # Not from /proc/PID/task/*/children: a server's threads come and go while they are listed.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if entry.name.isdigit() and (entry / "stat").read_text().rsplit(")", 1)[1].split()[1] == str(pid):
                children.append(int(entry.name))
    return [pid, *children]


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time, user and system, that processes have used, seconds."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def machine() -> dict[str, Any]:
    """Return what a reader must know of this machine, and the versions of what was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    about = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    flags = about["flags"].split()
    return {
        "cpu": about["model name"],
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "versions": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
