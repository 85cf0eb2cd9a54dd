"""The script that Streamlit runs: who may see it, the notice, and the pages."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from lymphcad_client.observing import ASKING

from lymphcad import RESEARCH_USE_ONLY
from lymphcad.errors import LymphcadError
from lymphcad_dashboard.access import require_sign_in, sign_out_button, signed_in
from lymphcad_dashboard.page import report_page, status_page, study_page
from lymphcad_dashboard.page.text import literal
from lymphcad_dashboard.settings import Settings

_ICON = Path(__file__).with_name("icon.svg")
_STYLE = """
<style>
[data-testid="stMainBlockContainer"] { padding: 3.8rem 1.2rem 2.6rem; }
[data-testid="stSidebarHeader"] { height: 2.6rem; margin-bottom: 0; }
[data-testid="stSidebarUserContent"] { padding-bottom: 3rem; }
.notice { position: fixed; left: 0; right: 0; bottom: 0; z-index: 1000000; padding: .25rem 1rem; text-align: center;
          background: #7a3e00; color: #fff; font-size: .85rem; }
</style>
"""


def main() -> None:
    """Show the page that the user chose."""
    settings = Settings.from_environment()
    # A file of ours: Streamlit's icons for the tab come from an outside service.
    st.set_page_config(page_title="LymphCAD", page_icon=str(_ICON), layout="wide")
    st.html(_STYLE + f'<div class="notice" role="note">{RESEARCH_USE_ONLY}</div>')
    require_sign_in(settings)
    ASKING.set(signed_in(settings))
    pages = [
        st.Page(study_page.show, title="Study", icon=":material/radiology:", url_path="study", default=True),
        st.Page(status_page.show, title="Status", icon=":material/monitor_heart:", url_path="status"),
    ]
    if settings.report is not None:
        pages.append(st.Page(report_page.show, title="Cohort report", icon=":material/query_stats:", url_path="report"))
    page = st.navigation(pages, position="top")
    page.run()
    sign_out_button(settings)


try:
    main()
except LymphcadError as error:
    st.error(literal(str(error)))
