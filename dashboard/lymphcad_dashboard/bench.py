"""What one session has on its bench: the study that is open, the nodes that are marked on it, and what was answered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from lymphcad_client.batch import Result

from lymphcad.errors import Reason, Refusal, ServerError
from lymphcad.images import with_own_spacing
from lymphcad.tables import NodeRow, read_nodes
from lymphcad_dashboard.latency import Latency
from lymphcad_dashboard.reading import FAILED, WAITING, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lymphcad.memory_file import MemoryFile
    from lymphcad.series import Listing, Stack
    from lymphcad.slice import CtSlice
    from lymphcad_dashboard.engine import Engine


@dataclass(frozen=True)
class Mark:
    """A node to score.

    Attributes
    ----------
    number
        From 1, never given twice for one study.
    node
        The row of a table that it came from, or that stands for it in ``results.csv``.
    index
        Of its slice in the stack; None if the table's image is not in the stack.
    """

    number: int
    node: NodeRow
    index: int | None


@dataclass
class Bench:
    """The state of one session; nothing of it is written anywhere, and it goes when the session does.

    Attributes
    ----------
    listing
        The series of what was opened; None before.
    stack
        The series that is shown; None if none was chosen.
    marks
        By number.
    selected
        Number of the mark that is shown in full; None if there is none.
    latencies
        Of this session's answers, one for each engine.
    """

    listing: Listing | None = None
    stack: Stack | None = None
    marks: dict[int, Mark] = field(default_factory=dict)
    selected: int | None = None
    latencies: list[Latency] = field(default_factory=list)
    _readings: dict[tuple[int, int], Reading] = field(default_factory=dict)
    _last_number: int = 0

    def open(self, listing: Listing) -> None:
        """Put a study on the bench, in place of the one before and its marks."""
        self.listing = listing
        self.show(None)

    def show(self, stack: Stack | None) -> None:
        """Show a series; the marks of the one before go with it."""
        self.stack, self.selected = stack, None
        self.marks.clear()
        self._readings.clear()

    def add(self, index: int, row: float, col: float) -> Mark:
        """Mark a node.

        Parameters
        ----------
        index
            Of the slice in the stack.
        row, col
            Its centre, zero-based pixel coordinates.

        Returns
        -------
        Mark
            Selected from now on.
        """
        return self._put(index, self._row(index, row, col, str(self._last_number + 1)))

    def move(self, number: int, index: int, row: float, col: float) -> None:
        """Move a mark; what was answered for it is forgotten. Parameters are as in `add`."""
        mark = self.marks[number]
        node = self._row(index, row, col, mark.node.node)
        self.marks[number] = replace(mark, node=replace(node, line=mark.number), index=index)
        self.forget(number)

    def delete(self, number: int) -> None:
        """Take a mark away."""
        del self.marks[number]
        self.forget(number)
        if self.selected == number:
            self.selected = None

    def forget(self, number: int) -> None:
        """Forget what was answered for a mark, so that it is asked again."""
        for key in [key for key in self._readings if key[0] == number]:
            del self._readings[key]

    def load(self, table: MemoryFile) -> list[Mark]:
        """Mark the nodes of a table; every row of it becomes a mark, with the reason where it cannot be scored.

        Parameters
        ----------
        table
            CSV: ``image,row,col[,node,frame]``. An image is named by its path in what was opened, by its file name if
            no other image has it, or by its SOP Instance UID.

        Returns
        -------
        list of Mark
            In the order of the table.

        Raises
        ------
        TableError
            If the table cannot be used as a whole.
        """
        return [self._put(*self._placed(row)) for row in read_nodes(table)]

    def slice_of(self, mark: Mark) -> CtSlice | None:
        """Return a mark's slice; None if its image is not in the stack."""
        return None if mark.index is None or self.stack is None else self.stack.slices[mark.index]

    def marks_on(self, index: int) -> list[Mark]:
        """Return the marks on a slice, by number."""
        return [mark for mark in self.marks.values() if mark.index == index]

    def score(self, engines: Sequence[Engine], advance: Callable[[int], None] = lambda _: None) -> int:
        """Ask the engines for what they have not answered yet.

        Parameters
        ----------
        engines
            The first one's answers are shown first.
        advance
            Called with 1 after each answer.

        Returns
        -------
        int
            How many answers came, refusals among them; what failed is asked again in the next call.
        """
        while len(self.latencies) < len(engines):
            self.latencies.append(Latency())
        came = 0
        for which, engine in enumerate(engines):
            for mark in self.marks.values():
                if not self.reading(mark, which).is_open:
                    continue
                reading = _ask(engine, mark, self.slice_of(mark))
                self._readings[mark.number, which] = reading
                if reading.seconds is not None:
                    self.latencies[which].add(reading.seconds)
                if reading.result.status == FAILED:
                    break  # the next marks would wait for the same server
                came += 1
                advance(1)
        return came

    def reading(self, mark: Mark, which: int = 0) -> Reading:
        """Return what an engine answered for a mark; `which` is its place among the engines."""
        found = self._readings.get((mark.number, which))
        return found or Reading(Result(mark.node, WAITING, "not scored yet"))

    def final(self, mark: Mark, which: int = 0) -> Reading:
        """Return what leaves the page for a mark, `reading` but that a node that nobody was asked for has failed."""
        found = self.reading(mark, which)
        if found.result.status != WAITING:
            return found
        reason = ServerError(Reason.SERVER_NOT_READY, "nobody has answered yet: score it again")
        return Reading(replace(found.result, status=FAILED, reason=str(reason)))

    def in_order(self) -> list[Mark]:
        """Return the marks, the most probable first by the first engine, those without a probability last."""

        def key(mark: Mark) -> tuple[float, int]:
            finding = self.reading(mark).result.finding
            return (1.0 if finding is None else -finding.probability, mark.number)

        return sorted(self.marks.values(), key=key)

    def open_readings(self, count: int) -> int:
        """Return how many answers the first `count` engines have left to give."""
        return sum(self.reading(mark, which).is_open for mark in self.marks.values() for which in range(count))

    def _put(self, index: int | None, node: NodeRow) -> Mark:
        self._last_number += 1
        mark = Mark(self._last_number, node, index)
        self.marks[mark.number] = mark
        self.selected = mark.number
        return mark

    def _row(self, index: int, row: float, col: float, name: str) -> NodeRow:
        """Return the row that stands for a click, in hundredths of a pixel: a screen is no finer."""
        ct = self._slices()[index]
        return NodeRow(self._last_number + 1, ct.path.as_posix(), round(row, 2), round(col, 2), name, ct.frame)

    def _slices(self) -> tuple[CtSlice, ...]:
        if self.stack is None:
            raise ValueError("no series is shown")
        return self.stack.slices

    def _placed(self, row: NodeRow) -> tuple[int | None, NodeRow]:
        """Return the slice of a table's row and the row, with a refusal if there is none."""
        if row.refusal is not None:
            return None, row
        path = PurePosixPath(row.image.replace("\\", "/"))
        slices = list(enumerate(self._slices()))
        for images in (
            [(index, ct) for index, ct in slices if ct.path.as_posix() == path.as_posix()],
            [(index, ct) for index, ct in slices if ct.sop_instance_uid == row.image],
            [(index, ct) for index, ct in slices if ct.path.name == path.name],
        ):
            found = [index for index, ct in images if row.frame is None or row.frame == (ct.frame or 1)]
            if len(found) == 1:
                return found[0], row
            if images:
                return None, replace(row, refusal=_not_one(len(found), row))
        return None, replace(row, refusal=Refusal(
            Reason.UNKNOWN_IMAGE,
            "the series that is shown has no image of this name or SOP Instance UID: open the series that has it, and"
            " load the table again",
        ))  # fmt: skip


def _not_one(count: int, row: NodeRow) -> Refusal:
    if not count:
        return Refusal(
            Reason.NO_SUCH_FRAME, f"the image has no frame {row.frame} in this series: check the column frame"
        )
    return Refusal(
        Reason.AMBIGUOUS_IMAGE,
        f"{count} slices of the series that is shown answer to this image: name one by SOP Instance UID, or by frame",
    )


def _ask(engine: Engine, mark: Mark, ct: CtSlice | None) -> Reading:
    """Ask an engine for a mark."""
    node = mark.node
    try:
        if node.refusal is not None:
            raise node.refusal
        if ct is None or node.row is None or node.col is None:
            raise ValueError("a mark without a place has a refusal")
        if node.spacing_mm is not None:
            ct = with_own_spacing(ct, node.spacing_mm)
        answer = engine.score(ct, node.row, node.col)
    except Refusal as refusal:
        return Reading(Result(node, "refused", str(refusal)))
    except ServerError as error:
        return Reading(Result(node, FAILED, str(error)))
    result = Result(node, "scored", " ".join(ct.assumptions), answer.finding, ct)
    return Reading(result, answer.manifest, answer.seconds)
