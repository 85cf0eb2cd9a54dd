"""``lymphcad send`` and ``lymphcad fetch``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from lymphcad_client.pacs.address import Peer

SOME_NOT_DONE = 3
_SHOWN = 20

CallingAet = Annotated[str, typer.Option("--calling-aet", help="Our AE title.")]
TlsCa = Annotated[Path | None, typer.Option("--tls-ca", help="Who signed the PACS's certificate (PEM).")]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", help="Our certificate, where the PACS asks for it (PEM).")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one message or request.")]


def send(
    results: Annotated[list[Path], typer.Argument(help="Folders or files; what is not DICOM in a folder is left out.")],
    to: Annotated[
        str, typer.Option("--to", help="dicom://AET@HOST:PORT, dicom+tls://AET@HOST:PORT or https://HOST/dicom-web.")
    ],
    calling_aet: CallingAet = "LYMPHCAD",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    timeout: Timeout = 30.0,
    json_output: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Store DICOM results at a PACS; safe to repeat, for an object keeps its UIDs."""
    import json
    from collections import Counter

    from rich.console import Console

    from lymphcad.errors import CommandError, InterruptedByUser
    from lymphcad_client.pacs.address import Speech, parse_peer
    from lymphcad_client.pacs.part10 import list_dicom
    from lymphcad_client.pacs.sending import send_files
    from lymphcad_client.progress import progress

    peer = parse_peer(to)
    speech = Speech(calling_aet, tls_ca, tls_cert, tls_key, timeout)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    for source in results:
        if not source.exists():
            raise CommandError(f"there is no '{source}': name the folder of results, or files")
    try:
        paths, others = list_dicom(results)
    except OSError as error:
        raise CommandError(f"a folder cannot be read ({error.strerror}): let this user read it") from None
    if not paths:
        raise CommandError("there is no DICOM file in what was named: score with --dicom sr,sc first")
    _warn(peer, console)
    counts: Counter[str] = Counter()
    not_stored = []
    try:
        with progress(console, "Sending", "objects", len(paths)) as advance:
            for sent in send_files(paths, peer, speech):
                counts[sent.outcome] += 1
                if sent.outcome in ("refused", "failed"):
                    not_stored.append(sent)
                advance()
    except KeyboardInterrupt:
        raise InterruptedByUser(
            f"stopped after {counts.total()} of {len(paths)} objects: the same command again stores the rest"
        ) from None
    for sent in not_stored[:_SHOWN]:
        console.print(f"{sent.outcome}, {sent.status}: {sent.path}")
    if len(not_stored) > _SHOWN:
        console.print(f"... and {len(not_stored) - _SHOWN} more")
    if json_output:
        summary = {"n": len(paths), **{name: counts[name] for name in ("stored", "present", "refused", "failed")}}
        typer.echo(json.dumps({**summary, "not_dicom": others}))
    else:
        stored = counts["stored"] + counts["present"]
        left_out = f" {others} files that are not DICOM were left out." if others else ""
        Console(highlight=False, soft_wrap=True).print(f"{stored} of {len(paths)} objects are stored.{left_out}")
    if not_stored:
        raise typer.Exit(SOME_NOT_DONE)


def fetch(
    study: Annotated[str, typer.Option("--study", help="Study Instance UID.")],
    source: Annotated[
        str, typer.Option("--from", help="dicom://AET@HOST:PORT, dicom+tls://AET@HOST:PORT or https://HOST/dicom-web.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the study's objects.", show_default="study- and a hash of its UID"),
    ] = None,
    method: Annotated[Literal["get", "move"], typer.Option(help="With dicom://: C-GET, or C-MOVE to us.")] = "get",
    move_port: Annotated[
        int, typer.Option("--move-port", help="With move: the port on which the PACS finds us.")
    ] = 11112,
    bind: Annotated[str, typer.Option(help="With move: address to listen on.")] = "127.0.0.1",
    calling_aet: CallingAet = "LYMPHCAD",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    timeout: Timeout = 30.0,
    json_output: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Fetch a study from a PACS into a folder; what is there already is left as it is."""
    import json
    import re

    from rich.console import Console
    from rich.progress import Progress

    from lymphcad.errors import CommandError, InterruptedByUser
    from lymphcad_client.pacs.address import DicomPeer, Speech, parse_peer
    from lymphcad_client.pacs.fetching import MoveTo, fetch_get, fetch_move, fetch_web
    from lymphcad_client.pacs.receiving import hashed

    peer = parse_peer(source)
    speech = Speech(calling_aet, tls_ca, tls_cert, tls_key, timeout)
    if not re.fullmatch(r"[0-9.]{1,64}", study):
        raise CommandError("what --study gives is no UID: it has digits and dots, 64 at most")
    if method == "move" and not isinstance(peer, DicomPeer):
        raise CommandError("--method move goes with dicom://: leave it out for DICOMweb")
    out = out or Path(f"study-{hashed(study)}")  # a UID can lead to a patient
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    _warn(peer, console)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"'{out}' cannot be made ({error.strerror}): name another folder with --out") from None
    count = 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Fetching", total=None)

        def advance(left: int) -> None:
            nonlocal count
            count += 1
            bar.update(task, total=count + left, completed=count)

        try:
            if not isinstance(peer, DicomPeer):
                found = fetch_web(peer, study, out, speech, advance)
            elif method == "get":
                found = fetch_get(peer, study, out, speech, advance)
            else:
                found = fetch_move(peer, study, out, speech, advance, MoveTo(calling_aet, move_port, bind))
        except KeyboardInterrupt:
            raise InterruptedByUser("stopped: the same command again fetches what is missing") from None
    if json_output:
        refused = dict(found.refused)
        summary = {"saved": found.saved, "present": found.present, "missing": found.missing, "refused": refused}
        typer.echo(json.dumps(summary))
    else:
        there = f", {found.present} were there already" if found.present else ""
        Console(highlight=False, soft_wrap=True).print(f"{found.saved} objects were saved in {out}{there}.")
    for code, number in found.refused.items():
        console.print(f"{number} objects were not saved, {code}")
    if found.missing:
        console.print(f"{found.missing} objects did not come: the same command again fetches what is missing")
    if not found.is_whole:
        raise typer.Exit(SOME_NOT_DONE)


def _warn(peer: "Peer", console: "Console") -> None:
    from lymphcad_client.pacs.address import WebPeer

    if isinstance(peer, WebPeer) and peer.is_open:
        console.print("Without TLS others on the network can read what is sent: https:// keeps it private.")
