from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from lymphcad_dashboard.scale import scale_svg

from lymphcad.finding import Finding

SVG = "{http://www.w3.org/2000/svg}"


def found(probability: float, threshold: float, bundle: str = "own@abababababab") -> Finding:
    call = "metastatic" if probability >= threshold else "benign"
    return Finding(probability, call, threshold, np.zeros((32, 32), np.uint8), bundle)


def read(svg: str):
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return root


def line_of(root) -> tuple[float, float]:
    """Return both ends of the line from 0 to 1, by its ticks."""
    ticks = {node.text: float(node.get("x")) for node in root.iter(f"{SVG}text") if node.text in ("0", "0.5", "1")}
    assert ticks["0.5"] == pytest.approx((ticks["0"] + ticks["1"]) / 2)
    return ticks["0"], ticks["1"]


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.43, 0.9, 1.0])
def test_marker_and_threshold_lie_on_one_scale(probability):
    root = read(scale_svg(found(probability, 0.4)))
    start, end = line_of(root)
    (marker,) = root.iter(f"{SVG}circle")
    assert float(marker.get("cx")) == pytest.approx(start + probability * (end - start), abs=0.06)
    cut = start + 0.4 * (end - start)
    lines = [[float(line.get(key)) for key in ("x1", "x2", "stroke-width")] for line in root.iter(f"{SVG}line")]
    assert [pytest.approx(cut, abs=0.06)] * 2 + [2] in lines
    assert [pytest.approx(cut, abs=0.06), pytest.approx(end), 6] in lines  # thick where the call is metastatic


def test_the_call_shows_without_colour():
    above, below = (next(read(scale_svg(found(p, 0.4))).iter(f"{SVG}circle")) for p in (0.41, 0.39))
    assert above.get("fill") == above.get("stroke")
    assert below.get("fill") == "none"
    assert above.get("stroke") != below.get("stroke")


def test_it_is_told_to_who_cannot_see_it_and_takes_the_colour_of_the_page():
    root = read(scale_svg(found(0.6123, 0.433)))
    assert root.get("role") == "img"
    title = root.find(f"{SVG}title").text
    assert title == root.get("aria-label") == "Called metastatic: 0.612 is at or above the threshold of 0.433."
    assert root.get("fill") == "currentColor"
    assert {line.get("stroke") for line in root.iter(f"{SVG}line")} == {"currentColor"}


def test_two_bundles_on_one_scale_each_with_its_name_and_threshold():
    root = read(scale_svg(found(0.2, 0.4), found(0.7, 0.6, '<b a="x">&')))
    start, end = line_of(root)
    at = [(float(marker.get("cx")) - start) / (end - start) for marker in root.iter(f"{SVG}circle")]
    assert at == pytest.approx([0.2, 0.7], abs=0.001)
    texts = [node.text for node in root.iter(f"{SVG}text")]
    assert {"own@abababababab", '<b a="x">&', "threshold 0.400", "threshold 0.600"} <= set(texts)
    assert "own@abababababab: Called benign: 0.200 is" in root.get("aria-label")
    assert '<b a="x">&: Called metastatic: 0.700 is' in root.get("aria-label")
    heights = [float(marker.get("cy")) for marker in root.iter(f"{SVG}circle")]
    assert heights[1] - heights[0] > 40


@pytest.mark.parametrize(
    ("probability", "threshold"), [(0.0, 0.01), (0.19, 0.81), (0.21, 0.79), (1.0, 1.0), (0.999, 0.5)]
)
def test_nothing_is_cut_off_at_the_edges(probability, threshold):
    root = read(scale_svg(found(probability, threshold)))
    width, height = (float(value) for value in root.get("viewBox").split()[2:])
    for node in root.iter(f"{SVG}text"):
        long = 6.6 * len(node.text)  # wider than a letter of a sans serif of 11 pixels is on average
        left = float(node.get("x")) - {"start": 0, "middle": long / 2, "end": long}[node.get("text-anchor")]
        assert left >= 0, node.text
        assert left + long <= width, node.text
        assert 9 <= float(node.get("y")) <= height
