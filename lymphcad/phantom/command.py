"""``lymphcad phantom``."""

from pathlib import Path
from typing import Annotated

import typer


def phantom(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    patients: Annotated[int, typer.Option(help="How many patients.")] = 202,
    images: Annotated[int, typer.Option(help="How many images, one node in each.")] = 995,
    seed: Annotated[int, typer.Option(help="The same seed makes the same cohort.")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="Print what is known of the cohort as JSON.")] = False,
) -> None:
    """Write a made cohort (CT files, cohort.csv) whose best possible AUROC is known."""
    import json
    import os

    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from lymphcad import RESEARCH_USE_ONLY
    from lymphcad.phantom.cohort import write_cohort

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Writing", total=images)
        workers = min(os.cpu_count() or 1, patients)
        known = write_cohort(
            out, patients, images, seed, workers=workers, advance=lambda count: progress.advance(task, count)
        )
    if json_output:
        typer.echo(json.dumps(known))
        return
    typer.echo(
        f"{known['images']} images of {patients} patients ({known['benign']} benign, {known['metastatic']} metastatic):"
        f" {out / 'cohort.csv'}"
    )
    typer.echo(
        f"All signs together reach an AUROC of {known['bayes_auroc']:.3f}, size alone {known['size_auroc']:.3f}."
    )
    typer.echo(f"{RESEARCH_USE_ONLY}.")
