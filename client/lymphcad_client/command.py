"""``lymphcad score``."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from lymphcad_client.options import Bundled, Engines, Key, Precision, RunnerName

SOME_NOT_SCORED = 3


def score(
    images: Annotated[
        list[Path] | None, typer.Argument(help="CT files or folders; with --nodes, where its SOP Instance UIDs lie.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.csv and the overlays.")] = None,
    nodes: Annotated[Path | None, typer.Option(help="Table of nodes: image,row,col[,node].")] = None,
    node: Annotated[str | None, typer.Option(help="ROW,COL of one node in each image, pixels from 0.")] = None,
    server: Annotated[
        str | None, typer.Option(help="Address of the Triton server.", show_default="grpc://127.0.0.1:8001")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Accept answers of this bundle only.")] = None,
    edge: Bundled = None,
    runner: RunnerName = "auto",
    precision: Precision = None,
    engines: Engines = None,
    key: Key = None,
    overlays: Annotated[bool, typer.Option(help="Write a picture of each scored node.")] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Score lymph nodes on CT images, on a Triton server or in this process.

    Each node has its row in results.csv, in order: scored, or refused with the reason.
    """
    import json
    import signal
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from lymphcad.errors import CommandError
    from lymphcad.images import ImageFinder, list_images
    from lymphcad.tables import NodeRow, read_nodes
    from lymphcad_client.batch import Result, score_nodes
    from lymphcad_client.opening import open_scorer
    from lymphcad_client.overlay import write_overlay
    from lymphcad_client.results import write_results
    from lymphcad_client.table import SHOWN, results_table

    if out is None:
        raise CommandError("no folder for the results was given: name one with --out")
    if (nodes is None) == (node is None):
        raise CommandError("give the nodes either as a table (--nodes) or as one point (--node ROW,COL)")
    if nodes is not None:
        rows = read_nodes(nodes)
        finder = ImageFinder(nodes.parent, images or [])
    else:
        row, col = _point(node or "")
        files = list_images(images or [])
        if not files:
            raise CommandError("no image was given: name files or folders before --node")
        rows = [NodeRow(line, str(file), row, col, str(line)) for line, file in enumerate(files, start=1)]
        finder = ImageFinder(Path(), [])
    # A job that a scheduler stops ends like one that a person does: shared memory is given back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=True)
    shown: list[Result] = []
    counts: Counter[str] = Counter()
    with open_scorer(
        server=server, bundle=bundle, edge=edge, runner=runner, precision=precision, engines=engines, key=key
    ) as scorer:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"'{out}' cannot be made ({error.strerror}): name another folder with --out") from None
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("Scoring", total=len(rows))

            def count(result: Result) -> None:
                counts[result.status] += 1
                progress.advance(task)
                if len(shown) < SHOWN:
                    shown.append(replace(result, ct=None))  # the table does not need the image

            def draw(result: Result, number: int) -> str:
                return write_overlay(result, number, out, scorer.manifest)

            write_results(score_nodes(rows, finder, scorer), out, draw if overlays else None, count)
        if edge is not None:
            console.print(scorer.about, highlight=False, soft_wrap=True, markup=False)
    if json_output:
        typer.echo(json.dumps({"n": len(rows), **{s: counts[s] for s in ("scored", "refused", "failed")}}))
    else:
        results_table(Console(), shown, len(rows), out)
    if counts["scored"] < len(rows):
        raise typer.Exit(SOME_NOT_SCORED)


def _point(text: str) -> tuple[float, float]:
    """Return row and column of ``ROW,COL``."""
    from lymphcad.errors import CommandError

    try:
        row, col = (float(part) for part in text.split(","))
    except ValueError:
        raise CommandError(f"'{text}' is not a point: write it as --node ROW,COL, pixels from 0") from None
    return row, col
