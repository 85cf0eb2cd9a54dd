"""``lymphcad repository``, ``lymphcad serve`` and ``lymphcad verify``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lymphcad.assets import DEMO_BUNDLE
from lymphcad_serve.target import Target

Precision = Literal["fp32", "fp16", "int8"]  # as in lymphcad.bundle, whose import would slow `lymphcad --help`
_KEY = "Public key (Ed25519, PEM) by whose owner the bundle must be signed."
_PRECISION = "Of the CNN, on a CPU; the bundle's own choice if not given."
_BF16 = "Compute the CNN's floating-point layers in bfloat16: faster where the CPU has it, less exact."


def repository(
    bundle: Annotated[Path, typer.Argument(help="The bundle to serve; with --pin, the repository.")],
    out: Annotated[Path | None, typer.Argument(help="A new folder; with --add, a repository.")] = None,
    target: Annotated[Target, typer.Option(help="The server that will load it.")] = Target.EMBEDDED,
    plan: Annotated[Path | None, typer.Option(help="For gpu: the TensorRT plan of the CNN.")] = None,
    precision: Annotated[Precision | None, typer.Option(help=_PRECISION)] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help=_BF16)] = False,
    key: Annotated[Path | None, typer.Option(help=_KEY)] = None,
    add: Annotated[bool, typer.Option("--add", help="Put it into OUT as its next version, beside the others.")] = False,
    pin: Annotated[int | None, typer.Option(min=1, help="Make this version of a repository the default.")] = None,
) -> None:
    """Write a complete Triton model repository from a bundle, or choose the version that a repository serves."""
    from lymphcad.bundle import Bundle
    from lymphcad.errors import CommandError
    from lymphcad_serve import versions
    from lymphcad_serve.repository import write_repository

    if pin is not None:
        if out is not None or add or plan is not None or precision is not None or bf16 or key is not None:
            raise CommandError("--pin changes a repository that is there: give its folder and nothing else")
        versions.pin(bundle, pin)
        typer.echo(f"tritonserver --model-repository={bundle}")
        return
    if out is None:
        raise CommandError("no folder for the repository was given: name a new one after the bundle")
    version = write_repository(Bundle(bundle, key), out, target, plan, precision=precision, bf16=bf16, add=add)
    typer.echo(f"tritonserver --model-repository={out}{f' --model-config-name=v{version}' if add else ''}")


def serve(
    bundle: Annotated[Path, typer.Option(help="The bundle to serve.", show_default="the demo bundle")] = DEMO_BUNDLE,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC, on loopback.")] = 8001,
    http_port: Annotated[int, typer.Option(help="Port of HTTP, on loopback.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="Port of the metrics, on loopback.")] = 8002,
    precision: Annotated[Precision | None, typer.Option(help=_PRECISION)] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help=_BF16)] = False,
    key: Annotated[Path | None, typer.Option(help=_KEY)] = None,
) -> None:
    """Start Triton on this machine's loopback with a bundle; Ctrl-C stops it."""
    import signal
    import tempfile
    import time

    from rich.console import Console

    from lymphcad import RESEARCH_USE_ONLY
    from lymphcad.bundle import Bundle
    from lymphcad.errors import Reason, ServerError
    from lymphcad_serve.repository import write_repository
    from lymphcad_serve.server import Ports, Server

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts its background jobs with SIGINT ignored
        signal.signal(number, stop)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    served = Bundle(bundle, key)
    with tempfile.TemporaryDirectory(prefix="lymphcad-repository-") as folder:
        models = Path(folder) / "models"
        write_repository(served, models, Target.EMBEDDED, precision=precision, bf16=bf16)
        try:
            with console.status("Starting tritonserver"):
                server = Server(models, Ports(grpc_port, http_port, metrics_port))
            with server:
                console.print(f"{served.label} is ready at {server.address}. {RESEARCH_USE_ONLY}. Ctrl-C stops it.")
                while server.poll() is None:
                    time.sleep(0.2)
                raise ServerError(Reason.SERVER_AWAY, "tritonserver stopped by itself: start it again")
        except KeyboardInterrupt:
            console.print("Stopped.")


def verify(
    path: Annotated[Path, typer.Argument(help="A bundle, or a repository made of one.")],
    key: Annotated[Path | None, typer.Option(help=_KEY)] = None,
    server: Annotated[str | None, typer.Option(help="Also have this server (grpc://host:port) score them.")] = None,
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
            from lymphcad_serve.verify_served import verify_server

            found = replace(found, golden=(*found.golden, verify_server(Bundle(path), server)))
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
