"""The web server of the page: Streamlit's, in this process, with what it leaves open closed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import traceback
from typing import TYPE_CHECKING, Any

import streamlit as st
import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartParser
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketClose
from streamlit.logger import set_log_level
from streamlit.starlette import App
from streamlit.web import bootstrap

from lymphcad.errors import CommandError
from lymphcad_dashboard import sessions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from lymphcad_dashboard.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_STOP_S = 3
_UPLOAD = "/_stcore/upload_file/"
_POLICIES = (
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob:",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "media-src 'self' data: blob:",
    "worker-src 'self' blob:",
    "frame-src 'self' blob: data:",
    "frame-ancestors 'self'",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
)
_HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICIES),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Parameters
    ----------
    host
        An address of this machine.
    port
        0 for any that is free.

    Raises
    ------
    CommandError
        If the port is taken or may not be used, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        raise CommandError(
            f"the page cannot listen on port {port} of '{host}' ({error.strerror}): choose another with --port, or"
            " another address of this machine with --host"
        ) from None


def serve(
    page: Path, settings: Settings, listening: socket.socket, hosts: list[str], started: Callable[[], None]
) -> None:
    """Serve a page until the process is told to stop.

    Parameters
    ----------
    page
        The script that Streamlit runs for each session.
    settings
        Which it finds in the environment.
    listening
        Where.
    hosts
        Names under which browsers may know the page, against DNS rebinding; any if empty.
    started
        Called when the page can be opened.

    Raises
    ------
    KeyboardInterrupt
        If it was told to.
    """
    settings.to_environment()
    host, port = listening.getsockname()[:2]
    set_log_level("error")  # else it says that its options changed
    bootstrap.load_config_options(_options(settings, host, port, hosts))
    # An upload that grows beyond this goes to a file, and nothing of a study may: 0 is without a limit. Its size is
    # checked by Streamlit while it comes in.
    MultiPartParser.spool_max_size = 0
    _log_no_values()

    @contextlib.asynccontextmanager
    async def lifespan(_: App) -> AsyncIterator[None]:
        closing = asyncio.create_task(sessions.close_abandoned())
        started()
        yield
        closing.cancel()

    app = App(page, lifespan=lifespan, middleware=[Middleware(_Guard)], on_script_error=_say_so)
    uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=_STOP_S,
        )
    ).run(sockets=[listening])


def _options(settings: Settings, host: str, port: int, hosts: list[str]) -> dict[str, Any]:
    """Return Streamlit's, which win over those of its files and variables."""
    return {
        "server.address": host,
        "server.port": port,
        "server.headless": True,
        "server.maxUploadSize": settings.upload_mb,
        "server.disconnectedSessionTTL": int(10 * sessions.KEPT_S),  # which close them before
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.enableStaticServing": False,
        "server.enableCORS": True,
        "server.enableXsrfProtection": True,
        "server.allowedHosts": hosts,
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        # In each of the two by itself: one colour for both would switch the dark one off.
        "theme.light.primaryColor": "#2f80b9",
        "theme.dark.primaryColor": "#2f80b9",
        "client.toolbarMode": "minimal",
        "logger.level": "error",
        "logger.enableRich": False,
        "logger.hideWelcomeMessage": True,
        "global.developmentMode": False,
    }


class _Guard:
    """Refuses what other pages send, and keeps the browser from asking elsewhere or storing what it is shown."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            headers = Headers(scope=scope)
            origin = headers.get("origin", "")
            # Streamlit would ask an outside service for this machine's address, to compare the origin with it, too.
            if origin.partition("://")[2] != headers.get("host"):
                await WebSocketClose(code=1008)(scope, receive, send)
                return
        elif scope["type"] == "http":
            _, found, upload = scope["path"].partition(_UPLOAD)
            if found and not sessions.is_in(upload.partition("/")[0]):
                await PlainTextResponse("The page has not let this session in.", 403)(scope, receive, send)
                return
            send = _with_headers(send, shows_study="/media/" in scope["path"])
        await self._app(scope, receive, send)


def _with_headers(send: Send, *, shows_study: bool) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            if shows_study:
                headers["Cache-Control"] = "no-store"  # on the disk of the browser neither
        await send(message)

    return wrapped


def _say_so(error: Exception) -> bool:
    """Show on the page that it failed, and nothing of the error, which Streamlit has logged."""
    del error
    st.error("The page failed, which is an error in LymphCAD: reload it, and see the log of `lymphcad dashboard`.")
    return True


def _log_no_values() -> None:
    """Have errors logged with their kind and where they came from, and without their message, which can hold a name."""
    made = logging.getLogRecordFactory()

    def make(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = made(*arguments, **named)
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.format_tb(record.exc_info[2])
            record.exc_text = "".join(frames) + record.exc_info[0].__qualname__
            record.exc_info = None
        return record

    logging.setLogRecordFactory(make)
