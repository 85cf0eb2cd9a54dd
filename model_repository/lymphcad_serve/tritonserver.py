"""Whether this machine has a tritonserver to start. Apart from the starting, which needs Triton's client."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from lymphcad.errors import CommandError


def check_server() -> None:
    """Refuse a machine that has no tritonserver to start.

    Raises
    ------
    CommandError
        If there is none on PATH, and none is installed that fits this Python.
    """
    if shutil.which("tritonserver") is None:
        installed_server()


def installed_server() -> tuple[Path, Path]:
    """Return the folders of nvidia-pytriton's server and of its stub for this Python.

    Raises
    ------
    CommandError
        If it is not installed, or has no stub for this Python.
    """
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise CommandError(
            "there is no tritonserver on PATH and none installed: pip install 'lymphcad[serve]' (Linux on x86_64,"
            " Python 3.10 to 3.12), or install Triton"
        )
    package = Path(spec.origin).parent / "tritonserver"
    stub = package / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not (stub / "triton_python_backend_stub").is_file():
        raise CommandError(f"the embedded tritonserver has no stub for Python {stub.name}: use Python 3.10 to 3.12")
    return package, stub
