"""A whole table of nodes: scored, drawn and journalled, in order, until it is done or stopped."""

from __future__ import annotations

import signal
import threading
from collections import deque
from contextlib import closing, contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING

from lymphcad.errors import CommandError, Refusal
from lymphcad_client.batch import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from types import FrameType

    from lymphcad.tables import NodeRow
    from lymphcad_client.journal import Journal
    from lymphcad_client.overlay import Pictures


class Stop:
    """Whether the run was asked to stop: no node is begun then, and those in flight are finished."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._then: list[Callable[[], None]] = []

    @property
    def asked(self) -> bool:
        """Whether it was."""
        return self._asked.is_set()

    def then(self, action: Callable[[], None]) -> None:
        """Have something done when it is asked."""
        self._then.append(action)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take the first Ctrl-C or SIGTERM as the wish to stop; the second one ends what is in flight, too.

        A job that a scheduler stops ends like one that a person does.
        """

        def ask(number: int, frame: FrameType | None) -> None:
            if self._asked.is_set():
                signal.default_int_handler(number, frame)
            self._asked.set()
            # Not here: the handler may interrupt the very code that holds the lock which the action takes.
            threading.Thread(target=lambda: [action() for action in self._then], daemon=True).start()

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, ask) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def score_table(
    nodes: Sequence[NodeRow],
    score: Callable[[Iterable[NodeRow]], Generator[Result, None, None]],
    journal: Journal,
    pictures: Pictures | None,
    stop: Stop,
    count: Callable[[Result], None],
) -> None:
    """Score what the journal does not have yet.

    Parameters
    ----------
    nodes
        The table.
    score
        Yields one result for each node that it is given, in order.
    journal
        Takes each as soon as its picture is there.
    pictures
        Draws; None for none.
    stop
        Asked before each node.
    count
        Called with each result once the journal has it.

    Raises
    ------
    CommandError
        If a picture or the journal cannot be written.
    """
    done = journal.done()
    todo = [number for number in range(1, len(nodes) + 1) if number not in done]
    drawing: deque[tuple[int, Result, Callable[[], str]]] = deque()

    def finish() -> None:
        number, result, picture = drawing.popleft()
        if stop.asked and result.status == "failed":
            return  # the run was stopped while it waited for a server: it is not done
        try:
            path = picture()
        except Refusal as refusal:  # the file was changed since it was scored
            result, path = Result(result.node, "refused", str(refusal), study=result.study), ""
        except OSError as error:
            raise CommandError(
                f"an overlay cannot be written ({error.strerror}): make room, or name another --out; the same command"
                " with --resume goes on"
            ) from None
        journal.write(number, result, path)
        count(result)

    asked = takewhile(lambda _: not stop.asked, (nodes[number - 1] for number in todo))
    with closing(score(asked)) as results:
        for number, result in zip(todo, results):  # noqa: B905 - a run that is stopped has fewer results
            drawing.append((number, result, pictures.draw(number, result) if pictures else str))
            if pictures is None or len(drawing) > pictures.waiting:
                finish()
        while drawing:
            finish()
