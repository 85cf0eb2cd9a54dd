"""What a DICOM result is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad.finding import Finding


@dataclass(frozen=True)
class ScoredNode:
    """A node with its answer, and where its image lies.

    Attributes
    ----------
    number
        Its number in the table of nodes, from 1.
    node
        The user's name for it.
    path
        The DICOM file.
    frame
        Number of the frame, from 1; None in a single-frame file.
    row, col
        The node's centre, zero-based pixel coordinates; 0, 0 is the middle of the first pixel.
    finding
        The answer.
    input_sha256
        Digest of the tensors that were scored.
    assumptions
        What had to be assumed, sentences; often empty.
    """

    number: int
    node: str
    path: Path
    frame: int | None
    row: float
    col: float
    finding: Finding
    input_sha256: str
    assumptions: str = ""
