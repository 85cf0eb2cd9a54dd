"""What a training run is told to do; written into the run, and compared when it is resumed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lymphcad.bundle import Preprocess

EARLY_SHARE = 0.65
"""Share of the epochs that a progressive run spends at the smaller crop."""
WARM_UP_SHARE = 0.06
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.05
DROP_PATH = 0.1
EMA_DECAY = 0.998
GRADIENT_NORM = 1.0


class Settings(BaseModel):
    """The choices of one run.

    Attributes
    ----------
    architecture
        A key of `lymphcad_train.networks.ARCHITECTURES`.
    weights
        ``none``, ``imagenet``, or the name of the file that training starts from.
    preprocess
        The crop that is served, HU, mm and pixels.
    progressive
        Side of the crop in the first `EARLY_SHARE` of the epochs, pixels; 0 for the full size throughout.
    epochs
        How often each training image is seen.
    patience
        Epochs at the full size without a better validation AUROC after which training stops.
    batch
        Images in a step.
    lr
        Highest learning rate of AdamW.
    focus
        Weight in the loss of `lymphcad_train.focus.stray_share`; 0 for the classification alone.
    mirrored
        Whether the network is served as `lymphcad_train.networks.Mirrored`.
    split_by
        Whether patients are drawn for validation and test, or images; a table's own split goes before both.
    sensitivity
        What the operating threshold must reach on validation; by Youden's index if None.
    seed
        Of the split, the first weights, the order of the images, the augmentation and the bootstrap.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    weights: str
    preprocess: Preprocess
    progressive: Annotated[int, Field(ge=0, le=1024)]
    epochs: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=2)]
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    focus: Annotated[float, Field(ge=0, le=10)] = 0.3
    mirrored: bool = False
    split_by: Literal["patient", "image"] = "patient"
    sensitivity: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)]

    def size_of(self, epoch: int) -> int:
        """Return the side of the crop in an epoch (from 0), pixels."""
        full = self.preprocess.size
        early = 0 < self.progressive < full and epoch < int(self.epochs * EARLY_SHARE)
        return self.progressive if early else full
