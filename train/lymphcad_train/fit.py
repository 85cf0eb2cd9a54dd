"""Train one network on a cohort, from the table to ``run.json``, without a look at the test part."""

from __future__ import annotations

import lymphcad_train.vision  # noqa: F401 - before lightning, which imports torchvision

# isort: split

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from lymphcad.bundle import sha256
from lymphcad.errors import CommandError
from lymphcad.images import ImageFinder
from lymphcad.tables import read_cohort
from lymphcad_train.augment import reach_mm
from lymphcad_train.cohort import load_windows, read_windows, save_windows
from lymphcad_train.data import Samples
from lymphcad_train.launch import run_epochs
from lymphcad_train.networks import CamNetwork
from lymphcad_train.processes import rank, world_size
from lymphcad_train.record import make_record
from lymphcad_train.run import (
    LAST,
    RUN,
    SETTINGS,
    WINDOWS,
    RunRecord,
    Split,
    Started,
    check_resumable,
    read_record,
    write_json,
    write_split,
)
from lymphcad_train.settings import DROP_PATH, LABEL_SMOOTHING, Settings
from lymphcad_train.split import how_split, split_rows
from lymphcad_train.training import WEIGHTS, Training
from lymphcad_train.weights import NONE, load_weights, start_from

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
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
) -> RunRecord | None:
    """Train, and choose epoch, temperature and threshold on validation.

    Under torchrun, every process trains on its share of the images, and the first one writes the run.

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
    RunRecord or None
        The run; None in the other processes of torchrun.

    Raises
    ------
    CommandError
        Before the first epoch if the cohort, an image, the split or the weights cannot be used; later if the loss
        is not finite.
    """
    first = rank() == 0
    rows = read_cohort(cohort)
    started = Started(cohort_sha256=sha256(cohort), settings=settings)
    parts = split_rows(rows, settings.seed, settings.split_by)
    split = Split.of(rows, parts)
    step = settings.batch * world_size()
    if parts.count("train") < step:
        raise CommandError(
            f"the training part has {parts.count('train')} images, and a step takes {step}: give a smaller --batch"
        )
    if resume:
        check_resumable(out, started)
        if (out / RUN).exists():  # killed before test was evaluated
            return read_record(out) if first else None
        windows = load_windows(out / WINDOWS)
    elif first and out.exists():
        raise CommandError(f"'{out}' exists: name a new folder with --out, or go on with --resume")
    torch.manual_seed(settings.seed)
    network = CamNetwork(settings.architecture, drop_path=DROP_PATH)
    checkpoint = out / LAST if resume and (out / LAST).exists() else None
    start_from(network, weights if checkpoint is None else NONE)
    if not resume:
        windows = _read(rows, parts, ImageFinder(cohort.parent, images), settings, console)
    if first and not resume:
        (out / LAST).parent.mkdir(parents=True)
        save_windows(out / WINDOWS, windows)
        write_split(out, split)
        write_json(out / SETTINGS, started)
    in_training = Samples(windows, _aims(rows), split.rows("train"))
    in_validation = Samples(windows, split.labels, split.rows("val"))
    module = Training(settings, network, in_training, in_validation, out)
    run_epochs(module, checkpoint, console)
    if not first:
        return None
    load_weights(network, out / WEIGHTS)
    with console.status("Evaluating on validation"):
        made = make_record(network, windows, split, settings)
    record = made.record(
        started.cohort_sha256,
        command,
        {
            "split": how_split(rows, settings.split_by),
            "soft_labels": sum(row.soft_label is not None for row in rows),
            "epochs_run": len(module.history),
            "best_epoch": max((row["epoch"] for row in module.history if row["selected"]), default=0),
            "minutes": round(sum(row["seconds"] for row in module.history) / 60, 1),
        },
        {name: version(name) for name in _PACKAGES},
        out,
    )
    write_json(out / RUN, record)
    return record


def _aims(rows: Sequence[CohortRow]) -> npt.NDArray[np.float32]:
    """Return what training aims at, float32 [N]: the soft label, or the label, smoothed where there is none."""
    smooth = LABEL_SMOOTHING
    return np.array(
        [row.label * (1 - smooth) + smooth / 2 if row.soft_label is None else row.soft_label for row in rows],
        np.float32,
    )


def _read(
    rows: list[CohortRow], parts: list[str], finder: ImageFinder, settings: Settings, console: Console
) -> Windows:
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("Reading images", total=len(rows))
        reach = reach_mm(settings.preprocess.field_of_view_mm)
        return read_windows(
            rows, parts, finder, settings.preprocess, reach, lambda: progress.advance(task), progress.console.print
        )
