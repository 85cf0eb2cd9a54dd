"""One thing that was looked at, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """What came of a check.

    ``OK``: as it must be. ``WARN``: it works, and somebody should look. ``FAIL``: it does not work, or is not safe.
    ``SKIP``: it could not be looked at here, or nobody asked; that is not to say that it is well.
    """

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True)
class Check:
    """What was looked at and found.

    Attributes
    ----------
    name
        What was looked at, e.g. ``disk /tmp``.
    status
        See `Status`.
    found
        Without a full stop.
    todo
        What to do; empty if nothing.
    """

    name: str
    status: Status
    found: str
    todo: str = ""

    def line(self) -> str:
        """Return it for people."""
        return f"{self.status.value:<4}  {self.name}: {self.found}" + (f"; {self.todo}" if self.todo else "")


def ok(name: str, found: str) -> Check:
    """Return a check that found what must be."""
    return Check(name, Status.OK, found)


def warn(name: str, found: str, todo: str) -> Check:
    """Return a check that found something to look at."""
    return Check(name, Status.WARN, found, todo)


def fail(name: str, found: str, todo: str = "") -> Check:
    """Return a check that found a fault; our errors say in one sentence what to do."""
    return Check(name, Status.FAIL, found, todo)


def skip(name: str, found: str, todo: str = "") -> Check:
    """Return a check that could not be made."""
    return Check(name, Status.SKIP, found, todo)
