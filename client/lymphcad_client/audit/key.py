"""The key of an audit trail: by it a person's pseudonym is made, and a line of ours told from a forged one."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from typing import TYPE_CHECKING, Literal

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path


class AuditKey:
    """256 bits, in a file of 64 hexadecimal digits.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    CommandError
        If it cannot be read, or is no key.
    """

    def __init__(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError as error:
            raise CommandError(
                f"the audit trail's key '{path}' cannot be read ({error.strerror}): put it back, or name it with --key"
            ) from None
        except ValueError:
            text = ""
        if not re.fullmatch("[0-9a-f]{64}", text):
            raise CommandError(
                f"'{path}' is no key of an audit trail, which has 64 hexadecimal digits: name another file, or let one"
                " be made beside a new trail"
            )
        self._secret = bytes.fromhex(text)

    @classmethod
    def make(cls, path: Path) -> AuditKey:
        """Write a new key that only this user may read, and sync it; raises OSError, also if the file exists."""
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(number, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(number)
        return cls(path)

    def pseudonym(self, name: str) -> str:
        """Return 64 hexadecimal digits for a person: HMAC-SHA256 of ``who:NAME`` (RFC 2104)."""
        return self._mac(b"who:" + name.encode("utf-8", "surrogateescape"))

    def mac(self, kind: Literal["line", "head"], content: bytes) -> str:
        """Return the code by which who has the key knows that who wrote the content had it."""
        return self._mac(kind.encode() + b":" + content)

    def _mac(self, content: bytes) -> str:
        return hmac.new(self._secret, content, hashlib.sha256).hexdigest()
