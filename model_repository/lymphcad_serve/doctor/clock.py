"""Whether this machine's clock is set by a time server."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from lymphcad_serve.doctor.check import ok, skip, warn

if TYPE_CHECKING:
    from lymphcad_serve.doctor.check import Check

_ANSWER_S = 10


def check_clock() -> Check:
    """Say what systemd knows of it; a container has no systemd, and its host's clock."""
    program = shutil.which("timedatectl")
    if program is None:
        return skip("clock", "there is no timedatectl to ask", "see on the host that its clock is set by NTP")
    command = [program, "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return skip("clock", "timedatectl does not answer", "see on the host that its clock is set by NTP")
    said = done.stdout.strip()
    if said == "yes":
        return ok("clock", "set by NTP")
    if said == "no":
        return warn(
            "clock", "not set by NTP", "set it up (`timedatectl set-ntp true`): certificates and audit need the time"
        )
    return skip("clock", "timedatectl has no systemd to ask", "see on the host that its clock is set by NTP")
