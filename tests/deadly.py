"""An image that ends each process that opens it, as a fault in a decoder does."""

from __future__ import annotations

import os

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
