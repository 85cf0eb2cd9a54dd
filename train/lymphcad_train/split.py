"""Train, validation and test: no patient stands in two of them unless asked for, and each has both classes."""

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


def split_rows(rows: Sequence[CohortRow], seed: int, by: str = "patient") -> list[str]:
    """Return the part of each row: the table's own where it has a column ``split``, else drawn.

    Parameters
    ----------
    rows
        The cohort; `lymphcad.tables.read_cohort` has checked that a split of its own tears no patient apart.
    seed
        Of the draw. The order of the rows does not matter if patients are drawn.
    by
        ``patient``; or ``image``, which repeats what the paper probably did: images of one patient stand in several
        parts, and every figure is inflated.

    Returns
    -------
    list of str
        ``train``, ``val`` or ``test``.

    Raises
    ------
    CommandError
        If a part lacks a class.
    """
    if rows and rows[0].split is not None:
        parts = [str(row.split) for row in rows]
    elif by == "image":
        drawn = draw({str(number): row.label == 1 for number, row in enumerate(rows)}, seed)
        parts = [drawn[str(number)] for number in range(len(rows))]
    else:
        metastatic: dict[str, bool] = defaultdict(bool)
        for row in rows:
            metastatic[row.patient] |= row.label == 1
        drawn = draw(metastatic, seed)
        parts = [drawn[row.patient] for row in rows]
    _check(rows, parts)
    return parts


def how_split(rows: Sequence[CohortRow], by: str) -> str:
    """Return in words how `split_rows` splits."""
    if rows[0].split is not None:
        return "from the table"
    return f"by {by}, stratified"


def draw(metastatic: dict[str, bool], seed: int) -> dict[str, str]:
    """Draw the part of each unit, a patient or an image, separately among metastatic and other ones.

    Parameters
    ----------
    metastatic
        For each unit, whether any of its images is metastatic.
    seed
        Of the draw.

    Returns
    -------
    dict of str to str
        ``train``, ``val`` or ``test`` for each unit; of a group of three or more, each part has at least one.
    """
    generator = np.random.default_rng(seed)
    parts: dict[str, str] = {}
    for stratum in (False, True):
        units = sorted(unit for unit, value in metastatic.items() if value == stratum)
        order = generator.permutation(len(units))
        held_out = max(round(HELD_OUT * len(units)), 1) if len(units) >= len(PARTS) else 0
        for place, index in enumerate(order):
            part = "val" if place < held_out else "test" if place < 2 * held_out else "train"
            parts[units[index]] = part
    return parts


def _check(rows: Sequence[CohortRow], parts: Sequence[str]) -> None:
    counts = Counter((part, row.label) for row, part in zip(rows, parts, strict=True))
    lacking = [
        f"{part} has no {_CLASSES[label]} image" for part in PARTS for label in (0, 1) if not counts[part, label]
    ]
    if lacking:
        raise CommandError(
            f"{', '.join(lacking)}: each of {', '.join(PARTS)} needs both classes; add patients, or give the split in"
            " the table"
        )
