"""The model card: Markdown by the items of CLAIM 2024 and TRIPOD+AI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lymphcad_train.report import words
from lymphcad_train.report.contents import NODES
from lymphcad_train.report.page import FILTERS, TEMPLATES

if TYPE_CHECKING:
    from lymphcad_train.report.contents import Comparison

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")


def render_card(comparison: Comparison) -> str:
    """Return the model card of the selected network.

    Parameters
    ----------
    comparison
        What it says.

    Returns
    -------
    str
        Markdown with tables.
    """
    environment = Environment(
        loader=TEMPLATES,
        autoescape=True,
        finalize=_plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({**FILTERS, "code": _code})
    return environment.get_template("model_card.md.jinja").render(
        c=comparison,
        parts=words.PARTS,
        best=comparison.best,
        summary=words.summary(comparison),
        cautions=words.cautions(comparison),
        limits=words.limits(comparison),
        nodes=NODES,
    )


def _plain(value: Any) -> Any:
    """Return a value as text that neither Markdown nor HTML reads as more, on one line."""
    if isinstance(value, Markup):
        return value
    text = " ".join(str(value).split())
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, entity)
    return Markup(_SPECIAL.sub(r"\\\1", text))  # noqa: S704 - escaped here


def _code(value: str) -> Markup:
    """Return a line of an indented block of code, where Markdown reads nothing."""
    return Markup("    " + " ".join(value.splitlines()))  # noqa: S704 - a block of code is shown as it is
