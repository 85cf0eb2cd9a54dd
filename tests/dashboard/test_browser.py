"""The real page in a real browser: what a radiologist does, and what nobody may see."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from benchmarks.browser import chromium, chromium_path, click_pixel, open_page, running_dashboard, view_of
from lymphcad.cli import main
from lymphcad.phantom.dicom_file import Place, write_ct

pytest.importorskip("streamlit")
pytest.importorskip("playwright")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        chromium_path() is None and "CI" not in os.environ, reason="no Chromium: apt-get install chromium"
    ),
]
SIZE, SLICES = 256, 6
SECRET_NAME, SECRET_ID = "Undisclosed^Ulrike", "ID-4711-0815"
HOSTILE = '<img src="x" onerror="document.title=1"> **bold** :red[x] $a$ [link](http://example.com)'


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    """Return a folder with a series whose slices grow brighter from head to feet, and a table of its nodes."""
    folder = tmp_path_factory.mktemp("series")
    rng = np.random.default_rng(0)
    for number in range(SLICES):
        hu = (20 * number + rng.normal(0, 30, (SIZE, SIZE))).clip(-1024, 3071).astype(np.int16)
        place = Place("browser", 1, number + 1, (-64.0, -64.0, -2.5 * number), 0.5)
        write_ct(folder / f"{number}.dcm", hu, place)
        dataset = pydicom.dcmread(folder / f"{number}.dcm")
        dataset.PatientName, dataset.PatientID, dataset.SeriesDescription = SECRET_NAME, SECRET_ID, HOSTILE[:64]
        dataset.save_as(folder / f"{number}.dcm")
    rows = ["image,row,col,node", "0.dcm,100,120,dark", "5.dcm,120.5,99.25,bright", "3.dcm,9999,0,outside"]
    (folder / "nodes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def archive(series, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "study.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for file in sorted(series.glob("*.dcm")):
            target.write(file, file.name)
    return path


@pytest.fixture(scope="module")
def dashboard(probe_bundle, tmp_path_factory):
    log = tmp_path_factory.mktemp("dashboard") / "log"
    with running_dashboard(log, "--edge", str(probe_bundle.path), "--runner", "onnxruntime") as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser, dashboard):
    opened = open_page(browser, dashboard.url)
    yield opened
    opened.context.close()


def upload(page, *files: Path) -> None:
    page.locator("input[type=file]").first.set_input_files([str(file) for file in files])


def open_study(page, archive: Path) -> None:
    upload(page, archive)
    page.locator(".viewer svg").wait_for()


def wait_for_slice(page, index: int) -> None:
    page.locator(f".viewer[data-view^='[{index},']").wait_for()


def shown_slice(page) -> int:
    return json.loads(view_of(page))[0]


def card(page, name: str):
    return page.locator("[class*='st-key-card-']").filter(has=page.get_by_text(name, exact=True))


def click_and_read(page, row: float, col: float) -> tuple[float, float, str]:
    """Click a pixel; return where the page says the click was, and the probability, as it shows it."""
    before = page.locator("[class*='st-key-card-']").count()
    click_pixel(page, row, col, SIZE, SIZE)
    page.wait_for_function("n => document.querySelectorAll(\"[class*='st-key-card-']\").length > n", arg=before)
    words = page.locator("[class*='st-key-card-']").filter(has_text="with the heatmap").inner_text()
    at = re.search(r"slice \d+, row ([\d.]+), column ([\d.]+)", words)
    probability = re.search(r"(?:Called \w+: )(0\.\d+)", words)
    return float(at[1]), float(at[2]), probability[1]


def score(tmp_path: Path, bundle, nodes: list[tuple], series: Path) -> list[dict[str, str]]:
    table = series / f"{tmp_path.name}.csv"
    table.write_text("image,row,col,node\n" + "\n".join(",".join(map(str, node)) for node in nodes) + "\n")
    with pytest.raises(SystemExit):
        main(["score", "--nodes", str(table), "--edge", str(bundle.path), "--runner", "onnxruntime",
              "--out", str(tmp_path / "out")])  # fmt: skip
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_from_a_zip_to_the_probability_that_score_gives(page, archive, series, probe_bundle, tmp_path):
    open_study(page, archive)
    page.get_by_role("slider", name=re.compile("^Slice")).press("End")
    wait_for_slice(page, 5)
    row, col, shown = click_and_read(page, 120, 99)
    assert (row, col) == pytest.approx((120, 99), abs=0.6)
    page.locator(".heat").wait_for(state="attached")
    (expected,) = score(tmp_path, probe_bundle, [("5.dcm", row, col, "1")], series)
    assert f"{float(expected['probability']):.3f}" == shown
    with page.expect_download() as download:
        page.get_by_role("button", name="Take away").click()
        page.get_by_role("button", name="Table (results.csv)").click()
    (found,) = csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8")))
    assert found == {**expected, "heatmap": ""}  # the table alone comes without its pictures


def test_wheel_and_keys_change_the_slice(page, archive):
    open_study(page, archive)
    start = shown_slice(page)
    page.locator(".viewer").hover()
    page.mouse.wheel(0, 100)
    wait_for_slice(page, start + 1)
    page.keyboard.press("ArrowUp")
    wait_for_slice(page, start)
    page.keyboard.press("Home")
    wait_for_slice(page, 0)
    page.keyboard.press("ArrowUp")  # beyond the first one
    page.keyboard.press("End")
    wait_for_slice(page, 5)


def test_a_table_of_nodes_is_marked_sorted_and_taken_away_whole(page, archive, series, probe_bundle, tmp_path):
    open_study(page, archive)
    page.get_by_role("button", name=re.compile("Load")).click()
    page.locator("input[type=file]").nth(1).set_input_files(str(series / "nodes.csv"))
    card(page, "outside").wait_for()
    page.keyboard.press("Escape")
    names = page.locator("[class*='st-key-card-'] strong").all_inner_texts()
    assert [name for name in names if name in ("dark", "bright", "outside")] == ["bright", "dark", "outside"]
    assert "outside the image" in card(page, "outside").inner_text().lower()
    rows = [("0.dcm", 100, 120, "dark"), ("5.dcm", 120.5, 99.25, "bright"), ("3.dcm", 9999, 0, "outside")]
    expected = score(tmp_path, probe_bundle, rows, series)
    with page.expect_download() as download:
        page.get_by_role("button", name="Take away").click()
        page.get_by_role("button", name="Table and pictures (zip)").click()
    with zipfile.ZipFile(download.value.path()) as taken:
        found = list(csv.DictReader(io.StringIO(taken.read("results.csv").decode())))
        assert found == expected
        for name in ("overlays/000001.png", "overlays/000002.png", "RESEARCH_USE_ONLY.txt"):
            assert taken.read(name) == (tmp_path / "out" / name).read_bytes()


def test_a_mark_is_moved_and_deleted(page, archive):
    open_study(page, archive)
    first = click_and_read(page, 60, 60)
    page.get_by_role("radio", name="moves it").or_(page.get_by_role("button", name="moves it")).click()
    click_pixel(page, 180, 200, SIZE, SIZE)
    moved = page.get_by_text(re.compile(r"slice \d+, row 1[78]\d"))
    moved.wait_for()
    assert page.locator("[class*='st-key-card-']").count() == 1
    assert first[0] < 70
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("No node marked yet").wait_for()
    assert page.locator(".node").count() == 0


def test_the_series_is_chosen_by_the_user(page, archive, series, tmp_path):
    other = tmp_path / "other.dcm"
    dataset = pydicom.dcmread(series / "0.dcm")
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "1.2.3.4", "1.2.3.4.5"
    dataset.file_meta.MediaStorageSOPInstanceUID, dataset.SeriesNumber = "1.2.3.4.5", 7
    dataset.SeriesDescription = "Without contrast"
    dataset.save_as(other)
    upload(page, archive, other)
    page.get_by_text("Without contrast").wait_for()
    assert page.locator(".viewer").count() == 0
    page.get_by_text("Without contrast").click()
    page.locator(".viewer svg").wait_for()
    page.get_by_text("Slice 1 of 1").wait_for()


def test_wrong_files_are_listed_with_reasons_and_the_rest_opens(page, series, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear colleague")
    (tmp_path / "cut.dcm").write_bytes((series / "0.dcm").read_bytes()[:1000])
    mr = Path(get_testdata_file("MR_small.dcm", download=False))
    upload(page, tmp_path / "letter.txt", tmp_path / "cut.dcm", mr, *sorted(series.glob("[2-4].dcm")))
    page.get_by_text("CT, 3 images").click()
    page.locator(".viewer svg").wait_for()
    page.get_by_text("2 not read").wait_for()
    listed = page.get_by_test_id("stExpander").inner_text()
    assert "letter.txt" in listed
    assert "not_dicom" in listed
    assert "truncated" in listed
    page.get_by_text("MR, 1 image").click()
    page.get_by_text("No image of this series can be scored").wait_for()
    assert "not_ct" in page.get_by_test_id("stExpander").inner_text()


def test_a_zip_bomb_is_refused_and_the_page_goes_on(page, archive, tmp_path):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for number in range(3):
            target.writestr(f"{number}.dcm", bytes(600 * 1024**2))
    upload(page, bomb)
    page.get_by_text("bad_archive").wait_for()
    open_study(page, archive)


def test_html_and_markdown_in_dicom_text_are_text(page, archive):
    open_study(page, archive)
    page.get_by_text(HOSTILE[:64]).first.wait_for()
    assert page.locator("img[src='x']").count() == 0
    assert page.title() == "LymphCAD"


def test_the_patient_is_masked_until_asked_for(page, archive, dashboard):
    open_study(page, archive)
    click_and_read(page, 100, 100)
    assert "Undisclosed" not in page.content()
    assert SECRET_ID not in page.content()
    page.get_by_text("Show the patient's name and ID").click()
    page.get_by_text("Undisclosed, Ulrike").wait_for()
    page.get_by_text(SECRET_ID).wait_for()


def test_two_sessions_see_nothing_of_each_other(page, browser, dashboard, archive):
    open_study(page, archive)
    click_and_read(page, 100, 100)
    other = open_page(browser, dashboard.url)
    other.get_by_role("heading", name="Open a study").wait_for()
    assert other.locator(".viewer").count() == 0
    other.get_by_role("link", name="Status").click()
    other.get_by_text("No answer in this session yet").wait_for()
    page.get_by_role("link", name="Status").click()
    page.get_by_text("Answers in this session").wait_for()
    other.context.close()


def test_nothing_is_asked_of_another_machine_and_no_study_is_logged(browser, dashboard, archive):
    asked: list[str] = []
    said: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(dashboard.url)
    page.get_by_role("note").wait_for()
    open_study(page, archive)
    click_pixel(page, 100, 100, SIZE, SIZE)
    page.locator(".heat").wait_for(state="attached")
    page.close()
    assert asked
    assert not [url for url in asked if not url.startswith((dashboard.url, "data:", "blob:"))]
    assert not [line for line in said if "Content Security Policy" in line]
    log = dashboard.log.read_text(encoding="utf-8")
    for word in ("Undisclosed", "Ulrike", SECRET_ID, "study.zip", "0.dcm", "2.25."):
        assert word not in log


def test_the_page_is_dark_where_the_browser_asks_for_it(browser, dashboard):
    for dark in (False, True):
        page = open_page(browser, dashboard.url, dark=dark)
        page.get_by_role("heading", name="Open a study").wait_for()
        colour = page.get_by_test_id("stApp").evaluate("e => getComputedStyle(e).backgroundColor")
        brightest = max(int(part) for part in re.findall(r"\d+", colour)[:3])
        assert (brightest < 60) == dark
        page.context.close()


def test_the_notice_is_always_in_sight(page, archive):
    notice = page.get_by_role("note")
    for _ in range(2):
        box = notice.bounding_box()
        assert box["y"] + box["height"] <= 800
        assert notice.inner_text() == "Research use only; not a medical device"
        open_study(page, archive)
        page.mouse.wheel(0, 2000)


def test_the_sample_study_opens_with_a_heatmap(browser, tmp_path_factory):
    """Without an option, as somebody does who has read nothing."""
    with running_dashboard(tmp_path_factory.mktemp("first") / "log") as running:
        page = open_page(browser, running.url)
        page.get_by_role("button", name="Open the sample study").last.click()
        page.locator(".heat").first.wait_for(state="attached", timeout=60_000)
        page.get_by_text("with the heatmap").wait_for()
        assert page.locator("[class*='st-key-card-']").count() >= 3
        page.context.close()


def test_a_click_while_the_server_is_away_is_answered_when_it_is_back(browser, probe_bundle, archive, tmp_path):
    from lymphcad_serve.repository import Target, write_repository
    from lymphcad_serve.server import Server, free_ports

    models, ports = tmp_path / "models", free_ports()
    write_repository(probe_bundle, models, Target("embedded"))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(models, ports))
        running = stack.enter_context(running_dashboard(tmp_path / "log", "--server", server.address))
        page = open_page(browser, running.url)
        open_study(page, archive)
        click_and_read(page, 100, 100)
        server.stop()
        page.get_by_text("does not answer").first.wait_for()
        click_pixel(page, 150, 150, SIZE, SIZE)
        page.get_by_text("Not answered yet").first.wait_for()
        with Server(models, ports):
            page.get_by_text("Not answered yet").first.wait_for(state="hidden", timeout=60_000)
            page.locator(".heat").nth(1).wait_for(state="attached")
            page.get_by_text("Ready:").wait_for()
        page.context.close()


def test_the_report_of_a_comparison_is_a_page_of_its_own(browser, compared, tmp_path):
    with running_dashboard(tmp_path / "log", "--report", str(compared)) as running:
        page = open_page(browser, running.url)
        page.get_by_role("link", name="Cohort report").click()
        report = page.frame_locator("iframe").frame_locator("iframe")
        report.get_by_text("1 network compared").wait_for()
        assert page.get_by_role("note").is_visible()
        page.context.close()


def test_two_bundles_side_by_side(browser, probe_bundle, archive, tmp_path):
    demo = Path(__file__).parents[2] / "bundles" / "demo"
    options = ("--edge", str(probe_bundle.path), "--runner", "onnxruntime", "--compare", str(demo))
    with running_dashboard(tmp_path / "log", *options) as running:
        page = open_page(browser, running.url)
        open_study(page, archive)
        click_pixel(page, 100, 100, SIZE, SIZE)
        page.get_by_text("with the heatmap").nth(1).wait_for()
        words = page.locator("[class*='st-key-card-']").inner_text()
        assert "probe@" in words
        assert "demo@" in words
        assert len(re.findall(r"Called \w+: ", words)) == 2
        page.context.close()
