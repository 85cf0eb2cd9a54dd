from __future__ import annotations

import os
from html.parser import HTMLParser

import pytest
from lymphcad_dashboard.report import MAX_BYTES, load_report

from lymphcad.errors import CommandError


class Loads(HTMLParser):
    """Keeps what a browser would run or load."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "iframe", "object", "embed", "base", "form"):
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (
                name in ("src", "href", "srcset", "data", "action") and not value.startswith("data:image/png;base64,")
            ):
                self.found.append(f"{name}={value}")


def test_the_report_is_given_as_it_stands(compared):
    page = load_report(compared)
    assert page.encode() == (compared / "report.html").read_bytes()
    assert "&lt;b&gt;made&lt;/b&gt; Ä" in page


def test_it_needs_nothing_outside_itself_and_no_script(compared):
    page = load_report(compared)
    assert "data:image/png" in page
    assert Loads(page).found == []
    policy = page.index("Content-Security-Policy")
    assert page.index("<meta") < policy < page.index("<style")
    assert "url(" not in page
    assert "@import" not in page


def test_what_is_no_report_is_refused_in_one_sentence(compared, tmp_path):
    path = tmp_path / "report.html"
    good = (compared / "report.html").read_text(encoding="utf-8")

    def refused(folder=tmp_path):
        with pytest.raises(CommandError) as error:
            load_report(folder)
        said = str(error.value)
        assert "lymphcad compare" in said
        assert "\n" not in said
        return said

    assert "there is no report.html" in refused()
    path.write_text("<!DOCTYPE html><script>alert(1)</script>" + good, encoding="utf-8")
    assert "does not start as a report" in refused()
    path.write_text(good.replace("default-src 'none'", "default-src *", 1), encoding="utf-8")
    assert "does not start as a report" in refused()
    path.write_bytes(b"")
    assert "does not start as a report" in refused()
    path.write_bytes(good.encode("latin-1", "replace"))
    assert "not UTF-8" in refused()
    path.write_text(good, encoding="utf-8")
    assert load_report(tmp_path) == good
    os.truncate(path, MAX_BYTES + 1)
    assert "at most 64 MiB" in refused()
    path.unlink()
    path.mkdir()
    assert "is not a file" in refused()
    assert "cannot be read" in refused(compared / "report.html")  # a file where a folder is
