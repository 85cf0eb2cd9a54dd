"""Whether a trail is as it was written: every line, in order, to its end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from lymphcad.errors import CommandError
from lymphcad_client.audit.head import Head, head_of, read_head
from lymphcad_client.audit.key import AuditKey
from lymphcad_client.audit.lines import GENESIS, is_ours, line_digest, parse
from lymphcad_client.audit.trail import LOCK_PAUSE_S, LOCK_S, MENDED, key_of, lock_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_PROBLEMS = 20
_BESIDE = re.compile(r"\.(head|lock|\d{6,})$")


@dataclass
class Verdict:
    """What was found of one trail.

    Attributes
    ----------
    trail
        Path of its newest file.
    parts, lines
        How many files and lines there are.
    first, last
        Times of the first line and the last.
    head
        Digest of the last line: to be written down elsewhere.
    statuses
        How many lines have each status.
    keyed
        Whether the lines' codes were checked, without which a trail that was written anew as a whole goes unseen.
    notes
        What is to be known and no fault: what a process left that was ended while it wrote.
    problems
        What does not hold; the first `_MOST_PROBLEMS` of them.
    further
        How many more problems there are.
    """

    trail: str
    parts: int = 0
    lines: int = 0
    first: str = ""
    last: str = ""
    head: str = GENESIS
    statuses: dict[str, int] = field(default_factory=dict)
    keyed: bool = False
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    further: int = 0

    @property
    def holds(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_json(self) -> str:
        """Return it in one line."""
        return json.dumps({**asdict(self), "holds": self.holds})


def trails_in(path: Path) -> list[Path]:
    """Return the trails that a command means.

    Parameters
    ----------
    path
        A trail's newest file, or a folder.

    Returns
    -------
    list of Path
        Of each trail the newest file, which is missing if somebody took it away.

    Raises
    ------
    CommandError
        If there is none.
    """
    if path.is_dir():
        try:
            names = {one.name[: match.start()] for one in path.iterdir() if (match := _BESIDE.search(one.name))}
        except OSError as error:
            raise _unreadable(path, error) from None
        found = sorted(path / name for name in names)
    else:
        found = [path] if path.exists() or head_of(path).exists() else []
    if not found:
        raise CommandError(f"there is no audit trail at '{path}': name the file given with --audit, or its folder")
    return found


def parts_of(trail: Path) -> list[Path]:
    """Return the files of a trail that are there, the oldest first."""
    pattern = re.compile(re.escape(trail.name) + r"\.(\d{6,})")
    older = [(int(match[1]), one) for one in trail.parent.iterdir() if (match := pattern.fullmatch(one.name))]
    return [one for _, one in sorted(older)] + ([trail] if trail.exists() else [])


def key_for(trail: Path, key: Path | None) -> AuditKey | None:
    """Return the key that was named, or that lies beside a trail; None if there is none."""
    if key is None and not key_of(trail).exists():
        return None
    return AuditKey(key or key_of(trail))


def verify(trail: Path, *, key: Path | None = None, head: str | None = None, after: str | None = None) -> Verdict:
    """Read a trail from its start to its end.

    Parameters
    ----------
    trail
        Its newest file.
    key
        File of its key; ``TRAIL.key`` if None, where that is there.
    head
        Digest of a line that was the last one when it was written down.
    after
        Digest of the line before the first one that is here, where older files were moved elsewhere.

    Returns
    -------
    Verdict
        What was found.

    Raises
    ------
    CommandError
        If a file cannot be read, or the key is none.
    """
    the_key = key_for(trail, key)
    verdict = Verdict(trail.name, keyed=the_key is not None)
    try:
        with _still(trail), contextlib.ExitStack() as stack:
            try:
                known = read_head(trail, the_key)
            except CommandError as error:
                known = None
                verdict.problems.append(str(error))
            else:
                if known is None:
                    verdict.problems.append("the head is missing, so nobody can tell whether lines at the end are, too")
            # Opened while nobody writes: it keeps its content when it is put aside, and what is appended is not read.
            files = [stack.enter_context(path.open("rb")) for path in parts_of(trail)]
            newest = trail.stat().st_size if trail.exists() else 0
            files_to_read = stack.pop_all()
        with files_to_read:
            reading = _Reading(verdict, the_key, known, head, after)
            for file in files:
                own = Path(file.name) == trail
                reading.part(Path(file.name).name, file.read(newest if own else -1), newest=own)
    except OSError as error:
        raise _unreadable(trail, error) from None
    reading.end()
    return verdict


def lines_of(trail: Path, pseudonym: str) -> Iterator[str]:
    """Yield the lines of a person.

    Parameters
    ----------
    trail
        Its newest file.
    pseudonym
        See `lymphcad_client.audit.key.AuditKey.pseudonym`.

    Raises
    ------
    CommandError
        If a file cannot be read.
    """
    try:
        for path in parts_of(trail):
            with path.open("rb") as file:
                for line in file:
                    value = parse(line)
                    if value is not None and value.get("who") == pseudonym:
                        yield line.decode().rstrip("\n")
    except OSError as error:
        raise _unreadable(trail, error) from None


class _Reading:
    """Goes through the lines of a trail."""

    def __init__(
        self, verdict: Verdict, key: AuditKey | None, known: Head | None, wanted: str | None, after: str | None
    ) -> None:
        self._verdict, self._key, self._known, self._wanted, self._after = verdict, key, known, wanted, after
        self._number = 0
        self._seen = {GENESIS if after is None else after}
        self._at_known = GENESIS
        verdict.head = after or GENESIS

    def part(self, name: str, content: bytes, *, newest: bool) -> None:
        self._verdict.parts += 1
        for at, line in enumerate(io.BytesIO(content), start=1):
            if newest and not line.endswith(b"\n"):
                self._verdict.notes.append(
                    f"{name} ends with {len(line)} bytes of an unfinished line: a process was ended while it wrote, and"
                    " the next one that appends will say so"
                )
            else:
                self._line(f"line {at} of {name}", line)

    def _line(self, where: str, line: bytes) -> None:
        verdict, value = self._verdict, parse(line)
        verdict.lines += 1
        before, verdict.head = verdict.head, line_digest(line)
        if value is None:
            self._number += 1
            self._problem(f"{where} is no line of a trail: it was changed or inserted")
            return
        number = value["seq"]
        if verdict.lines == 1 and (self._after is not None or number != 1):
            self._number = number - 1
            if self._after is None:
                before = value["previous"]
                self._problem(
                    f"the first line here is number {number}, so files before it are missing; if they were moved"
                    " elsewhere, give the digest of their last line with --after"
                )
        if self._key is not None and not is_ours(line, self._key):
            self._problem(f"{where} was changed, or written without the key")
        if number != self._number + 1 or value["previous"] != before:
            self._problem(
                f"{where}, number {number}, does not follow the line before it, number {self._number}: lines were"
                " changed, removed, inserted or put in another order"
            )
        self._number = number
        self._seen.add(verdict.head)
        if self._known is not None and number == self._known.count:
            self._at_known = verdict.head
        status, verdict.last = str(value.get("status")), str(value.get("time"))
        verdict.first = verdict.first or verdict.last
        verdict.statuses[status] = verdict.statuses.get(status, 0) + 1
        if status == MENDED:
            verdict.notes.append(
                f"{where} says that {value.get('torn_bytes')} bytes before it were no whole line: a process was ended"
                " while it wrote, or somebody else wrote there"
            )

    def end(self) -> None:
        if self._known is not None:
            self._compare(self._known)
        if self._wanted is not None and self._wanted not in self._seen:
            self._problem("no line here has the digest that was given with --head: the trail was cut or written anew")

    def _compare(self, known: Head) -> None:
        beyond = self._number - known.count
        if beyond < 0:
            self._problem(f"{-beyond} lines are missing at the end, of the {known.count} that the head says")
        elif self._at_known != known.last:
            self._problem(f"line number {known.count} is not the one that the head says")
        elif beyond and self._key is not None:
            self._verdict.notes.append(f"the head lacks the last {beyond} lines: the process that wrote them was ended")
        elif beyond:
            self._problem(f"the head lacks the last {beyond} lines, which only the key tells from forged ones")

    def _problem(self, sentence: str) -> None:
        if len(self._verdict.problems) < _MOST_PROBLEMS:
            self._verdict.problems.append(sentence)
        else:
            self._verdict.further += 1


@contextlib.contextmanager
def _still(trail: Path) -> Iterator[None]:
    """Keep others from appending; a copy that cannot be written to, or has no lock, nobody appends to."""
    lock = lock_of(trail)
    if lock.exists() and os.access(lock, os.W_OK):
        with FileLock(lock, timeout=LOCK_S, poll_interval=LOCK_PAUSE_S):
            yield
    else:
        yield


def _unreadable(trail: Path, error: OSError) -> CommandError:
    return CommandError(f"the audit trail '{trail}' cannot be read ({error.strerror or error}): let this user read it")
