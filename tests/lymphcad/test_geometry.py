"""The window that is cut out of a slice, against the slice padded on all sides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lymphcad.errors import Reason, Refusal
from lymphcad.geometry import MAX_WINDOW, MIN_WINDOW, WINDOW_STEP, cut_window
from lymphcad.slice import PADDING_HU, CtSlice

SIDE = st.integers(16, 400)
AT = st.floats(0, 1)


def made(rows, columns, spacing, tmp=None):
    hu = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns) % 2000
    return CtSlice(hu.astype(np.int16), spacing, tmp)


@given(SIDE, SIDE, AT, AT, st.floats(0.2, 2.0), st.floats(0.2, 2.0))
def test_the_window_is_that_of_the_padded_slice(rows, columns, down, right, row_mm, col_mm):
    ct = made(rows, columns, (row_mm, col_mm))
    row, col = down * (rows - 1), right * (columns - 1)
    window = cut_window(ct, row, col, 30.0, 128)
    assert all(side % WINDOW_STEP == 0 and MIN_WINDOW <= side <= MAX_WINDOW for side in window.image.shape)
    padded = np.pad(ct.hu, MAX_WINDOW, constant_values=PADDING_HU)
    first = [round(at - center) + MAX_WINDOW for at, center in zip((row, col), window.center, strict=True)]
    expected = padded[tuple(slice(at, at + side) for at, side in zip(first, window.image.shape, strict=True))]
    assert np.array_equal(window.image, expected)
    # All of the field of view lies in it.
    for center, side, mm in zip(window.center, window.image.shape, (row_mm, col_mm), strict=True):
        assert center - 15 / mm >= 0
        assert center + 15 / mm <= side - 1


def test_the_window_is_memory_of_its_own_and_in_one_piece():
    ct = made(400, 400, (0.5, 0.5))
    for at in (200.0, 3.0):
        window = cut_window(ct, at, at, 30.0, 128)
        assert window.image.flags.c_contiguous
        assert window.image.dtype == np.int16
        assert not np.shares_memory(window.image, ct.hu)


def test_a_field_of_view_of_too_many_pixels_is_refused():
    with pytest.raises(Refusal) as refused:
        cut_window(made(400, 400, (0.01, 0.5)), 200, 200, 30.0, 128)
    assert refused.value.reason is Reason.BAD_PIXEL_SPACING
