"""What every scorer offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lymphcad.bundle import Manifest
    from lymphcad.finding import Finding
    from lymphcad.geometry import Window
    from lymphcad.slice import CtSlice


class Scorer(Protocol):
    """Scores one node at a time; safe to call from several threads.

    Attributes
    ----------
    manifest, digest
        Of the bundle that answers.
    about
        A sentence for people: who answers, and in which precision.
    at_once
        How many nodes it is given at once to be kept busy.
    """

    manifest: Manifest
    digest: str
    about: str
    at_once: int

    def score(self, ct: CtSlice, row: float, col: float) -> Finding:
        """Score the node at (row, col), zero-based pixel coordinates.

        Raises
        ------
        Refusal
            If the node cannot be scored.
        ServerError
            If the engine did not answer as it must.
        """
        ...

    def score_window(self, window: Window) -> Finding:
        """Score a node whose window was cut by `lymphcad.geometry.cut_window` with the manifest's `preprocess`.

        Raises
        ------
        ServerError
            If the engine did not answer as it must.
        """
        ...
