"""The probability on a line from 0 to 1 with the threshold on it, as inline SVG in the page's colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from lymphcad_dashboard.words import call_words, figures

if TYPE_CHECKING:
    from lymphcad.finding import Finding

_LEFT, _RIGHT, _WIDTH = 14.0, 346.0, 360.0
"""Ends of the line and width of the drawing, pixels."""
_ROW, _NAME, _AXIS = 46.0, 16.0, 16.0
"""Heights of one finding, of its bundle's name above it, and of the ticks below the last, pixels."""
_COLOURS = {"metastatic": "#d55e00", "benign": "#0072b2"}
"""Told apart by the colour-blind and on white and black; the marker's shape and the words say the same."""


def scale_svg(finding: Finding, compared: Finding | None = None) -> Markup:
    """Draw the probability of a node, and below it that of another bundle.

    The marker is filled where the call is metastatic and hollow where it is benign; the line is thick from the
    threshold on.

    Parameters
    ----------
    finding
        The answer.
    compared
        Another bundle's answer for the same node; with it each one is named.

    Returns
    -------
    markupsafe.Markup
        An svg element, XML and HTML alike; it takes the colour of the text around it.
    """
    shown = [finding] if compared is None else [finding, compared]
    name = 0.0 if compared is None else _NAME
    height = len(shown) * (_ROW + name) + _AXIS
    words = " ".join((f"{one.bundle}: " if name else "") + call_words(one) for one in shown)
    drawn = [_row(one, number * (_ROW + name), name) for number, one in enumerate(shown)]
    drawn += [_text(_x(at), height - 3, f"{at:g}", "middle") for at in (0, 0.5, 1)]
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{}" viewBox="0 0 {:g} {:g}" width="100%"'
        ' style="max-width:30rem" font-size="11" fill="currentColor"><title>{}</title>{}</svg>'
    ).format(words, _WIDTH, height, words, Markup("").join(drawn))


def _row(finding: Finding, top: float, name: float) -> Markup:
    at, cut, y = _x(finding.probability), _x(finding.threshold), top + name + 23
    colour = _COLOURS[finding.call]
    probability, threshold = figures(finding)
    drawn = [_text(0, top + 11, finding.bundle, "start")] if name else []
    drawn += [
        _line(_LEFT, y, _RIGHT, y, 2),
        _line(cut, y, _RIGHT, y, 6),
        *(_line(_x(tick), y + 5, _x(tick), y + 9, 1) for tick in (0, 0.5, 1)),
        _line(cut, y - 9, cut, y + 10, 2),
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="6" fill="{}" stroke="{}" stroke-width="3"/>').format(
            at, y, colour if finding.call == "metastatic" else "none", colour
        ),
        _text(at, y - 12, f"{probability} {finding.call}", _anchor(finding.probability), "bold"),
        _text(cut, y + 22, f"threshold {threshold}", _anchor(finding.threshold)),
    ]
    return Markup("").join(drawn)


def _x(value: float) -> float:
    return _LEFT + value * (_RIGHT - _LEFT)


def _anchor(value: float) -> str:
    """Return where a text begins, so that it does not leave the drawing."""
    return "start" if value < 0.2 else "end" if value > 0.8 else "middle"


def _line(x1: float, y1: float, x2: float, y2: float, width: float) -> Markup:
    return Markup(
        '<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="currentColor" stroke-width="{:g}"/>'
    ).format(x1, y1, x2, y2, width)


def _text(x: float, y: float, words: str, anchor: str, weight: str = "normal") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" font-weight="{}">{}</text>').format(
        x, y, anchor, weight, words
    )
