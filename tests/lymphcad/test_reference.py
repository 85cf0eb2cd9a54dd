from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lymphcad.reference import BINS, Distribution, mean_hu
from lymphcad.slice import PADDING_HU

NUMBERS = st.lists(st.floats(-2000, 2000, width=32), min_size=1, max_size=300)


@given(NUMBERS)
def test_a_distribution_holds_its_own_values(values):
    found = Distribution.of(values)
    counts = np.bincount([found.bin_of(value) for value in values], minlength=len(found.shares))
    assert counts / len(values) == pytest.approx(found.shares)
    assert len(found.shares) <= BINS + 2
    assert Distribution.model_validate_json(found.model_dump_json()) == found


def test_bins_are_of_equal_shares_with_an_empty_one_at_each_end():
    found = Distribution.of(np.linspace(0, 1, 1000))
    assert found.shares == pytest.approx((0, *[0.1] * 10, 0), abs=0.002)
    assert (found.bin_of(-0.1), found.bin_of(0.05), found.bin_of(0.999), found.bin_of(1.1)) == (0, 1, 10, 11)


def test_what_a_cohort_of_one_spacing_never_had_lies_beyond():
    found = Distribution.of([0.5] * 40)
    assert found.shares == (0, 1, 0)
    assert [found.bin_of(value) for value in (0.4, 0.5, 0.5000001, 0.8)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    "change", [{"edges": (1.0, 1.0)}, {"shares": (0.5, 0.5)}, {"shares": (0.5, 0.5, 0.5)}, {"shares": (0.5, 0.6, -0.1)}]
)
def test_what_is_no_distribution(change):
    right = {"n": 3, "edges": (0.0, 1.0), "shares": (0.2, 0.3, 0.5)}
    Distribution(**right)
    with pytest.raises(ValidationError):
        Distribution(**right | change)


def test_mean_hu_is_that_of_the_field_of_view():
    image = np.full((200, 160), -100, np.int16)
    image[90:111, 70:91] = 60
    assert mean_hu(image, (100, 80), (0.5, 0.5), 10) == 60
    assert mean_hu(image[50:150, 40:120], (50, 40), (0.5, 0.5), 10) == 60  # a window of it
    assert -100 < mean_hu(image, (100, 80), (0.5, 0.5), 20) < 60
    image[95:100] = PADDING_HU
    assert mean_hu(image, (100, 80), (0.5, 0.5), 10) == 60
    assert math.isnan(mean_hu(np.full((64, 64), PADDING_HU, np.int16), (32, 32), (1, 1), 10))
    assert math.isnan(mean_hu(image, (-500, 80), (0.5, 0.5), 10))
