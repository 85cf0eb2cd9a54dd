"""The page: one HTML file that asks for nothing outside itself."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lymphcad_train.report import plots, words
from lymphcad_train.report.contents import NODES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from lymphcad_train.report.contents import Comparison, Evaluation, Network, Pair

KINDS = {
    "true positive": "metastatic, called metastatic",
    "false negative": "metastatic, called benign",
    "false positive": "benign, called metastatic",
    "true negative": "benign, called benign",
}
"""What pictures are of, in the order of the page."""
FILTERS = {
    "figure": words.figure,
    "percent": words.percent,
    "interval": words.interval,
    "percent_interval": words.percent_interval,
    "p_value": words.p_value,
    "difference": words.difference,
    "difference_interval": words.difference_interval,
    "count": words.count,
    "millions": words.millions,
    "moment": words.moment,
}
TEMPLATES = FileSystemLoader(Path(__file__).parent / "templates")


@dataclass(frozen=True)
class Picture:
    """A picture of the gallery: the crop, and beside it the crop under its heatmap.

    Attributes
    ----------
    png
        A whole file.
    caption
        Probability, label and diameter; nothing that names a patient.
    """

    png: bytes
    caption: str


def render_page(comparison: Comparison, pictures: Mapping[str, Sequence[Picture]]) -> str:
    """Return the page.

    Parameters
    ----------
    comparison
        What it says.
    pictures
        Of the selected network on test; keys as in `KINDS`.

    Returns
    -------
    str
        HTML, without a script and without anything that a browser would load.
    """
    environment = Environment(
        loader=TEMPLATES, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    best = comparison.best
    return environment.get_template("page.html.jinja").render(
        c=comparison,
        parts=words.PARTS,
        best=best,
        summary=words.summary(comparison),
        cautions=words.cautions(comparison),
        limits=words.limits(comparison),
        nodes=NODES,
        pairs=_pairs(comparison),
        roc=plots.roc_plot(best.test, best.architecture) if best and best.test and best.test.roc else None,
        reliability=plots.reliability_plot(best.test.reliability, best.architecture)
        if best and best.test and best.test.reliability
        else None,
        forest=_forest(comparison),
        gallery=[
            (kind, meaning, [(_data_uri(one.png), one.caption) for one in pictures.get(kind, ())])
            for kind, meaning in KINDS.items()
        ],
    )


def _forest(comparison: Comparison) -> tuple[str, Markup] | None:
    """Return the part that the forest plot is of, and the plot: test, or validation before test is touched."""
    for part in ("test", "validation"):
        rows: list[tuple[Network, Evaluation]] = []
        for network in comparison.ranked:
            figures = network.test if part == "test" else network.validation
            if figures is not None and figures.auroc is not None and not network.failed:
                rows.append((network, figures))
        if rows:
            size, ceiling = rows[0][1].size_baseline_auroc, comparison.cohort.ceiling
            lines = [("diameter alone", size), ("ceiling, all signs", ceiling.bayes_auroc if ceiling else None)]
            known = [(name, value) for name, value in lines if value is not None]
            return part, plots.forest_plot(rows, comparison.selected, known)
    return None


def _pairs(comparison: Comparison) -> list[Pair]:
    """Return the pairs, those of the selected network first."""
    return sorted(comparison.pairwise, key=lambda pair: comparison.selected not in (pair.a, pair.b))


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
