"""What a user takes away: the table, the pictures, the page."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import streamlit as st
from lymphcad_client.results import results_csv

from lymphcad import RESEARCH_USE_ONLY
from lymphcad_dashboard.page.session import bench, engines
from lymphcad_dashboard.summary import summary_html
from lymphcad_dashboard.takeaway import results_zip

if TYPE_CHECKING:
    from lymphcad_dashboard.reading import Reading


def take_away() -> None:
    """Offer what was found as files; each is made when its button is pressed."""
    with st.popover("Take away", icon=":material/download:"):
        st.caption(f"{RESEARCH_USE_ONLY}: so say these files, too.")
        if count := bench().open_readings(len(engines())):
            st.warning(f"{count} not answered yet: the files have them as failed.")
        named = st.toggle("Name the patient in the summary", key="summary-patient")
        # What is taken away is what is on the page now, whatever the session does while it is made.
        first, all_ = _readings(1), _readings(len(engines()))
        patient = _patient() if named else None
        made = datetime.now().astimezone()
        st.download_button(
            "Table (results.csv)",
            lambda: results_csv((one.result, "") for (one,) in first),
            "results.csv",
            "text/csv",
            on_click="ignore",
        )
        st.download_button(
            "Table and pictures (zip)",
            lambda: results_zip([one for (one,) in first]),
            "lymphcad.zip",
            "application/zip",
            on_click="ignore",
        )
        st.download_button(
            "Summary, one page to print (HTML)",
            lambda: summary_html(all_, made, patient=patient),
            "summary.html",
            "text/html",
            on_click="ignore",
        )


def _readings(count: int) -> list[list[Reading]]:
    """Return each mark's readings of the first `count` engines, in the order in which they were marked."""
    here = bench()
    return [[here.final(mark, which) for which in range(count)] for mark in here.marks.values()]


def _patient() -> str:
    stack = bench().stack
    if stack is None:
        return ""
    return ", ".join(part for part in (stack.series.patient_name, stack.series.patient_id) if part) or "not stated"
