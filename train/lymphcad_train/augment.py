"""Augmentation that a CT allows: where the node was clicked, how it lies, how large, the contrast phase, the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from lymphcad_train.graphs import Preprocess

if TYPE_CHECKING:
    from lymphcad import bundle

SHIFT_MM = 2.0
SCALE = 1.1
ROTATION_DEG = 15.0
GAIN = 1.05
OFFSET_HU = 6.0
NOISE_HU = 5.0
# A square turned by 15 degrees lies in one that is cos + sin = 1.22 times as wide.
_WIDER = 1.25


def reach_mm(field_of_view_mm: float) -> float:
    """Return the side of the square that augmented crops of a field of view can need, mm."""
    return field_of_view_mm * _WIDER * SCALE + 2 * SHIFT_MM


class Augment(nn.Module):
    """`Preprocess` on images disturbed at random, in training only; draws from torch's global generator.

    Shift and scale move the centre and stretch the spacing, noise and contrast change the HU before the window, so the
    crop is resampled by `Preprocess` itself. Mirroring and turning resample it once more; by whole quarter turns, as
    for half of the crops, this changes no pixel.

    Parameters
    ----------
    preprocess
        The crop that is served.
    size
        S, side of the augmented crop, pixels.
    """

    def __init__(self, preprocess: bundle.Preprocess, size: int) -> None:
        super().__init__()
        wide = 2 * round(size * _WIDER / 2) + size % 2
        self.level = preprocess.window_level_hu
        self.preprocess = Preprocess(
            preprocess.field_of_view_mm * wide / size, self.level, preprocess.window_width_hu, wide
        )
        self.size, self.shrink = size, size / wide

    def forward(self, image: Tensor, spacing_mm: Tensor, center: Tensor) -> Tensor:
        """Crop; arguments and result as for `Preprocess.forward`."""
        batch = len(image)
        scale = SCALE ** _uniform(image, batch, 1)
        shift = SHIFT_MM * _uniform(image, batch, 2) / spacing_mm
        gain = GAIN ** _uniform(image, batch, 1, 1)
        offset = OFFSET_HU * _uniform(image, batch, 1, 1)
        noise = NOISE_HU * torch.rand(batch, 1, 1, device=image.device)
        hu = image.to(torch.float32) + noise * torch.randn(image.shape, device=image.device)
        hu = (hu - self.level) * gain + self.level + offset
        crop = self.preprocess(hu, spacing_mm * scale, center + shift)
        grid = functional.affine_grid(self._turns(image), [batch, 1, self.size, self.size], align_corners=False)
        return functional.grid_sample(crop, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _turns(self, image: Tensor) -> Tensor:
        """Return a quarter turn, mirrored or not, and for every other crop a small turn, float32 [B, 2, 3]."""
        batch, device = len(image), image.device
        small = torch.deg2rad(ROTATION_DEG * _uniform(image, batch)) * torch.randint(2, (batch,), device=device)
        angle = small + torch.pi / 2 * torch.randint(4, (batch,), device=device)
        mirror = 1.0 - 2.0 * torch.randint(2, (batch,), device=device)
        cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
        rows = torch.stack([cos * mirror, -sin, zero, sin * mirror, cos, zero], dim=1)
        return self.shrink * rows.reshape(batch, 2, 3)


def _uniform(like: Tensor, *shape: int) -> Tensor:
    """Return numbers from -1 to 1, float32."""
    return 2 * torch.rand(*shape, device=like.device) - 1
