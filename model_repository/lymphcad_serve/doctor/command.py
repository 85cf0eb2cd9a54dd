"""``lymphcad doctor``."""

from pathlib import Path
from typing import Annotated

import typer
from lymphcad_client.options import TlsCa, TlsCert, TlsKey

from lymphcad_serve.target import Target

_KEY = "Public key (Ed25519, PEM) by whose owner the bundle must be signed."


def doctor(
    bundle: Annotated[Path | None, typer.Option(help="Check this bundle, and that the servers serve it.")] = None,
    key: Annotated[Path | None, typer.Option(help=_KEY)] = None,
    repository: Annotated[Path | None, typer.Option(help="Check what `lymphcad repository` wrote.")] = None,
    plan: Annotated[Path | None, typer.Option(help="Check a TensorRT plan of the bundle.")] = None,
    target: Annotated[
        Target | None,
        typer.Option(
            help="The server that this machine is for.", show_default="embedded, unless --server is another machine's"
        ),
    ] = None,
    server: Annotated[
        list[str] | None, typer.Option(help="Check this server (grpc://host:port or grpcs://); again for more.")
    ] = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Must be free, without --server.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="Must be free, without --server.")] = 8002,
    json_output: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Look at machine, bundle, repository and servers, a line each, and say what to do; exit code 4 if one fails."""
    import json
    from dataclasses import asdict

    from lymphcad_client.tls import tls_of
    from rich.console import Console

    from lymphcad.cli import PROOF_FAILED
    from lymphcad.errors import CommandError
    from lymphcad_serve.doctor.check import Status
    from lymphcad_serve.doctor.examine import Examined, examine

    servers, tls = tuple(server or ()), tls_of(tls_ca, tls_cert, tls_key)
    if tls is not None and not any(address.startswith("grpcs://") for address in servers):
        raise CommandError("the certificates go with a server with TLS: name it with --server grpcs://host:port")
    ports = (("grpc", grpc_port), ("metrics", metrics_port))
    what = Examined(bundle, key, repository, plan, target, servers, tls, ports)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    checks = []
    with console.status("Looking"):
        for check in examine(what):
            checks.append(check)
            if not json_output:
                typer.echo(check.line())
    counts = {status.value: sum(check.status is status for check in checks) for status in Status}
    if json_output:
        typer.echo(json.dumps({"checks": [asdict(check) for check in checks], "counts": counts}))
    else:
        typer.echo(", ".join(f"{count} {name}" for name, count in counts.items()))
    if counts[Status.FAIL.value]:
        raise typer.Exit(PROOF_FAILED)
