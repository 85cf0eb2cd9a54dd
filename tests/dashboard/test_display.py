"""Windows, and the way between screen and pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lymphcad_dashboard.display import PRESETS, Frame, HuWindow, frame_of, grey_levels

from lymphcad.slice import PADDING_HU, CtSlice

FINITE = st.floats(0.05, 5.0)


@given(level=st.floats(-1000, 3000), width=st.floats(1, 4000), seed=st.integers(0, 1000))
def test_grey_levels_are_the_window_of_ps3_3(level, width, seed):
    hu = np.random.default_rng(seed).integers(-1024, 3072, (16, 16)).astype(np.int16)
    expected = ((hu - (level - width / 2)) / width * 255).clip(0, 255)
    assert np.abs(grey_levels(hu, HuWindow(level, width)) - expected).max() <= 0.51


def test_padding_is_black_in_every_window():
    hu = np.full((16, 16), PADDING_HU, np.int16)
    for window in (*PRESETS.values(), HuWindow(-30000, 10000)):
        assert grey_levels(hu, window).max() == 0


@given(
    row=st.floats(0, 511), col=st.floats(0, 511), side=st.floats(10, 500), spacing=st.tuples(FINITE, FINITE),
    at=st.tuples(st.floats(-10, 600), st.floats(-10, 600)),
)  # fmt: skip
def test_a_click_comes_back_to_the_pixel_that_was_drawn_there(row, col, side, spacing, at):
    frame = Frame(row, col, side, spacing)
    back = frame.pixel(frame.x(at[1]) / side, frame.y(at[0]) / side)
    assert back == pytest.approx(at, abs=1e-6)


def test_the_whole_slice_is_in_the_frame_and_square_in_millimetres(tmp_path):
    ct = CtSlice(np.zeros((100, 300), np.int16), (2.0, 0.5), tmp_path)
    frame = frame_of(ct)
    assert frame.side_mm == 200
    assert frame.y(-0.5) == pytest.approx(0)
    assert frame.y(99.5) == pytest.approx(200)
    # 300 columns of 0.5 mm, in the middle of 200 mm.
    assert (frame.x(-0.5), frame.x(299.5)) == pytest.approx((25, 175))


def test_a_zoom_has_its_centre_in_the_middle(tmp_path):
    ct = CtSlice(np.zeros((128, 128), np.int16), (1.0, 1.0), tmp_path)
    frame = frame_of(ct, 4.0, (20.0, 90.0))
    assert frame.side_mm == 32
    assert frame.pixel(0.5, 0.5) == pytest.approx((20.0, 90.0))
    assert frame_of(ct, 1.0, (20.0, 90.0)) == frame_of(ct)
