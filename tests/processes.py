"""Processes that a test started, and those that they started, as /proc shows them."""

from __future__ import annotations

import time
from pathlib import Path


def stat(pid: int | str) -> list[str]:
    """Return state, parent and the rest of /proc/PID/stat; a process that has ended is a zombie of nobody."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["Z", "0"]


def running(pid: int) -> bool:
    return stat(pid)[0] != "Z"


def children(pid: int) -> list[int]:
    # Not from /proc/PID/task/*/children: a server's threads come and go while they are listed.
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and stat(entry.name)[1] == str(pid)
    ]


def wait_until(condition, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
