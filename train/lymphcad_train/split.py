"""Train, validation and test: no patient stands in two of them, and each has both classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lymphcad.tables import CohortRow

PARTS = ("train", "val", "test")
HELD_OUT = 0.105
"""Share of the patients in validation, and in test (Lee et al., Eur Radiol 2019;29:5452)."""
_CLASSES = ("benign", "metastatic")


def split_rows(rows: Sequence[CohortRow], seed: int) -> list[str]:
    """Return the part of each row: the table's own where it has a column ``split``, else drawn by patient.

    Parameters
    ----------
    rows
        The cohort.
    seed
        Of the draw. The order of the rows does not matter.

    Returns
    -------
    list of str
        ``train``, ``val`` or ``test``.

    Raises
    ------
    CommandError
        If only some rows have a split, a patient stands in two parts, or a part lacks a class.
    """
    own = [row.split for row in rows]
    given = [part for part in own if part is not None]
    if given and len(given) < len(rows):
        raise CommandError(f"{len(rows) - len(given)} of {len(rows)} rows have no split: fill the column, or remove it")
    if given:
        parts = given
    else:
        metastatic: dict[str, bool] = defaultdict(bool)
        for row in rows:
            metastatic[row.patient] |= row.label == 1
        drawn = split_patients(metastatic, seed)
        parts = [drawn[row.patient] for row in rows]
    _check(rows, parts)
    return parts


def split_patients(metastatic: dict[str, bool], seed: int) -> dict[str, str]:
    """Draw the part of each patient, separately among those with and without a metastatic image.

    Parameters
    ----------
    metastatic
        For each patient, whether any of the images is metastatic.
    seed
        Of the draw.

    Returns
    -------
    dict of str to str
        ``train``, ``val`` or ``test`` for each patient; of a group of three or more, each part has at least one.
    """
    generator = np.random.default_rng(seed)
    parts: dict[str, str] = {}
    for stratum in (False, True):
        patients = sorted(patient for patient, value in metastatic.items() if value == stratum)
        order = generator.permutation(len(patients))
        held_out = max(round(HELD_OUT * len(patients)), 1) if len(patients) >= len(PARTS) else 0
        for place, index in enumerate(order):
            part = "val" if place < held_out else "test" if place < 2 * held_out else "train"
            parts[patients[index]] = part
    return parts


def _check(rows: Sequence[CohortRow], parts: Sequence[str]) -> None:
    places: dict[str, dict[str, int]] = defaultdict(dict)
    for number, (row, part) in enumerate(zip(rows, parts, strict=True), start=1):
        places[row.patient].setdefault(part, number)
    torn = [sorted(found.values()) for found in places.values() if len(found) > 1]
    if torn:
        examples = "; ".join("rows " + " and ".join(map(str, numbers)) for numbers in sorted(torn)[:10])
        raise CommandError(
            f"{len(torn)} {'patient stands' if len(torn) == 1 else 'patients stand'} in more than one part of the"
            f" split, which inflates every figure (for example {examples}): give each patient one split"
        )
    counts = Counter((part, row.label) for row, part in zip(rows, parts, strict=True))
    lacking = [
        f"{part} has no {_CLASSES[label]} image" for part in PARTS for label in (0, 1) if not counts[part, label]
    ]
    if lacking:
        raise CommandError(
            f"{', '.join(lacking)}: each of {', '.join(PARTS)} needs both classes; add patients, or give the split in"
            " the table"
        )
