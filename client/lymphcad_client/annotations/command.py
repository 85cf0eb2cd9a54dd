"""``lymphcad nodes``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from lymphcad_client.annotations.find import FoundNodes

SOME_REFUSED = 3
PLAIN_LINE_S = 2.0


def nodes(
    study: Annotated[
        list[Path] | None, typer.Argument(help="Folders or files: a study's CT images and its annotation objects.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The table to write.")] = None,
    include_results: Annotated[
        bool, typer.Option("--include-results", help="Read LymphCAD's own result reports like others.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Write a table of the nodes that structured reports and presentation states of a study mark.

    `lymphcad score STUDY --nodes nodes.csv` takes it. What cannot be a node is listed with the reason.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from lymphcad.errors import CommandError, InterruptedByUser
    from lymphcad_client.annotations.find import find_nodes
    from lymphcad_client.annotations.table import write_nodes

    if not study:
        raise CommandError("no study was given: name the folder with its CT images and annotation objects")
    if out is None:
        raise CommandError("no table was named: name one with --out, such as --out nodes.csv")
    if out.is_dir() or not out.parent.is_dir():
        raise CommandError(f"'{out}' is a folder, or lies in one that does not exist: name a file with --out")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("Reading", total=None)
            plain = _plain_lines(console)

            def report(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)
                plain(done, total)

            found = find_nodes(study, include_results=include_results, report=report)
        _show_refused(console, found)
        _check_any(found)
        if found.nodes:
            write_nodes(out, found.nodes)
        else:
            out.unlink(missing_ok=True)  # of another run: somebody might take it for this study's
    except KeyboardInterrupt:
        raise InterruptedByUser("stopped; no table was written") from None
    if json_output:
        typer.echo(_json(found))
    else:
        _show_counts(Console(highlight=False, soft_wrap=True), found, out)
    if found.refused:
        raise typer.Exit(SOME_REFUSED)


def _plain_lines(console: "Console") -> "Callable[[int, int], None]":
    """Return what says every few seconds how far the reading is, where there is no bar."""
    from time import monotonic

    last = monotonic()

    def say(done: int, total: int) -> None:
        nonlocal last
        if not console.is_terminal and monotonic() - last >= PLAIN_LINE_S:
            last = monotonic()
            console.print(f"{done} of {total} files read")

    return say


def _check_any(found: "FoundNodes") -> None:
    from lymphcad.errors import CommandError

    if found.nodes or any(one.where.number for one in found.refused):
        return
    files = found.images + found.others + found.without + found.left_out + len(found.refused)
    own = f", {found.left_out} results of LymphCAD, see --include-results" if found.left_out else ""
    raise CommandError(
        f"no annotation was found in {files} files ({found.images} images{own}): structured reports (Enhanced,"
        " Comprehensive, Comprehensive 3D or Extensible SR) with points or contours, or Grayscale Softcopy Presentation"
        " States with graphics, were looked for: export the study with its annotations"
    )


def _show_refused(console: "Console", found: "FoundNodes") -> None:
    from rich.table import Table
    from rich.text import Text

    if not found.refused:
        return
    table = Table("refused", "why")
    for where, refusal in found.refused:
        table.add_row(Text(str(where), overflow="fold"), Text(str(refusal), overflow="fold"))
    console.print(table)


def _show_counts(console: "Console", found: "FoundNodes", out: Path) -> None:
    from lymphcad import RESEARCH_USE_ONLY

    written = f": {out}" if found.nodes else "; no table was written"
    console.print(f"{len(found.nodes)} nodes{written}", markup=False)
    for number, what in (
        (len(found.refused), "annotations or files refused"),
        (found.superseded, "annotations left out, for a newer object has their tracking UID"),
        (found.left_out, "result reports of LymphCAD left out (--include-results reads them)"),
        (found.without, "reports or presentation states without an annotation"),
        (found.others, "files that are neither images nor annotations"),
    ):
        if number:
            console.print(f"{number} {what}")
    console.print(f"{RESEARCH_USE_ONLY}.")


def _json(found: "FoundNodes") -> str:
    import json

    refused = [
        {
            "file": str(where.path),
            "annotation": where.number or None,
            "reason": refusal.reason.value,
            "sentence": str(refusal).partition(": ")[2],
        }
        for where, refusal in found.refused
    ]
    counts = {name: getattr(found, name) for name in ("superseded", "left_out", "without", "images", "others")}
    return json.dumps({"nodes": len(found.nodes), "refused": refused, **counts})
