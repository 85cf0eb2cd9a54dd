"""The nodes beside the viewer: what each was answered, in the order of probability, and what is taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from lymphcad.errors import LymphcadError
from lymphcad.memory_file import MemoryFile
from lymphcad_dashboard.display import network_window
from lymphcad_dashboard.page.session import bench, engines
from lymphcad_dashboard.page.take_panel import take_away
from lymphcad_dashboard.page.text import literal
from lymphcad_dashboard.picture import draw_crop
from lymphcad_dashboard.scale import scale_svg
from lymphcad_dashboard.words import call_words, heatmap_words, limits, meaning, parse_reason, refusal_heading

if TYPE_CHECKING:
    from collections.abc import Callable

    from lymphcad.finding import Finding
    from lymphcad_dashboard.bench import Mark
    from lymphcad_dashboard.reading import Reading

_HEIGHT = 640


def show() -> None:
    """Show the marked nodes."""
    with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
        count = len(bench().marks)
        words = f"**{count} {'node' if count == 1 else 'nodes'}**" if count else "**No node marked yet**"
        st.markdown(words, width="stretch")
        _load_table()
        if count:
            take_away()
    if not count:
        st.info("Click the middle of a lymph node in the picture.", icon=":material/ads_click:")
        return
    with st.container(height=_HEIGHT, border=False):
        for mark in bench().in_order():
            _card(mark)


def _load_table() -> None:
    with st.popover("Load", icon=":material/upload_file:", help="Mark the nodes of a table, nodes.csv"):
        tables = st.session_state.setdefault("tables", 0)
        dropped = st.file_uploader("Table of nodes: image,row,col[,node,frame]", type="csv", key=f"table-{tables}")
        if dropped is not None:
            st.session_state["tables"] += 1
            try:
                marks = bench().load(MemoryFile(dropped.name, dropped.getvalue()))
            except LymphcadError as error:
                st.session_state["table-message"] = str(error)
            else:
                st.session_state["table-message"] = ""
                st.session_state["go-to"] = next((mark.number for mark in marks if mark.index is not None), 0)
            st.rerun(scope="fragment")
        if message := st.session_state.get("table-message"):
            st.error(literal(message))


def _card(mark: Mark) -> None:
    selected = mark.number == bench().selected
    with st.container(border=True, gap="xsmall", key=f"card-{mark.number}"):
        with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
            st.markdown(f"**{literal(mark.node.node)}**", width="stretch")
            if not selected:
                _button(mark, "Show", ":material/visibility:", _select)
            _button(mark, "Delete", ":material/delete:", bench().delete)
        st.caption(literal(_place(mark)))
        findings = [bench().reading(mark, which).result.finding for which in range(len(engines()))]
        scored = [finding for finding in findings if finding is not None]
        if scored:
            _scale(scored)
        for which in range(len(engines())):
            _answer(mark, which, in_full=selected)


def _button(mark: Mark, name: str, icon: str, does: Callable[[int], None]) -> None:
    key = f"{name.lower()}-{mark.number}"
    st.button(name, key=key, icon=icon, help=f"{name} this node", type="tertiary", on_click=does, args=(mark.number,))


def _select(number: int) -> None:
    st.session_state["go-to"] = number


def _place(mark: Mark) -> str:
    node = mark.node
    at = "" if node.row is None or node.col is None else f"row {node.row:g}, column {node.col:g}"
    if mark.index is None:
        return f"line {node.line} of the table" + (f", {at}" if at else "")
    return f"slice {mark.index + 1}, {at}"


def _scale(findings: list[Finding]) -> None:
    """Show probability and threshold, of two bundles one below the other on the same scale."""
    # As a picture it does not take the colour of the page's text by itself.
    ink = "#fafafa" if st.context.theme.type == "dark" else "#31333f"
    look = f'<svg color="{ink}" font-family="system-ui, sans-serif" '
    drawn = str(scale_svg(*findings)).replace("<svg ", look, 1)
    st.image(drawn, width="stretch", alt=" ".join(call_words(finding) for finding in findings))


def _answer(mark: Mark, which: int, *, in_full: bool) -> None:
    """Show what one engine answered."""
    reading = bench().reading(mark, which)
    engine = engines()[which]
    finding, manifest = reading.result.finding, reading.manifest
    if len(engines()) > 1:
        st.markdown(f"*{literal(engine.status().label or engine.place)}*")
    if finding is None or manifest is None:
        _no_answer(reading)
        return
    st.markdown(literal(call_words(finding)))
    label = engine.status().label
    if label and label != finding.bundle:
        st.warning(f"Scored by {literal(finding.bundle)}, and {literal(label)} answers now.")
        key = f"again-{mark.number}-{which}"
        st.button("Score again", key=key, on_click=bench().forget, args=(mark.number,))
    if in_full:
        _in_full(mark, reading)


def _no_answer(reading: Reading) -> None:
    status, reason = reading.result.status, reading.result.reason
    if status == "refused":
        code, sentence = parse_reason(reason)
        st.markdown(f":material/block: **Not scored: {literal(refusal_heading(code))}**")
        st.text(sentence)
    else:
        st.markdown(":material/hourglass_top: **Not answered yet**")
        if status == "failed":
            st.text(parse_reason(reason)[1])


def _in_full(mark: Mark, reading: Reading) -> None:
    """Show the field of view with and without the heatmap, and what the number means."""
    result, manifest = reading.result, reading.manifest
    finding, ct = result.finding, result.ct
    if finding is None or manifest is None or ct is None or mark.node.row is None or mark.node.col is None:
        return
    field_mm = manifest.preprocess.field_of_view_mm
    columns = st.columns(2, gap="small")
    for column, heatmap, caption in (
        (columns[0], None, f"{field_mm:g} x {field_mm:g} mm"),
        (columns[1], finding.heatmap, "with the heatmap"),
    ):
        picture = draw_crop(ct, mark.node.row, mark.node.col, field_mm, network_window(manifest), heatmap)
        column.image(picture, caption=caption, width="stretch", alt=f"Field of view, {caption}")
    st.markdown(literal(meaning(finding, manifest)))
    if result.reason:
        st.warning(literal(result.reason))
    st.caption(literal(f"{heatmap_words(manifest)} {limits(manifest)}"))
    took = "" if reading.seconds is None else f", answered in {1000 * reading.seconds:.0f} ms"
    st.caption(literal(f"Bundle {finding.bundle}, network {manifest.architecture}{took}"))
