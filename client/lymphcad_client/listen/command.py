"""``lymphcad listen``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lymphcad_client.options import Audit, Bundled, Engines, Key, Metrics, Precision, RunnerName, Shadow, ShadowOut

if TYPE_CHECKING:
    from lymphcad_client.listen.arrivals import Brought
    from lymphcad_client.listen.dispatcher import Delivery
    from lymphcad_client.listen.listener import Event


def listen(
    to: Annotated[
        str, typer.Option("--to", help="PACS for the results: dicom://AET@HOST:PORT, dicom+tls://... or https://...")
    ],
    folder: Annotated[
        Path, typer.Argument(help="Folder for what is received, and for results until they are stored.")
    ] = Path("lymphcad-node"),
    port: Annotated[int, typer.Option(help="TCP port to listen on.")] = 11112,
    aet: Annotated[str, typer.Option("--aet", help="AE title of this node.")] = "LYMPHCAD",
    bind: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    allow_aet: Annotated[
        list[str] | None, typer.Option("--allow-aet", help="AE title that may send; can be repeated. All if none.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate of this node (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option("--tls-ca", help="Who signs the certificates of senders, which they need then (PEM).")
    ] = None,
    to_tls_ca: Annotated[
        Path | None, typer.Option("--to-tls-ca", help="Who signed the certificate of the PACS (PEM).")
    ] = None,
    to_tls_cert: Annotated[
        Path | None, typer.Option("--to-tls-cert", help="Our certificate, where the PACS asks for it (PEM).")
    ] = None,
    to_tls_key: Annotated[Path | None, typer.Option("--to-tls-key", help="Its key (PEM).")] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server", help="Address of a Triton server; can be repeated.", show_default="grpc://127.0.0.1:8001"
        ),
    ] = None,
    server_tls_ca: Annotated[
        Path | None, typer.Option("--server-tls-ca", help="For grpcs://: who signed the server's certificate (PEM).")
    ] = None,
    server_tls_cert: Annotated[
        Path | None, typer.Option("--server-tls-cert", help="For grpcs://: our certificate (PEM).")
    ] = None,
    server_tls_key: Annotated[Path | None, typer.Option("--server-tls-key", help="Its key (PEM).")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Accept answers of this bundle only.")] = None,
    edge: Bundled = None,
    runner: RunnerName = "auto",
    precision: Precision = None,
    engines: Engines = None,
    key: Key = None,
    dicom: Annotated[str, typer.Option("--dicom", help="Results to make: sr, sc, pm, with commas.")] = "sr,sc",
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds without a new object after which a study is complete.")
    ] = 10.0,
    keep: Annotated[
        float, typer.Option(min=0, help="Hours for which a study is kept after its last object, for annotations.")
    ] = 48.0,
    max_object: Annotated[int, typer.Option("--max-object", min=1, help="Largest object that is taken, MiB.")] = 512,
    max_associations: Annotated[int, typer.Option("--max-associations", min=1, help="Senders at once.")] = 10,
    audit: Audit = None,
    metrics: Metrics = None,
    shadow: Shadow = None,
    shadow_out: ShadowOut = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each event.")] = False,
) -> None:
    """Receive studies as a DICOM node, score the nodes that annotations mark, and store the results at a PACS.

    An object is acknowledged when it is on the disk, and what was acknowledged is scored and stored, whatever happens.
    """
    import contextlib
    import json
    import signal
    import threading
    import time
    from functools import partial

    from rich.console import Console

    from lymphcad import RESEARCH_USE_ONLY
    from lymphcad.errors import CommandError, InterruptedByUser
    from lymphcad_client.dicom.study import KINDS
    from lymphcad_client.listen.run import Node
    from lymphcad_client.listen.spool import Spool
    from lymphcad_client.listen.words import line_of
    from lymphcad_client.observing import Observing
    from lymphcad_client.opening import Choice
    from lymphcad_client.pacs.address import Speech, WebPeer, credentials, parse_peer
    from lymphcad_client.pacs.sending import send_files
    from lymphcad_client.pacs.storage_node import server_tls as node_tls
    from lymphcad_client.tls import tls_of
    from lymphcad_client.watch.files import alone_in

    if (tls_cert is None) != (tls_key is None) or (tls_ca is not None and tls_cert is None):
        raise CommandError("--tls-cert and --tls-key go together, and --tls-ca with both: give what is missing")
    tls = None if tls_cert is None or tls_key is None else node_tls(tls_cert, tls_key, tls_ca)
    server_tls = tls_of(server_tls_ca, server_tls_cert, server_tls_key)
    observing = Observing(audit, metrics, shadow, shadow_out)
    observing.check()
    asked = {word.strip() for word in dicom.split(",")}
    kinds = [kind for kind in KINDS if kind in asked]
    if not kinds or len(kinds) < len(asked):
        raise CommandError(f"--dicom {dicom!r} is not known: name one or more of {', '.join(KINDS)}, with commas")
    peer = parse_peer(to)
    # One more try at once is for a connection that was lost; longer pauses are the dispatcher's.
    speech = Speech(aet, to_tls_ca, to_tls_cert, to_tls_key, tries=2)
    credentials()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"'{folder}' cannot be made ({error.strerror}): name another folder") from None
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    stop = threading.Event()

    def say(line: str) -> None:
        console.print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")

    def report(event: "Event | Delivery | Brought | str") -> None:
        say(event if isinstance(event, str) else line_of(event))
        if json_output and not isinstance(event, str):
            shown = {name: value for name, value in vars(event).items() if name != "studies"}
            typer.echo(json.dumps({"event": type(event).__name__.lower(), **shown}))

    def listening(at: int) -> None:
        say(f"Listening as {aet} on port {at} of {bind}. {RESEARCH_USE_ONLY}.")

    def ask_to_stop(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with alone_in(folder):
        spool = Spool(folder)
        choice = Choice(tuple(server or ()), bundle, edge, runner, precision, engines, key, tls=server_tls)
        with observing.observe(choice.open(), server_tls) as scorer:
            say(scorer.about)
            if isinstance(peer, WebPeer) and peer.is_open:
                say("Without TLS others on the network can read what is sent to the PACS: https:// keeps it private.")
            node = Node(
                spool,
                scorer,
                partial(send_files, peer=peer, speech=speech),
                report,
                port=port,
                ae_title=aet,
                kinds=kinds,
                settle_s=settle,
                keep_s=keep * 3600,
                bind=bind,
                allow=allow_aet or (),
                tls=tls,
                max_object_bytes=max_object * 1024**2,
                max_associations=max_associations,
            )
            before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                with contextlib.suppress(KeyboardInterrupt):
                    node.run(stop, listening)
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        left = len(spool.waiting())
    raise InterruptedByUser(
        f"stopped; studies whose results are still to be stored: {left}; they and what was received are in the folder:"
        " start again to go on"
    )
