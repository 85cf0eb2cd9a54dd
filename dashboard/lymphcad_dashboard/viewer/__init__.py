"""The viewer on the page: shows a picture, and tells of clicks on it, of the wheel and of keys.

Streamlit's images cannot be clicked, nor its slider be turned by a wheel; this is a custom component of its second
kind, which lives in the page itself, without a frame of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from lymphcad_dashboard.display import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

_HERE = Path(__file__).parent
_HTML = (
    '<div class="viewer" tabindex="0" aria-label="Viewer: click a node; wheel and arrow keys change the slice"></div>'
)


def viewer(
    picture: str, index: int, frame: Frame, *, key: str, on_click: Callable[[], None], on_step: Callable[[], None]
) -> None:
    """Show a picture.

    Parameters
    ----------
    picture
        An SVG element, square.
    index, frame
        Which slice and which part of it the picture shows; they come back with a click.
    key
        Of the component; `clicked` and `stepped` read its state in the callbacks.
    on_click, on_step
        Called after a click, and after the wheel or a key.
    """
    mount = st.components.v2.component(
        "lymphcad_viewer",
        html=_HTML,
        css=(_HERE / "viewer.css").read_text(encoding="utf-8"),
        js=(_HERE / "viewer.js").read_text(encoding="utf-8"),
    )
    view = json.dumps([index, frame.row, frame.col, frame.side_mm])
    mount(key=key, data={"picture": picture, "view": view}, on_click_change=on_click, on_step_change=on_step)


def clicked(state: Any) -> tuple[int, float, float, tuple[float, float], float] | None:
    """Return the last click.

    Parameters
    ----------
    state
        Of the component, as Streamlit keeps it.

    Returns
    -------
    tuple or None
        The index of the slice that was on the screen, where it was clicked (x, y; 0..1 of the picture), and what lay in
        the picture's middle (row, column, pixels) and its side, mm. None if there was no click.
    """
    click = state.get("click") if state else None
    if not isinstance(click, dict):
        return None
    index, row, col, side = json.loads(click["view"])
    return int(index), float(click["x"]), float(click["y"]), (float(row), float(col)), float(side)


def stepped(state: Any) -> int:
    """Return by how many slices the wheel or a key moves; 0 if not at all. The parameter is as in `clicked`."""
    step = state.get("step") if state else None
    return int(step) if isinstance(step, (int, float)) else 0
