"""The side bar: what is opened, which series is chosen, what was refused, whose study it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from lymphcad.errors import LymphcadError
from lymphcad.memory_file import MemoryFile
from lymphcad.phantom.sample import sample_study
from lymphcad.series import read_series
from lymphcad_dashboard.opening import masked, open_study, series_title
from lymphcad_dashboard.page.session import bench
from lymphcad_dashboard.page.text import literal
from lymphcad_dashboard.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lymphcad.series import RefusedFile, Series

FIRST = "go-to-first"
"""Of the session: the most probable node is shown as soon as it is known."""
_UPLOADS, _MESSAGE, _READ = "uploads", "opening-message", "series-read"


def show() -> None:
    """Show what a study is opened with, and what is known of the open one."""
    round_ = st.session_state.setdefault(_UPLOADS, 0)
    # A new key for each study: the widget then forgets its files, which would otherwise be held twice.
    dropped = st.file_uploader(
        "Open a study: DICOM files, or a zip of its folder",
        accept_multiple_files=True,
        key=f"upload-{round_}",
        help="Nothing is stored: a study is gone when this page is closed.",
    )
    if dropped:
        files = [MemoryFile(file.name, file.getvalue()) for file in dropped]
        st.session_state[_UPLOADS] += 1
        _open(files)
        st.rerun()
    if st.button("Open the sample study", icon=":material/science:", width="stretch"):
        open_sample()
    if message := st.session_state.get(_MESSAGE):
        st.error(message)
    listing = bench().listing
    if listing is None:
        return
    _choose(listing.series)
    stack = bench().stack
    _refused([*listing.refused, *(stack.refused if stack else ())])
    if stack:
        _patient(stack.series)


def open_sample() -> None:
    """Open the sample study with its nodes marked, as if they had been loaded from its table."""
    with st.spinner("Making a sample study"):
        bar = st.progress(0.0)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.progress(min(done / 30, 1.0))

        files, table = sample_study(advance)
        bar.empty()
    _open(files)
    bench().load(MemoryFile("nodes.csv", table))
    st.session_state[FIRST] = True
    st.rerun()


def _open(files: Sequence[MemoryFile]) -> None:
    st.session_state[_MESSAGE] = ""
    bar = st.progress(0.0, "Reading headers")

    def advance(done: int, total: int) -> None:
        bar.progress(done / total, "Reading headers")

    listing = open_study(files, Settings.from_environment().upload_mb * 1024**2, advance)
    bar.empty()
    bench().open(listing)
    for key in ("series", _READ):
        st.session_state.pop(key, None)
    if len(listing.series) == 1:  # there is nothing to choose
        _read(0, listing.series[0])
    elif not listing.series:
        st.session_state[_MESSAGE] = "Nothing that was dropped is a DICOM image; below is why."


def _read(which: int, series: Series) -> None:
    st.session_state[_READ], st.session_state[_MESSAGE] = which, ""
    bar = st.progress(0.0, "Reading images")
    done, total = 0, len(series.images)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        bar.progress(min(done / total, 1.0), f"Reading images: {done} of {total}")

    try:
        stack = read_series(series, advance)
    except LymphcadError as error:
        bench().show(None)
        st.session_state[_MESSAGE] = str(error)
        return
    finally:
        bar.empty()
    bench().show(stack)
    st.session_state["slice"] = len(stack.slices) // 2 + 1
    if not stack.slices:
        st.session_state[_MESSAGE] = "No image of this series can be scored; below is why."


def _choose(series: Sequence[Series]) -> None:
    if not series:
        return
    titles = [literal(series_title(one)) for one in series]
    read, shown = st.session_state.get(_READ), bench().stack
    chosen = st.radio("Series", range(len(series)), index=read, format_func=lambda index: titles[index], key="series")
    if chosen is not None and chosen != read:
        _read(chosen, series[chosen])
        st.rerun()
    if shown and shown.note:
        st.caption(literal(shown.note))


def _refused(refused: Sequence[RefusedFile]) -> None:
    if not refused:
        return
    with st.expander(f"{len(refused)} not read", icon=":material/block:", expanded=len(refused) < 4):
        for file in refused[:100]:
            st.text(f"{file.name}\n{file.refusal}")
        if len(refused) > 100:
            st.text(f"and {len(refused) - 100} more")


def _patient(series: Series) -> None:
    asked = st.toggle("Show the patient's name and ID", key="show-patient")
    name, number = (
        text or "not stated" if asked else masked(text) for text in (series.patient_name, series.patient_id)
    )
    st.caption(literal(f"Name: {name}. ID: {number}. Study: {series.study_description or 'no description'}."))
