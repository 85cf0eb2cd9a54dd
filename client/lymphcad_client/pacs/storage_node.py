"""A DICOM node that receives: Storage and Verification as SCP, each object safely on disk before it is acknowledged."""

from __future__ import annotations

import logging
import ssl
from contextlib import AbstractContextManager
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedSRStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ExtensibleSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    KeyObjectSelectionDocumentStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from lymphcad.errors import CommandError
from lymphcad_client.pacs.receiving import OUT_OF_RESOURCES, STORED, TOO_LARGE, NotSaved, save

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from lymphcad_client.pacs.receiving import Identity, Saved

# What pynetdicom logs names UIDs and AE titles, and of what peers send wrongly it prints tracebacks.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)

CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
STORAGE_CLASSES = (
    *CT_CLASSES,
    BasicTextSRStorage,
    EnhancedSRStorage,
    ComprehensiveSRStorage,
    Comprehensive3DSRStorage,
    ExtensibleSRStorage,
    KeyObjectSelectionDocumentStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SegmentationStorage,
    ParametricMapStorage,
)
"""SOP classes that are received: images, what annotates them, and what we make of both."""
TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    RLELossless,
    JPEGLSNearLossless,
    JPEG2000,
    HTJ2K,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)
"""All that `lymphcad.dicom` decodes but for the deflated one, of which a few bytes can become gigabytes."""
MAX_PDU_BYTES = 128 * 1024
_MAX_REQUEST_BYTES = 1024 * 1024  # an association request has no negotiated limit


class _Discarded(BytesIO):
    """Takes the place of an object that has become too large, and holds nothing of it."""

    def write(self, data: Any) -> int:
        return len(data)


class _LazyContext(ssl.SSLContext):
    """Has the handshake wait for the association's own thread: else one silent peer would keep all others waiting."""

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **{**options, "do_handshake_on_connect": False})


def server_tls(certificate: Path, key: Path, authorities: Path | None = None) -> ssl.SSLContext:
    """Return the TLS of a node (PS3.15, section B.12).

    Parameters
    ----------
    certificate, key
        PEM files of the node's own.
    authorities
        PEM file of those that sign its peers' certificates; if given, a peer without one is turned away.

    Raises
    ------
    CommandError
        If a file cannot be used.
    """
    context = _LazyContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        if authorities is not None:
            context.load_verify_locations(authorities)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        raise CommandError(
            f"the certificate, its key or the authorities' certificates cannot be used ({error.strerror or 'not PEM'}):"
            " name PEM files that this user may read, the key without a password"
        ) from None
    return context


def _no_password() -> str:
    """Answer for a person, whom OpenSSL would ask."""
    return ""


def store_handler(
    folder: Path | Callable[[Identity], Path],
    on_stored: Callable[[Any, Saved], None] | None = None,
    on_refused: Callable[[Any, NotSaved], None] | None = None,
) -> Callable[[Any], int]:
    """Return a handler of pynetdicom's ``EVT_C_STORE`` that saves what comes, also within C-GET.

    Parameters
    ----------
    folder
        See `lymphcad_client.pacs.receiving.save`.
    on_stored, on_refused
        Called with the association and what became of an object, before the sender is told.

    Returns
    -------
    callable
        Takes the event, returns the status of the response.
    """

    def handle(event: Any) -> int:
        try:
            if isinstance(event.request.DataSet, _Discarded):
                raise NotSaved(TOO_LARGE, "too_large", "the object is larger than this node takes: send it in parts")
            saved = save(
                event.encoded_dataset(),
                folder,
                sop_class=str(event.request.AffectedSOPClassUID),
                sop=str(event.request.AffectedSOPInstanceUID),
            )
        except MemoryError:
            refused = NotSaved(OUT_OF_RESOURCES, "memory", "there is no memory for the object: send it again later")
        except NotSaved as error:
            refused = error
        else:
            if on_stored is not None:
                on_stored(event.assoc, saved)
            return STORED
        if on_refused is not None:
            on_refused(event.assoc, refused)
        return refused.status

    return handle


class StorageNode(AbstractContextManager["StorageNode"]):
    """Listen, and save what is sent, each association in a thread of its own.

    Parameters
    ----------
    port
        TCP port; 0 for a free one.
    ae_title
        Of the node; peers may call it by another.
    folder, on_stored, on_refused
        See `store_handler`.
    on_closed
        Called with each association that has ended, however it did.
    on_rejected
        Called for each association that was turned away.
    bind
        Address to listen on. DICOM knows no passwords, so it is this machine's own unless a person wants another.
    allow
        AE titles that may call; all if empty.
    tls
        See `server_tls`; None for none.
    max_object_bytes
        Length of the largest object that is taken; two copies of each are in memory while it is saved.
    max_associations
        How many at once.
    idle_s
        A silent peer is cut off after so long, s.

    Raises
    ------
    CommandError
        On entering, if the address cannot be listened on.
    """

    def __init__(
        self,
        port: int,
        ae_title: str,
        folder: Path | Callable[[Identity], Path],
        on_stored: Callable[[Any, Saved], None] | None = None,
        *,
        on_refused: Callable[[Any, NotSaved], None] | None = None,
        on_closed: Callable[[Any], None] | None = None,
        on_rejected: Callable[[], None] | None = None,
        bind: str = "127.0.0.1",
        allow: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        max_object_bytes: int = 512 * 1024**2,
        max_associations: int = 10,
        idle_s: float = 60.0,
    ) -> None:
        self._address, self._tls, self._limit, self._idle = (bind, port), tls, max_object_bytes, idle_s
        self._on_closed, self._on_rejected = on_closed, on_rejected
        try:
            self._entity = AE(ae_title)
            self._entity.require_calling_aet = list(allow)
        except (TypeError, ValueError):
            raise CommandError(
                "an AE title has 1 to 16 characters of ASCII, not all spaces and no backslash: give one that has"
            ) from None
        self._entity.maximum_associations = max_associations
        self._entity.maximum_pdu_size = MAX_PDU_BYTES
        self._entity.network_timeout = self._entity.dimse_timeout = self._entity.acse_timeout = idle_s
        for one in (Verification, *STORAGE_CLASSES):
            self._entity.add_supported_context(one, [str(syntax) for syntax in TRANSFER_SYNTAXES])
        self._handle = store_handler(folder, on_stored, on_refused)
        self._server: Any = None

    def __enter__(self) -> Self:
        """Start listening."""
        try:
            self._server = self._entity.start_server(
                self._address,
                block=False,
                ssl_context=self._tls,
                evt_handlers=[
                    (evt.EVT_C_STORE, self._handle),
                    (evt.EVT_CONN_OPEN, self._opened),
                    (evt.EVT_PDU_RECV, self._received),
                    (evt.EVT_CONN_CLOSE, self._closed),
                    (evt.EVT_REJECTED, self._rejected),
                ],
            )
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "it is not from 0 to 65535"
            raise CommandError(
                f"port {self._address[1]} of '{self._address[0]}' cannot be listened on ({why}): stop what listens"
                " there, or give another"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening; open associations are aborted, what they acknowledged is on the disk."""
        self._entity.shutdown()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def _opened(self, event: Any) -> None:
        """Have reading end some time, and abort what sends a PDU longer than was agreed, or a command that is none.

        Of the last pynetdicom's thread would die with a traceback, and never say that the association is closed.
        """
        association = event.assoc
        connection = association.dul.socket
        connection.socket.settimeout(self._idle)
        receive = connection.recv

        def bounded(count: int) -> Any:
            if count > _MAX_REQUEST_BYTES:
                raise OSError("the PDU is too long")
            return receive(count)

        connection.recv = bounded
        decode = association.dimse.receive_primitive

        def guarded(primitive: Any) -> None:
            try:
                decode(primitive)
            except Exception:  # noqa: BLE001 - whatever comes over the network
                association.dul.event_queue.put("Evt19")  # an invalid PDU (PS3.8, table 9-10): it is aborted

        association.dimse.receive_primitive = guarded

    def _received(self, event: Any) -> None:
        """Let go of an object that has become too large; its sender is told when it has sent it all."""
        message = event.assoc.dimse.message
        held = None if message is None else message.data_set
        if held is not None and not isinstance(held, _Discarded) and held.tell() > self._limit:
            message.data_set = _Discarded()

    def _closed(self, event: Any) -> None:
        if self._on_closed is not None:
            self._on_closed(event.assoc)

    def _rejected(self, _event: Any) -> None:
        if self._on_rejected is not None:
            self._on_rejected()
