"""The viewer and its controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from lymphcad_dashboard.display import MAX_ZOOM, NETWORK, PRESETS, Frame, HuWindow, frame_of, network_window
from lymphcad_dashboard.page.session import bench, engines
from lymphcad_dashboard.picture import Box, draw
from lymphcad_dashboard.viewer import clicked, stepped, viewer

if TYPE_CHECKING:
    from lymphcad_dashboard.bench import Mark

_FREE = "Free"
_MARK, _MOVE, _CENTRE = "marks a node", "moves it", "centres"
_VIEWER = "viewer"


def show() -> None:
    """Show the slice that is chosen."""
    stack = bench().stack
    if stack is None:
        return
    state = st.session_state
    if "go-to" in state:
        _go_to(state.pop("go-to"))
    count = len(stack.slices)
    with st.container(horizontal=True, wrap=False, vertical_alignment="bottom"):
        window = _window()
        zoom = st.slider("Zoom", 1.0, MAX_ZOOM, 1.0, 0.25, key="zoom", format="%.2f x", width="stretch")
        heat = st.slider("Heatmap opacity", 0, 100, 60, 5, format="%d %%", key="opacity", width="stretch")
        heat_on = st.toggle("Heatmap", value=True, key="heat-on")
    with st.container(horizontal=True, wrap=False, vertical_alignment="bottom", gap="medium"):
        label = "Slice (or: wheel, arrow keys)"
        number = st.slider(label, 1, count, key="slice", width="stretch") if count > 1 else 1
        st.segmented_control("A click", [_MARK, _MOVE, _CENTRE], default=_MARK, required=True, key="click-does")
    ct = stack.slices[number - 1]
    selected = bench().marks.get(bench().selected or 0)
    frame = frame_of(ct, zoom, _centre(selected))
    boxes = [_box(mark, with_heat=heat_on) for mark in bench().marks_on(number - 1)]
    picture = draw(ct, frame, window, [box for box in boxes if box], heat / 100)
    viewer(picture, number - 1, frame, key=_VIEWER, on_click=_on_click, on_step=_on_step)
    place = "" if ct.position_mm is None else f", table position {ct.position_mm[2]:.1f} mm"
    size = f"{ct.hu.shape[0]} x {ct.hu.shape[1]} pixels of {ct.spacing_mm[0]:.3g} x {ct.spacing_mm[1]:.3g} mm"
    st.caption(f"Slice {number} of {count} from the head{place}; {size}; window {window.level:g} / {window.width:g} HU")


def _window() -> HuWindow:
    status = engines()[0].status()
    names = [*PRESETS, *([NETWORK] if status.manifest else []), _FREE]
    name = st.selectbox("Window", names, key="window", width=150)
    if name == _FREE:
        level = st.number_input("Level, HU", -1000, 3000, 40, 10, key="level", width=110)
        width = st.number_input("Width, HU", 1, 4000, 400, 10, key="width", width=110)
        return HuWindow(level, width)
    if name == NETWORK and status.manifest:
        return network_window(status.manifest)
    return PRESETS.get(name, PRESETS["Soft tissue"])


def _centre(selected: Mark | None) -> tuple[float, float] | None:
    """Return what the zoom is centred on: where the user put it, else the selected node."""
    if "centre" in st.session_state:
        return st.session_state["centre"]  # type: ignore[no-any-return]
    if selected is None or selected.node.row is None or selected.node.col is None:
        return None
    return selected.node.row, selected.node.col


def _box(mark: Mark, *, with_heat: bool) -> Box | None:
    if mark.node.row is None or mark.node.col is None:
        return None
    reading = bench().reading(mark)
    finding = reading.result.finding
    status = engines()[0].status()
    manifest = reading.manifest or status.manifest
    answer = reading.result.status if finding is None else f"{finding.probability:.2f}"
    return Box(
        mark.node.row,
        mark.node.col,
        manifest.preprocess.field_of_view_mm if manifest else None,
        f"{mark.node.node}: {answer}",
        mark.number == bench().selected,
        finding.heatmap if finding is not None and with_heat else None,
    )


def _go_to(number: int) -> None:
    """Select a mark and show its slice, with the zoom on it."""
    mark = bench().marks.get(number)
    if mark is None:
        return
    bench().selected = number
    st.session_state.pop("centre", None)
    if mark.index is not None:
        st.session_state["slice"] = mark.index + 1


def _on_step() -> None:
    stack = bench().stack
    if stack is not None and len(stack.slices) > 1:
        number = st.session_state["slice"] + stepped(st.session_state.get(_VIEWER))
        st.session_state["slice"] = min(max(number, 1), len(stack.slices))


def _on_click() -> None:
    stack, click = bench().stack, clicked(st.session_state.get(_VIEWER))
    if stack is None or click is None:
        return
    index, x, y, middle, side = click
    if not 0 <= index < len(stack.slices):  # of a series that is not shown any more
        return
    row, col = Frame(*middle, side, stack.slices[index].spacing_mm).pixel(x, y)
    does, selected = st.session_state.get("click-does"), bench().selected
    if does == _CENTRE:
        st.session_state["centre"] = (row, col)
    elif does == _MOVE and selected is not None:
        bench().move(selected, index, row, col)
        st.session_state["click-does"] = _MARK
    else:
        bench().add(index, row, col)
        if st.session_state.get("zoom", 1.0) > 1:  # what is looked at stays where it is
            st.session_state["centre"] = middle
