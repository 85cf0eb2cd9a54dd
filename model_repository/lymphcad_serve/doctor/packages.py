"""Python, the packages that serve, and the tritonserver of this machine."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from lymphcad.errors import CommandError
from lymphcad_serve.doctor.check import fail, ok, skip, warn
from lymphcad_serve.target import Target
from lymphcad_serve.tritonserver import installed_server

if TYPE_CHECKING:
    from lymphcad_serve.doctor.check import Check

FLOOR = (26, 7)
"""Release of Triton's container in which the vulnerabilities are fixed that are known (docs/security.md)."""
_ENGINES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"), "openvino": ("openvino",)}


def check_python() -> Check:
    """Say which Python runs, and where."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        return fail("python", found, "use Python 3.10 to 3.13")
    return ok("python", found)


def check_numpy(target: Target | None) -> Check:
    """Say whether the embedded server's Python backend can read numpy's arrays: it was built for numpy 1."""
    found = version("numpy")
    if not _embedded(target) or found.startswith("1."):
        return ok("numpy", found)
    return fail("numpy", f"{found}, with which the embedded server answers with empty outputs", "pip install 'numpy<2'")


def check_engines(target: Target | None) -> list[Check]:
    """Say which engines are installed; a container brings its own. The target is None where nothing is served."""
    checks = []
    for engine, distributions in _ENGINES.items():
        found = next((one for one in map(_version, distributions) if one is not None), None)
        if found is not None:
            checks.append(ok(engine, found))
        elif _embedded(target):
            checks.append(
                fail(engine, "not installed, and the embedded server runs it", "pip install 'lymphcad[serve]'")
            )
        else:
            checks.append(skip(engine, "not installed here; Triton's container brings its own"))
    return checks


def check_tritonserver(target: Target | None) -> Check:
    """Say which tritonserver this machine has, and whether it may be put on a network."""
    name, on_path = "tritonserver", shutil.which("tritonserver")
    if on_path is not None:
        release = os.environ.get("NVIDIA_TRITON_SERVER_VERSION")  # Triton's containers set it
        if release is None:
            todo = "see that it is of 26.07 or later before other machines reach it"
            return warn(name, "on PATH, of a release that it does not tell", todo)
        if release_of(release) < FLOOR:
            todo = "use Triton's container 26.07 or later (docs/security.md)"
            return fail(name, f"release {release}, whose vulnerabilities are known", todo)
        return ok(name, f"release {release}, on PATH")
    try:
        installed_server()
    except CommandError as error:
        # Who serves elsewhere needs none here.
        return fail(name, str(error)) if _embedded(target) else skip(name, "none on this machine")
    found = (
        f"the one of nvidia-pytriton {_version('nvidia-pytriton')}, for loopback only: its vulnerabilities are known"
    )
    if target is None or _embedded(target):
        return ok(name, found)
    return fail(name, found, f"serve the target {target.value} with Triton's container, 26.07 or later")


def release_of(text: str) -> tuple[int, int]:
    """Return year and month of a release of Triton, e.g. ``26.07``; zeros if it is no such text."""
    year, _, month = text.partition(".")
    return (int(year), int(month[:2])) if year.isdigit() and month[:2].isdigit() else (0, 0)


def _embedded(target: Target | None) -> bool:
    return target in (Target.EMBEDDED, Target.EMBEDDED_STEPS)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
