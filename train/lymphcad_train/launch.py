"""Lightning's part of a run: the loop, the processes, the checkpoints, the progress."""

from __future__ import annotations

import lymphcad_train.vision  # noqa: F401 - before lightning, which imports torchvision

# isort: split

import errno
import logging
import os
import warnings
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar

from lymphcad.errors import CommandError
from lymphcad_train.processes import world_size
from lymphcad_train.run import LAST
from lymphcad_train.training import SELECTION, Training

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


def run_epochs(module: Training, checkpoint: Path | None, console: Console) -> None:
    """Train until the last epoch, or until validation has not become better for long enough.

    Parameters
    ----------
    module
        The training.
    checkpoint
        Where to go on; from the first epoch if None.
    console
        For the progress.

    Raises
    ------
    CommandError
        If the loss is not finite, or the disk is full; the last checkpoint stands.
    """
    settings = module.settings
    alone = world_size() == 1
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning suggests worker processes; the windows lie in memory, and the crops are made where the network is.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*in eval mode at the start.*")  # the moving average
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # on resume
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        trainer = Trainer(
            accelerator="auto",
            devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
            num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
            strategy="auto" if alone else "ddp",
            use_distributed_sampler=False,  # ours repeat no image
            precision=precision(),
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
        )
        try:
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise CommandError(
                f"the disk took no more of the run ({error.strerror}); the checkpoint of the epoch before stands: make"
                " room, and go on with --resume"
            ) from None


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
            f"{settings.architecture}, epoch {row['epoch']}/{settings.epochs} at {row['size']} px: loss"
            f" {row['loss']:.3f}, validation AUROC {row['val_auroc']:.3f}{' *' if row['selected'] else ''}, about"
            f" {minutes:.0f} min left"
        )


def precision() -> Any:
    """Return bfloat16 where the hardware multiplies it, else float32."""
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"
