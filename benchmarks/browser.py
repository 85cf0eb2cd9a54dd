"""A real dashboard and a real Chromium, for the benchmark, the screenshots and the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# As root in a container Chromium has no sandbox; the rest keeps it from calling its maker.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
_PATIENCE_S = 60


@dataclass(frozen=True)
class Running:
    """A dashboard that answers.

    Attributes
    ----------
    url
        Of its page.
    pid
        Of its process.
    log
        Where all that it prints goes.
    """

    url: str
    pid: int
    log: Path


def chromium_path() -> str | None:
    """Return where Debian's Chromium lies; None if it is not installed."""
    return shutil.which("chromium")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_dashboard(
    log: Path, *options: str, environment: Mapping[str, str] | None = None, before: tuple[str, ...] = ()
) -> Iterator[Running]:
    """Run ``lymphcad dashboard`` until the block ends.

    Parameters
    ----------
    log
        A file for all that it prints.
    options
        Of the command, but for the port.
    environment
        Added to this process's.
    before
        A command that runs it, such as ``prlimit``.

    Yields
    ------
    Running
        It answers.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [*before, sys.executable, "-m", "lymphcad", "dashboard", "--port", str(port), "--no-open", *options]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the dashboard did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield Running(url, process.pid, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Run Debian's Chromium, headless, under Playwright; yield Playwright's browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Any, url: str, *, dark: bool = False) -> Any:
    """Open the dashboard in a browser context of its own, 1280 x 800 pixels, and return Playwright's page."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(url)
    page.get_by_role("note").wait_for()
    return page


def view_of(page: Any) -> str:
    """Return which slice, and which part of it, the viewer shows, as it says itself."""
    return str(page.locator(".viewer").get_attribute("data-view"))


def click_pixel(page: Any, row: float, col: float, rows: int, columns: int) -> None:
    """Click a pixel of the slice that the viewer shows whole, square pixels and a square slice supposed."""
    box = page.locator(".viewer").bounding_box()
    at = {"x": (col + 0.5) / columns * box["width"], "y": (row + 0.5) / rows * box["height"]}
    page.locator(".viewer").click(position=at)
