"""A summary of scored nodes to print or to send on: one HTML file that asks for nothing outside itself."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import lymphcad
from lymphcad_dashboard import words
from lymphcad_dashboard.scale import scale_svg
from lymphcad_dashboard.takeaway import picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from lymphcad_dashboard.reading import Reading

PICTURES: Final = 6
"""How many pictures fit on one page of A4; nodes beyond them stand in a table."""


def summary_html(nodes: Sequence[Sequence[Reading]], made: datetime, *, patient: str | None = None) -> str:
    """Return the summary.

    What a user calls a node and the sentence of a refusal stand in it as they are, and so does the SOP Instance UID of
    each slice, without which nobody could find it again; the path of an image does not.

    Parameters
    ----------
    nodes
        In the order of the page; of each one answer, or one from each of two bundles, the same one first in all.
    made
        When, as the user's clock says it.
    patient
        Whatever shall name the patient on the page; nothing of the images does.

    Returns
    -------
    str
        HTML, without a script and without anything that a browser would load; on A4 one page for at most `PICTURES`
        pictures.

    Raises
    ------
    ValueError
        If a scored node comes without its slice, its point or its manifest.
    """
    scored = [node for node in nodes if any(answer.result.finding for answer in node)]
    across = max((len(node) for node in nodes), default=1)
    shown = PICTURES // across
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["reason"] = words.parse_reason
    return environment.get_template("summary.html.jinja").render(
        notice=lymphcad.RESEARCH_USE_ONLY,
        version=lymphcad.__version__,
        made=f"{made:%Y-%m-%d %H:%M %Z}".strip(),
        patient=patient,
        bundles={
            answer.result.finding.bundle: answer.manifest
            for node in nodes
            for answer in node
            if answer.result.finding and answer.manifest
        },
        across=across,
        cards=scored[:shown],
        further=scored[shown:],
        unscored=[node for node in nodes if not any(answer.result.finding for answer in node)],
        count=len(nodes),
        picture=_data_uri,
        scale=scale_svg,
        words=words,
    )


def _data_uri(answer: Reading) -> str:
    return "data:image/png;base64," + base64.b64encode(picture(answer) or b"").decode("ascii")
