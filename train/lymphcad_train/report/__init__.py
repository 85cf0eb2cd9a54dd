"""The report of a comparison of networks: one HTML page, a model card, and everything they say as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lymphcad_train.report.card import render_card
from lymphcad_train.report.contents import Comparison, plain
from lymphcad_train.report.page import KINDS, Picture, render_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Picture", "write_report"]

PAGE, CARD, COMPARISON = "report.html", "model_card.md", "comparison.json"


def write_report(comparison: dict[str, Any], pictures: Mapping[str, Sequence[Picture]], out: Path) -> None:
    """Write ``report.html``, ``model_card.md`` and ``comparison.json``, each whole or not at all.

    Parameters
    ----------
    comparison
        As `lymphcad_train.report.contents.Comparison` describes; NaN and infinity count as not known.
    pictures
        Of the selected network on test, by ``true positive``, ``false negative``, ``false positive`` and ``true
        negative``; any may be missing.
    out
        The folder; made if it is not there.

    Raises
    ------
    ValueError
        If the comparison lacks something or a key of `pictures` is another; nothing is written then.
    """
    known = plain(comparison)
    contents = Comparison.model_validate(known)
    unknown = sorted(set(pictures) - set(KINDS))
    if unknown:
        raise ValueError(f"pictures of {', '.join(unknown)} have no place on the page: expected {', '.join(KINDS)}")
    texts = {
        COMPARISON: json.dumps(known, indent=2, allow_nan=False) + "\n",
        CARD: render_card(contents),
        PAGE: render_page(contents, pictures),
    }
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".report-", dir=out) as beside:
        for name, text in texts.items():
            (Path(beside) / name).write_text(text, encoding="utf-8", newline="\n")
        for name in texts:
            os.replace(Path(beside) / name, out / name)  # noqa: PTH105 - replaces in one step
