"""The trail on disk: several processes append to it, it begins a new file when one is full, and mends its end."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from lymphcad.errors import CommandError
from lymphcad_client.audit.head import Head, head_of, read_head, rotated
from lymphcad_client.audit.key import AuditKey
from lymphcad_client.audit.lines import follow, line_digest, sealed
from lymphcad_client.instants import now
from lymphcad_client.watch.files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SIZE: Final = 64 * 2**20
"""A file that would grow beyond it is put aside, bytes."""
MENDED: Final = "mended"
"""Status of a line that says what another one left that was broken off."""
LOCK_S, LOCK_PAUSE_S = 30.0, 0.001
"""How long another process may write, and how often it is asked whether it is done, s."""
_TORN_SHOWN = 4096
"""How much of what was broken off is kept, characters; of all of it there is the digest."""


class Trail:
    """An audit trail.

    A line is on the disk when `append` returns. The head, which says where the trail ends, is written after it, and
    synced when a file is begun and at the end: lines beyond it were written by a process that was ended in between,
    and are ours if their codes are.

    Parameters
    ----------
    path
        Of its newest file; older ones are ``PATH.000001`` and so on.
    key
        File of its key; ``PATH.key`` if None.
    size
        Above it a new file is begun, bytes.

    Attributes
    ----------
    key
        The trail's.

    Raises
    ------
    CommandError
        If it cannot be written to, its key is missing or another one, or its end was changed.
    """

    def __init__(self, path: Path, key: Path | None = None, *, size: int = SIZE) -> None:
        self._path, self._size = path, size
        with self._speaking():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(lock_of(path), timeout=LOCK_S, poll_interval=LOCK_PAUSE_S, mode=0o600)
            with self._lock:
                self.key = self._key(key or key_of(path))
                head = read_head(path, self.key)
                if head is None:
                    self._begin()
                else:
                    self._check_end(head)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append lines, and have them written to the disk: all, or none.

        Parameters
        ----------
        records
            What each says; see `lymphcad_client.audit.lines.seal`.

        Raises
        ------
        CommandError
            If they cannot be written, or the end of the trail was changed.
        """
        with self._speaking(), self._lock:
            head = self._head()
            found = self._beyond(head)
            for line in follow(found, head.count, head.last, self.key):
                head = replace(head, count=head.count + 1, last=line_digest(line), size=head.size + len(line))
                found = found[len(line) :]
            if found:
                head = self._written(head, [_mended(found)], cut=True)
            self._written(head, records)

    def close(self) -> None:
        """Have the head written to the disk.

        Raises
        ------
        CommandError
            If it cannot be.
        """
        with self._speaking(), self._lock:
            head = read_head(self._path, self.key)
            if head is not None:
                head.write(head_of(self._path), self.key, sync=True)

    def _written(self, head: Head, records: Sequence[Mapping[str, Any]], *, cut: bool = False) -> Head:
        """Write lines behind the head; `cut`: over what is there."""
        lines, last = sealed(records, head.count, head.last, self.key)
        content = b"".join(lines)
        if not cut and head.size and head.size + len(content) > self._size:
            head = self._rotated(head)
        with open(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0) as file:  # noqa: PTH123
            try:
                file.seek(head.size)
                rest = memoryview(content)
                while rest:  # a disk that is nearly full takes a part
                    rest = rest[file.write(rest) :]
                if cut:
                    file.truncate()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):  # what cannot be taken back is mended by the next
                    file.truncate(head.size)
                raise
        if not head.size:
            sync_folder(self._path.parent)
        head = Head(head.part, head.count + len(lines), last, head.size + len(content))
        head.write(head_of(self._path), self.key, sync=False)
        return head

    def _rotated(self, head: Head) -> Head:
        """Put a full file aside. The head is on the disk before, so that lines beyond it are all in one file."""
        head.write(head_of(self._path), self.key, sync=True)
        self._path.rename(rotated(self._path, head.part))
        sync_folder(self._path.parent)
        head = replace(head, part=head.part + 1, size=0)
        head.write(head_of(self._path), self.key, sync=True)
        return head

    def _head(self) -> Head:
        """Return the head, as it is once a file that was put aside is counted."""
        head = read_head(self._path, self.key)
        if head is None:
            raise CommandError(
                f"the audit trail's '{head_of(self._path)}' is gone: put it back, or begin another trail"
            )
        return replace(head, part=head.part + 1, size=0) if rotated(self._path, head.part).exists() else head

    def _beyond(self, head: Head) -> bytes:
        """Return what is in the newest file behind the head."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) >= head.size:
                    file.seek(head.size)
                    return file.read()
        except FileNotFoundError:
            if not head.size:
                return b""
        raise CommandError(
            f"the audit trail '{self._path}' is shorter than its head says, so lines were cut off: see `lymphcad audit"
            " verify`, put the file back, or move the trail away and begin another"
        )

    def _check_end(self, head: Head) -> None:
        """Raise if the last line is not the one that the head says."""
        head = self._head()
        self._beyond(head)
        if head.size:
            with self._path.open("rb") as file:
                content = file.read(head.size)
            line = content[content[:-1].rfind(b"\n") + 1 :]
            if line_digest(line) != head.last:
                raise CommandError(
                    f"the last line of the audit trail '{self._path}' is not the one that was written: see `lymphcad"
                    " audit verify`, put the file back, or move the trail away and begin another"
                )

    def _begin(self) -> None:
        if rotated(self._path, 1).exists() or (self._path.exists() and self._path.stat().st_size):
            raise CommandError(
                f"'{self._path}' is there without the head of an audit trail: put '{head_of(self._path).name}' back, or"
                " name another file"
            )
        Head().write(head_of(self._path), self.key, sync=True)
        sync_folder(self._path.parent)

    def _key(self, path: Path) -> AuditKey:
        # A key that is lost is no reason to go on with another: nobody could tell our lines from forged ones.
        if path.exists() or read_head(self._path, None) is not None:
            return AuditKey(path)
        return AuditKey.make(path)

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CommandError(
                f"the audit trail '{self._path}' cannot be written to ({error.strerror or error}): make room, let this"
                " user write there, or name another file"
            ) from None


def key_of(trail: Path) -> Path:
    """Return where a trail's key is if it is not named."""
    return trail.with_name(f"{trail.name}.key")


def lock_of(trail: Path) -> Path:
    """Return the file by which processes take turns."""
    return trail.with_name(f"{trail.name}.lock")


def _mended(found: bytes) -> dict[str, Any]:
    """Return a line about what a process left that was ended while it wrote, or that somebody wrote there."""
    return {
        "time": now(),
        "status": MENDED,
        "torn_bytes": len(found),
        "torn_sha256": hashlib.sha256(found).hexdigest(),
        "torn": found.decode("utf-8", "backslashreplace")[:_TORN_SHOWN],
    }
