from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from lymphcad_train.split import HELD_OUT, draw, how_split, split_rows

from lymphcad.errors import CommandError
from lymphcad.tables import CohortRow

PATIENTS = st.dictionaries(st.text(min_size=1, max_size=5), st.booleans(), max_size=120)


def row(patient: str, label: int, split: str | None = None) -> CohortRow:
    return CohortRow(
        line=2,
        image="a.dcm",
        row=1.0,
        col=1.0,
        node="1",
        label=label,
        patient=patient,
        lesion=patient,
        diameter_mm=None,
        split=split,
        frame=None,
        spacing_mm=None,
    )


@given(PATIENTS, st.integers(0, 2**31 - 1))
def test_every_patient_has_one_part_and_each_stratum_its_shares(metastatic, seed):
    parts = draw(metastatic, seed)
    assert parts.keys() == metastatic.keys()
    for stratum in (False, True):
        counts = Counter(parts[patient] for patient, value in metastatic.items() if value == stratum)
        n = sum(counts.values())
        held_out = 0 if n < 3 else max(round(HELD_OUT * n), 1)
        assert counts["val"] == counts["test"] == held_out
        assert counts["train"] == n - 2 * held_out


@given(PATIENTS, st.integers(0, 2**31 - 1))
def test_the_order_of_the_table_does_not_matter(metastatic, seed):
    assert draw(metastatic, seed) == draw(dict(reversed(metastatic.items())), seed)


def test_another_seed_is_another_split():
    metastatic = {str(n): n % 3 == 0 for n in range(60)}
    assert draw(metastatic, 0) != draw(metastatic, 1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), min_size=1, max_size=200), st.integers(0, 9))
def test_no_patient_is_torn_and_each_part_has_both_classes_or_it_is_refused(pairs, seed):
    rows = [row(str(patient), label) for patient, label in pairs]
    try:
        parts = split_rows(rows, seed)
    except CommandError as error:
        assert "needs both classes" in str(error)  # noqa: PT017 - either outcome is right, for other tables
        return
    assert {(part, one.label) for part, one in zip(parts, rows, strict=True)} == {
        (part, label) for part in ("train", "val", "test") for label in (0, 1)
    }
    torn = Counter(patient for patient, _ in {(one.patient, part) for part, one in zip(parts, rows, strict=True)})
    assert set(torn.values()) == {1}


def test_the_tables_own_split_is_kept():
    own = ["test", "train", "val"] * 2
    rows = [row(str(n), n // 3, part) for n, part in enumerate(own)]
    assert split_rows(rows, 0) == own


def test_by_image_tears_patients_apart_and_says_so():
    rows = [row(f"p{n // 10}", n // 10 % 2) for n in range(400)]
    parts = split_rows(rows, 0, "image")
    places = Counter(patient for patient, _ in {(one.patient, part) for part, one in zip(parts, rows, strict=True)})
    assert max(places.values()) == 3
    assert how_split(rows, "image") == "by image, stratified"
    assert Counter(parts) == {"train": 316, "val": 42, "test": 42}
