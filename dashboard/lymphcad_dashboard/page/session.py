"""What belongs to one session, and what all sessions of the process share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from lymphcad_dashboard.bench import Bench
from lymphcad_dashboard.engine import open_engines
from lymphcad_dashboard.settings import Settings

if TYPE_CHECKING:
    from lymphcad_dashboard.engine import Engine


def bench() -> Bench:
    """Return this session's bench."""
    if "bench" not in st.session_state:
        st.session_state["bench"] = Bench()
    found: Bench = st.session_state["bench"]
    return found


def engines() -> tuple[Engine, ...]:
    """Return what answers: one engine, or two that are compared. They keep nothing of a study."""
    return open_engines(Settings.from_environment())


def score_open() -> None:
    """Ask for every answer that is still open; an engine that is away is asked again later."""
    waiting = bench().open_readings(len(engines()))
    if not waiting:
        return
    if waiting <= len(engines()):
        bench().score(engines())
        return
    done = 0
    with st.spinner("Scoring"):
        bar = st.progress(0.0, "Scoring")

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.progress(min(done / waiting, 1.0), f"Scoring: {done} of {waiting}")

        bench().score(engines(), advance)
        bar.empty()
