"""``lymphcad shadow``."""

from pathlib import Path
from typing import Annotated

import typer

NOTHING_COMPARED = 3


def shadow(
    files: Annotated[list[Path], typer.Argument(help="Files that were given with --shadow-out, of the same bundles.")],
    out: Annotated[Path | None, typer.Option(help="File for the report, in Markdown.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, not the report.")] = False,
) -> None:
    """Compare what two bundles answered on the same nodes: flips of the call, differences, distributions."""
    import json

    from rich.console import Console

    from lymphcad.errors import CommandError
    from lymphcad_client.progress import progress
    from lymphcad_client.shadow.comparison import compared, count_lines, read_pairs
    from lymphcad_client.shadow.report import report

    with progress(Console(stderr=True), "Reading", "lines", count_lines(files)) as advance:
        pairs = read_pairs(files, advance)
    figures = compared(pairs)
    text = report(figures)
    if out is not None:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"'{out}' cannot be written ({error.strerror}): name another file with --out") from None
    typer.echo(json.dumps(figures) if json_output else text, nl=json_output)
    if not figures["n"]:
        raise typer.Exit(NOTHING_COMPARED)
