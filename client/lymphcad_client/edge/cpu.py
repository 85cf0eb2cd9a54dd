"""What this machine's CPU has."""

from __future__ import annotations

import os
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_FAST = {"avx512_vnni", "avx_vnni", "asimddp"}
"""As Linux names them: sums of eight-bit products in one instruction, on x86 and on Arm."""


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def eight_bits_are_slow(cpuinfo: Path = _CPUINFO) -> str:
    """Return a sentence if the CPU has no instruction for sums of eight-bit products.

    Parameters
    ----------
    cpuinfo
        What Linux says of the CPU.

    Returns
    -------
    str
        Empty if it has one, or where there is no such file, so that nobody knows.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    flags = {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()[1:]}
    if not flags or flags & _FAST:
        return ""
    lacks = "neither AVX2 nor VNNI" if "sse2" in flags and "avx2" not in flags else "no instructions for int8 (VNNI)"
    return f"This CPU has {lacks}: int8 is as right as elsewhere, only slower."
