"""``lymphcad train`` and ``lymphcad compare``."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lymphcad_train.options import BY_IMAGE, INTERRUPTED, Crop, command_of, in_words, make_settings, options_of


class SplitBy(str, Enum):
    """What is drawn for train, validation and test."""

    PATIENT = "patient"
    IMAGE = "image"


Cohort = Annotated[Path, typer.Argument(help="Table: image,row,col,label,patient[,lesion,diameter_mm,split].")]
Images = Annotated[list[Path] | None, typer.Option(help="Where the table's SOP Instance UIDs lie.")]
Size = Annotated[int | None, typer.Option(help="Side of the crop, pixels; else the network's own.")]
Progressive = Annotated[int, typer.Option(help="Its side in the first two thirds of the epochs; 0: --size.")]
FieldOfView = Annotated[float, typer.Option(help="Side of the crop, mm.")]
Level = Annotated[float, typer.Option(help="Middle of the window, HU.")]
Width = Annotated[float, typer.Option(help="Width of the window, HU.")]
Epochs = Annotated[int, typer.Option(help="How often each image is seen.")]
Patience = Annotated[int, typer.Option(help="Epochs without a better validation AUROC before it stops.")]
Batch = Annotated[int, typer.Option(help="Images in a step, of each process.")]
Rate = Annotated[float, typer.Option("--lr", help="Highest learning rate.")]
Focus = Annotated[float, typer.Option(help="How much evidence away from the node costs; 0: nothing.")]
Sensitivity = Annotated[float | None, typer.Option(help="To reach on validation; else Youden's index.")]
Mirrors = Annotated[bool, typer.Option("--mirrored", help="Score the crop mirrored too: better, four times the work.")]
Jobs = Annotated[int, typer.Option(min=1, help="Networks trained side by side; they share the cores.")]
By = Annotated[SplitBy, typer.Option(help="What is drawn for each part; image inflates every figure.")]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.")]


def train(
    cohort: Cohort,
    out: Annotated[Path, typer.Option(help="A new folder for the run.")],
    arch: Annotated[str, typer.Option(help="The network.")] = "resnet50",
    weights: Annotated[str, typer.Option(help="What it starts from: imagenet, none, or a file.")] = "imagenet",
    images: Images = None,
    size: Size = None,
    progressive: Progressive = 128,
    field_of_view_mm: FieldOfView = 40.0,
    window_level_hu: Level = 60.0,
    window_width_hu: Width = 400.0,
    epochs: Epochs = 40,
    patience: Patience = 10,
    batch: Batch = 16,
    lr: Rate = 1e-3,
    focus: Focus = 0.3,
    sensitivity: Sensitivity = None,
    mirrored: Mirrors = False,
    split_by: By = SplitBy.PATIENT,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the run's last epoch.")] = False,
) -> None:
    """Train a network on a cohort, choose on validation, and evaluate on test once."""
    from rich.console import Console

    from lymphcad_train.fit import train as fit
    from lymphcad_train.record import evaluate_test

    settings = make_settings(
        arch,
        weights,
        Crop(field_of_view_mm, window_level_hu, window_width_hu, size),
        progressive=progressive,
        epochs=epochs,
        patience=patience,
        batch=batch,
        lr=lr,
        focus=focus,
        split_by=split_by.value,
        sensitivity=sensitivity,
        mirrored=mirrored,
        seed=seed,
    )
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if split_by is SplitBy.IMAGE:
        console.print(BY_IMAGE)
    command = command_of(cohort, out, settings, weights)
    try:
        record = fit(
            cohort, out, settings, weights=weights, images=images or [], resume=resume, console=console, command=command
        )
    except SystemExit:  # what Lightning makes of Ctrl-C
        console.print("Interrupted: go on with --resume.")
        raise typer.Exit(INTERRUPTED) from None
    if record is None:  # not the first process of torchrun
        return
    for name, found in evaluate_test(out).metrics.items():
        console.print(f"{name}: {in_words(found)}")
    console.print(f"The run is in {out}.")


def compare(
    cohort: Cohort,
    out: Annotated[Path, typer.Option(help="A new folder for runs and report.")],
    of: Annotated[str, typer.Option(help="What the cohort is of, for the report.")] = "cervical lymph nodes",
    note: Annotated[list[str] | None, typer.Option(help="What a reader of the report must know of the cohort.")] = None,
    archs: Annotated[str, typer.Option(help="paper (eight), edge, all, or names with commas.")] = "paper",
    weights: Annotated[str, typer.Option(help="imagenet, none, or a folder of ARCH.safetensors files.")] = "imagenet",
    images: Images = None,
    size: Size = None,
    progressive: Progressive = 128,
    field_of_view_mm: FieldOfView = 40.0,
    window_level_hu: Level = 60.0,
    window_width_hu: Width = 400.0,
    epochs: Epochs = 40,
    patience: Patience = 10,
    batch: Batch = 16,
    lr: Rate = 1e-3,
    focus: Focus = 0.3,
    sensitivity: Sensitivity = None,
    mirrored: Mirrors = False,
    split_by: By = SplitBy.PATIENT,
    seed: Seed = 0,
    jobs: Jobs = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it was interrupted.")] = False,
) -> None:
    """Train several networks, choose one on validation, evaluate on test once, and write the report."""
    from rich.console import Console

    from lymphcad_train.compare import architectures, weights_of
    from lymphcad_train.compare import compare as run
    from lymphcad_train.comparison import Told

    names = architectures(archs)
    first = weights_of(weights, names)
    settings = {
        name: make_settings(
            name,
            first[name],
            Crop(field_of_view_mm, window_level_hu, window_width_hu, size),
            progressive=progressive,
            epochs=epochs,
            patience=patience,
            batch=batch,
            lr=lr,
            focus=focus,
            split_by=split_by.value,
            sensitivity=sensitivity,
            mirrored=mirrored,
            seed=seed,
        )
        for name in names
    }
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if split_by is SplitBy.IMAGE:
        console.print(BY_IMAGE)
    own_size = "" if size is None else f" --size {size}"
    command = (
        f"lymphcad compare {cohort.name} --out {out.name} --archs {archs} --weights {Path(weights).name}{own_size}"
        f" {options_of(settings[names[0]])}"
    )
    try:
        found = run(
            cohort,
            out,
            settings,
            weights=first,
            images=images or [],
            resume=resume,
            at_once=jobs,
            console=console,
            told=Told(command, of, note or []),
        )
    except (SystemExit, KeyboardInterrupt):  # the first is what Lightning makes of Ctrl-C
        console.print("Interrupted: go on with --resume.")
        raise typer.Exit(INTERRUPTED) from None
    for network in found["networks"]:
        mark = " (selected)" if network["architecture"] == found["selected"] else ""
        said = network["failed"] or f"test: {in_words(network['test'])}"
        console.print(f"{network['architecture']}{mark}: {said}", markup=False)
    console.print(f"The report is {out / 'report.html'}.")
