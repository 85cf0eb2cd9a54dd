"""The comparison as a page of Markdown, which reads as well as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lymphcad import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from collections.abc import Sequence

_BAR = 30
"""Characters of the longest bar of a histogram."""


def report(figures: dict[str, Any]) -> str:
    """Return the report.

    Parameters
    ----------
    figures
        See `lymphcad_client.shadow.comparison.compared`.

    Returns
    -------
    str
        Markdown.
    """
    parts = ["# Two bundles on the same nodes", f"**{RESEARCH_USE_ONLY}.**"]
    if figures["n"]:
        parts += _bundles(figures)
    parts += ["## How many", *_counts(figures)]
    if figures["n"]:
        parts += ["## Calls", *_flips(figures), "## Probabilities", *_probabilities(figures)]
        parts += ["## The largest differences", _largest(figures["largest"])]
    return "\n\n".join(parts) + "\n"


def _bundles(figures: dict[str, Any]) -> list[str]:
    rows = [
        (which, one["bundle"], f"{one['threshold']:.3f}", f"{one['ms']['median']:.1f}", f"{one['ms']['p95']:.1f}")
        for which in ("first", "second")
        for one in (figures[which],)
    ]
    return [_table(("", "bundle", "threshold", "ms, median", "ms, 95 %"), rows)]


def _counts(figures: dict[str, Any]) -> list[str]:
    rows = [
        ("compared", str(figures["n"])),
        ("the same input again, left out", str(figures["repeated"])),
        *((f"no second answer: {code}", str(count)) for code, count in figures["failed"].items()),
        ("skipped: the shadow had no time", str(figures["skipped"])),
        ("not answered by the first", str(figures["unanswered"])),
    ]
    said = [_table(("nodes", ""), rows)]
    if figures["not_closed"]:
        said.append(
            f"{figures['not_closed']} of {figures['runs']} runs did not end in order, or have not ended: what they"
            " skipped is not counted."
        )
    if figures["damaged"]:
        said.append(f"{figures['damaged']} lines could not be read and are left out.")
    if figures["skipped"]:
        said.append("Nodes are skipped while many come at once, so those compared are not quite a random choice.")
    return said


def _flips(figures: dict[str, Any]) -> list[str]:
    flips = figures["flips"]
    rows = [
        ("benign to metastatic", *_share(flips["to_metastatic"])),
        ("metastatic to benign", *_share(flips["to_benign"])),
        ("either", *_share(flips["both"])),
        ("called metastatic by the first", *_share(figures["first"]["metastatic"])),
        ("called metastatic by the second", *_share(figures["second"]["metastatic"])),
    ]
    return [
        _table(("", "nodes", "share", "95 % interval"), rows),
        "A flip says that the two disagree, not which of them is right: no truth is known here. The intervals (Wilson)"
        " take nodes for independent, and are too narrow where patients have several.",
    ]


def _probabilities(figures: dict[str, Any]) -> list[str]:
    difference, heatmap = figures["difference"], figures["heatmap_difference"]
    quantiles = difference["quantiles"]
    said = [
        f"Second minus first: mean {difference['mean']:+.4f}, mean absolute {difference['mean_absolute']:.4f}.",
        _table(
            ("quantile", *(f"{100 * float(q):g} %" for q in quantiles)),
            [("difference", *(f"{value:+.4f}" for value in quantiles.values()))],
        ),
        _histograms(figures),
        f"Population stability index {figures['psi']:.4f} ({len(figures['first']['histogram'])} bins, half a node added"
        " to each). By custom 0.1 asks for a look and 0.25 for an explanation; with few nodes it is large by chance.",
    ]
    if heatmap["n"]:
        said.append(
            f"Heatmaps differ by {heatmap['mean']:.2f} grey levels of 255 in the mean of {heatmap['n']} nodes, and by"
            f" {heatmap['largest']:.2f} in the node that differs most."
        )
    else:
        said.append("Heatmaps are not compared: the two look at different fields of view.")
    return said


def _histograms(figures: dict[str, Any]) -> str:
    first, second = figures["first"]["histogram"], figures["second"]["histogram"]
    most = max(*first, *second)
    lines = []
    for at, counts in enumerate(zip(first, second, strict=True)):
        low, high = at / len(first), (at + 1) / len(first)
        for label, mark, count in zip((f"{low:.1f} to {high:.1f}", ""), "#=", counts, strict=True):
            lines.append(f"{label:>10}  {mark * round(_BAR * count / most):<{_BAR}} {count}".rstrip())
    return "\n".join(["    probability, # first, = second", *(f"    {line}" for line in lines)])


def _largest(nodes: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            f"`{node['input_sha256']}`",
            f"{node['first']:.4f}",
            f"{node['second']:.4f}",
            f"{node['second'] - node['first']:+.4f}",
            "yes" if node["flipped"] else "",
        )
        for node in nodes
    ]
    return _table(("SHA-256 of the input", "first", "second", "difference", "flips"), rows)


def _share(found: dict[str, Any]) -> tuple[str, str, str]:
    low, high = found["ci95"]
    return (
        f"{found['count']} of {found['n']}",
        f"{100 * found['share']:.2f} %",
        f"{100 * low:.2f} to {100 * high:.2f} %",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = [head, ["-" * max(width, 3) for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(max(width, 3)) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
