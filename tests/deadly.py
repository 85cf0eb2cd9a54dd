"""What ends the process that does it: an image, as a fault in a decoder does, and functions."""

from __future__ import annotations

import multiprocessing.connection
import os
import signal

NAME = "deadly.dcm"
HOOK = f"""
import os, signal, sys

def hook(event, arguments):
    if event == "open" and os.path.basename(str(arguments[0])) == {NAME!r}:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
"""


def path_with_hook(folder):
    """Write what Python runs as it starts, and return the PYTHONPATH that makes processes do so."""
    (folder / "sitecustomize.py").write_text(HOOK)
    return os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH", "")) if part)


def where():
    """Return the process that does this."""
    return os.getpid()


def end_here(folder, times):
    """End the process, so many times."""
    (folder / str(os.getpid())).touch()
    if len(list(folder.iterdir())) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def answer_in_half():
    """Have the process end while it writes the answer of this."""

    def send(connection, data, write=os.write):
        write(connection.fileno(), data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    multiprocessing.connection.Connection._send = send
    return bytes(1000)


def fail(error):
    raise error
