"""``lymphcad edge-pack``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

_EXTRAS = {"openvino": "edge", "onnxruntime": "edge-min"}
_KEY = "Public key (Ed25519, PEM) by whose owner the bundle must be signed."
_RUNNER = "What scores there: openvino is fast and brings onnxruntime too, onnxruntime alone is small."


def edge_pack(
    bundle: Annotated[Path, typer.Argument(help="The bundle to score with there.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="A new file.")],
    runner: Annotated[Literal["openvino", "onnxruntime"], typer.Option(help=_RUNNER)] = "openvino",
    key: Annotated[Path | None, typer.Option(help=_KEY)] = None,
) -> None:
    """Pack a bundle and all that scores with it into one zip, for a workstation without a network.

    It installs on the platform and the Python version that it was packed with.
    """
    import signal

    from rich.console import Console

    from lymphcad import RESEARCH_USE_ONLY
    from lymphcad.bundle import Bundle
    from lymphcad.errors import InterruptedByUser
    from lymphcad_client.pack.archive import write_pack

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with console.status("Checking the bundle") as status:
            packed = write_pack(Bundle(bundle, key), out, _EXTRAS[runner], status.update)
    except KeyboardInterrupt:
        raise InterruptedByUser(f"stopped, and '{out}' was not written") from None
    typer.echo(
        f"{out} has {packed.wheels} wheels and the bundle, {packed.size / 1e6:.0f} MB, for {packed.fits}. Carry it"
        f" there, unzip it, and run install.py with that Python. {RESEARCH_USE_ONLY}."
    )
