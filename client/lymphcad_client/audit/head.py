"""Where a trail ends: without it, nobody would miss lines that were cut off there."""

from __future__ import annotations

import errno
import hmac
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lymphcad.errors import CommandError
from lymphcad_client.audit.lines import GENESIS

if TYPE_CHECKING:
    from lymphcad_client.audit.key import AuditKey

_FORMAT: Final = 1
_LENGTH: Final = 512
"""Bytes, always the same and one sector of a disk: written over in place, it is the old one or the new one."""


@dataclass(frozen=True)
class Head:
    """The end of a trail.

    Attributes
    ----------
    part
        Number of the newest file, from 1.
    count
        Lines in all files.
    last
        Digest of the last line.
    size
        Of the newest file, bytes.
    """

    part: int = 1
    count: int = 0
    last: str = GENESIS
    size: int = 0

    def write(self, path: Path, key: AuditKey, *, sync: bool) -> None:
        """Write it over the one before; raises OSError."""
        content = json.dumps({"format": _FORMAT, **asdict(self)})
        line = content[:-1] + f', "mac": "{key.mac("head", content.encode())}"}}'
        number = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with open(number, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            if file.write(line.ljust(_LENGTH - 1).encode() + b"\n") < _LENGTH:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fsync(number)


def head_of(trail: Path) -> Path:
    """Return the file of a trail's head."""
    return trail.with_name(f"{trail.name}.head")


def rotated(trail: Path, part: int) -> Path:
    """Return the name of one of a trail's older files, or that the newest one will get."""
    return trail.with_name(f"{trail.name}.{part:06d}")


def read_head(trail: Path, key: AuditKey | None) -> Head | None:
    """Read a trail's head.

    Parameters
    ----------
    trail
        Path of its newest file.
    key
        The trail's; None to believe the head.

    Returns
    -------
    Head or None
        None if there is none, or an empty one, which a process left that was ended as it began the trail.

    Raises
    ------
    CommandError
        If it cannot be read, was changed, or the key is another one.
    """
    path = head_of(trail)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(
            f"the audit trail's '{path}' cannot be read ({error.strerror}): let this user read it"
        ) from None
    if not raw:
        return None
    try:
        value = json.loads(raw)
        mac = value.pop("mac")
        right = key is None or hmac.compare_digest(mac, key.mac("head", json.dumps(value).encode()))
        numbers = all(type(value[name]) is int for name in ("part", "count", "size"))
        if not right or not numbers or value.pop("format") != _FORMAT or len(raw) != _LENGTH:
            raise ValueError
        return Head(**value)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CommandError(
            f"'{path}' was not written with this key, or was changed since: see who may write there, name the trail's"
            " key, or move the trail away and begin another"
        ) from None
