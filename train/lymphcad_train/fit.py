"""Train one network on a cohort, from the table to ``run.json``."""

from __future__ import annotations

import lymphcad_train.vision  # noqa: F401 - before lightning, which imports torchvision

# isort: split

import logging
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from lymphcad.bundle import sha256
from lymphcad.errors import CommandError
from lymphcad.images import ImageFinder
from lymphcad.tables import read_cohort
from lymphcad_train.augment import reach_mm
from lymphcad_train.cohort import load_windows, read_windows, save_windows
from lymphcad_train.data import Samples
from lymphcad_train.networks import CamNetwork
from lymphcad_train.record import make_record
from lymphcad_train.run import (
    LAST,
    PREDICTIONS,
    RUN,
    SETTINGS,
    SPLIT,
    WINDOWS,
    Started,
    check_resumable,
    write_json,
    write_rows,
)
from lymphcad_train.settings import DROP_PATH, Settings
from lymphcad_train.split import split_rows
from lymphcad_train.training import SELECTION, WEIGHTS, Training
from lymphcad_train.weights import NONE, load_weights, start_from

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from lymphcad.tables import CohortRow
    from lymphcad_train.cohort import Windows

_PACKAGES = ("lymphcad", "torch", "timm", "lightning", "scikit-learn")


def train(
    cohort: Path,
    out: Path,
    settings: Settings,
    *,
    weights: str,
    images: Sequence[Path],
    resume: bool,
    console: Console,
    command: str,
) -> dict[str, Any]:
    """Train, choose on validation, and evaluate on test once.

    Parameters
    ----------
    cohort
        The table.
    out
        The run's folder; made, unless `resume`.
    settings
        What is trained and how.
    weights
        ``none``, ``imagenet`` or a file.
    images
        Folders in which SOP Instance UIDs of the table are looked for.
    resume
        Go on after the last epoch of the run in `out`.
    console
        For the progress.
    command
        What is recorded as the command.

    Returns
    -------
    dict of str to Any
        The metrics on validation and on test.

    Raises
    ------
    CommandError
        Before the first epoch if the cohort, an image, the split or the weights cannot be used; later if the loss
        is not finite.
    """
    rows = read_cohort(cohort)
    started = Started(cohort_sha256=sha256(cohort), settings=settings)
    parts = split_rows(rows, settings.seed)
    in_training = parts.count("train")
    if in_training < settings.batch:
        raise CommandError(
            f"the training part has {in_training} images, and a batch takes {settings.batch}: give a smaller --batch"
        )
    if resume:
        check_resumable(out, started)
        windows = load_windows(out / WINDOWS)
    elif out.exists():
        raise CommandError(f"'{out}' exists: name a new folder with --out, or go on with --resume")
    torch.manual_seed(settings.seed)
    network = CamNetwork(settings.architecture, drop_path=DROP_PATH)
    checkpoint = out / LAST
    start_from(network, NONE if checkpoint.exists() else weights)
    if not resume:
        windows = _read(rows, ImageFinder(cohort.parent, images), settings, console)
        (out / LAST).parent.mkdir(parents=True)
        save_windows(out / WINDOWS, windows)
        write_rows(
            out / SPLIT,
            ("image", "patient", "label", "split"),
            ((row.image, row.patient, row.label, part) for row, part in zip(rows, parts, strict=True)),
        )
        write_json(out / SETTINGS, started)
    labels = [row.label for row in rows]
    of = {part: [n for n, found in enumerate(parts) if found == part] for part in ("train", "val")}
    samples = {part: Samples(windows, labels, numbers) for part, numbers in of.items()}
    module = Training(settings, network, samples["train"], samples["val"], out)
    _fit(module, settings, checkpoint if checkpoint.exists() else None, console)
    load_weights(network, out / WEIGHTS)
    with console.status("Evaluating"):
        made = make_record(network, windows, rows, parts, settings)
    write_rows(
        out / PREDICTIONS,
        ("image", "patient", "label", "split", "probability"),
        (
            (row.image, row.patient, row.label, part, f"{probability:.6f}")
            for row, part, probability in zip(rows, parts, made.probabilities, strict=True)
        ),
    )
    best = max((row["epoch"] for row in module.history if row["selected"]), default=0)
    record = made.record(
        started.cohort_sha256,
        command,
        {"epochs_run": len(module.history), "best_epoch": best},
        {name: version(name) for name in _PACKAGES},
        sha256(out / WEIGHTS),
    )
    write_json(out / RUN, record)
    return record.metrics


class _Report(Callback):
    """One line an epoch: on a terminal above the progress bar, and all there is where output goes to a file."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Print the epoch, and how long the rest takes: an epoch's time grows with the area of the crop."""
        del trainer
        row, settings = pl_module.history[-1], pl_module.settings
        left = sum(settings.size_of(epoch) ** 2 for epoch in range(row["epoch"], settings.epochs))
        minutes = row["seconds"] / row["size"] ** 2 * left / 60
        self._console.print(
            f"epoch {row['epoch']}/{settings.epochs} at {row['size']} px: loss {row['loss']:.3f}, validation AUROC"
            f" {row['val_auroc']:.3f}{' *' if row['selected'] else ''}, about {minutes:.0f} min left"
        )


def _read(rows: list[CohortRow], finder: ImageFinder, settings: Settings, console: Console) -> Windows:
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("Reading images", total=len(rows))
        reach = reach_mm(settings.preprocess.field_of_view_mm)
        return read_windows(rows, finder, settings.preprocess, reach, lambda: progress.advance(task))


def _fit(module: Training, settings: Settings, checkpoint: Path | None, console: Console) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning suggests worker processes; the windows lie in memory, and the crops are made where the network is.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*in eval mode at the start.*")  # the moving average
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # on resume
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        Trainer(
            accelerator="auto",
            devices=1,
            precision=_precision(),
            max_epochs=settings.epochs,
            logger=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=console.is_terminal,
            callbacks=[
                ModelCheckpoint((module.out / LAST).parent, filename="last", enable_version_counter=False),
                EarlyStopping(SELECTION, mode="max", patience=settings.patience, strict=False),
                _Report(console),
                *([RichProgressBar()] if console.is_terminal else []),
            ],
        ).fit(module, ckpt_path=checkpoint, weights_only=True)


def _precision() -> Any:
    """Return bfloat16 where the hardware multiplies it, else float32."""
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"
