"""What one node was answered by two bundles: a line of JSON, without anything that names a patient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from lymphcad import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from lymphcad.finding import Finding

_Probability = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(_Frozen):
    """Of one of the two.

    Attributes
    ----------
    bundle
        Name and digest.
    probability, threshold, call
        See `lymphcad.finding.Finding`.
    ms
        From the request to its end.
    """

    bundle: str
    probability: _Probability
    threshold: _Probability
    call: Literal["benign", "metastatic"]
    ms: float

    @classmethod
    def of(cls, finding: Finding, seconds: float) -> Answer:
        """Return what a finding says."""
        return cls.model_validate({
            "bundle": finding.bundle,
            "probability": finding.probability,
            "threshold": finding.threshold,
            "call": finding.call,
            "ms": round(1000 * seconds, 3),
        })  # fmt: skip


class Opened(_Frozen):
    """The first line of a run."""

    event: Literal["opened"] = "opened"
    time: str
    notice: str = RESEARCH_USE_ONLY


class Pair(_Frozen):
    """One node.

    Attributes
    ----------
    time
        UTC, ms (RFC 3339).
    input_sha256
        See `lymphcad_client.reading.digest_of`.
    first, second
        The answers; `second` is None if there is none.
    heatmap_difference
        Mean absolute difference, grey levels of 255; None if the two look at different fields of view.
    error
        Code of why there is no second answer.
    """

    event: Literal["pair"] = "pair"
    time: str
    input_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    first: Answer
    second: Answer | None
    heatmap_difference: float | None
    error: str | None


class Closed(_Frozen):
    """The last line of a run.

    Attributes
    ----------
    pairs, failed
        Nodes with a second answer, and without.
    skipped
        Nodes for which the shadow had no time, or their line no room on the disk.
    unanswered
        Requests that the first did not answer, so that there was nothing to compare.
    """

    event: Literal["closed"] = "closed"
    time: str
    pairs: int = 0
    failed: int = 0
    skipped: int = 0
    unanswered: int = 0


LINE: TypeAdapter[Opened | Pair | Closed] = TypeAdapter(Annotated[Opened | Pair | Closed, Field(discriminator="event")])
"""Reads a line."""
