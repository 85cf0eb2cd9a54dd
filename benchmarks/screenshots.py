"""Pictures of the dashboard for the documentation: ``python -m benchmarks.screenshots [FOLDER]``.

The sample study, opened as a first-time user does, in light and dark, and the page beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.browser import chromium, open_page, running_dashboard

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=IMAGES)
    parser.add_argument("--report", type=Path, help="folder of a `lymphcad compare` run, for the cohort page")
    options = parser.parse_args()
    more = () if options.report is None else ("--report", str(options.report))
    with (
        tempfile.TemporaryDirectory() as name,
        running_dashboard(Path(name) / "log", *more) as running,
        chromium() as browser,
    ):
        for dark in (False, True):
            page = open_page(browser, running.url, dark=dark)
            _sample(page)
            page.screenshot(path=options.folder / f"dashboard{'-dark' if dark else ''}.png")
            page.context.close()
        page = open_page(browser, running.url)
        page.screenshot(path=options.folder / "dashboard-start.png")
        _sample(page)
        page.get_by_role("link", name="Status").click()
        page.get_by_text("Answers in this session").wait_for()
        page.screenshot(path=options.folder / "dashboard-status.png")
        if options.report is not None:
            page.get_by_role("link", name="Cohort report").click()
            page.wait_for_timeout(1500)
            page.screenshot(path=options.folder / "dashboard-report.png")
    print(f"Pictures: {options.folder}")


def _sample(page: Any) -> None:
    page.get_by_role("button", name="Open the sample study").last.click()
    page.get_by_text("with the heatmap").wait_for(timeout=60_000)
    page.wait_for_timeout(1500)  # what is still fading in


if __name__ == "__main__":
    main()
