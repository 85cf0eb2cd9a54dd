"""A running HAProxy: whether it takes a configuration, and that it is given the new one without refusing anyone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from lymphcad.errors import CommandError

_RELOAD_S = 30.0
_ANSWER_S = 5.0


def check_config(text: str) -> bool:
    """Have HAProxy read a configuration.

    Parameters
    ----------
    text
        Of ``haproxy.cfg``.

    Returns
    -------
    bool
        False if there is no HAProxy on PATH.

    Raises
    ------
    CommandError
        With what HAProxy says, if it does not take it.
    """
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        return False
    with tempfile.TemporaryDirectory(prefix="lymphcad-balancer-") as folder:
        file = Path(folder) / "haproxy.cfg"
        file.write_text(text, encoding="utf-8")
        said = subprocess.run([haproxy, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    if said.returncode:
        errors = [line for line in said.stderr.splitlines() if "[ALERT]" in line] or ["it does not say why"]
        raise CommandError(f"HAProxy does not take this configuration, so nothing was changed: {errors[0]}")
    return True


def reload(target: str) -> None:
    """Have a HAProxy that runs as master and worker (``-W``) read its configuration again.

    The new worker takes the listening sockets over; the old one answers what it has, and ends.

    Parameters
    ----------
    target
        Process id of the master, or the path of its command socket (``-S``), which also says whether it did.

    Raises
    ------
    CommandError
        If there is no such process or socket, or the new configuration was not taken.
    """
    if target.isdecimal():
        try:
            os.kill(int(target), signal.SIGUSR2)
        except OSError as error:
            raise CommandError(f"no HAProxy could be told to reload as process {target}: {error.strerror}") from None
        return
    workers, failed = _state(target)
    _said(target, "reload")
    deadline = time.monotonic() + _RELOAD_S
    while time.monotonic() < deadline:
        time.sleep(0.1)
        try:
            now, failed_now = _state(target)
        except CommandError:  # the master has closed its socket, and opens it again
            continue
        if failed_now > failed:
            break
        if now - workers:
            return
    raise CommandError("HAProxy did not start with the new configuration, and goes on with the old one: see its log")


def _state(path: str) -> tuple[set[str], int]:
    """Return the process ids of the workers that are no old ones, and how many reloads failed (``show proc``)."""
    current = _said(path, "show proc").partition("# old workers")[0]
    lines = [line.split() for line in current.splitlines()]
    workers = {fields[0] for fields in lines if len(fields) > 1 and fields[1] == "worker"}
    failed = re.search(r"failed: (\d+)", current)
    return workers, int(failed.group(1)) if failed else 0


def _said(path: str, command: str) -> str:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_S)
            connection.connect(path)
            connection.sendall(f"{command}\n".encode())
            connection.shutdown(socket.SHUT_WR)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
    except OSError as error:
        raise CommandError(
            f"HAProxy's command socket '{path}' does not answer ({error.strerror or error}): name the one of its"
            " option -S, or its master's process id"
        ) from None
    return b"".join(parts).decode(errors="replace")
