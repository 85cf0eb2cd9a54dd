"""The study page: the side bar, the viewer and the nodes beside it."""

from __future__ import annotations

import streamlit as st

from lymphcad_dashboard.page import cards_panel, open_panel, view_panel
from lymphcad_dashboard.page.session import bench, engines, score_open
from lymphcad_dashboard.page.status_page import watch_servers


def show() -> None:
    """Show the page."""
    with st.sidebar:
        if any(engine.remote for engine in engines()):
            watch_servers()
        open_panel.show()
    stack = bench().stack
    if stack is None or not stack.slices:
        _start()
        return
    _workbench()


def _start() -> None:
    """Show what to do first."""
    with st.container(border=True):
        st.subheader("Open a study")
        st.markdown(
            "Drop DICOM files or a zip of a study into the side bar, choose the series, scroll to a lymph node and"
            " click it. Or look at a made one first:"
        )
        if st.button("Open the sample study", key="start-sample", type="primary", icon=":material/science:"):
            open_panel.open_sample()


@st.fragment
def _workbench() -> None:
    """Show viewer and nodes; only this part runs again when the slice changes or a node is clicked."""
    score_open()
    if st.session_state.pop(open_panel.FIRST, False) and bench().marks:
        st.session_state["go-to"] = bench().in_order()[0].number
    left, right = st.columns([3, 2], gap="medium")
    with left:
        view_panel.show()
    with right:
        cards_panel.show()
