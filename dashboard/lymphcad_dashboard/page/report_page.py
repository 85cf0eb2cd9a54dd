"""The cohort page: the report of a ``lymphcad compare`` run, as it stands."""

from __future__ import annotations

from html import escape
from pathlib import Path

import streamlit as st

from lymphcad.errors import CommandError
from lymphcad_dashboard.report import load_report
from lymphcad_dashboard.settings import Settings

_HEIGHT = 620


def show() -> None:
    """Show the report in a frame of its own, in which no script runs that could reach this page."""
    folder = Settings.from_environment().report
    if folder is None:
        return
    try:
        page = _page(str(folder))
    except CommandError as error:
        st.error(str(error))
        return
    # Streamlit's own frame may run scripts and reach the page around it; the one within it may not.
    style = f"border:0;width:100%;height:{_HEIGHT - 8}px;background:#fff"
    st.iframe(
        f'<iframe title="Cohort report" sandbox srcdoc="{escape(page)}" style="{style}"></iframe>', height=_HEIGHT
    )


@st.cache_data(ttl=60, max_entries=1, show_spinner=False)
def _page(folder: str) -> str:
    return load_report(Path(folder))
