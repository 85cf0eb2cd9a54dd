"""Addresses of a PACS, and how it is spoken to."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

_AET = re.compile(r"[A-Za-z0-9_.\- ]{1,16}")
_HINT = "write it as dicom://AET@host:104, dicom+tls://AET@host:2762 or https://host/dicom-web"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class DicomPeer:
    """A DICOM application entity (PS3.8).

    Attributes
    ----------
    aet
        Its AE title.
    host, port
        Where it listens.
    tls
        Whether it does so with TLS (PS3.15, section B.12).
    """

    aet: str
    host: str
    port: int
    tls: bool = False


@dataclass(frozen=True)
class WebPeer:
    """A DICOMweb service (PS3.18).

    Attributes
    ----------
    url
        Below which ``/studies`` is.
    """

    url: str

    @property
    def is_open(self) -> bool:
        """Whether what is said can be read on the way: no TLS, and not this machine."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and parts.hostname not in _LOOPBACK


Peer = DicomPeer | WebPeer


@dataclass(frozen=True)
class Speech:
    """How a peer is spoken to.

    Attributes
    ----------
    calling_aet
        Our AE title.
    ca, cert, key
        PEM files: who signed the peer's certificate (the system's authorities if None), our own, and its key.
    timeout_s
        For one message or request.
    tries
        For each object, where trying again may help.
    """

    calling_aet: str = "LYMPHCAD"
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    timeout_s: float = 30.0
    tries: int = 5

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises
        ------
        CommandError
            If it does not.
        """
        if not _AET.fullmatch(self.calling_aet) or not self.calling_aet.strip():
            raise CommandError("an AE title has 1 to 16 letters, digits, spaces, dots, dashes or underscores: give one")
        if (self.cert is None) != (self.key is None):
            raise CommandError("a certificate and its key go together: give --tls-cert and --tls-key")
        for path in (self.ca, self.cert, self.key):
            if path is not None and not path.is_file():
                raise CommandError(f"there is no file '{path}': name a PEM file")


def parse_peer(address: str) -> Peer:
    """Read the address of a PACS.

    Parameters
    ----------
    address
        ``dicom://AET@host:port``, ``dicom+tls://AET@host:port``, ``https://...`` or ``http://...``.

    Returns
    -------
    DicomPeer or WebPeer
        Valid.

    Raises
    ------
    CommandError
        If it is none of them, or holds a password.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme in ("http", "https") and host:
        if "@" in parts.netloc:
            raise CommandError(
                "the address of the PACS holds a user's name: leave it out, and set LYMPHCAD_PACS_USER and"
                " LYMPHCAD_PACS_PASSWORD, or LYMPHCAD_PACS_TOKEN"
            )
        if parts.query or parts.fragment:
            raise CommandError(f"the address of the PACS ends in a query: {_HINT}")
        return WebPeer(address.rstrip("/"))
    aet = parts.netloc.rpartition("@")[0]
    if parts.scheme in ("dicom", "dicom+tls") and host and port and parts.path in ("", "/"):
        if not _AET.fullmatch(aet) or not aet.strip():
            raise CommandError(f"'{address}' has no AE title of 1 to 16 characters before the @: {_HINT}")
        return DicomPeer(aet, host, port, parts.scheme == "dicom+tls")
    raise CommandError(f"'{address}' is no address of a PACS: {_HINT}")


def credentials() -> tuple[str | None, tuple[str, str] | None]:
    """Return the token, or user and password, for DICOMweb that the environment holds.

    Raises
    ------
    CommandError
        If only one of user and password is set.
    """
    user, password = os.environ.get("LYMPHCAD_PACS_USER"), os.environ.get("LYMPHCAD_PACS_PASSWORD")
    if (user is None) != (password is None):
        raise CommandError("LYMPHCAD_PACS_USER and LYMPHCAD_PACS_PASSWORD go together: set both or neither")
    return os.environ.get("LYMPHCAD_PACS_TOKEN"), None if user is None or password is None else (user, password)
