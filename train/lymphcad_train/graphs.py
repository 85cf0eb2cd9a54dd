"""Preprocessing and class activation map as torch modules: the one implementation, exported to ONNX as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Samples beyond the border that the weights of a row still sum over, pixels. A hat that reaches further than this
# would need more than 16 pixels between two samples.
_BORDER = 16


class Preprocess(nn.Module):
    """Cut a field of view around a node, resample it to a square, and map the window to 0..1.

    The crop is axis-aligned, so bilinear resampling is two matrix products: rows x image x columns. The weights are
    hat functions, widened to the distance of two samples when the crop shrinks the image, which is the antialiasing.
    The window is applied first, as on a display, so that metal or air beside a node does not bleed. Beyond the
    image's border lies zero.

    Parameters
    ----------
    field_of_view_mm
        Side of the square, mm.
    window_level_hu, window_width_hu
        The window, HU.
    size
        S, samples along a side, pixels.
    """

    def __init__(self, field_of_view_mm: float, window_level_hu: float, window_width_hu: float, size: int) -> None:
        super().__init__()
        self.low = window_level_hu - window_width_hu / 2
        self.width = window_width_hu
        offsets = ((torch.arange(size, dtype=torch.float32) + 0.5) / size - 0.5) * field_of_view_mm
        self.register_buffer("offsets_mm", offsets.reshape(1, size, 1), persistent=False)
        self.step_mm = field_of_view_mm / size
        self.offsets_mm: Tensor

    def forward(self, image: Tensor, spacing_mm: Tensor, center: Tensor) -> Tensor:
        """Crop.

        Parameters
        ----------
        image
            int16 [B, H, W], HU.
        spacing_mm
            float32 [B, 2], mm, between rows and between columns.
        center
            float32 [B, 2], row and column of the node's centre, pixels.

        Returns
        -------
        Tensor
            float32 [B, 1, S, S], 0..1.
        """
        display = ((image.to(torch.float32) - self.low) / self.width).clamp(0, 1)
        rows = self._weights(image.shape[1], spacing_mm[:, 0], center[:, 0])
        columns = self._weights(image.shape[2], spacing_mm[:, 1], center[:, 1])
        crop = torch.matmul(torch.matmul(rows, display), columns.transpose(1, 2))
        return crop.unsqueeze(1)

    def _weights(self, length: int, spacing: Tensor, center: Tensor) -> Tensor:
        """Return the share of each pixel in each sample, float32 [B, S, length]."""
        spacing = spacing.reshape(-1, 1, 1)
        at = center.reshape(-1, 1, 1) + self.offsets_mm / spacing
        half_width = (self.step_mm / spacing).clamp(min=1.0)
        # Pixels just beyond the border count in the sum (and are zero in the product), so that a sample half outside
        # is half dark, in a window and in the whole slice alike.
        pixels = torch.arange(-_BORDER, length + _BORDER, dtype=torch.float32, device=spacing.device)
        hats = (1 - (at - pixels.reshape(1, 1, -1)).abs() / half_width).clamp(min=0)
        return hats[:, :, _BORDER:-_BORDER] / hats.sum(dim=2, keepdim=True).clamp(min=1e-6)


class Cam(nn.Module):
    """Turn logits and maps into a calibrated probability and a heatmap on an absolute scale.

    Parameters
    ----------
    temperature
        Divisor of the logits (Guo et al., ICML 2017), fitted on validation.
    evidence_scale
        Evidence that is shown as 255, in units of the logits.
    map_size
        Rows and columns of the maps.
    size
        S, side of the heatmap, pixels.
    """

    def __init__(self, temperature: float, evidence_scale: float, map_size: tuple[int, int], size: int) -> None:
        super().__init__()
        self.temperature = temperature
        self.evidence_scale = evidence_scale
        self.register_buffer("rows", _upsampling(map_size[0], size))
        self.register_buffer("columns", _upsampling(map_size[1], size).T.contiguous())
        self.rows: Tensor
        self.columns: Tensor

    def forward(self, logits: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrate, and draw the evidence for metastasis.

        Parameters
        ----------
        logits
            float32 [B, 2], benign and metastatic.
        maps
            float32 [B, 2, h, w].

        Returns
        -------
        tuple of Tensor
            Probability of metastasis, float32 [B, 1]; heatmap, uint8 [B, S, S], 0 where nothing speaks for it.
        """
        probability = torch.sigmoid((logits[:, 1:] - logits[:, :1]) / self.temperature)
        heatmap = (self.evidence(maps) * (255 / self.evidence_scale)).clamp(0, 255).round().to(torch.uint8)
        return probability, heatmap

    def evidence(self, maps: Tensor) -> Tensor:
        """Return the metastatic map minus the benign one, upsampled, in units of the logits, float32 [B, S, S]."""
        return torch.matmul(torch.matmul(self.rows, maps[:, 1] - maps[:, 0]), self.columns)


class Whole(nn.Module):
    """Preprocess, network and `Cam` as one module: what the edge variant exports, and what tests compare with.

    Parameters
    ----------
    preprocess, network, cam
        The three.
    """

    def __init__(self, preprocess: Preprocess, network: nn.Module, cam: Cam) -> None:
        super().__init__()
        self.preprocess, self.network, self.cam = preprocess, network, cam

    def forward(self, image: Tensor, spacing_mm: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
        """Score; arguments as for `Preprocess.forward`, results as of `Cam.forward`."""
        probability, heatmap = self.cam(*self.network(self.preprocess(image, spacing_mm, center)))
        return probability, heatmap


def _upsampling(source: int, size: int) -> Tensor:
    """Return the bilinear weights of each map cell in each pixel (edges repeated), float32 [size, source]."""
    at = ((torch.arange(size) + 0.5) * source / size - 0.5).clamp(0, source - 1)
    return (1 - (at.reshape(-1, 1) - torch.arange(source).reshape(1, -1)).abs()).clamp(min=0)
