"""``lymphcad watch``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lymphcad_client.command import SOME_NOT_SCORED
from lymphcad_client.options import Engines, Key, Precision, RunnerName

if TYPE_CHECKING:
    from lymphcad_client.watch.watcher import Event

_WHY = {
    "no_table": "there is no nodes.csv, or it may not be read",
    "bad_table": "nodes.csv cannot be used, REFUSED.txt beside it says why",
    "none_scored": "not one node could be scored, results.csv says why",
}


def watch(
    inbox: Annotated[
        Path, typer.Argument(help="Folder that studies are dropped into, each a folder with a nodes.csv.")
    ],
    edge: Annotated[Path, typer.Option("--edge", help="Score in this process with this bundle.")],
    out: Annotated[Path, typer.Option(help="Folder for the results, one folder for each study.")],
    runner: RunnerName = "auto",
    precision: Precision = None,
    engines: Engines = None,
    key: Key = None,
    settle: Annotated[float, typer.Option(min=0, help="Seconds for which a study must not have changed.")] = 5.0,
    overlays: Annotated[bool, typer.Option(help="Write a picture of each scored node.")] = True,
    once: Annotated[bool, typer.Option("--once", help="End when what is there now is done.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each study.")] = False,
) -> None:
    """Score each study that is dropped into a folder, once.

    A study that was scored goes to done in the folder, one that cannot be to refused, with the reason.
    """
    import signal

    from rich.console import Console

    from lymphcad import RESEARCH_USE_ONLY
    from lymphcad.errors import CommandError, InterruptedByUser
    from lymphcad_client.opening import open_scorer
    from lymphcad_client.watch.files import alone_in, check_apart
    from lymphcad_client.watch.inbox import Inbox
    from lymphcad_client.watch.outbox import Outbox
    from lymphcad_client.watch.watcher import Watcher

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    events = moved = 0
    all_scored = True

    def report(event: "Event") -> None:
        nonlocal events, moved, all_scored
        events += 1
        console.print(_line(events, event))
        if event.verdict is not None:
            all_scored = all_scored and event.status == "done" and not (event.verdict.refused or event.verdict.failed)
        if event.status in ("done", "refused"):
            moved += 1
            if json_output:
                typer.echo(_json(event))

    check_apart(inbox, out)
    studies = Inbox(inbox)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"'{out}' cannot be made ({error.strerror}): name another folder with --out") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service is stopped like a person's job
    try:
        with alone_in(inbox), alone_in(out):
            results = Outbox(out)
            with open_scorer(edge=edge, runner=runner, precision=precision, engines=engines, key=key) as scorer:
                console.print(scorer.about)
                console.print(f"Watching. {RESEARCH_USE_ONLY}.")
                Watcher(studies, results, scorer, report, settle=settle, overlays=overlays).run(once=once)
    except (KeyboardInterrupt, InterruptedByUser):
        raise InterruptedByUser(
            f"stopped after {moved} {'study' if moved == 1 else 'studies'}; what was not finished is still in the inbox"
        ) from None
    if not all_scored:
        raise typer.Exit(SOME_NOT_SCORED)


def _line(number: int, event: "Event") -> str:
    """Return what is said of a study: a number and a part of its fingerprint, for its name can hold patient data."""
    start = f"study {number} {event.fingerprint[:8]}:"
    verdict = event.verdict
    if verdict is None:
        return f"{start} it changed while it was looked at, so it waits until it has settled again"
    if event.status == "held":
        return (
            f"{start} it cannot be moved to {verdict.status} ({event.why}), which is tried until it can: let this user"
            " write to its folder"
        )
    why = f", {verdict.reason}: {_WHY[verdict.reason]}" if verdict.reason else ""
    if verdict.scored + verdict.refused + verdict.failed:
        why += f", {verdict.scored} scored, {verdict.refused} refused, {verdict.failed} failed"
    when = "; its results were there before" if verdict.already else f" in {event.seconds:.1f} s"
    return f"{start} {verdict.status}{why}{when}"


def _json(event: "Event") -> str:
    import json
    from dataclasses import asdict

    verdict = {} if event.verdict is None else asdict(event.verdict)
    del verdict["sentence"]  # it can repeat a column's name
    return json.dumps({"fingerprint": event.fingerprint, **verdict, "seconds": round(event.seconds, 3)})
