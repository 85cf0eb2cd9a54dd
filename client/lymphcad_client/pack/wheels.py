"""The wheels of an extra, for this Python and this platform, in the versions that are installed here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import distribution, distributions
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lymphcad.errors import CommandError
from lymphcad_client.pack.install import last_line

if TYPE_CHECKING:
    from pathlib import Path

_OURS = "lymphcad"
_GLIBC = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
"""What the names mean that came before PEP 600."""


def collect_wheels(extra: str, folder: Path) -> list[Path]:
    """Have pip put wheels into a folder: those of `lymphcad` with an extra, and pip's own.

    Parameters
    ----------
    extra
        E.g. ``edge``.
    folder
        Empty; pip's temporary files are put into it too.

    Returns
    -------
    list of Path
        One for each package, sorted.

    Raises
    ------
    CommandError
        If pip is not installed or fails.
    """
    if find_spec("pip") is None:
        raise CommandError("pip, which collects the wheels, is not installed here: run `python -m ensurepip` first")
    constraints, wheels = folder / "constraints.txt", folder / "wheels"
    constraints.write_text("".join(f"{line}\n" for line in pins()), encoding="utf-8")
    wanted, from_source = requirement(extra)
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--only-binary=:all:"]
    options += [f"--no-binary={_OURS}"] if from_source else []
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(wheels)]
    command += ["--constraint", str(constraints), wanted, "pip"]
    scratch = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))  # so that a pip which is killed leaves nothing
    done = subprocess.run(
        command, env=os.environ | scratch, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise CommandError(
            f"pip could not collect the wheels ({last_line(done.stderr)}): see that this machine has room and reaches a"
            " package index, which PIP_INDEX_URL names, and pack again"
        )
    return sorted(wheels.glob("*.whl"))


def pins() -> list[str]:
    """Return ``name==version`` of all that is installed here, for pip to take the same.

    Returns
    -------
    list of str
        Without `lymphcad`, and without versions that an index does not have (``+cpu``).
    """
    found: dict[str, str] = {}
    for one in distributions():
        name = str(one.metadata["Name"] or "")
        found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), one.version)  # the first is the one that is imported
    return sorted(
        f"{name}=={version}" for name, version in found.items() if name not in ("", _OURS) and "+" not in version
    )


def requirement(extra: str) -> tuple[str, bool]:
    """Return what pip is asked for, and whether it is built from source.

    Parameters
    ----------
    extra
        E.g. ``edge``.

    Returns
    -------
    tuple of str and bool
        Where `lymphcad` was installed from (PEP 610).

    Raises
    ------
    CommandError
        If it came from a package index: this project publishes on none, so whose package would come is not known.
    """
    text = distribution(_OURS).read_text("direct_url.json")
    if text is None:
        raise CommandError(
            "this lymphcad was not installed from its source or its wheel, so pip cannot get the same again: install it"
            " with `pip install` and the path of either, and pack again"
        )
    origin: dict[str, Any] = json.loads(text)
    url = str(origin["url"])
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    if subdirectory := origin.get("subdirectory"):
        url += f"#subdirectory={subdirectory}"
    return f"{_OURS}[{extra}] @ {url}", not url.endswith(".whl")


def name_and_version(wheel: Path) -> tuple[str, str]:
    """Return the first two parts of a wheel's file name."""
    name, version = wheel.name.split("-")[:2]
    return name, version


def needs(wheels: list[Path]) -> str:
    """Return the version of glibc, or of macOS, that the wheels need; empty if they need none.

    Parameters
    ----------
    wheels
        Files named as PEP 427 has it: the last part is one platform, or several of which any will do.

    Returns
    -------
    str
        E.g. ``2.28``.
    """
    versions = []
    for wheel in wheels:
        platforms = wheel.stem.rpartition("-")[2].split(".")
        versions.append(min(_least(platform) for platform in platforms))
    return ".".join(map(str, max(versions, default=())))


def _least(platform: str) -> tuple[int, ...]:
    if match := re.match(r"(?:manylinux|macosx)_(\d+)_(\d+)_", platform):
        return int(match[1]), int(match[2])
    return _GLIBC.get(platform.partition("_")[0], ())
