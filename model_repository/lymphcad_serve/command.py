"""``lymphcad repository``, ``lymphcad serve`` and ``lymphcad verify``."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from lymphcad_client.options import TlsCa, TlsCert, TlsKey

from lymphcad_serve.target import Target

Precision = Literal["fp32", "fp16", "int8"]  # as in lymphcad.bundle, whose import would slow `lymphcad --help`
_READY_S = 600.0
"""A GPU's libraries and a large plan take minutes to load on a cold node."""
_KEY = "Public key (Ed25519, PEM) by whose owner the bundle must be signed."
_PRECISION = "Of the CNN, on a CPU; the bundle's own choice if not given."
_BF16 = "Compute the CNN's floating-point layers in bfloat16: faster where the CPU has it, less exact."


def repository(
    bundle: Annotated[Path, typer.Argument(help="The bundle to serve.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    target: Annotated[Target, typer.Option(help="The server that will load it.")] = Target.EMBEDDED,
    plan: Annotated[Path | None, typer.Option(help="For gpu: the TensorRT plan of the CNN.")] = None,
    precision: Annotated[Precision | None, typer.Option(help=_PRECISION)] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help=_BF16)] = False,
    key: Annotated[Path | None, typer.Option(help=_KEY)] = None,
) -> None:
    """Write a complete Triton model repository from a bundle."""
    from lymphcad.bundle import Bundle
    from lymphcad_serve.repository import write_repository

    write_repository(Bundle(bundle, key), out, target, plan, precision=precision, bf16=bf16)
    typer.echo(f"tritonserver --model-repository={out}")


def serve(
    bundle: Annotated[Path | None, typer.Option(help="The bundle to serve.", show_default="the demo bundle")] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Serve this repository, which `lymphcad repository` wrote, as it is.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--model-version", min=1, help="With --repository: another version than its default.")
    ] = None,
    target: Annotated[Target, typer.Option(help="With a bundle: the kind of server that tritonserver is.")] = (
        Target.EMBEDDED
    ),
    plan: Annotated[Path | None, typer.Option(help="For gpu: the TensorRT plan of the CNN.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on for requests.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC.")] = 8001,
    metrics_host: Annotated[str, typer.Option(help="Address for the metrics, which are plain text.")] = "127.0.0.1",
    metrics_port: Annotated[int, typer.Option(help="Port of the metrics.")] = 8002,
    http_port: Annotated[
        int | None, typer.Option(help="Port of HTTP, plain text and without the client's checks.", show_default="off")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="The server's certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option("--tls-ca", help="Who signs the certificates of clients, which all need one (PEM).")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody ask who reaches the address, in plain text.")
    ] = False,
    precision: Annotated[Precision | None, typer.Option(help=_PRECISION)] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help=_BF16)] = False,
    key: Annotated[Path | None, typer.Option(help=_KEY)] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="File that is there while the server is ready: golden inputs match, model up.")
    ] = None,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds for which it answers on after it was asked to stop.")
    ] = 0.0,
    log: Annotated[bool, typer.Option("--log", help="Pass tritonserver's log on to standard error.")] = False,
) -> None:
    """Start Triton with a bundle, on loopback or with mutual TLS; Ctrl-C or SIGTERM stops it."""
    import tempfile
    from contextlib import ExitStack

    from rich.console import Console

    from lymphcad import RESEARCH_USE_ONLY
    from lymphcad.assets import DEMO_BUNDLE
    from lymphcad.bundle import Bundle
    from lymphcad.errors import CommandError
    from lymphcad_serve.certificates import ServerTls
    from lymphcad_serve.repository import write_repository
    from lymphcad_serve.server import Listening, Ports, Server
    from lymphcad_serve.supervise import ReadyFile, Stopping, passing_on, watch_over
    from lymphcad_serve.verify_served import verify_server

    if repository is not None and (plan is not None or precision is not None or bf16 or target is not Target.EMBEDDED):
        raise CommandError(
            "--target, --plan, --precision and --bf16 say how a repository is written, and --repository names one that"
            " is: leave them out"
        )
    if repository is None and version is not None:
        raise CommandError("--model-version chooses among those of a --repository: name one")
    if repository is not None and key is not None and bundle is None:
        raise CommandError("--key is for a bundle: name the one that the repository was written from with --bundle")
    files = [file for file in (tls_cert, tls_key, tls_ca) if file is not None]
    if len(files) not in (0, 3):
        raise CommandError("--tls-cert, --tls-key and --tls-ca go together: give all three")
    tls = ServerTls(tls_cert, tls_key, tls_ca) if tls_cert and tls_key and tls_ca else None
    listening = Listening(host, metrics_host, tls)
    if listening.on_network and tls is None and not insecure:
        raise CommandError(
            f"'{host}' can be reached from other machines, and everybody there could ask: give --tls-cert, --tls-key"
            " and --tls-ca, or allow it with --insecure"
        )
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    ready, stopping = ReadyFile(ready_file), Stopping()
    served = None if repository is not None and bundle is None else Bundle(bundle or DEMO_BUNDLE, key)
    with ExitStack() as stack:
        stack.enter_context(stopping.on_signals())
        models = repository
        if models is None and served is not None:
            models = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lymphcad-repository-"))) / "models"
            write_repository(served, models, target, plan, precision=precision, bf16=bf16)
        if models is None:
            raise CommandError("nothing to serve was named: give --bundle or --repository")
        with console.status("Starting tritonserver"):
            server = stack.enter_context(
                Server(models, Ports(grpc_port, metrics_port, http_port), _READY_S, listening, version, stopping.asked)
            )
        if log:
            stack.enter_context(passing_on(server.log_file))
        if served is not None and not stopping.asked.is_set():
            verify_server(served, server.address, server.tls)
        label = str(models) if served is None else served.label
        console.print(f"{label} is ready at {server.address}. {RESEARCH_USE_ONLY}. Ctrl-C stops it.")
        watch_over(server, ready, drain, stopping)
    console.print("Stopped.")


def verify(
    path: Annotated[Path, typer.Argument(help="A bundle, or a repository made of one.")],
    key: Annotated[Path | None, typer.Option(help=_KEY)] = None,
    server: Annotated[str | None, typer.Option(help="Also have this server (grpc://host:port) score them.")] = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print what holds as JSON.")] = False,
) -> None:
    """Check digests and signature, and score the golden inputs again; exit code 4 if something does not hold."""
    import json
    from dataclasses import asdict, replace

    from rich.console import Console

    from lymphcad import RESEARCH_USE_ONLY
    from lymphcad.bundle import Bundle
    from lymphcad.errors import BundleError, CommandError, ProofError
    from lymphcad_serve.target import ENSEMBLE
    from lymphcad_serve.verify import verify_bundle

    is_repository = (path / ENSEMBLE).is_dir()
    if is_repository and (key is not None or server is not None):
        raise CommandError("--key and --server go with a bundle: name the one that the repository was written from")
    try:
        if is_repository:
            from lymphcad_serve.verify_served import verify_repository

            found = verify_repository(path)
        else:
            found = verify_bundle(path, key)
        if server is not None:
            from lymphcad_client.tls import tls_of

            from lymphcad_serve.verify_served import verify_server

            tls = tls_of(tls_ca, tls_cert, tls_key)
            found = replace(found, golden=(*found.golden, verify_server(Bundle(path), server, tls)))
    except BundleError as error:
        raise ProofError(str(error)) from None
    if json_output:
        typer.echo(json.dumps(asdict(found)))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{found.label}: {found.files} files are as they were made.", markup=False)
    console.print(f"The golden inputs give what they gave: {', '.join(found.golden) or 'none could be run here'}.")
    for name, (then, here) in found.versions.items():
        if here not in (then, None):
            console.print(f"Made with {name} {then}; here is {here}.")
    console.print(f"{RESEARCH_USE_ONLY}.")
