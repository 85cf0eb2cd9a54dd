from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import zipfile
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path

import pytest
from lymphcad_client.journal import JOURNAL
from lymphcad_client.results import results_csv
from lymphcad_dashboard.reading import Reading
from lymphcad_dashboard.summary import PICTURES, summary_html
from lymphcad_dashboard.takeaway import picture, pictures, results_zip

import lymphcad
from lymphcad.cli import main

MADE = datetime(2026, 11, 26, 9, 30, tzinfo=timezone(timedelta(hours=1), "CET"))
HOSTILE = '<script>alert("1")</script> & Müller'


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order. Keeps tags, text, and what a browser would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.tags, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, _):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            self.words.append(data)


@pytest.fixture(scope="module")
def scored_folder(study, tmp_path_factory):
    """Return the folder that `lymphcad score` writes for the study."""
    out, bundle = tmp_path_factory.mktemp("scored") / "out", Path(__file__).parents[2] / "bundles" / "demo"
    with pytest.raises(SystemExit) as ended:
        main(["score", "--nodes", str(study), "--out", str(out), "--edge", str(bundle), "--runner", "onnxruntime"])
    assert ended.value.code == 3  # one node is refused
    return out


def test_csv_and_pictures_are_what_score_writes(answers, scored_folder):
    drawn = dict(pictures(answers))
    assert sorted(drawn) == [f"overlays/{number:06d}.png" for number in (1, 3, 4, 5, 6, 7)]
    for name, png in drawn.items():
        assert png == (scored_folder / name).read_bytes()
    named = [
        (answer.result, "" if number == 2 else f"overlays/{number:06d}.png") for number, answer in enumerate(answers, 1)
    ]
    assert results_csv(named) == (scored_folder / "results.csv").read_bytes()
    assert results_csv([]) == (scored_folder / "results.csv").read_bytes().splitlines(keepends=True)[0]


def test_the_zip_is_the_folder_that_score_writes(answers, scored_folder):
    packed = results_zip(answers)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        inside = {name: archive.read(name) for name in archive.namelist()}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    files = [path for path in scored_folder.rglob("*") if path.is_file() and path.name != JOURNAL]
    folder = {str(path.relative_to(scored_folder)): path.read_bytes() for path in files}
    assert sorted(inside) == sorted(folder)
    for name, contents in inside.items():
        assert (name, contents == folder[name]) == (name, True)  # a difference of pictures takes minutes to print
    assert results_zip(answers) == packed


def test_a_scored_node_without_its_manifest_is_no_picture(answers):
    with pytest.raises(ValueError, match="manifest"):
        picture(Reading(answers[0].result))
    with pytest.raises(ValueError, match="slice"):
        picture(replace(answers[0], result=replace(answers[0].result, ct=None)))
    assert picture(answers[1]) is None


def test_the_summary_says_all_of_each_node_and_loads_nothing(answers):
    page = Page(summary_html([[answer] for answer in answers], MADE))
    assert page.text.count(lymphcad.RESEARCH_USE_ONLY) == 2
    assert page.text.index(lymphcad.RESEARCH_USE_ONLY) < page.text.index("Lymph nodes on CT: probability")
    assert page.text.endswith(lymphcad.RESEARCH_USE_ONLY)
    assert f"2026-11-26 09:30 CET · 7 nodes · LymphCAD {lymphcad.__version__}" in page.text
    found = answers[0].result.finding
    assert (
        f"{found.bundle} : tf_efficientnet_lite0, threshold 0.433, field of view 30 mm, window 60/220 HU." in page.text
    )
    assert HOSTILE in page.text
    assert "script" not in page.tags
    assert page.tags.count("img") == page.tags.count("svg") == 6
    drawn = [f"data:image/png;base64,{base64.b64encode(png).decode()}" for _, png in pictures(answers)]
    assert page.loads == drawn
    for answer in answers:
        node = answer.result.node
        assert node.node in page.text
        if answer.result.finding:
            assert (
                f"row {node.row:g}, column {node.col:g} SOP Instance UID {answer.result.ct.sop_instance_uid}"
                in page.text
            )
            assert f"{answer.result.finding.probability:.3f} is" in page.text
    assert page.text.count("It means nothing on a patient") == 6
    assert "The node lies outside the image (refused, node_outside_image): the node is at row 9999" in page.text
    assert "Its threshold was chosen on the validation part" in page.text


def test_no_patient_is_named_unless_asked_for(answers):
    nodes = [[answer] for answer in answers]
    bare, named = Page(summary_html(nodes, MADE)), Page(summary_html(nodes, MADE, patient="Doe <b>Jane</b>, 4711"))
    assert "Doe <b>Jane</b>, 4711" in named.text
    assert named.text.replace("Doe <b>Jane</b>, 4711 · ", "") == bare.text
    for answer in answers:
        assert answer.result.node.image not in bare.text  # a path can hold a name


def test_what_had_to_be_assumed_stands_there(answers):
    assumed = replace(answers[0].result, reason="PixelSpacing was taken for <x>.")
    text = Page(summary_html([[replace(answers[0], result=assumed)]], MADE)).text
    assert "Assumed: PixelSpacing was taken for <x>." in text
    assert "1 node ·" in text


def test_nodes_beyond_the_pictures_are_in_a_table(answers):
    many = [answers[0]] * PICTURES + [answers[2]] * 3
    page = Page(summary_html([[answer] for answer in many], MADE))
    assert page.tags.count("img") == PICTURES
    assert page.text.count(answers[2].result.ct.sop_instance_uid) == 3
    assert "Further nodes, without pictures" in page.text


def test_two_bundles_stand_side_by_side(answers, answers_of):
    pairs = list(zip(answers, answers_of("lidc"), strict=True))
    refused = (pairs[2][0], Reading(replace(answers[1].result, node=answers[2].result.node)))
    page = Page(summary_html([pairs[0], refused, *pairs[3:], pairs[1]], MADE))
    first, second = (answer.result.finding for answer in pairs[0])
    assert first.bundle != second.bundle
    assert page.tags.count("img") == 5  # of three nodes two each, and one was refused by one of them
    for found in (first, second):
        assert f"{found.bundle} {'Called'} {found.call}" in page.text
        assert f"Limits, {found.bundle}." in page.text
    assert "threshold 0.433" in page.text
    assert "threshold 0.653" in page.text
    assert page.text.count("The node lies outside the image") == 3


def test_an_empty_summary_is_still_one():
    assert "0 nodes" in Page(summary_html([], MADE)).text


@pytest.mark.parametrize(("count", "pages"), [(1, 1), (4, 1), (6, 1)])
def test_it_prints_on_one_page(count, pages, answers, tmp_path):
    assert _pages(summary_html([[answer] for answer in [*answers[:1], *answers[2:]][:count]], MADE), tmp_path) == pages


def test_two_bundles_print_on_one_page(answers, answers_of, tmp_path):
    pairs = list(zip(answers, answers_of("lidc"), strict=True))
    assert _pages(summary_html([pairs[0], *pairs[2:4]], MADE), tmp_path) == 1
    assert _pages(summary_html([pairs[0], *pairs[2:4]] * 4, MADE), tmp_path) > 1  # so that the count is one


def _pages(page: str, folder: Path) -> int:
    """Print a page to a PDF of A4 as a browser does, and count."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        if "CI" in os.environ:
            pytest.fail("no chromium: apt-get install chromium")
        pytest.skip("no chromium to print with")
    html, pdf = folder / "summary.html", folder / "summary.pdf"
    html.write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", profile]
    subprocess.run(
        [browser, *quiet, f"--print-to-pdf={pdf}", html.as_uri()], check=True, timeout=120, capture_output=True
    )
    content = pdf.read_bytes()
    (box,) = set(re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+ [\d.]+)\s*\]", content))
    assert [round(float(side)) for side in box.split()] == [595, 842]
    return len(re.findall(rb"/Type\s*/Page\b", content))
