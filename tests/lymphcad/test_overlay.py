import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from lymphcad.bundle import Manifest, Preprocess
from lymphcad.finding import Finding
from lymphcad.overlay import CAPTION, CONTEXT, PANEL, STRIP, _outlined, draw_overlay, side_of_patient
from lymphcad.png import png_bytes
from lymphcad.slice import PADDING_HU, CtSlice

FIELD_MM, SIZE = 40.0, 64
LEFT, MIDDLE, RIGHT = 0, PANEL, 2 * PANEL
EDGE = 44


def manifest(field_mm=FIELD_MM):
    return Manifest(
        name="made",
        architecture="none",
        preprocess=Preprocess(field_of_view_mm=field_mm, window_level_hu=50, window_width_hu=400, size=SIZE),
        map_size=(8, 8),
        evidence_scale=3.0,
        temperature=1.0,
        threshold=0.5,
        precisions=("fp32",),
        golden={},
        training={},
        metrics={},
        versions={},
        files={},
    )


def draw(ct, row=100.0, col=90.0, heatmap=None, probability=0.25, field_mm=FIELD_MM):
    heatmap = np.zeros((SIZE, SIZE), np.uint8) if heatmap is None else heatmap
    finding = Finding(probability, "benign", 0.5, heatmap, "made@0123456789ab")
    return np.asarray(draw_overlay(ct, row, col, finding, manifest(field_mm))).astype(int)


def anatomy(picture, left):
    """A panel's inside, without what is written at its edges."""
    return picture[EDGE : PANEL - EDGE, left + EDGE : left + PANEL - EDGE]


def disk(slice_of, spacing, at, radius_mm, shape=(256, 256)):
    rows, columns = np.indices(shape)
    far = np.hypot((rows - at[0]) * spacing[0], (columns - at[1]) * spacing[1])
    return slice_of(np.where(far < radius_mm, 250, -150), spacing)


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.3, 0.9), (0.8, 0.35)])
@pytest.mark.parametrize(
    ("node", "offset_mm"),
    [((128.25, 127.5), (0.0, 0.0)), ((128.25, 127.5), (6.0, -9.0)), ((6.0, 250.0), (9.0, -8.0))],
)
def test_panels_are_true_to_scale(slice_of, spacing, offset_mm, node):
    at = [row + mm / step for row, mm, step in zip(node, offset_mm, spacing, strict=True)]
    picture = draw(disk(slice_of, spacing, at, 5.0), *node)
    for left, side_mm in ((MIDDLE, FIELD_MM), (LEFT, CONTEXT * FIELD_MM)):
        # Blue, for the box and the pointers have none.
        bright = np.argwhere(anatomy(picture, left)[..., 2] > 127) + EDGE
        step_mm = side_mm / PANEL
        size_mm = (bright.max(axis=0) - bright.min(axis=0) + 1) * step_mm
        assert size_mm == pytest.approx([10, 10], abs=max(spacing) + step_mm)
        middle_mm = (bright.mean(axis=0) + 0.5) * step_mm - side_mm / 2
        assert middle_mm == pytest.approx(offset_mm, abs=0.25)


def test_beyond_the_slice_and_in_padding_it_is_black(slice_of):
    hu = np.full((200, 200), 250)
    hu[:, :50] = PADDING_HU
    picture = draw(slice_of(hu), row=0.0, col=50.0)
    close = anatomy(picture, MIDDLE)
    middle = PANEL // 2 - EDGE
    assert (close[: middle - 6] == 0).all()
    assert (close[:, : middle - 10] == 0).all()
    assert (close[middle + 6 :, middle + 6 :] == 255).all()


def test_the_box_is_the_field_of_view_and_the_bar_its_length(slice_of):
    picture = draw(slice_of(np.full((400, 400), -1000)), 200, 200)
    box = np.argwhere((picture[:PANEL, :PANEL] == (255, 200, 0)).all(axis=2))
    assert (box.max(axis=0) - box.min(axis=0) + 1) == pytest.approx(PANEL / CONTEXT, abs=1)
    assert (box.max(axis=0) + box.min(axis=0) + 1) / 2 == pytest.approx(PANEL / 2, abs=1)
    for left, length_mm, side_mm in ((LEFT, 20, 100), (MIDDLE, 10, 40)):
        line = (picture[PANEL - 13, left : left + PANEL] == 255).all(axis=1)
        assert line.sum() == pytest.approx(length_mm / side_mm * PANEL, abs=1)


@pytest.mark.parametrize(("field_mm", "length_mm"), [(25, 5), (30, 10), (60, 20), (100, 20)])
def test_the_bar_is_a_round_number(slice_of, field_mm, length_mm):
    picture = draw(slice_of(np.full((400, 400), -1000)), 200, 200, field_mm=field_mm)
    line = (picture[PANEL - 13, MIDDLE:RIGHT] == 255).all(axis=1)
    assert line.sum() == pytest.approx(length_mm / field_mm * PANEL, abs=1)


def test_the_heatmap_lies_on_its_anatomy_on_an_absolute_scale(slice_of):
    ct = slice_of(np.random.default_rng(1).integers(-100, 200, (256, 256)))
    plain = draw(ct)
    np.testing.assert_array_equal(anatomy(plain, RIGHT), anatomy(plain, MIDDLE))
    changes = []
    for level in (60, 255):
        heatmap = np.zeros((SIZE, SIZE), np.uint8)
        heatmap[40:44, 20:24] = level
        picture = draw(ct, heatmap=heatmap)
        np.testing.assert_array_equal(picture[:, :RIGHT], plain[:, :RIGHT])
        change = np.abs(picture - plain)[:, RIGHT:].sum(axis=2)
        changes.append(change.max())
        at = np.argwhere(change > change.max() / 3).mean(axis=0)
        assert at / PANEL * SIZE == pytest.approx((42, 22), abs=1)
    assert changes[0] < changes[1] / 3  # weak evidence looks weak


def glyph(shown):
    """What was written on black, without the black around it."""
    white = shown[..., 0] > 100
    rows, columns = white.any(axis=1).nonzero()[0], white.any(axis=0).nonzero()[0]
    return white[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].tolist() if len(rows) else []


def written(words):
    image = Image.new("RGB", (60, 40))
    _outlined(ImageDraw.Draw(image), (30, 20), words, "mm")
    return glyph(np.asarray(image).astype(int))


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        ((1, 0, 0, 0, 1, 0), ("R", "L", "A", "P")),
        ((-1, 0, 0, 0, 1, 0), ("L", "R", "A", "P")),
        ((1, 0, 0, 0, -1, 0), ("R", "L", "P", "A")),
        ((0.8, 0.6, 0, -0.6, 0.8, 0), ("RA", "LP", "AL", "PR")),
        (None, ("", "", "", "")),
    ],
)
def test_letters_say_which_side_of_the_patient_it_is(slice_of, orientation, letters):
    ct = slice_of(np.full((256, 256), -1000))
    picture = draw(CtSlice(ct.hu, ct.spacing_mm, ct.path, orientation=orientation))
    middle = slice(PANEL // 2 - 12, PANEL // 2 + 12)
    for left in (LEFT, MIDDLE):
        panel = picture[:PANEL, left : left + PANEL]
        found = [panel[middle, :30], panel[middle, -30:], panel[:24, middle], panel[-24:, middle]]
        assert [glyph(edge) for edge in found] == [written(words) if words else [] for words in letters]
    assert not (picture[:PANEL, RIGHT:] == 255).all(axis=2).any()  # nothing is written on the heatmap


@pytest.mark.parametrize(
    ("cosines", "letters"),
    [
        ((1, 0, 0), "L"),
        ((-1, 0, 0), "R"),
        ((0, 1, 0), "P"),
        ((0, -1, 0), "A"),
        ((0, 0.94, -0.33), "P"),
        ((0, 0.87, 0.5), "PH"),
        ((0.6, -0.8, 0), "AL"),
        ((0, -0.8, -0.6), "AF"),
    ],
)
def test_side_of_patient(cosines, letters):
    assert side_of_patient(cosines) == letters


def test_the_caption_says_what_was_found_and_what_was_assumed(slice_of):
    ct = slice_of(np.zeros((400, 400)))
    assumed = CtSlice(ct.hu, ct.spacing_mm, ct.path, assumptions=("The scale is a guess.",))
    first = draw(ct, row=200, col=200)
    for other, lines in (
        (draw(ct, 200, 200, probability=0.75), slice(0, 25)),
        (draw(ct, 201, 200), slice(0, 25)),
        (draw(assumed, 200, 200), slice(25, CAPTION)),
    ):
        changed = (first != other).any(axis=(1, 2))
        assert changed[PANEL + STRIP :][lines].any()
        assert not changed[: PANEL + STRIP].any()
        changed[PANEL + STRIP :][lines] = False
        assert not changed.any()


@given(arrays(np.uint8, st.tuples(st.integers(1, 9) | st.integers(38, 42), st.integers(1, 9), st.just(3))))
def test_png_is_without_loss(pixels):
    with Image.open(io.BytesIO(png_bytes(Image.fromarray(pixels)))) as read:
        assert read.format == "PNG"
        np.testing.assert_array_equal(np.asarray(read), pixels)
