"""Associations with a DICOM peer, as the one that asks (SCU; PS3.7, PS3.8)."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pynetdicom import AE
from pynetdicom.sop_class import Verification

from lymphcad.errors import CommandError, LymphcadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lymphcad_client.pacs.address import DicomPeer, Speech

MAX_CONTEXTS = 127
"""In one association, Verification aside (PS3.8, section 9.3.2.2: odd numbers from 1 to 255)."""
_REJECTED_TRANSIENT = 2


class NoAssociation(LymphcadError):  # noqa: N818 - whether it is an error is for the caller to say
    """The peer did not agree to an association.

    Parameters
    ----------
    message
        The sentence.
    is_final
        Whether trying again is of no use.
    """

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.is_final = is_final


@contextmanager
def association(
    peer: DicomPeer,
    speech: Speech,
    contexts: Sequence[tuple[str, Sequence[str]]],
    *,
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Any]:
    """Open an association, check that the peer is there by C-ECHO, and release it at the end.

    Parameters
    ----------
    peer, speech
        With whom, and how.
    contexts
        SOP classes, each with the transfer syntaxes that are proposed; `MAX_CONTEXTS` at most.
    roles, handlers
        For pynetdicom.

    Yields
    ------
    pynetdicom.association.Association
        Established.

    Raises
    ------
    NoAssociation
        If there is none.
    """
    entity = AE(speech.calling_aet)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = speech.timeout_s
    entity.connection_timeout = speech.timeout_s
    entity.add_requested_context(Verification)
    for sop_class, syntaxes in contexts:
        entity.add_requested_context(sop_class, list(syntaxes))
    found = entity.associate(
        peer.host,
        peer.port,
        ae_title=peer.aet,
        ext_neg=list(roles),
        evt_handlers=list(handlers),
        tls_args=(_tls(speech), peer.host) if peer.tls else None,
    )
    try:
        if not found.is_established:
            raise _why(found, peer)
        if not found.send_c_echo():
            raise NoAssociation(f"the PACS at {peer.host}:{peer.port} does not answer C-ECHO: see it", is_final=False)
        yield found
    finally:
        if found.is_established:
            found.release()
        elif found.is_alive():
            found.abort()


def _why(found: Any, peer: DicomPeer) -> NoAssociation:
    at = f"the PACS at {peer.host}:{peer.port}"
    if found.is_rejected:
        answer = found.acceptor.primitive
        is_final = getattr(answer, "result", 1) != _REJECTED_TRANSIENT
        what = getattr(answer, "reason_str", "no reason") if answer is not None else "no reason"
        return NoAssociation(
            f"{at} rejected the association ({what}): have it know our AE title (--calling-aet), and check its own",
            is_final=is_final,
        )
    hint = "check its address, and that it runs" + (", and the certificates" if peer.tls else "")
    return NoAssociation(f"{at} does not answer: {hint}", is_final=False)


def _tls(speech: Speech) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=speech.ca)
        if speech.cert is not None and speech.key is not None:
            context.load_cert_chain(speech.cert, speech.key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise CommandError(
            f"a certificate or key cannot be used ({getattr(error, 'reason', None) or error.strerror}): give PEM files,"
            " the key without a password"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
