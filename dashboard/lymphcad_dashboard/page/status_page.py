"""The status page: what answers, whether it does, and how fast."""

from __future__ import annotations

import streamlit as st

from lymphcad_dashboard.page.session import bench, engines, score_open
from lymphcad_dashboard.page.text import literal

POLL_S = 3
"""How often a server is asked whether it is there, seconds."""


def show() -> None:
    """Show each engine's state."""
    st.subheader("Status")
    _states()


@st.fragment(run_every=POLL_S)
def _states() -> None:
    for which, engine in enumerate(engines()):
        status = engine.status()
        with st.container(border=True, key=f"engine-{which}"):
            badge, sentence = ("green", "Ready") if status.ready else ("red", "Not ready")
            st.markdown(f"**{literal(engine.place)}** :{badge}-badge[{sentence}]")
            st.text(status.sentence)
            if status.manifest is not None:
                rows = {
                    "Network": status.manifest.architecture,
                    "Bundle": status.manifest.name,
                    "Digest (SHA-256)": status.digest,
                    "Field of view": f"{status.manifest.preprocess.field_of_view_mm:g} mm",
                    "Threshold": f"{status.manifest.threshold:.3f}",
                    "LymphCAD": status.manifest.versions.get("lymphcad", "not said"),
                }
                for name, value in rows.items():
                    st.text(f"{name}: {value}")
            latencies = bench().latencies
            if which < len(latencies) and latencies[which].n:
                found = latencies[which]
                columns = st.columns(3)
                columns[0].metric("Answers in this session", found.n)
                columns[1].metric("Mean", f"{found.mean_ms:.1f} ms")
                columns[2].metric("95th percentile", f"{found.p95_ms:.1f} ms")
            else:
                st.caption("No answer in this session yet.")


@st.fragment(run_every=POLL_S)
def watch_servers() -> None:
    """Say in a line whether the engines answer; ask for what is still open as soon as they do."""
    states = [(engine, engine.status()) for engine in engines()]
    for engine, status in states:
        if status.ready:
            st.caption(f":green[:material/check_circle:] Ready: {literal(status.label)} on {literal(engine.place)}")
        else:
            st.warning(status.sentence, icon=":material/cloud_off:")
    waiting = bench().open_readings(len(states))
    if waiting and all(status.ready for _, status in states):
        score_open()
        st.rerun()
    if waiting:
        st.caption(f"{waiting} not answered yet; they are asked again by themselves.")
