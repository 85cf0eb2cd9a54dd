"""The dashboard as a process, and a browser to look at it with."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RUN = """
import sys
from pathlib import Path
import lymphcad_dashboard.command as command
command.PAGE = Path(sys.argv.pop(1))
from lymphcad.cli import main
main()
"""
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


class Dashboard:
    """`lymphcad dashboard` with a page of the test's, at home in a folder of its own."""

    def __init__(self, page: Path, home: Path, *options: str, port: int = 0, first: str = "") -> None:
        folder = home / "tmp"
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "HOME": str(home), "TMPDIR": str(folder)}
        environment.pop("LYMPHCAD_DASHBOARD", None)
        command = [
            sys.executable,
            "-c",
            f"{first}\n{_RUN}",
            str(page),
            "dashboard",
            "--no-open",
            "--port",
            str(port),
            *options,
        ]
        self.process = subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.PIPE, text=True)
        self.said = ""
        for line in iter(self.process.stderr.readline, ""):
            self.said += line
            if found := re.search(r"The page is at (\S+)\. Research use only; not a medical device\.", line):
                self.url = found[1]
                return
        self.process.wait()
        raise AssertionError(self.said)

    def stop(self, number: int) -> int:
        """Send a signal, and return the exit status; all that was said is in `said`."""
        self.process.send_signal(number)
        self.said += self.process.communicate(timeout=60)[1]
        return self.process.returncode

    def get(self, path: str) -> tuple[bytes, dict[str, str]]:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read(), {name.lower(): value for name, value in answer.headers.items()}


@contextlib.contextmanager
def started(page: Path, home: Path, *options: str, port: int = 0, first: str = "") -> Iterator[Dashboard]:
    """Start a dashboard, after some Python of the test's in its process, and end it in any case."""
    dashboard = Dashboard(page, home, *options, port=port, first=first)
    try:
        yield dashboard
    finally:
        dashboard.process.kill()
        dashboard.process.communicate()


@contextlib.contextmanager
def browser() -> Iterator:
    """Open a Chromium, and yield a page of it with the addresses that it asked for, the answers, and what it said."""
    path = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if "CI" not in os.environ:
        pytest.importorskip("playwright")
        if path is None:
            pytest.skip("no Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=_QUIET)
        page = chromium.new_context().new_page()
        page.asked, page.answered, page.said = [], [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("response", lambda response: page.answered.append(response))
        page.on("console", lambda message: page.said.append(message.text))
        yield page
        chromium.close()


def wait_for(condition, seconds: float = 60.0):
    """Return what a condition returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found
