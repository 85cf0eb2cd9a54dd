"""The plots as inline SVG, whose colours come from the page, so that they hold on a dark screen and on paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from lymphcad_train.report.words import figure, interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lymphcad_train.report.contents import Bin, Evaluation, Interval, Network

_LEFT, _TOP, _SIDE = 52.0, 10.0, 300.0
"""Place and side of the square of ROC and reliability plot, pixels."""
_STRIP, _BAR = 62.0, 34.0
"""Height of the strip of counts below the reliability plot, and of its tallest bar, pixels."""
_ROW, _NAMES, _ACROSS, _VALUES = 26.0, 170.0, 380.0, 170.0
"""Forest plot: height of a row; widths of names, plot and figures, pixels."""
_Z = 1.959964


def roc_plot(test: Evaluation, name: str) -> Markup:
    """Draw the ROC curve with the operating point and its intervals, and that of diameter alone if it is known.

    Parameters
    ----------
    test
        With `roc`.
    name
        Of the network.

    Returns
    -------
    markupsafe.Markup
        An svg element.
    """
    drawn = [_square("1 − specificity", "Sensitivity"), _line((0, 0), (1, 1), "chance")]
    key = [("curve", f"{name} {figure(test.auroc)}")]
    if test.size_roc:
        drawn.append(_curve(test.size_roc, "reference"))
        key.append(("reference", f"diameter alone {figure(test.size_baseline_auroc)}"))
    drawn.append(_curve(test.roc or [], "curve"))
    if test.sensitivity is not None and test.specificity is not None:
        at = (1 - test.specificity, test.sensitivity)
        if test.sensitivity_ci95 is not None and None not in test.sensitivity_ci95:
            drawn.append(_bar(at, test.sensitivity_ci95, upright=True))
        if test.specificity_ci95 is not None and None not in test.specificity_ci95:
            low, high = test.specificity_ci95
            drawn.append(_bar(at, (1 - (high or 0), 1 - (low or 0)), upright=False))
        drawn.append(_dot(at))
        key.append(("dot", f"at the threshold {figure(test.threshold)}"))
    for number, (kind, words) in enumerate([*key, ("chance", "chance")]):
        drawn.append(_key(kind, words, _TOP + _SIDE - 18 * (len(key) - number) - 14))
    return _svg(_LEFT + _SIDE + 12, _TOP + _SIDE + 44, f"ROC curve of {name} on test", drawn)


def reliability_plot(bins: Sequence[Bin], name: str) -> Markup:
    """Draw the share of metastatic images against the mean probability of each bin, with the counts below.

    Parameters
    ----------
    bins
        Those without an image are left out.
    name
        Of the network.

    Returns
    -------
    markupsafe.Markup
        An svg element. The intervals are Wilson's.
    """
    known = [
        (one.mean_probability, one.share_metastatic, one.n)
        for one in bins
        if one.n and one.mean_probability is not None and one.share_metastatic is not None
    ]
    drawn = [_square("Mean probability of the bin", "Share metastatic"), _line((0, 0), (1, 1), "chance")]
    for probability, share, n in known:
        drawn.append(_bar((probability, share), _wilson(share, n), upright=True))
        drawn.append(_dot((probability, share)))
    base = _TOP + _SIDE + 44 + _STRIP - 16
    most = max((n for *_, n in known), default=1)
    places = _spread([_x(probability) for probability, *_ in known], 24, _LEFT + 6, _LEFT + _SIDE - 6)
    for place, (probability, _, n) in zip(places, known, strict=True):
        height = max(_BAR * n / most, 1)
        drawn.append(
            _tag("rect", "bar", x=_x(probability) - 5, y=base - height, width=10, height=height)
            + _text(place, base + 13, str(n), "middle", "small")
        )
    drawn += [
        _tag("line", "axis", x1=_LEFT, y1=base, x2=_LEFT + _SIDE, y2=base),
        _text(_LEFT - 8, base - 2, "images", "end", "small"),
    ]
    return _svg(_LEFT + _SIDE + 12, base + 20, f"Reliability of {name} on test", drawn)


def forest_plot(
    rows: Sequence[tuple[Network, Evaluation]], selected: str | None, references: Sequence[tuple[str, float]]
) -> Markup:
    """Draw the AUROC of every network with its interval.

    Parameters
    ----------
    rows
        Networks with the figures that are drawn, from the top.
    selected
        The one that is drawn in the colour of the page.
    references
        Names and AUROCs of vertical lines.

    Returns
    -------
    markupsafe.Markup
        An svg element.
    """
    values = [value for _, value in references]
    for _, figures in rows:
        values += [end for end in (figures.auroc, *(figures.auroc_ci95 or ())) if end is not None]
    low = min(math.floor(10 * min(values, default=0.5)) / 10, 0.9)
    top = 8.0 + 16 * len(references)
    bottom, right = top + _ROW * len(rows) + 4, _NAMES + _ACROSS

    def place(value: float) -> float:
        return _NAMES + (value - low) / (1 - low) * _ACROSS

    drawn = []
    for step in range(round(10 * low), 11):
        drawn.append(_tag("line", "grid", x1=place(step / 10), y1=top, x2=place(step / 10), y2=bottom))
        drawn.append(_text(place(step / 10), bottom + 17, f"{step / 10:.1f}", "middle"))
    for number, (words, value) in enumerate(references):
        x, y = place(value), 14.0 + 16 * number
        drawn.append(_tag("line", "reference", x1=x, y1=y + 4, x2=x, y2=bottom))
        drawn.append(_text(x, y, f"{words} {figure(value)}", "end" if value > (1 + low) / 2 else "start", "small"))
    drawn.append(_tag("line", "axis", x1=_NAMES, y1=bottom, x2=right, y2=bottom))
    drawn.append(_text((_NAMES + right) / 2, bottom + 36, "AUROC", "middle"))
    for number, (network, figures) in enumerate(rows):
        y = top + _ROW * (number + 0.5) + 2
        kind = "strong" if network.architecture == selected else ""
        drawn.append(_text(_NAMES - 10, y + 4, network.architecture, "end", kind))
        drawn.append(
            _text(right + 14, y + 4, f"{figure(figures.auroc)} ({interval(figures.auroc_ci95)})", "start", kind)
        )
        ends = figures.auroc_ci95
        mark = "chosen" if kind else "other"
        if ends is not None and ends[0] is not None and ends[1] is not None:
            drawn.append(_tag("line", f"whisker {mark}", x1=place(ends[0]), y1=y, x2=place(ends[1]), y2=y))
        if figures.auroc is not None:
            drawn.append(_tag("circle", mark, cx=place(figures.auroc), cy=y, r=4.5))
    return _svg(right + _VALUES, bottom + 44, "AUROC of all networks", drawn)


def _square(across: str, up: str) -> str:
    drawn = ""
    for step in range(6):
        value = step / 5
        drawn += _line((value, 0), (value, 1), "grid") + _line((0, value), (1, value), "grid")
        drawn += _text(_x(value), _TOP + _SIDE + 17, f"{value:.1f}", "middle")
        drawn += _text(_LEFT - 8, _y(value) + 4, f"{value:.1f}", "end")
    drawn += _line((0, 0), (1, 0), "axis") + _line((0, 0), (0, 1), "axis")
    drawn += _text(_LEFT + _SIDE / 2, _TOP + _SIDE + 36, across, "middle")
    middle = _TOP + _SIDE / 2
    return drawn + (
        f'<text x="14" y="{middle:g}" text-anchor="middle" transform="rotate(-90 14 {middle:g})">{escape(up)}</text>'
    )


def _key(kind: str, words: str, y: float) -> str:
    start = _LEFT + 0.36 * _SIDE
    if kind == "dot":
        mark = _tag("circle", "chosen", cx=start + 10, cy=y - 4, r=4.5)
    else:
        mark = _tag("line", kind, x1=start, y1=y - 4, x2=start + 20, y2=y - 4)
    return mark + _text(start + 26, y, words, "start", "small")


def _x(value: float) -> float:
    return _LEFT + value * _SIDE


def _y(value: float) -> float:
    return _TOP + (1 - value) * _SIDE


def _line(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    return _tag("line", kind, x1=_x(start[0]), y1=_y(start[1]), x2=_x(end[0]), y2=_y(end[1]))


def _bar(at: tuple[float, float], ends: Interval, *, upright: bool) -> str:
    low, high = ends[0] or 0, ends[1] or 0
    return (
        _line((at[0], low), (at[0], high), "whisker chosen")
        if upright
        else _line((low, at[1]), (high, at[1]), "whisker chosen")
    )


def _dot(at: tuple[float, float]) -> str:
    return _tag("circle", "chosen", cx=_x(at[0]), cy=_y(at[1]), r=4.5)


def _curve(points: Sequence[tuple[float, float]], kind: str) -> str:
    path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def _tag(name: str, kind: str, **numbers: float) -> str:
    places = " ".join(f'{key}="{value:.5g}"' for key, value in numbers.items())
    return f'<{name} class="{kind}" {places}/>'


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.5g}" y="{y:.5g}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(width: float, height: float, name: str, drawn: Sequence[str]) -> Markup:
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return Markup(f'<svg role="img" aria-label="{escape(name)}" {size}>{"".join(drawn)}</svg>')  # noqa: S704 - escaped


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of n."""
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places, which ascend, so that they lie at least `gap` apart, between two ends."""
    found = list(places)
    for index in range(len(found)):
        found[index] = max(found[index], found[index - 1] + gap if index else low)
    for index in reversed(range(len(found))):
        found[index] = min(found[index], found[index + 1] - gap if index + 1 < len(found) else high)
    return found
