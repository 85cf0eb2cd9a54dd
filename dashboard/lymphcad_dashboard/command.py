"""``lymphcad dashboard``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from lymphcad_client.options import (
    Audit,
    Bundled,
    Engines,
    Key,
    Metrics,
    Precision,
    RunnerName,
    Shadow,
    ShadowOut,
    TlsCa,
    TlsCert,
    TlsKey,
)

if TYPE_CHECKING:
    from lymphcad_client.observing import Observer

PAGE = Path(__file__).with_name("page") / "main.py"


def dashboard(
    server: Annotated[str | None, typer.Option(help="Address of the Triton server that answers.")] = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    edge: Bundled = None,
    runner: RunnerName = "auto",
    precision: Precision = None,
    engines: Engines = None,
    key: Key = None,
    compare: Annotated[
        str | None, typer.Option(help="A second server (grpc://host:port) or bundle, to show its answer beside.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder of `lymphcad compare`, to show its report.")] = None,
    audit: Audit = None,
    metrics: Metrics = None,
    shadow: Shadow = None,
    shadow_out: ShadowOut = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 8501,
    upload_limit: Annotated[int, typer.Option(min=1, help="Largest file that is taken, MB; held in memory.")] = 1024,
    open_browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open a browser.", show_default="if there is a display")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in who reaches the address, without signing in.")
    ] = False,
) -> None:
    """Open the page on which one clicks a node; with the demo bundle if neither a server nor a bundle is named."""
    import os
    import signal
    import sys

    # Read when gRPC is imported: what it does in a child process can abort the one that becomes the browser.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

    from rich.console import Console

    from lymphcad.errors import CommandError

    if sys.version_info < (3, 11):
        raise CommandError("Streamlit, which shows the page, needs Python 3.11, and this is 3.10: use that one")
    from lymphcad import RESEARCH_USE_ONLY
    from lymphcad_dashboard.access import configured_sign_in, is_loopback
    from lymphcad_dashboard.engine import open_engines, open_observers
    from lymphcad_dashboard.settings import Settings
    from lymphcad_dashboard.web import LOOPBACK, bind, serve

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts its background jobs with SIGINT ignored
        signal.signal(number, stop)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    sign_in = configured_sign_in()
    if sign_in is not None and insecure:
        raise CommandError("--insecure lets everybody in, and Streamlit's secrets have them sign in: take one away")
    if not (is_loopback(host) or insecure or sign_in is not None):
        raise CommandError(
            f"'{host}' can be reached from other machines, and nobody would have to sign in: write the section [auth]"
            " of Streamlit's secrets (docs/dashboard.md), or let everybody in with --insecure"
        )
    if report is not None and not (report / "report.html").is_file():
        raise CommandError(f"there is no report.html in '{report}': give the folder that `lymphcad compare` wrote")
    settings = Settings(
        server=server,
        edge=edge,
        runner=runner,
        precision=precision,
        engines=engines,
        key=key,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        audit=audit,
        metrics=metrics,
        shadow=shadow,
        shadow_out=shadow_out,
        compare=compare,
        report=report,
        sign_in=sign_in is not None,
        upload_mb=upload_limit,
    )
    names = [] if insecure else [*LOOPBACK, host, *([sign_in.host] if sign_in is not None else [])]

    def say() -> None:
        url = f"http://{_name(host)}:{listening.getsockname()[1]}" if sign_in is None else sign_in.origin
        console.print(f"The page is at {url}. {RESEARCH_USE_ONLY}. Ctrl-C stops it.")
        if _has_display() if open_browser is None else open_browser:
            _browse(url)

    settings.observing.check()
    observers: tuple[Observer, ...] = ()
    try:
        with bind(host, port) as listening:
            observers = open_observers(settings)
            with console.status("Opening what answers"):
                found = [engine.status() for engine in open_engines(settings)]
            for status in found:
                console.print(f"{status.label}: {status.sentence}" if status.ready else status.sentence)
            serve(PAGE, settings, listening, names, say)
    except KeyboardInterrupt:
        console.print("Stopped.")
    finally:
        for observer in observers:
            observer.close()


def _name(host: str) -> str:
    """Return what a browser calls an address to listen on."""
    import socket

    if host in ("0.0.0.0", "::"):  # noqa: S104 - all of this machine's
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _has_display() -> bool:
    import os
    import sys

    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _browse(url: str) -> None:
    """Open a browser; apart, for some return when they are closed."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
