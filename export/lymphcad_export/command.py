"""``lymphcad export`` and ``lymphcad evaluate``."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

Precision = Literal["fp32", "fp16", "int8"]  # as in lymphcad.bundle, whose import would slow `lymphcad --help`


class Part(str, Enum):
    """Of a table's own split."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


def export(
    run: Annotated[Path, typer.Argument(help="The folder that `lymphcad train` left.")],
    out: Annotated[Path, typer.Option(help="A new folder for the bundle.")],
    precision: Annotated[
        str, typer.Option(help="Of the CNN: fp32, fp16, int8, or some of them with commas.")
    ] = "fp16,int8",
    name: Annotated[str | None, typer.Option(help="Of the bundle; the folder's name if not given.")] = None,
    card: Annotated[Path | None, typer.Option(help="A model card that goes into it, Markdown.")] = None,
    licence: Annotated[
        Path | None, typer.Option("--license", help="Of the weights; this project's if not given.")
    ] = None,
    calibrate_on: Annotated[Path | None, typer.Option(help="Another cohort's table to calibrate on.")] = None,
    images: Annotated[list[Path] | None, typer.Option(help="Where that table's SOP Instance UIDs lie.")] = None,
    sign: Annotated[Path | None, typer.Option(help="Private key (Ed25519, PEM) that signs it.")] = None,
) -> None:
    """Export a trained network as a bundle, if each precision agrees with torch."""
    from rich.console import Console

    from lymphcad_export.run import Wanted, export_run

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    wanted = Wanted(
        _precisions(precision), out.name if name is None else name, card, licence, calibrate_on, images or [], sign
    )
    bundle = export_run(run, out, wanted, console.print)
    megabytes = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    console.print(f"{bundle.label}, {megabytes:.1f} MB, is in {out}.")


def _precisions(text: str) -> tuple[Precision, ...]:
    from lymphcad.bundle import PRECISIONS
    from lymphcad.errors import CommandError

    given = text.split(",")
    found = tuple(precision for precision in PRECISIONS if precision in given)
    if len(found) != len(given):
        raise CommandError(f"--precision {text}: fp32, fp16 and int8 are known, each once: separate them with commas")
    return found


def evaluate(
    cohort: Annotated[Path, typer.Argument(help="Table: image,row,col,label,patient[,lesion,diameter_mm,split].")],
    result: Annotated[Path, typer.Option("--json", help="Where the figures go; probabilities go beside, as .csv.")],
    run: Annotated[Path | None, typer.Option(help="The folder that `lymphcad train` left.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A bundle's folder.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the bundle's CNN; else its own choice.")] = None,
    part: Annotated[Part | None, typer.Option(help="Of the table's own split; else all rows.")] = None,
    images: Annotated[list[Path] | None, typer.Option(help="Where the table's SOP Instance UIDs lie.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstraps.")] = 0,
) -> None:
    """Evaluate a run or a bundle on a cohort with labels."""
    import json

    from lymphcad_train.options import in_words
    from lymphcad_train.run import write_text
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from lymphcad.errors import CommandError
    from lymphcad_export.evaluate import Model, evaluate_cohort

    if (run is None) == (bundle is None):
        raise CommandError("one of --run and --bundle says what is evaluated: give one of them")
    if run is not None and precision is not None:
        raise CommandError("a run is evaluated as it was trained, in float32: give --precision with --bundle")
    if not result.parent.is_dir() or result.suffix == ".csv":
        raise CommandError(f"--json '{result}' is no place for the figures: name a .json file in an existing folder")
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        found = evaluate_cohort(
            cohort,
            Model(run or bundle or Path(), precision),
            result,
            part=None if part is None else part.value,
            images=images or [],
            seed=seed,
            each=lambda count: progress.advance(progress.task_ids[-1], count),
            begin=lambda name, total: progress.add_task(name, total=total),
            warn=lambda said: console.print(said, markup=False),
        )
    write_text(result, json.dumps(found, indent=2, allow_nan=False) + "\n")
    console.print(f"{found['model']}: {in_words(found)}")
    if found.get("auroc_lesion") is not None:
        console.print(f"A lesion: AUROC {found['auroc_lesion']:.3f}")
    console.print(f"The figures are in {result}.")
