"""``lymphcad export``."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

PROOF_FAILED = 4


class Precision(str, Enum):
    """Of the CNN."""

    FP32 = "fp32"
    INT8 = "int8"


def export(
    run: Annotated[Path, typer.Argument(help="The folder that `lymphcad train` left.")],
    out: Annotated[Path, typer.Option(help="A new folder for the bundle.")],
    precision: Annotated[Precision, typer.Option(help="Of the CNN.")] = Precision.FP32,
    name: Annotated[str | None, typer.Option(help="Of the bundle; the folder's name if not given.")] = None,
) -> None:
    """Export a trained network as a bundle, if it agrees with torch."""
    from rich.console import Console

    from lymphcad_export.parity import ParityError
    from lymphcad_export.run import export_run

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        bundle = export_run(run, out, precision.value, out.name if name is None else name, console.print)
    except ParityError as error:
        console.print(f"lymphcad: {error}", markup=False)
        raise typer.Exit(PROOF_FAILED) from None
    megabytes = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    console.print(f"{bundle.label}, {megabytes:.1f} MB, is in {out}.")
