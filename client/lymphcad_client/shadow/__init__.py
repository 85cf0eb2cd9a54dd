"""A second bundle in the shadow of the first: asked the same, compared, and never answering anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lymphcad_client.observing import Observer
    from lymphcad_client.tls import Tls


def open_shadow(address: str, tls: Tls | None, out: Path) -> Observer:
    """Have a second server or bundle asked what the first one is asked.

    Parameters
    ----------
    address
        ``grpc://host:port`` or ``grpcs://host:port``; anything without ``://`` is the folder of a bundle, which is
        scored with in this process.
    tls
        To a server with TLS; not looked at for another one.
    out
        File that the pairs of answers are appended to.

    Returns
    -------
    Observer
        Its `saw` returns at once, whatever the shadow does. Its `close` finishes what waits, for ten seconds.

    Raises
    ------
    CommandError
        If the address is none, the bundle cannot be used, or the file cannot be written to. A server that is away is
        no error: it is asked again.
    LymphcadError
        If the bundle does not compute here what it must.
    """
    # Here, for `lymphcad --help` imports this package.
    from lymphcad_client.shadow.observer import Shadow
    from lymphcad_client.shadow.second import second_of

    return Shadow(second_of(address, tls), out)
