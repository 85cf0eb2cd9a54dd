"""The table that ``lymphcad score`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lymphcad import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from lymphcad_client.batch import Result

SHOWN = 50
"""Rows that are printed at most."""


def results_table(console: Console, results: Sequence[Result], total: int, out: Path) -> None:
    """Print results.

    Parameters
    ----------
    console
        Where to.
    results
        The first of them.
    total
        How many there are.
    out
        Where results.csv lies.
    """
    table = Table("node", "image", "probability", "call", "why", caption=f"{RESEARCH_USE_ONLY}.")
    for result in results:
        answer = result.finding
        if answer is None:
            table.add_row(Text(result.node.node), Text(result.node.image), "-", result.status, Text(result.reason))
            continue
        why = f"{'at or above' if answer.call == 'metastatic' else 'below'} the threshold {answer.threshold:.3f}"
        note = f"{why}; {result.reason}" if result.reason else why
        cells = (Text(result.node.node), Text(result.node.image), f"{answer.probability:.3f}", answer.call, Text(note))
        table.add_row(*cells)
    console.print(table)
    if total > len(results):
        console.print(f"... and {total - len(results)} more", highlight=False)
    console.print(f"{total} nodes: {out / 'results.csv'}", soft_wrap=True, highlight=False)
