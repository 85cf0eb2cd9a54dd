"""The certificate that a server shows, and shows as a client when it checks itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from lymphcad_client.tls import Tls

from lymphcad.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ServerTls:
    """Mutual TLS of a server; PEM files.

    Attributes
    ----------
    cert, key
        The server's certificate, followed by those of who signed it up to `ca`, and its key.
    ca
        Who signs the certificates of clients; and the server's own, which checks itself as a client.
    """

    cert: Path
    key: Path
    ca: Path

    def of_itself(self) -> Tls:
        """Return how the server's own client connects.

        Raises
        ------
        CommandError
            If a file is not what it must be: the certificate is expired or not valid yet, has no DNS name, or may not
            be used by a server and by a client; the key is another's.
        """
        certificate = read_certificate(self.cert)
        read_certificate(self.ca)
        _check_key(self.key, certificate)
        now = datetime.now(timezone.utc)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise CommandError(
                f"the certificate '{self.cert}' is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to"
                f" {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M}: renew it, or"
                " set the clock"
            )
        names = names_of(certificate)
        if not names:
            raise CommandError(
                f"the certificate '{self.cert}' has no DNS name (subjectAltName): have one made for the name that"
                " clients call the server by"
            )
        usages = usages_of(certificate)
        if usages is not None and not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= usages:
            raise CommandError(
                f"the certificate '{self.cert}' is not for both servers and clients, and the server checks itself with"
                " it: have it made with the usages serverAuth and clientAuth"
            )
        return Tls(self.ca, self.cert, self.key, names[0].replace("*", "any", 1))


def read_certificate(path: Path) -> x509.Certificate:
    """Read the first certificate of a file.

    Raises
    ------
    CommandError
        If there is none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise CommandError(f"'{path}' cannot be read ({error.strerror}): name a certificate in PEM") from None
    except ValueError:
        raise CommandError(f"'{path}' is no certificate in PEM: name another file") from None


def names_of(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names of a certificate (RFC 5280, 4.2.1.6)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return found.value.get_values_for_type(x509.DNSName)


def usages_of(certificate: x509.Certificate) -> set[x509.ObjectIdentifier] | None:
    """Return what a certificate may be used for (RFC 5280, 4.2.1.12); None if for everything."""
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return None


def _check_key(path: Path, certificate: x509.Certificate) -> None:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise CommandError(f"'{path}' cannot be read ({error.strerror}): name a key in PEM") from None
    except (ValueError, TypeError):
        raise CommandError(f"'{path}' is no private key in PEM without a password: name another file") from None
    if key.public_key() != certificate.public_key():
        raise CommandError(f"the key '{path}' is not that of the certificate: give the pair that was made together")
