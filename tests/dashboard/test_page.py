"""The page without a browser: what its widgets do to the bench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

from lymphcad_dashboard.settings import VARIABLE
from streamlit.testing.v1 import AppTest

PAGE = Path(__file__).parents[2] / "dashboard" / "lymphcad_dashboard" / "page" / "main.py"
PATIENCE_S = 60


@pytest.fixture
def app(monkeypatch, probe_bundle):
    monkeypatch.setenv(VARIABLE, json.dumps({"edge": str(probe_bundle.path), "runner": "onnxruntime"}))
    return AppTest.from_file(str(PAGE), default_timeout=PATIENCE_S).run()


@pytest.fixture
def sample(app):
    """Return the page with the sample study open."""
    return app.button(key="start-sample").click().run()


def texts(app) -> str:
    return "\n".join(str(one.value) for kind in ("markdown", "caption", "text") for one in app.get(kind))


def test_an_empty_page_says_what_to_do(app):
    assert not app.exception
    assert "Open a study" in [one.value for one in app.subheader]
    assert not app.slider


def test_the_sample_is_open_with_its_nodes_scored_and_the_most_probable_shown(sample):
    assert not sample.exception
    bench = sample.session_state["bench"]
    assert len(bench.marks) >= 3
    assert bench.open_readings(1) == 0
    first = bench.in_order()[0]
    assert bench.selected == first.number
    assert sample.slider(key="slice").value == first.index + 1
    assert texts(sample).count("with the heatmap") == 0  # captions of pictures are theirs
    assert texts(sample).count("Called ") == len(bench.marks)


def test_each_window_is_shown_as_its_level_and_width(sample):
    for name, level, width in (("Bone", 500, 2000), ("Lung", -600, 1500), ("As the network sees it", 50, 400)):
        sample.selectbox(key="window").set_value(name).run()
        assert f"window {level} / {width} HU" in texts(sample)
    sample.selectbox(key="window").set_value("Free").run()
    sample.number_input(key="level").set_value(70).run()
    sample.number_input(key="width").set_value(250).run()
    assert "window 70 / 250 HU" in texts(sample)


def test_show_goes_to_the_node(sample):
    bench = sample.session_state["bench"]
    last = bench.in_order()[-1]
    sample.button(key=f"show-{last.number}").click().run()
    assert bench.selected == last.number
    assert sample.slider(key="slice").value == last.index + 1


def test_delete_takes_a_node_away(sample):
    bench = sample.session_state["bench"]
    number = bench.in_order()[0].number
    sample.button(key=f"delete-{number}").click().run()
    assert number not in bench.marks
    assert not sample.exception


def test_the_name_is_masked_until_asked_for(sample):
    assert "Phantom," not in texts(sample)
    sample.toggle(key="show-patient").set_value(True).run()
    assert "Phantom" in texts(sample)


def test_the_status_page_says_what_answers(app, probe_bundle):
    def page() -> None:
        from lymphcad_dashboard.page import status_page

        status_page.show()

    status = AppTest.from_function(page, default_timeout=PATIENCE_S).run()
    assert not status.exception
    shown = texts(status)
    assert probe_bundle.digest in shown
    assert "Threshold: 0.550" in shown


def test_settings_that_are_none_are_said_in_a_sentence(monkeypatch):
    monkeypatch.setenv(VARIABLE, "{")
    app = AppTest.from_file(str(PAGE), default_timeout=PATIENCE_S).run()
    assert not app.exception
    assert "lymphcad dashboard" in app.error[0].value
