"""``lymphcad demo``: a phantom study through a real server, or without one, from nothing to pictures."""

from pathlib import Path
from typing import Annotated

import typer

_SEED = 20260101
_PATIENTS, _IMAGES = 2, 8


def demo(
    out: Annotated[Path, typer.Option(help="A new folder.")] = Path("demo-out"),
    bundle: Annotated[Path | None, typer.Option(help="The bundle to serve; the demo bundle without it.")] = None,
) -> None:
    """Make a sample study, start Triton, score the study, and stop the server; where none can run, score without."""
    import os
    import tempfile

    from lymphcad_client.command import score
    from rich.console import Console

    from lymphcad.assets import DEMO_BUNDLE
    from lymphcad.bundle import Bundle
    from lymphcad.errors import CommandError
    from lymphcad.phantom.cohort import write_cohort
    from lymphcad_serve.tritonserver import check_server

    served = Bundle(bundle or DEMO_BUNDLE)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    study = out / "study"
    with console.status("Making a sample study"):
        # Another seed than the cohort that the demo bundle learned from, so other patients.
        write_cohort(study, _PATIENTS, _IMAGES, _SEED, workers=min(os.cpu_count() or 1, _PATIENTS), advance=_ignore)
    table = study / "cohort.csv"
    try:
        check_server()
    except CommandError as error:
        console.print(
            f"No Triton server can run on this machine ({error}): the edge variant scores without one.", markup=False
        )
        score(images=[], out=out, nodes=table, edge=served.path)
    else:
        from lymphcad_serve.repository import Target, write_repository
        from lymphcad_serve.server import Server, free_ports

        with tempfile.TemporaryDirectory(prefix="lymphcad-repository-") as folder:
            models = Path(folder) / "models"
            write_repository(served, models, Target.EMBEDDED)
            with console.status("Starting tritonserver"):
                server = Server(models, free_ports())
            with server:
                console.print(f"tritonserver is ready at {server.address}, serving {served.label}.")
                score(images=[], out=out, nodes=table, server=[server.address], bundle=served.path)
        console.print("The server has stopped.")
    console.print(f"Pictures: {out / 'overlays'}. What the nodes really are: {table}.")


def _ignore(_: int) -> None:
    """Show no progress: eight images take a second."""
