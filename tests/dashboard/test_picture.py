"""The picture of the viewer, read back from its SVG."""

from __future__ import annotations

import base64
import io
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from lymphcad_dashboard.display import HuWindow, frame_of, grey_levels
from lymphcad_dashboard.picture import Box, draw, draw_crop
from PIL import Image

from lymphcad.slice import CtSlice

SVG = "{http://www.w3.org/2000/svg}"
WINDOW = HuWindow(40, 400)


@pytest.fixture
def ct(tmp_path):
    hu = np.random.default_rng(0).integers(-200, 300, (40, 80)).astype(np.int16)
    return CtSlice(hu, (2.0, 1.0), tmp_path / "one.dcm", orientation=(1, 0, 0, 0, 1, 0))


def _pixels(image) -> np.ndarray:
    data = image.get("href").removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def _numbers(element, *names: str) -> list[float]:
    return [float(element.get(name)) for name in names]


def test_every_pixel_is_there_in_its_window_and_in_true_proportion(ct):
    picture = ET.fromstring(draw(ct, frame_of(ct), WINDOW, [], 0.5))
    (image,) = picture.iter(f"{SVG}image")
    assert (_pixels(image) == grey_levels(ct.hu, WINDOW)).all()
    # 40 rows of 2 mm and 80 columns of 1 mm: a square.
    assert _numbers(image, "x", "y", "width", "height") == pytest.approx([0, 0, 80, 80])
    assert image.get("preserveAspectRatio") == "none"


def test_a_zoomed_slice_lies_where_its_pixels_are(ct):
    frame = frame_of(ct, 4.0, (10.0, 60.0))
    picture = ET.fromstring(draw(ct, frame, WINDOW, [], 0.5))
    (image,) = picture.iter(f"{SVG}image")
    x, y, width, height = _numbers(image, "x", "y", "width", "height")
    shown = _pixels(image)
    first = (
        round(frame.pixel(x / frame.side_mm, y / frame.side_mm)[0] + 0.5),
        round(frame.pixel(x / 20, y / 20)[1] + 0.5),
    )
    part = ct.hu[first[0] : first[0] + shown.shape[0], first[1] : first[1] + shown.shape[1]]
    assert (shown == grey_levels(np.ascontiguousarray(part), WINDOW)).all()
    assert (width, height) == pytest.approx((shown.shape[1] * 1.0, shown.shape[0] * 2.0))
    assert x <= 0
    assert y <= 0
    assert x + width >= frame.side_mm
    assert y + height >= frame.side_mm


def test_the_field_of_view_is_drawn_in_true_size_around_the_node(ct):
    box = Box(20.0, 30.0, 25.0, "1: 0.83", selected=True)
    picture = ET.fromstring(draw(ct, frame_of(ct), WINDOW, [box], 0.5))
    (node,) = (group for group in picture.iter(f"{SVG}g") if group.get("class") == "node")
    x, y, width, height = _numbers(node.find(f"{SVG}rect"), "x", "y", "width", "height")
    assert (width, height) == (25, 25)
    assert (x + 12.5, y + 12.5) == pytest.approx((30.5, 41.0))  # the middle of a pixel is half a pixel from its edge
    assert node.find(f"{SVG}text").text == "1: 0.83"


def test_the_heatmap_lies_on_its_field_of_view_with_the_opacity_asked_for(ct):
    heatmap = np.arange(32 * 32, dtype=np.uint32).reshape(32, 32).astype(np.uint8)
    box = Box(20.0, 30.0, 25.0, "1", selected=False, heatmap=heatmap)
    picture = ET.fromstring(draw(ct, frame_of(ct), WINDOW, [box], 0.35))
    (heat,) = (image for image in picture.iter(f"{SVG}image") if image.get("class") == "heat")
    assert heat.get("opacity") == "0.35"
    assert _numbers(heat, "x", "y", "width", "height") == pytest.approx([18, 28.5, 25, 25])
    layer = _pixels(heat)
    assert (layer[..., 3] == heatmap).all()  # no evidence, no colour


def test_letters_say_where_the_patient_lies(ct):
    picture = ET.fromstring(draw(ct, frame_of(ct), WINDOW, [], 0.5))
    letters = {
        text.text: _numbers(text, "x", "y") for text in picture.iter(f"{SVG}text") if text.get("class") == "letter"
    }
    assert set(letters) == {"R", "L", "A", "P"}
    assert letters["R"][0] < 10  # the patient's right is the picture's left (PS3.3, C.7.6.2.1.1)
    assert letters["L"][0] > 70
    assert letters["A"][1] < 10
    assert letters["P"][1] > 70


def test_without_an_orientation_there_are_no_letters(ct, tmp_path):
    unknown = CtSlice(ct.hu, ct.spacing_mm, tmp_path)
    assert 'class="letter"' not in draw(unknown, frame_of(unknown), WINDOW, [], 0.5)


def test_the_scale_bar_is_as_long_as_it_says(ct):
    for zoom in (1.0, 2.5, 8.0):
        picture = ET.fromstring(draw(ct, frame_of(ct, zoom, (20, 40)), WINDOW, [], 0.5))
        (bar,) = (group for group in picture.iter(f"{SVG}g") if group.get("class") == "scale")
        assert bar.find(f"{SVG}text").text == f"{float(bar.find(f'{SVG}rect').get('width')):g} mm"


def test_html_in_a_name_is_text(ct):
    name = '<script>alert("1")</script>&'
    picture = ET.fromstring(draw(ct, frame_of(ct), WINDOW, [Box(20.0, 30.0, None, name, selected=False)], 0.5))
    assert name in [text.text for text in picture.iter(f"{SVG}text")]
    assert not list(picture.iter(f"{SVG}script"))


def test_the_crop_is_the_field_of_view_with_and_without_its_heatmap(ct):
    heatmap = np.full((32, 32), 200, np.uint8)
    plain, hot = (draw_crop(ct, 20.0, 30.0, 25.0, WINDOW, heat) for heat in (None, heatmap))
    assert ET.fromstring(plain).get("viewBox") == "0 0 25.0000 25.0000"
    assert len(list(ET.fromstring(plain).iter(f"{SVG}image"))) == 1
    (heat,) = (image for image in ET.fromstring(hot).iter(f"{SVG}image") if image.get("class") == "heat")
    assert _numbers(heat, "x", "y", "width", "height") == pytest.approx([0, 0, 25, 25])
