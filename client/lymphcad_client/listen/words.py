"""What the node says in its log: counts, codes, and of a study the start of a hash; no UID, no AE title, no name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lymphcad_client.listen.arrivals import Brought
from lymphcad_client.listen.dispatcher import Delivery

if TYPE_CHECKING:
    from collections import Counter

    from lymphcad_client.listen.listener import Event

_SHORT = 8
_CAME_TO = {
    "scored": "scored, its results are to be stored",
    "waiting": "no node is marked in it that can be scored, so it waits for more objects",
    "refused": "not one of its nodes could be scored, its results.csv in the folder failed says why",
    "failed": "it could not be scored now",
    "changed": "more of it came while it was scored, so it waits until it is complete again",
    "held": "it cannot be worked on now",
    "removed": "removed, its time was over",
}


def line_of(event: Event | Delivery | Brought) -> str:
    """Return one line on what happened.

    Parameters
    ----------
    event
        What an association brought, what a study has come to, or what became of its results.
    """
    if isinstance(event, Brought):
        return _join(f"received {event.new} new, {event.same} known", _codes(event.refused, "refused"))
    start = f"study {event.study[:_SHORT]}"
    again = f"tried again in {event.again_s:.0f} s" if event.again_s else ""
    if isinstance(event, Delivery):
        waiting = f"studies whose results wait: {event.waiting}" if event.waiting else ""
        if event.again_s:
            return _join(f"{start}: its results could not be stored", _codes(event.codes, ""), waiting, again)
        kept = "they are in the folder failed" if event.codes else ""
        return _join(
            f"{start}: {event.stored} results stored", _codes(event.codes, "refused by the PACS"), kept, waiting
        )
    said = _CAME_TO[event.status]
    if event.status == "removed" and event.why not in ("scored", "already"):
        said += " and it had come to no result"
    nodes = f"{event.scored} scored, {event.refused} refused" if event.scored + event.refused else ""
    took = f"{event.seconds:.1f} s" if event.status in ("scored", "refused") else ""
    return _join(f"{start}: {said}", nodes, _codes(event.codes, ""), event.why if again else "", again, took)


def _codes(codes: Counter[str], word: str) -> str:
    listed = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
    return f"{word} {listed}".strip() if listed else ""


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
