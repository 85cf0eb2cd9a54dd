from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("sklearn")

from lymphcad_train.statistics import Cases

from lymphcad.errors import CommandError

IMAGES = Cases(
    probabilities=np.array([0.2, 0.4, 0.9, 0.7, 0.5]),
    labels=np.array([0, 0, 1, 1, 0]),
    patients=np.array(["p", "p", "p", "q", "q"]),
    diameters_mm=np.array([5.0, 7.0, np.nan, 12.0, np.nan]),
    lesions=np.array(["1", "1", "2", "1", "2"]),
)


@given(st.permutations(range(5)))
def test_a_lesion_is_the_mean_of_its_images_in_any_order(order):
    found = IMAGES.select(np.array(order)).by_lesion()
    assert list(zip(found.patients, found.lesions, strict=True)) == [("p", "1"), ("p", "2"), ("q", "1"), ("q", "2")]
    assert found.probabilities.tolist() == pytest.approx([0.3, 0.9, 0.7, 0.5])
    assert found.labels.tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(found.diameters_mm, [7, np.nan, 12, np.nan])


def test_no_lesions_unless_every_row_names_one():
    unnamed = np.array(["1", "1", "", "1", "2"])
    assert Cases(IMAGES.probabilities, IMAGES.labels, IMAGES.patients, IMAGES.diameters_mm, unnamed).by_lesion() is None
    assert IMAGES.select(np.array([], dtype=np.intp)).by_lesion() is None


def test_a_lesion_of_two_labels_is_refused_without_naming_it():
    mixed = Cases(IMAGES.probabilities, np.array([0, 1, 1, 1, 0]), IMAGES.patients, IMAGES.diameters_mm, IMAGES.lesions)
    with pytest.raises(CommandError, match=r"^1 of 4 lesions have both"):
        mixed.by_lesion()


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one length"):
        Cases(IMAGES.probabilities[:2], IMAGES.labels, IMAGES.patients, IMAGES.diameters_mm, IMAGES.lesions)
