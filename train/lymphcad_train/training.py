"""The training of one network as a Lightning module: loss, schedule, moving average, selection on validation."""

from __future__ import annotations

import lymphcad_train.vision  # noqa: F401 - before lightning, which imports torchvision

# isort: split

import csv
import math
import os
import time
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, DistributedSampler
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC

from lymphcad.errors import CommandError
from lymphcad_train.augment import Augment
from lymphcad_train.data import Samples, collate
from lymphcad_train.focus import stray_share
from lymphcad_train.graphs import Preprocess
from lymphcad_train.networks import as_served
from lymphcad_train.processes import rank, world_size
from lymphcad_train.settings import EMA_DECAY, GRADIENT_NORM, WARM_UP_SHARE, WEIGHT_DECAY
from lymphcad_train.weights import save_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from lymphcad_train.networks import CamNetwork
    from lymphcad_train.settings import Settings

SELECTION = "val_auroc"
WEIGHTS = "weights.safetensors"
_FIELDS = ("epoch", "size", "learning_rate", "loss", "stray", "val_auroc", "val_loss", "selected", "seconds")


class DivergedError(CommandError):
    """The loss is not finite any more: this network cannot be trained so, another one may."""


class Training(LightningModule):
    """Train a network; keep the moving average of its weights with the best validation AUROC.

    The classes weigh the same in the loss. What it would teach the logits, then, is the odds at equal shares; the
    cohort's log shares are subtracted from them in the loss, so that the logits themselves mean the cohort's shares.
    Epochs at a smaller crop are not candidates: what is chosen must be what is served.

    Parameters
    ----------
    settings
        Of the run.
    network
        Its first weights set.
    train, val
        The samples; the labels of train are float32, what training aims at.
    out
        The run's folder; gets `WEIGHTS` and log.csv.
    """

    def __init__(self, settings: Settings, network: CamNetwork, train: Samples, val: Samples, out: Path) -> None:
        super().__init__()
        self.settings, self.out = settings, out
        self.samples = {"train": train, "val": val}
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = ModelEmaV3(self.network, decay=EMA_DECAY, use_warmup=True).requires_grad_(False)
        self.served = as_served(self.average.module, mirrored=settings.mirrored)
        self.number, self.replicas = rank(), world_size()
        self.steps = settings.epochs * (len(train) // (settings.batch * self.replicas))
        counts = torch.bincount((train.labels >= 0.5).to(torch.int64), minlength=2).to(torch.float32)
        self.register_buffer("class_weight", counts.sum() / (2 * counts), persistent=False)
        self.register_buffer("log_prior", torch.log(counts / counts.sum()), persistent=False)
        self.register_buffer("best", torch.tensor([-math.inf, -math.inf]))  # AUROC, minus loss
        self.class_weight: Tensor
        self.log_prior: Tensor
        self.best: Tensor
        self.history: list[dict[str, Any]] = []
        self.loss, self.stray = MeanMetric(), MeanMetric()
        self.val_loss, self.val_auroc = MeanMetric(), BinaryAUROC()
        self.crops: Augment | Preprocess
        self.started = 0.0

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches whose order depends on the seed and the epoch alone, which Lightning tells the sampler."""
        samples = self.samples["train"]
        order: DistributedSampler[Any] = DistributedSampler(
            samples, self.replicas, self.number, seed=self.settings.seed, drop_last=True
        )
        # A loader without a generator of its own draws from the global one, and not as often in a resumed run.
        own = torch.Generator()
        return DataLoader(
            samples, self.settings.batch, sampler=order, drop_last=True, collate_fn=collate, generator=own
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of validation, in order; no image stands in two shares."""
        samples = self.samples["val"]
        share = range(self.number, len(samples), self.replicas)
        return DataLoader(samples, 2 * self.settings.batch, sampler=share, collate_fn=collate)

    def configure_optimizers(self) -> Any:
        """Return AdamW, and a cosine down to nothing after a linear start."""
        groups = param_groups_weight_decay(self.network, WEIGHT_DECAY)
        optimizer = torch.optim.AdamW(groups, lr=self.settings.lr, fused=True)
        warm_up = max(round(WARM_UP_SHARE * self.steps), 1)

        def share(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            return (1 + math.cos(math.pi * (step - warm_up) / max(self.steps - warm_up, 1))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Seed what the epoch draws, so that a resumed run draws the same."""
        torch.manual_seed(self.settings.seed * 100_003 + self.current_epoch + 10_007 * self.number)
        self.size = self.settings.size_of(self.current_epoch)
        self.crops = Augment(self.settings.preprocess, self.size).to(self.device)
        self.loss.reset()
        self.stray.reset()
        self.started = time.monotonic()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Return the loss of a batch."""
        image, spacing, center, labels = batch
        with torch.autocast(self.device.type, enabled=False):
            crop = self.crops(image, spacing, center)
        logits, maps = self.network(crop.contiguous(memory_format=torch.channels_last))
        logits = logits.float()
        aim = torch.stack([1 - labels, labels], dim=1)
        loss = cross_entropy(logits - self.log_prior, aim, self.class_weight, reduction="sum")
        loss = loss / (aim @ self.class_weight).sum()
        stray = stray_share(maps)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss.item()} in epoch {self.current_epoch + 1}: train again with a smaller --lr"
            )
        self.loss.update(loss.detach())
        self.stray.update(stray.detach())
        return loss + self.settings.focus * stray

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Clip the gradient; Lightning's own clipping takes no fused optimizer, and that is 8 % of a step."""
        del optimizer
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the average."""
        self.average.update(self.network, step=self.global_step)

    def on_validation_epoch_start(self) -> None:
        """Crop at the size of the epoch, as it is served."""
        preprocess = self.settings.preprocess.model_copy(update={"size": self.size})
        self.crops = Preprocess(**preprocess.model_dump()).to(self.device)
        self.val_loss.reset()
        self.val_auroc.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        """Score a batch with the averaged weights."""
        image, spacing, center, labels = batch
        with torch.autocast(self.device.type, enabled=False):
            crop = self.crops(image, spacing, center)
        logits = self.served(crop.contiguous(memory_format=torch.channels_last))[0].float()
        self.val_loss.update(cross_entropy(logits, labels), weight=len(labels))
        self.val_auroc.update(logits[:, 1] - logits[:, 0], labels)

    def on_validation_epoch_end(self) -> None:
        """Keep the averaged weights if they are the best at the full size; ties go to the smaller loss."""
        auroc, loss = self.val_auroc.compute(), self.val_loss.compute()
        found = torch.stack([auroc, -loss])
        selected = False
        if self.size == self.settings.preprocess.size:
            self.log(SELECTION, auroc)
            selected = found.tolist() > self.best.tolist()
        if selected:
            self.best.copy_(found)
            if self.number == 0:
                save_weights(self.average.module, self.out / WEIGHTS)
        row = (
            self.current_epoch + 1,
            self.size,
            self.optimizers().param_groups[0]["lr"],  # type: ignore[union-attr]
            self.loss.compute().item(),
            self.stray.compute().item(),
            auroc.item(),
            loss.item(),
            int(selected),
            time.monotonic() - self.started,
        )
        self.history.append(dict(zip(_FIELDS, row, strict=True)))
        if self.number == 0:
            self._write_log()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the log."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the log."""
        self.history = checkpoint["history"]

    def _write_log(self) -> None:
        part = self.out / "log.part"
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.history)
        os.replace(part, self.out / "log.csv")  # noqa: PTH105 - replaces in one step
