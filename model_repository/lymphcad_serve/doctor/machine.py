"""Cores, memory, file descriptors, disks and ports of this machine, as its cgroup (version 2) limits them."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lymphcad_serve.doctor.check import fail, ok, skip, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lymphcad_serve.doctor.check import Check

_CGROUP = Path("/sys/fs/cgroup")
_CORES, _MEMORY, _FILES = 2, 1 << 30, 1024
_MB = 1 << 20
_ENOUGH = {"/dev/shm": 256 * _MB}  # noqa: S108 - where Linux keeps shared memory
"""The Python backend's and the client's regions lie there; a container has 64 MB of it unless it is told otherwise."""
_ENOUGH_ELSEWHERE = 1024 * _MB
_FULL = 16 * _MB


def check_cores(cgroup: Path = _CGROUP) -> Check:
    """Say how many cores this process may use."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _words(cgroup / "cpu.max")
    limit = int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0].isdigit() else None
    found = f"{there}" if limit is None or limit >= there else f"{limit:.2g}, by the limit of the container, of {there}"
    if min(there, limit or there) < _CORES:
        return warn("cores", found, "give it 2: a server has two instances of the network, of a thread each")
    return ok("cores", found)


def check_memory(cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> Check:
    """Say how much memory is left to this process."""
    available = next((int(line.split()[1]) << 10 for line in _lines(meminfo) if line.startswith("MemAvailable:")), None)
    limit, used = _words(cgroup / "memory.max"), _words(cgroup / "memory.current")
    left = [] if available is None else [available]
    limited = len(limit) == len(used) == 1 and limit[0].isdigit() and used[0].isdigit()
    if limited:
        left.append(max(int(limit[0]) - int(used[0]), 0))
    if not left:
        return skip("memory", "this system does not tell how much is available")
    found = f"{min(left) / _MB:.0f} MB available" + (
        f" of the container's {int(limit[0]) / _MB:.0f}" if limited else ""
    )
    if min(left) < _MEMORY:
        return warn("memory", found, "give it 1 GB: the demo bundle's server takes 0.4 GB, a larger network more")
    return ok("memory", found)


def check_files() -> Check:
    """Say how many files this process may open: each connection is one."""
    try:
        import resource
    except ModuleNotFoundError:  # not a POSIX system
        return skip("open files", "this system has no such limit to read")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < _FILES:
        return warn("open files", f"at most {limit}", f"raise it to {_FILES} (`ulimit -n`): each connection takes one")
    return ok("open files", "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit}")


def check_disks(folders: Sequence[Path]) -> Iterator[Check]:
    """Say how much room is left where shared memory, temporary files and other folders lie.

    Parameters
    ----------
    folders
        Others that matter, which need not exist yet.

    Yields
    ------
    Check
        One a place.
    """
    for folder in dict.fromkeys([*map(Path, _ENOUGH), Path(tempfile.gettempdir()), *folders]):
        there = next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), None)
        name = f"disk {folder}"
        if there is None or (str(folder) in _ENOUGH and not folder.is_dir()):
            yield skip(name, "not there")
            continue
        try:
            free = shutil.disk_usage(there).free
        except OSError as error:
            yield fail(name, f"it cannot be looked at ({error.strerror})", "see that its disk is there")
            continue
        enough = _ENOUGH.get(str(folder), _ENOUGH_ELSEWHERE)
        found = f"{free / _MB:.0f} MB free"
        if free < _FULL:
            yield fail(name, found, f"free {enough / _MB:.0f} MB")
        elif free < enough:
            yield warn(name, found, f"free {enough / _MB:.0f} MB, or give the container a larger one")
        else:
            yield ok(name, found)


def check_port(name: str, port: int, host: str = "127.0.0.1") -> Check:
    """Say whether a server could listen on a port; who else does is not asked.

    Parameters
    ----------
    name
        Of the option that chooses it, e.g. ``grpc``.
    port, host
        Where.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does
        try:
            probe.bind((host, port))
        except OSError as error:
            return fail(
                f"port {port}",
                f"a server cannot listen there ({error.strerror})",
                "name the server with --server if it is yours, stop what listens there, or choose another"
                f" --{name}-port",
            )
    return ok(f"port {port}", f"free for --{name}-port")


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system, or the root cgroup, which has no limits
        return []
