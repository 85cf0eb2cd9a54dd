"""Install LymphCAD from the folder that this file lies in, without a network: ``python3 install.py [FOLDER]``.

It runs on a bare Python: the standard library only, in the syntax of Python 3.7, so that a Python that does not fit is
told so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

FORMAT = 1
PACK_JSON, CONSTRAINTS = "pack.json", "constraints.txt"
BUNDLE, WHEELS = "bundle", "wheels"
RESEARCH_USE_ONLY = "Research use only; not a medical device"
WRONG, INTERRUPTED = 2, 130
_AGAIN = "copy and unzip the whole file again"


class Refused(Exception):  # noqa: N818 - it is no error of the program's
    """Nothing was installed; the message is one sentence."""


def this_machine() -> dict[str, str]:
    """Return what decides whether a wheel fits: version and implementation of Python, and the platform."""
    threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    system = sysconfig.get_platform()
    if system.startswith("macosx"):  # of that Python's build; it may hold two architectures
        system = f"macosx-{platform.machine()}"
    return {
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}{threads}",
        "implementation": sys.implementation.name,
        "platform": system,
    }


def last_line(text: str) -> str:
    """Return the last line of what pip or `lymphcad` said that says what is wrong."""
    lines = [line.strip() for line in text.splitlines()]
    said = [line for line in lines if line and not line.lower().startswith(("[notice]", "note:", "hint:", "warning:"))]
    # What failed in a process that pip started stands before what pip makes of it.
    errors = [line for line in said if line.startswith("ERROR:") and not line.startswith("ERROR: Failed to build")]
    last = (errors or said or ["it said nothing"])[-1].rstrip(".")
    for name in ("ERROR: ", "lymphcad: "):
        last = last[len(name) :] if last.startswith(name) else last
    return last


def install(here: Path, folder: Path) -> None:
    """Install what lies in a folder into another.

    Parameters
    ----------
    here
        The unzipped folder.
    folder
        Does not exist; it becomes a virtual environment with the bundle in it.

    Raises
    ------
    Refused
        If it exists, the machine or a file is not the one that was packed, or a step fails. No folder is there then.
    """
    if os.path.lexists(str(folder)):
        raise Refused(f"'{folder}' exists: name another folder, or remove it first")
    pack = read_pack(here)
    check_machine(pack)
    _say("Checking the files")
    check_files(here, pack)
    try:
        folder.mkdir()
    except OSError as error:
        raise Refused(f"'{folder}' cannot be made ({error.strerror}): name another folder") from None
    try:
        _say(f"Installing into {folder}")
        _fill(here, folder, pack)
    except OSError as error:
        raise Refused(f"'{folder}' cannot be written ({error.strerror or error}): make room, or name another") from None
    finally:
        # Its name is given to the bundle last of all, after everything else has proven right.
        if not (folder / BUNDLE).is_dir():
            shutil.rmtree(str(folder), ignore_errors=True)


def read_pack(here: Path) -> dict[str, Any]:
    """Return what `PACK_JSON` says."""
    try:
        pack = json.loads((here / PACK_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pack = None
    if not isinstance(pack, dict) or not isinstance(pack.get("files"), dict):
        raise Refused(f"there is no readable {PACK_JSON} beside this script: {_AGAIN}, and run install.py in there")
    if pack.get("format") != FORMAT:
        raise Refused(f"{PACK_JSON} is of format {pack.get('format')!r}, and this script reads {FORMAT}: {_AGAIN}")
    return pack


def check_machine(pack: dict[str, Any]) -> None:
    """Refuse another version or implementation of Python, another platform, and a system that is too old."""
    there, needs = this_machine(), str(pack.get("needs", ""))
    for what, name in (("implementation", "implementation"), ("version", "python"), ("platform", "platform")):
        if there[name] != pack.get(name):
            raise Refused(
                f"the {what} of this Python is {there[name]}, and the wheels were packed for {pack.get(name)}: run"
                " install.py with such a Python, or pack again on a machine like this one"
            )
    system, version = ("macOS", platform.mac_ver()[0]) if sys.platform == "darwin" else ("glibc", _glibc())
    if needs and _numbers(version) < _numbers(needs):
        raise Refused(
            f"this machine has {system} {version or '(none)'}, and the wheels need {needs}: install on a newer system,"
            " or pack on one as old as this"
        )


def check_files(here: Path, pack: dict[str, Any]) -> None:
    """Refuse a file that is missing or changed, and a wheel that pip would find beside those that were packed."""
    for name, expected in pack["files"].items():
        try:
            found = _sha256(here / name)
        except OSError:
            raise Refused(f"{name} is missing or cannot be read: {_AGAIN}") from None
        if found != expected:
            raise Refused(f"{name} does not have the SHA-256 that {PACK_JSON} says, so it was changed: {_AGAIN}")
    for path in sorted((here / WHEELS).iterdir()):
        if f"{WHEELS}/{path.name}" not in pack["files"]:
            raise Refused(f"{WHEELS}/{path.name} is not in {PACK_JSON}, so it was not packed: remove it")


def _fill(here: Path, folder: Path, pack: dict[str, Any]) -> None:
    try:
        import venv
    except ImportError:
        raise Refused("this Python has no module venv: install it, or run install.py with another Python") from None
    # pip is run from its wheel, for what makes venv install one (ensurepip) is not part of every system's Python.
    venv.EnvBuilder(symlinks=os.name != "nt").create(str(folder))
    python = str(program(folder, "python"))
    pip = next(here / name for name in pack["files"] if name.startswith(f"{WHEELS}/pip-"))
    # What is imported is compiled then; most of it never is, which saves 36 MB.
    options = ["--isolated", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile"]
    options += ["--no-index", "--find-links", str(here / WHEELS), "--constraint", str(here / CONSTRAINTS)]
    done = _run([python, "-I", str(pip / "pip"), *options, str(pack["requirement"])])
    if done.returncode:
        raise Refused(f"pip could not install the wheels ({last_line(done.stderr)}): see to that, and install again")
    copied = folder / f".{BUNDLE}"
    copied.mkdir()
    for name in pack["files"]:
        if name.startswith(f"{BUNDLE}/"):
            shutil.copyfile(str(here / name), str(copied / Path(name).name))
    _say("Scoring the golden inputs of the bundle")
    done = _run([python, "-I", "-m", "lymphcad", "verify", str(copied)])
    if done.returncode:
        raise Refused(
            f"`lymphcad verify` did not pass on this machine ({last_line(done.stderr)}), so nothing was installed: pack"
            " again, with another bundle or --runner"
        )
    _say(done.stdout.rstrip())
    copied.rename(folder / BUNDLE)


def program(folder: Path, name: str) -> Path:
    """Return where a program of a virtual environment lies."""
    return folder / "Scripts" / f"{name}.exe" if os.name == "nt" else folder / "bin" / name


def command(folder: Path) -> str:
    """Return what to type to score, as the shell of this system wants it."""
    words = [str(program(folder, "lymphcad")), "score", "IMAGE", "--node", "ROW,COL"]
    words += ["--edge", str(folder / BUNDLE), "--out", "results"]
    return subprocess.list2cmdline(words) if os.name == "nt" else " ".join(map(shlex.quote, words))


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", check=False)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def _glibc() -> str:
    name, version = platform.libc_ver()
    return version if name == "glibc" else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Install, and return the exit code: 0 done, 2 refused, 130 stopped."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(
        description="Install LymphCAD on this machine without a network.", epilog=f"{RESEARCH_USE_ONLY}."
    )
    parser.add_argument("folder", nargs="?", help="a new folder; 'lymphcad' beside this script if not given")
    given = parser.parse_args().folder
    folder = Path.cwd() / given if given else here / "lymphcad"
    signal.signal(signal.SIGTERM, _stop)
    try:
        install(here, folder)
    except Refused as refused:
        sys.stderr.write(f"install.py: {refused}\n")
        return WRONG
    except KeyboardInterrupt:
        sys.stderr.write("install.py: stopped, and nothing was installed\n")
        return INTERRUPTED
    _say(f"Score with:\n  {command(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
