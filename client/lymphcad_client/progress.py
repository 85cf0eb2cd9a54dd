"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.progress import Task

_LINE_S = 10.0
"""Between two lines where there is no terminal."""


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} {self._unit}/s")


@contextmanager
def progress(console: Console, words: str, unit: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Show how far something is, with rate and time left.

    Parameters
    ----------
    console
        On standard error.
    words, unit
        What is done to what, e.g. ``Scoring``, ``nodes``.
    total, done
        How many there are, and how many were done before.

    Yields
    ------
    Callable
        To be called after each.
    """
    if console.is_terminal:
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(words, total=total, completed=done)
            yield lambda: bar.advance(task)
        return
    began = last = time.monotonic()
    count = done

    def advance() -> None:
        nonlocal count, last
        count += 1
        now = time.monotonic()
        if now - last >= _LINE_S and count < total:
            last = now
            rate = (count - done) / (now - began)
            left = (total - count) / rate
            line = f"{words}: {count} of {total} {unit}, {rate:.1f} {unit}/s, {left:.0f} s left"
            console.print(line, highlight=False, soft_wrap=True)

    yield advance
