"""What the dashboard costs, in a real browser: ``python -m benchmarks.dashboard [--json]``.

In one run, with the edge runner on this machine and Chromium beside it: the time from dropping a series of 512 x 512
slices to its first picture, as a zip and as single files; the peak memory of the dashboard's process, of one session
and of a second one after it; the time from a key on the slice slider, from the wheel over the picture and from a click
to the picture that shows it.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from benchmarks.browser import chromium, open_page, running_dashboard
from benchmarks.processes import machine
from lymphcad.assets import DEMO_BUNDLE
from lymphcad.phantom.dicom_file import SLICE_MM, Place, write_ct
from lymphcad.phantom.sample import sample_nodes

_GONE_S = 25
"""After which the study of a session that has left is gone."""
_WATCH = """() => {
  const viewer = document.querySelector(".viewer")
    ?? [...document.querySelectorAll("*")].map((e) => e.shadowRoot?.querySelector(".viewer")).find(Boolean);
  const now = () => requestAnimationFrame(() => requestAnimationFrame(() => window.seen.push(performance.now())));
  window.seen = [];
  window.heats = () => viewer.querySelectorAll(".heat").length;
  new MutationObserver(now).observe(viewer, { childList: true });
  for (const kind of ["keydown", "wheel", "click"])
    document.addEventListener(kind, () => (window.since = performance.now()), true);
}"""
"""Notes when something was done, and when the viewer had painted another picture: two frames after it was put there."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=40, help="moves and clicks of each kind")
    parser.add_argument("--bundle", type=Path, default=DEMO_BUNDLE)
    parser.add_argument("--series", type=Path, help="a folder of DICOM files to open instead of made ones")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lymphcad-benchmark-") as name:
        folder = Path(name)
        files = sorted(options.series.iterdir()) if options.series else write_series(folder / "series", options.slices)
        found: dict[str, Any] = {"slices": len(files), "MB": round(sum(file.stat().st_size for file in files) / 1e6, 1)}
        archive = folder / "series.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
            for file in files:
                target.write(file, file.name)
        for kind, dropped in (("zip", [archive]), ("files", files)):
            with running_dashboard(folder / "log", "--edge", str(options.bundle)) as running, chromium() as browser:
                page = open_page(browser, running.url)
                start_mb = _memory_mb(running.pid, "VmRSS")
                found[kind] = {"open_s": _open(page, dropped), "start_MB": start_mb}
                page.wait_for_timeout(1000)
                if kind == "zip":
                    found |= _moves(page, options.repeats)
                found[kind]["peak_MB"] = _memory_mb(running.pid, "VmHWM")
                page.context.close()
                time.sleep(_GONE_S)
                found[kind]["left_MB"] = _memory_mb(running.pid, "VmRSS")
                _open(open_page(browser, running.url), dropped)
                found[kind]["peak_of_two_MB"] = _memory_mb(running.pid, "VmHWM")
    found["machine"] = machine()
    print(json.dumps(found, indent=2) if options.json else _table(found))


def write_series(folder: Path, count: int) -> list[Path]:
    """Write a made series of `count` slices, 512 x 512, and return its files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    drawn = sample_nodes(8, 0)
    files = []
    for number in range(count):
        ct = drawn[number % len(drawn)][0]
        hu = (ct.hu + rng.normal(0, 8, ct.hu.shape)).clip(-1024, 3071).astype(np.int16)
        files.append(folder / f"{number:04d}.dcm")
        place = Place("benchmark", 1, number + 1, (-100.0, -100.0, number * SLICE_MM), ct.spacing_mm[0])
        write_ct(files[-1], hu, place)
    return files


def _open(page: Any, dropped: list[Path]) -> float:
    """Drop files on the page, and return how long it took to the first picture, seconds."""
    start = time.perf_counter()
    page.locator("input[type=file]").first.set_input_files([str(file) for file in dropped])
    page.locator(".viewer svg").wait_for(timeout=120_000)
    return round(time.perf_counter() - start, 2)


def _moves(page: Any, repeats: int) -> dict[str, Any]:
    """Return what slider, wheel and click take, milliseconds, from the event to the painted picture."""
    page.evaluate(_WATCH)
    slider = page.get_by_role("slider", name=re.compile("^Slice"))
    viewer = page.locator(".viewer")
    found = {}

    def timed(name: str, act: Any, seen: str) -> None:
        taken = []
        for number in range(repeats):
            page.evaluate("window.seen = []")
            act(number)
            page.wait_for_function(seen, polling=5)
            taken.append(page.evaluate("window.seen.at(-1) - window.since"))
            page.wait_for_timeout(60)
        low, high = median(taken), quantiles(taken, n=20)[-1]
        found[name] = {"median_ms": round(low), "p95_ms": round(high), "max_ms": round(max(taken)), "n": repeats}

    half = repeats // 2
    timed("slider", lambda n: slider.press("ArrowRight" if n < half else "ArrowLeft"), "window.seen.length > 0")
    viewer.hover()
    timed("wheel", lambda n: page.mouse.wheel(0, 100 if n < half else -100), "window.seen.length > 0")

    def click(number: int) -> None:
        page.evaluate("window.before = window.heats()")
        box = viewer.bounding_box()
        at = (0.35 + 0.3 * (number % 6) / 6, 0.35 + 0.3 * (number // 6) / 7)
        viewer.click(position={"x": at[0] * box["width"], "y": at[1] * box["height"]})

    timed("click", click, "window.heats() > window.before && window.seen.length > 0")
    return found


def _memory_mb(pid: int, name: str) -> float:
    """Return a line of /proc/PID/status, MB."""
    match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return round(int(match[1]) * 1024 / 1e6) if match else 0.0


def _table(found: dict[str, Any]) -> str:
    out = io.StringIO()
    print(f"{found['slices']} slices, {found['MB']} MB", file=out)
    for kind in ("zip", "files"):
        one = found[kind]
        print(f"opened as {kind}: {one['open_s']} s, peak {one['peak_MB']} MB (before: {one['start_MB']})", file=out)
        print(f"after it: {one['left_MB']} MB, peak with a second one: {one['peak_of_two_MB']} MB", file=out)
    for kind in ("slider", "wheel", "click"):
        one = found[kind]
        print(f"{kind}: median {one['median_ms']} ms, 95 % {one['p95_ms']} ms, n = {one['n']}", file=out)
    return out.getvalue()


if __name__ == "__main__":
    main()
