"""What a user takes away: the table, the pictures, the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st
from lymphcad_dashboard.page.session import bench, engines

from lymphcad import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    pass


def take_away() -> None:
    """Offer what was found as files; each is made when its button is pressed."""
    with st.popover("Take away", icon=":material/download:"):
        st.caption(f"{RESEARCH_USE_ONLY}. It stands in each of these, too.")
        if open_ := bench().open_readings(len(engines())):
            st.warning(f"{open_} not answered yet: they are in the files as failed.")
        with_name = st.toggle("With the patient's name and ID in the summary", key="summary-patient")
        _button("Table (results.csv)", "results.csv", "text/csv", _csv)
        _button("Table and pictures (zip)", "lymphcad.zip", "application/zip", _zip)
        _button("Summary (HTML, one page to print)", "summary.html", "text/html", lambda: _summary(with_name))
