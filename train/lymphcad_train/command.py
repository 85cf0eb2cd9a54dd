"""``lymphcad train``."""

from pathlib import Path
from typing import Annotated

import typer

INTERRUPTED = 130


def train(
    cohort: Annotated[Path, typer.Argument(help="Table: image,row,col,label,patient[,diameter_mm,split].")],
    out: Annotated[Path, typer.Option(help="A new folder for the run.")],
    arch: Annotated[str, typer.Option(help="The network.")] = "resnet50",
    weights: Annotated[str, typer.Option(help="What it starts from: imagenet, none, or a file.")] = "imagenet",
    images: Annotated[list[Path] | None, typer.Option(help="Where the table's SOP Instance UIDs lie.")] = None,
    size: Annotated[int, typer.Option(help="Side of the crop, pixels.")] = 224,
    progressive: Annotated[int, typer.Option(help="Its side in the first two thirds of the epochs; 0: --size.")] = 128,
    field_of_view_mm: Annotated[float, typer.Option(help="Side of the crop, mm.")] = 40.0,
    window_level_hu: Annotated[float, typer.Option(help="Middle of the window, HU.")] = 60.0,
    window_width_hu: Annotated[float, typer.Option(help="Width of the window, HU.")] = 400.0,
    epochs: Annotated[int, typer.Option(help="How often each image is seen.")] = 40,
    patience: Annotated[int, typer.Option(help="Epochs without a better validation AUROC before it stops.")] = 10,
    batch: Annotated[int, typer.Option(help="Images in a step.")] = 16,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the run's last epoch.")] = False,
) -> None:
    """Train a network on a cohort, choose on validation, and evaluate on test once."""
    from pydantic import ValidationError
    from rich.console import Console

    from lymphcad.bundle import Preprocess
    from lymphcad.errors import CommandError
    from lymphcad_train.fit import train as fit
    from lymphcad_train.settings import Settings
    from lymphcad_train.weights import describe

    try:
        preprocess = Preprocess(
            field_of_view_mm=field_of_view_mm,
            window_level_hu=window_level_hu,
            window_width_hu=window_width_hu,
            size=size,
        )
        settings = Settings(
            architecture=arch,
            weights=describe(weights),
            preprocess=preprocess,
            progressive=progressive,
            epochs=epochs,
            patience=patience,
            batch=batch,
            lr=lr,
            seed=seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][-1]).replace("_", "-")
        raise CommandError(f"--{option}: {first['msg']}, and {first['input']} was given") from None
    command = (
        f"lymphcad train {cohort.name} --out {out.name} --arch {arch} --weights {Path(weights).name} --size {size}"
        f" --progressive {progressive} --field-of-view-mm {field_of_view_mm:g} --window-level-hu {window_level_hu:g}"
        f" --window-width-hu {window_width_hu:g} --epochs {epochs} --patience {patience} --batch {batch} --lr {lr:g}"
        f" --seed {seed}"
    )
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        metrics = fit(
            cohort, out, settings, weights=weights, images=images or [], resume=resume, console=console, command=command
        )
    except SystemExit:  # what Lightning makes of Ctrl-C
        console.print("Interrupted: go on with --resume.")
        raise typer.Exit(INTERRUPTED) from None
    for name, found in metrics.items():
        low, high = found["auroc_ci95"]
        console.print(
            f"{name}: {found['n']} images of {found['patients']} patients, AUROC {found['auroc']:.3f}"
            f" ({low:.3f} to {high:.3f}), sensitivity {found['sensitivity']:.3f}, specificity"
            f" {found['specificity']:.3f}, accuracy {found['accuracy']:.3f}"
        )
    console.print(f"The run is in {out}.")
