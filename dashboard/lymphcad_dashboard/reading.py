"""What an engine answered for a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lymphcad_client.batch import Result

    from lymphcad.bundle import Manifest

FAILED, WAITING = "failed", "waiting"


@dataclass(frozen=True)
class Reading:
    """What became of a node, and who answered.

    Attributes
    ----------
    result
        As in a batch; its status is ``waiting`` before an engine was asked.
    manifest
        Of the bundle that answered; None if none did.
    seconds
        That the answer took; None if there was none.
    """

    result: Result
    manifest: Manifest | None = None
    seconds: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether an engine is to be asked (again): a server that was away gave no answer."""
        return self.result.status in (FAILED, WAITING)
