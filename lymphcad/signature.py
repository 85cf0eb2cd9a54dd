"""Who made a bundle: an Ed25519 signature (RFC 8032) over ``bundle.json``, whose digests cover every other file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from lymphcad.errors import BundleError, CommandError

if TYPE_CHECKING:
    from pathlib import Path

SIGNATURE = "bundle.sig"
_MAKE = "make a pair with `openssl genpkey -algorithm ed25519 -out KEY` and `openssl pkey -in KEY -pubout -out PUB`"


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key, PEM without a password.

    Raises
    ------
    CommandError
        If it is none.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise CommandError(f"'{path}' is no Ed25519 private key in PEM without a password: {_MAKE}")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key, PEM.

    Raises
    ------
    CommandError
        If it is none.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise CommandError(f"'{path}' is no Ed25519 public key in PEM: {_MAKE}")
    return key


def check_signature(manifest: bytes, signature: bytes | None, key: Ed25519PublicKey, where: str) -> None:
    """Refuse a bundle that the key's owner did not sign.

    Parameters
    ----------
    manifest
        ``bundle.json``, as it lies on disk.
    signature
        `SIGNATURE`, None if there is none.
    key
        Of the one who must have signed it.
    where
        The bundle, for the message.

    Raises
    ------
    BundleError
        If there is no signature, or it is another's or of other contents.
    """
    if signature is None:
        raise BundleError(
            f"the bundle '{where}' is not signed, and --key asks for a signature: export it with --sign, or get it from"
            " who owns the key"
        )
    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        raise BundleError(
            f"the signature of the bundle '{where}' is not of this key or not of these contents: get the bundle and the"
            " key again from who made it"
        ) from None
