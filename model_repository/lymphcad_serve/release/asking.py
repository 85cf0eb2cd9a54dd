"""What the balancer asks a server to learn whether it can answer, and with which bundle: one gRPC request, as bytes.

HAProxy checks a server's health with HTTP or with bytes that it is given. HTTP cannot carry a gRPC request, whose body
begins with a zero byte; so these are the bytes of an HTTP/2 connection (RFC 9113) with one request, whose headers are
written out in full (RFC 7541, 6.2.2). A server answers ``ModelConfig`` only when its model is ready, and the answer has
the bundle's digest in it: one that has been given another bundle is no server of its group any more.
"""

from __future__ import annotations

from tritonclient.grpc import service_pb2 as messages

from lymphcad_serve.target import ENSEMBLE

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0x0, 0x1, 0x4
_END_STREAM, _END_HEADERS = 0x1, 0x4
_PATH = b"/inference.GRPCInferenceService/ModelConfig"
# Of the table that is the same for everyone (RFC 7541, appendix A).
_METHOD_POST, _SCHEME = 0x83, {False: 0x86, True: 0x87}
_AUTHORITY_IS, _PATH_IS, _CONTENT_TYPE_IS, _NEW_NAME = b"\x01", b"\x04", b"\x0f\x10", b"\x00"


def question(authority: str, *, secure: bool) -> bytes:
    """Return what is sent on a fresh connection to ask a server which configuration its model has.

    Parameters
    ----------
    authority
        The server's name.
    secure
        Whether the connection is TLS.

    Returns
    -------
    bytes
        The client's preface, its settings, and a request on stream 1.
    """
    headers = bytes([_METHOD_POST, _SCHEME[secure]])
    headers += _PATH_IS + _text(_PATH) + _AUTHORITY_IS + _text(authority.encode())
    headers += _CONTENT_TYPE_IS + _text(b"application/grpc") + _NEW_NAME + _text(b"te") + _text(b"trailers")
    message = messages.ModelConfigRequest(name=ENSEMBLE).SerializeToString()
    body = b"\x00" + len(message).to_bytes(4, "big") + message  # not compressed, length
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, body)
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _text(value: bytes) -> bytes:
    """Return a string literal; below 127 bytes its length is one."""
    if len(value) >= 0x7F:
        raise ValueError(f"{len(value)} bytes do not fit into a short header")
    return bytes([len(value)]) + value
