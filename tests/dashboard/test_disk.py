"""Nothing of a study touches a disk, stays in memory, leaves this machine or is logged."""

from __future__ import annotations

import resource
import signal

import pytest
from pages import browser, started, wait_for

pytest.importorskip("streamlit")
EDGE = ("--runner", "onnxruntime")
SIZE = 24_000_000
PAGE = """
import gc
import io
import numpy as np
import streamlit as st
from PIL import Image
from streamlit.runtime import get_instance
from lymphcad_dashboard.access import require_sign_in
from lymphcad_dashboard.settings import Settings

class Study:
    pass

settings = Settings.from_environment()
require_sign_in(settings)
st.write("sessions with files:", len(get_instance().uploaded_file_mgr.file_storage))
st.write("studies:", sum(type(one).__name__ == "Study" for one in gc.get_objects()))
files = st.file_uploader("Study", accept_multiple_files=True)
st.write("bytes:", sum(len(file.getvalue()) for file in files))
if files:
    st.session_state.study = Study()
st.image(np.zeros((40, 40), np.uint8))
if st.button("Fail"):
    raise ValueError(files[0].name)
"""


@pytest.fixture
def page(tmp_path):
    file = tmp_path / "page.py"
    file.write_text(PAGE)
    return file


def upload(page, name="Doe^Jane.dcm"):
    file = {"name": name, "mimeType": "application/dicom", "buffer": b"x" * SIZE}
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text(f"bytes: {SIZE}").wait_for()


def files_of(folder):
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_no_disk_no_other_machine_no_name_in_the_log(page, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with started(page, home, *EDGE) as dashboard, browser() as seen:
        before = files_of(home)
        seen.goto(dashboard.url)
        seen.get_by_text("bytes: 0").wait_for()
        # From now on the process can write to no file at all, of a name or of none.
        resource.prlimit(dashboard.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        upload(seen)
        seen.get_by_role("button", name="Fail").click()
        seen.get_by_text("The page failed, which is an error in LymphCAD").wait_for()
        assert files_of(home) == before
        assert all(address.startswith((dashboard.url, "data:", "blob:")) for address in seen.asked)
        assert not [line for line in seen.said if "Content Security Policy" in line]
        pictures = [answer for answer in seen.answered if answer.url.startswith(f"{dashboard.url}/media/")]
        assert pictures
        assert {answer.headers["cache-control"] for answer in pictures} == {"no-store"}
        assert "Doe" not in seen.content().replace("Doe^Jane.dcm", "")
        # Stopped while a page is open.
        assert dashboard.stop(signal.SIGTERM) == 0
    assert dashboard.said.endswith("\nValueError\nStopped.\n")
    assert "Doe" not in dashboard.said
    assert str(page) in dashboard.said  # where it happened is said


def test_a_file_beyond_the_limit_is_not_taken(page, tmp_path):
    with started(page, tmp_path, *EDGE, "--upload-limit", "1") as dashboard, browser() as seen:
        seen.goto(dashboard.url)
        seen.get_by_text("bytes: 0").wait_for()
        file = {"name": "a.dcm", "mimeType": "application/dicom", "buffer": b"x" * (1 << 20) + b"x"}
        seen.locator("input[type=file]").set_input_files(file)
        seen.get_by_text("File must be 1.0MB or smaller.").wait_for()
        seen.get_by_text("bytes: 0").wait_for()


def test_a_study_goes_with_its_session(page, tmp_path):
    first = "import lymphcad_dashboard.sessions as sessions; sessions.KEPT_S = 2.0"
    with started(page, tmp_path, *EDGE, first=first) as dashboard, browser() as seen:
        other = seen.context.browser.new_page()
        other.goto(dashboard.url)
        upload(other)
        seen.goto(dashboard.url)
        seen.get_by_text("sessions with files: 1").wait_for()
        seen.get_by_text("studies: 1").wait_for()
        other.close()

        def gone():
            seen.get_by_role("button", name="Fail").click()
            seen.get_by_text("The page failed").wait_for()
            return seen.get_by_text("sessions with files: 0").count() and seen.get_by_text("studies: 0").count()

        wait_for(gone)
