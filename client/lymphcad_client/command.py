"""``lymphcad score``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lymphcad_client.options import (
    Audit,
    Bundled,
    Engines,
    Key,
    Metrics,
    Precision,
    RunnerName,
    Shadow,
    ShadowOut,
    TlsCa,
    TlsCert,
    TlsKey,
)

if TYPE_CHECKING:
    from lymphcad.tables import NodeRow

SOME_NOT_SCORED = 3


def score(
    images: Annotated[
        list[Path] | None, typer.Argument(help="CT files or folders; with --nodes, where its SOP Instance UIDs lie.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.csv and the overlays.")] = None,
    nodes: Annotated[Path | None, typer.Option(help="Table of nodes: image,row,col[,node].")] = None,
    node: Annotated[str | None, typer.Option(help="ROW,COL of one node in each image, pixels from 0.")] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(help="Address of a Triton server; several share the work.", show_default="grpc://127.0.0.1:8001"),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one request to a server may take.")] = 30.0,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds for which no server may answer before nodes fail.")
    ] = 120.0,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    bundle: Annotated[Path | None, typer.Option(help="Accept answers of this bundle only.")] = None,
    edge: Bundled = None,
    runner: RunnerName = "auto",
    precision: Precision = None,
    engines: Engines = None,
    key: Key = None,
    dask: Annotated[str | None, typer.Option(help="Address of a Dask scheduler whose workers read and score.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=0, max=256, help="Processes that read images; 0: this one.", show_default="by nodes and cores"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the journal in --out, if there is one.")] = False,
    formats: Annotated[
        str, typer.Option("--format", help="Tables that are written: csv, parquet, or both with a comma.")
    ] = "csv",
    dicom: Annotated[
        str | None,
        typer.Option(help="DICOM results: sr (report), sc (pictures), pm (heatmaps); several with commas."),
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Write a picture of each scored node.")] = True,
    audit: Audit = None,
    metrics: Metrics = None,
    shadow: Shadow = None,
    shadow_out: ShadowOut = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Score lymph nodes on CT images, on Triton servers or in this process.

    Each node has its row in results.csv, in order: scored, or refused with the reason. What was interrupted goes on
    with --resume.
    """
    import json
    from contextlib import ExitStack

    from rich.console import Console

    from lymphcad.errors import CommandError, InterruptedByUser
    from lymphcad.images import ImageFinder
    from lymphcad_client.journal import Journal
    from lymphcad_client.observing import Observing
    from lymphcad_client.opening import Choice
    from lymphcad_client.outputs import Asked, clear_outputs, write_outputs
    from lymphcad_client.overlay import Pictures
    from lymphcad_client.progress import progress
    from lymphcad_client.readers import open_readers
    from lymphcad_client.table import SHOWN, results_table
    from lymphcad_client.table_run import Stop, score_table
    from lymphcad_client.tls import tls_of

    if out is None:
        raise CommandError("no folder for the results was given: name one with --out")
    rows, base = _table(images or [], nodes, node)
    asked = Asked.parse(formats, dicom)
    finder = ImageFinder(base, images or [] if nodes is not None else [])
    console = Console(stderr=True)
    stop = Stop()
    servers = tuple(server or ())
    observing, tls = Observing(audit, metrics, shadow, shadow_out), tls_of(tls_ca, tls_cert, tls_key)
    observing.check()
    if observing and dask is not None:
        raise CommandError(
            "--audit, --metrics and --shadow see what this process scores, and with --dask others do: leave one out"
        )
    choice = Choice(servers, bundle, edge, runner, precision, engines, key, timeout, patience, tls)
    with ExitStack() as stack:
        scorer = observing.observe(choice.open(), tls)
        stack.callback(scorer.close)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"'{out}' cannot be made ({error.strerror}): name another folder with --out") from None
        made_for = {"bundle": scorer.digest, "overlays": overlays, "heatmaps": bool(asked.dicom)}
        journal = stack.enter_context(Journal(out, rows, made_for, resume=resume))
        clear_outputs(out, anew=not journal.done())
        readers = stack.enter_context(open_readers(finder, scorer, choice, len(rows), jobs=jobs, dask=dask))
        pictures = Pictures(out, scorer.manifest, readers.workers) if overlays else None
        if edge is not None or len(servers) > 1:
            console.print(scorer.about, highlight=False, soft_wrap=True, markup=False)
        stop.then(readers.wait_no_longer)
        try:
            with (
                stop.on_signals(),
                progress(console, "Scoring", "nodes", len(rows), len(journal.done())) as advance,
            ):
                score_table(rows, readers.score, journal, pictures, stop, lambda _: advance())
        except KeyboardInterrupt:
            pass  # the second Ctrl-C: the journal has what was finished before
        counts = journal.counts()
        if sum(counts.values()) < len(rows):
            raise InterruptedByUser(
                f"stopped after {sum(counts.values())} of {len(rows)} nodes, which are kept: the same command with"
                " --resume goes on"
            )
        without = write_outputs(journal, asked, finder, scorer, out, console)
        shown = [result for _, (_, result, _) in zip(range(SHOWN), journal.results(), strict=False)]
    if json_output:
        typer.echo(json.dumps({"n": len(rows), **counts}))
    else:
        results_table(Console(), shown, len(rows), out)
    if counts["scored"] < len(rows) or without:
        raise typer.Exit(SOME_NOT_SCORED)


def _table(images: list[Path], nodes: Path | None, node: str | None) -> tuple[list["NodeRow"], Path]:
    """Return the nodes to score, and the folder that their images' paths are relative to."""
    from lymphcad.errors import CommandError
    from lymphcad.images import list_images
    from lymphcad.tables import NodeRow, read_nodes

    if (nodes is None) == (node is None):
        raise CommandError("give the nodes either as a table (--nodes) or as one point (--node ROW,COL)")
    if nodes is not None:
        return read_nodes(nodes), nodes.parent
    row, col = _point(node or "")
    files = list_images(images)
    if not files:
        raise CommandError("no image was given: name files or folders before --node")
    return [NodeRow(line, str(file), row, col, str(line)) for line, file in enumerate(files, start=1)], Path()


def _point(text: str) -> tuple[float, float]:
    """Return row and column of ``ROW,COL``."""
    from lymphcad.errors import CommandError

    try:
        row, col = (float(part) for part in text.split(","))
    except ValueError:
        raise CommandError(f"'{text}' is not a point: write it as --node ROW,COL, pixels from 0") from None
    return row, col
