from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from lymphcad_train.split import HELD_OUT, split_patients, split_rows

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
    parts = split_patients(metastatic, seed)
    assert parts.keys() == metastatic.keys()
    for stratum in (False, True):
        counts = Counter(parts[patient] for patient, value in metastatic.items() if value == stratum)
        n = sum(counts.values())
        held_out = 0 if n < 3 else max(round(HELD_OUT * n), 1)
        assert counts["val"] == counts["test"] == held_out
        assert counts["train"] == n - 2 * held_out


@given(PATIENTS, st.integers(0, 2**31 - 1))
def test_the_order_of_the_table_does_not_matter(metastatic, seed):
    assert split_patients(metastatic, seed) == split_patients(dict(reversed(metastatic.items())), seed)


def test_another_seed_is_another_split():
    metastatic = {str(n): n % 3 == 0 for n in range(60)}
    assert split_patients(metastatic, 0) != split_patients(metastatic, 1)


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


def test_a_table_that_splits_only_some_rows_is_refused():
    rows = [row("a", 0, "train"), row("b", 1)]
    with pytest.raises(CommandError, match="1 of 2 rows have no split"):
        split_rows(rows, 0)


def test_a_patient_in_two_parts_is_refused_with_the_rows():
    rows = [row(str(n), n // 3, part) for n, part in enumerate(["test", "train", "val"] * 2)]
    rows[4] = replace(rows[4], patient="0")
    with pytest.raises(CommandError, match=r"1 patient stands in more than one part.*rows 1 and 5"):
        split_rows(rows, 0)
