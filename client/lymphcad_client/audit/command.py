"""``lymphcad audit``."""

from pathlib import Path
from typing import Annotated

import typer

DOES_NOT_HOLD = 4

audit = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

_Trail = Annotated[Path, typer.Argument(help="File that was given with --audit, or its folder.", metavar="TRAIL")]
_Json = Annotated[bool, typer.Option("--json", help="Print a line of JSON for each trail.")]


@audit.callback()
def _root() -> None:
    """Verify an audit trail, or look up a person in it."""


@audit.command()
def verify(
    trail: _Trail,
    key: Annotated[Path | None, typer.Option(help="The trail's key.", show_default="TRAIL.key, if it is there")] = None,
    head: Annotated[
        str | None, typer.Option(help="Digest of the last line as it was written down earlier: it must be there.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Digest of the last line in older files that were moved elsewhere.")
    ] = None,
    json_output: _Json = False,
) -> None:
    """Find lines that were changed, removed, inserted or put in another order."""
    import re

    from rich.console import Console

    from lymphcad.errors import CommandError
    from lymphcad_client.audit.verify import trails_in
    from lymphcad_client.audit.verify import verify as verified

    for name, value in (("--head", head), ("--after", after)):
        if value is not None and not re.fullmatch("[0-9a-f]{64}", value):
            raise CommandError(f"{name} is no digest: give the 64 hexadecimal digits that an earlier verify printed")
    trails = trails_in(trail)
    if len(trails) > 1 and (head or after):
        raise CommandError("--head and --after belong to one trail, and the folder has several: name its file")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    holds = True
    for one in trails:
        verdict = verified(one, key=key, head=head, after=after)
        holds = holds and verdict.holds
        if json_output:
            typer.echo(verdict.to_json())
            continue
        held = "as they were written" if verdict.holds else "NOT as they were written"
        console.print(f"{verdict.trail}: {verdict.lines} lines in {verdict.parts} files, {held}.")
        if verdict.lines:
            counts = ", ".join(f"{count} {status}" for status, count in sorted(verdict.statuses.items()))
            console.print(f"  From {verdict.first} to {verdict.last}: {counts}.")
        for sentence in verdict.problems:
            console.print(f"  Problem: {sentence}.")
        if verdict.further:
            console.print(f"  And {verdict.further} problems more.")
        for sentence in verdict.notes:
            console.print(f"  Note: {sentence}.")
        if not verdict.keyed:
            console.print("  Note: without the key, a trail that was written anew as a whole goes unseen.")
        console.print(f"  Digest of the last line, to be written down elsewhere for --head: {verdict.head}")
    if not holds:
        raise typer.Exit(DOES_NOT_HOLD)


@audit.command()
def who(
    name: Annotated[str, typer.Argument(help="The person's name, as the system knows it.")],
    trail: _Trail,
    key: Annotated[Path | None, typer.Option(help="The trail's key.", show_default="TRAIL.key")] = None,
) -> None:
    """Print the lines of a person, who stands in them by a pseudonym."""
    from rich.console import Console

    from lymphcad.errors import CommandError
    from lymphcad_client.audit.head import read_head
    from lymphcad_client.audit.verify import key_for, lines_of, trails_in

    for one in trails_in(trail):
        the_key = key_for(one, key)
        if the_key is None:
            raise CommandError(f"the key of '{one}' is not beside it: name it with --key")
        read_head(one, the_key)  # raises if the key is another trail's
        count = 0
        for line in lines_of(one, the_key.pseudonym(name)):
            count += 1
            typer.echo(line)
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"{one.name}: {count} lines")
