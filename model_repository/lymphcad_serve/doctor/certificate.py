"""A server's certificate as clients see it: validity, chain, name; and whether the server asks for theirs."""

from __future__ import annotations

import socket
import ssl
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from cryptography import x509

from lymphcad_serve.certificates import names_of, read_certificate
from lymphcad_serve.doctor.check import fail, ok, skip, warn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lymphcad_client.tls import Address, Tls

    from lymphcad_serve.doctor.check import Check

RENEW_DAYS = 30
"""Certificates that end earlier are to be renewed."""
_ANSWER_S = 10.0
_NOT_YET_VALID = 9
"""X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL's x509_vfy.h."""


def check_certificate(address: Address, tls: Tls) -> Iterator[Check]:
    """Say whether a server's certificate is good, and whether it asks clients for one.

    Parameters
    ----------
    address
        With TLS.
    tls
        As the client uses it.

    Yields
    ------
    Check
        Of the certificate's time, its chain and name, what the server asks of clients, and our own certificate.

    Raises
    ------
    CommandError
        If our certificate cannot be read.
    """
    who, (port,) = address.target, (int(address.target.rpartition(":")[2]),)
    host = address.host.strip("[]")
    try:
        shown, protocol = _shown(host, port)
    except OSError as error:  # of which ssl's errors are
        yield fail(
            f"certificate {who}", f"no TLS connection can be made ({_words(error)})", "check address and network"
        )
        return
    yield check_validity(f"certificate {who}", x509.load_der_x509_certificate(shown))
    yield _trusted(host, port, tls, protocol, who)
    yield _asks_clients(host, port, who)
    if tls.cert is not None:
        yield check_validity("our certificate", read_certificate(tls.cert), tls.cert)


def check_validity(name: str, certificate: x509.Certificate, path: Path | None = None) -> Check:
    """Say for how long a certificate is valid.

    Parameters
    ----------
    name
        Of the check.
    certificate
        Whose time is compared with this machine's clock.
    path
        Where it lies, if here.
    """
    now = datetime.now(timezone.utc)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    where = "" if path is None else f" '{path}'"
    if now < begins:
        found = f"it{where} is valid from {begins:%Y-%m-%d %H:%M} UTC on, and here it is {now:%Y-%m-%d %H:%M}"
        return fail(name, found, "set the clock that is wrong, or have a certificate made that is valid now")
    if now > ends:
        return fail(name, f"it{where} expired on {ends:%Y-%m-%d %H:%M} UTC", "renew it, and start the server anew")
    days = (ends - now).days
    found = f"valid until {ends:%Y-%m-%d} ({days} days), for {', '.join(names_of(certificate)) or 'no DNS name'}"
    return warn(name, found, "renew it") if days < RENEW_DAYS else ok(name, found)


def _shown(host: str, port: int) -> tuple[bytes, str]:
    """Return the certificate that a server shows to whoever connects, DER, and the protocol's version."""
    context = _unverified()
    with socket.create_connection((host, port), _ANSWER_S) as plain, context.wrap_socket(plain) as secured:
        shown = secured.getpeercert(binary_form=True)
        if shown is None:
            raise ssl.SSLError("the server showed no certificate")
        return shown, secured.version() or "TLS"


def _trusted(host: str, port: int, tls: Tls, protocol: str, who: str) -> Check:
    name = f"trust {who}"
    called = tls.name or host
    by = "whom this system trusts" if tls.ca is None else f"'{tls.ca}'"
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, port), _ANSWER_S) as plain,
            context.wrap_socket(plain, server_hostname=called),
        ):
            return ok(name, f"signed by {by}, for '{called}', {protocol}")
    except ssl.SSLCertVerificationError as error:
        todo = "have the server's certificate made for the name that clients use, by the authority that --tls-ca names"
        if error.verify_code == _NOT_YET_VALID:
            todo = "compare the clocks"
        return fail(name, f"clients refuse it ({error.verify_message})", todo)
    except OSError as error:
        return fail(name, f"TLS fails with these files ({_words(error)})", "check --tls-ca, --tls-cert and --tls-key")


def _asks_clients(host: str, port: int, who: str) -> Check:
    """Say whether a server refuses who shows no certificate; in TLS 1.3 it says so with its first bytes only."""
    name = f"mutual TLS {who}"
    try:
        with (
            socket.create_connection((host, port), _ANSWER_S) as plain,
            _unverified().wrap_socket(plain) as secured,
        ):
            answered = secured.recv(1)
    except TimeoutError:
        return skip(name, "the server neither answers nor refuses who shows no certificate")
    except OSError:
        answered = b""
    if answered:
        return warn(name, "it answers whoever connects", "serve with --tls-ca, so that only named clients are answered")
    return ok(name, "it refuses who shows no certificate")


def _unverified() -> ssl.SSLContext:
    """Return a context that looks at a certificate whatever it is; nothing is sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _words(error: OSError) -> str:
    return error.reason if isinstance(error, ssl.SSLError) and error.reason else error.strerror or str(error)
