"""Where a Triton server is, and TLS to it: who it must be, and who we are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    import grpc

_SCHEMES = {"grpc": False, "grpcs": True}


@dataclass(frozen=True)
class Tls:
    """Of a connection to a Triton server; PEM files.

    Attributes
    ----------
    ca
        Who must have signed the server's certificate; whom the system trusts if None.
    cert, key
        Our certificate and its key, which a server with mutual TLS asks for.
    name
        That the server's certificate must have, where it is reached by another one.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    name: str | None = None


def tls_of(ca: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """Return what a command line says of TLS; None if it says nothing."""
    return None if ca is None and cert is None and key is None else Tls(ca, cert, key)


@dataclass(frozen=True)
class Address:
    """Of a server.

    Attributes
    ----------
    target
        ``host:port``, as gRPC takes it.
    host
        Without the port.
    secure
        Whether TLS is spoken.
    """

    target: str
    host: str
    secure: bool


def parse_address(server: str) -> Address:
    """Read ``grpc://host:port``, or ``grpcs://host:port`` for TLS.

    Raises
    ------
    CommandError
        If it is something else.
    """
    scheme, separator, target = server.partition("://")
    host, colon, port = target.rpartition(":")
    if scheme not in _SCHEMES or not separator or not colon or not host or not port.isdigit():
        raise CommandError(
            f"'{server}' is no server address: write it as grpc://127.0.0.1:8001, or grpcs://host:port for TLS"
        )
    return Address(target, host, _SCHEMES[scheme])


def open_channel(address: Address, tls: Tls | None) -> grpc.Channel:
    """Return a connection, which is made with the first call.

    Parameters
    ----------
    address
        Where to.
    tls
        How, for an address with TLS.

    Raises
    ------
    CommandError
        If TLS is asked for and the address has none, a file cannot be read, or a certificate comes without its key.
    """
    import grpc  # here, for what scores without a server reads this module too

    # Channels of a process share connections and how long a refused one is not tried again; a new one tries now.
    options: list[tuple[str, object]] = [("grpc.use_local_subchannel_pool", 1)]
    if not address.secure:
        if tls is not None:
            raise CommandError(
                f"certificates were given, and grpc://{address.target} is plain text: write grpcs://{address.target},"
                " or leave them out"
            )
        return grpc.insecure_channel(address.target, options=options)
    tls = tls or Tls()
    if (tls.cert is None) != (tls.key is None):
        raise CommandError("a certificate and its key go together: give both --tls-cert and --tls-key")
    credentials = grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))
    if tls.name is not None:
        options.append(("grpc.ssl_target_name_override", tls.name))
    return grpc.secure_channel(address.target, credentials, options=options)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandError(f"'{path}' cannot be read ({error.strerror}): name a file in PEM") from None
    if b"-----BEGIN " not in content:
        # gRPC would take it, and say nothing but that no connection can be made.
        raise CommandError(f"'{path}' holds no certificate or key in PEM: name another file")
    return content
