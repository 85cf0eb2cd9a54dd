"""Addresses as a release file has them: ``grpc://host:port``, or ``grpcs://host:port`` for mutual TLS."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from lymphcad.errors import CommandError

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_MOST_PORTS = 65535


@dataclass(frozen=True)
class Address:
    """Of a server, or where the balancer listens.

    Attributes
    ----------
    secure
        Whether it is mutual TLS.
    host
        A name, an IP address (IPv6 in brackets), or ``*``.
    port
        TCP.
    """

    secure: bool
    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP address."""
        return _ip(self.host) is not None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        ip = _ip(self.host)
        return self.host == "localhost" or (ip is not None and ip.is_loopback)


def read_address(text: str, *, anywhere: bool = False) -> Address:
    """Read an address.

    Parameters
    ----------
    text
        ``grpc://host:port`` or ``grpcs://host:port``.
    anywhere
        Whether the host may be ``*``, which is every network interface.

    Returns
    -------
    Address
        With a port from 1 to 65535.

    Raises
    ------
    CommandError
        If it is none.
    """
    scheme, separator, rest = text.partition("://")
    host, colon, port = rest.rpartition(":")
    known = _ip(host) is not None or _NAME.fullmatch(host) is not None or (anywhere and host == "*")
    if scheme not in ("grpc", "grpcs") or not separator or not colon or not known or not port.isdecimal():
        raise CommandError(
            f"'{text}' is no address: write it as grpcs://HOST:8001, or grpc://127.0.0.1:8001 without TLS"
        )
    if not 0 < int(port) <= _MOST_PORTS:
        raise CommandError(f"'{text}' has the port {port}, and 1 to {_MOST_PORTS} are possible")
    return Address(scheme == "grpcs", host, int(port))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return found if host.startswith("[") == (found.version == 6) else None
