"""From a request to its line in the trail, before the answer is given out."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.bundle import bundle_label
from lymphcad.errors import CommandError, Reason, Refusal, ServerError
from lymphcad_client.audit.trail import Trail
from lymphcad_client.confirming import Confirmation
from lymphcad_client.instants import now
from lymphcad_client.reading import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lymphcad_client.observing import Seen


@dataclass
class _Waiting:
    """A line to be written, and what became of it."""

    record: Mapping[str, Any]
    written: bool = False
    why: str = "it was interrupted"


class Auditor:
    """Writes a line for each request: an `lymphcad_client.observing.Observer`.

    Lines of requests that end while others are written wait, and go to the disk together.

    Parameters
    ----------
    path, key
        See `lymphcad_client.audit.open_audit`.

    Raises
    ------
    CommandError
        As `lymphcad_client.audit.open_audit` does.
    """

    def __init__(self, path: Path, key: Path | None = None) -> None:
        self._trail = Trail(path, key)
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()
        self._written = Confirmation(self._write)

    def saw(self, seen: Seen) -> None:
        """Return when the line is on the disk.

        Raises
        ------
        ServerError
            ``audit_failed`` if it could not be written: the answer must not be given out.
        """
        mine = _Waiting(self._record(seen))
        with self._lock:
            self._waiting.append(mine)
        self._written.wait()
        if not mine.written:
            raise ServerError(Reason.AUDIT_FAILED, f"no answer is given that is not in the audit trail: {mine.why}")

    def close(self) -> None:
        """Have the trail's head written to the disk."""
        self._trail.close()

    def _write(self) -> None:
        with self._lock:
            lines, self._waiting = self._waiting, []
        if not lines:  # those before took them along
            return
        try:
            self._trail.append([one.record for one in lines])
        except CommandError as error:
            for one in lines:
                one.why = str(error)
        else:
            for one in lines:
                one.written = True

    def _record(self, seen: Seen) -> dict[str, Any]:
        finding, error = seen.finding, seen.error
        status = "scored" if error is None else "refused" if isinstance(error, Refusal) else "failed"
        return {
            "time": now(),
            "status": status,
            "reason": None if error is None else error.reason.value,
            "who": self._trail.key.pseudonym(seen.who) if seen.who else None,
            "input_sha256": None if seen.window is None else digest_of(seen.window),
            "bundle": bundle_label(seen.manifest, seen.digest),
            "bundle_sha256": seen.digest,
            "threshold": seen.manifest.threshold,
            "probability": None if finding is None else finding.probability,
            "call": None if finding is None else finding.call,
            "heatmap_sha256": None if finding is None else hashlib.sha256(finding.heatmap.tobytes()).hexdigest(),
            "latency_ms": round(1000 * seen.seconds, 3),
            "notice": RESEARCH_USE_ONLY,
        }
