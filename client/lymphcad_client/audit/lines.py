"""A line of the trail: JSON that ends with the digest of the line before and with a code by the key."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lymphcad_client.audit.key import AuditKey

GENESIS: Final = "0" * 64
"""What the first line has in place of a digest."""
_END = re.compile(rb',"mac":"([0-9a-f]{64})"\}\n')
_END_LENGTH = len(',"mac":""}\n') + 64


def seal(fields: Mapping[str, Any], number: int, previous: str, key: AuditKey) -> bytes:
    """Return a line.

    Parameters
    ----------
    fields
        What it says: JSON values.
    number
        Of the line in the trail, from 1.
    previous
        Digest of the line before.
    key
        The trail's.

    Returns
    -------
    bytes
        ASCII, with its newline.
    """
    content = json.dumps({"seq": number, **fields, "previous": previous}, separators=(",", ":")).encode()
    mac = key.mac("line", content)
    return content[:-1] + f',"mac":"{mac}"}}\n'.encode()


def line_digest(line: bytes) -> str:
    """Return the SHA-256 of a line with its newline, as ``tail -n 1 TRAIL | sha256sum`` gives it."""
    return hashlib.sha256(line).hexdigest()


def is_ours(line: bytes, key: AuditKey) -> bool:
    """Whether who wrote a line had the key, and nobody changed it since."""
    end = _END.fullmatch(line[-_END_LENGTH:])
    return end is not None and hmac.compare_digest(key.mac("line", line[:-_END_LENGTH] + b"}").encode(), end.group(1))


def parse(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None if it is no line of a trail."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(value, dict) and isinstance(value.get("seq"), int) and isinstance(value.get("previous"), str)
    return value if whole and line.endswith(b"\n") else None


def follow(tail: bytes, number: int, previous: str, key: AuditKey) -> Iterator[bytes]:
    """Yield the lines at the start of `tail` that are ours and follow the line `number` with the digest `previous`."""
    for line in io.BytesIO(tail):
        value = parse(line)
        if value is None or value["seq"] != number + 1 or value["previous"] != previous or not is_ours(line, key):
            return
        yield line
        number, previous = number + 1, line_digest(line)


def sealed(records: Sequence[Mapping[str, Any]], number: int, previous: str, key: AuditKey) -> tuple[list[bytes], str]:
    """Return lines that follow the line `number` with the digest `previous`, and the last one's digest."""
    lines = []
    for at, fields in enumerate(records, start=number + 1):
        lines.append(seal(fields, at, previous, key))
        previous = line_digest(lines[-1])
    return lines, previous
