"""The networks: an ImageNet architecture from timm under a head whose maps are the class activation maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lymphcad.errors import CommandError
from lymphcad_train.vision import timm

ARCHITECTURES = {"resnet50": "resnet50"}
"""Our name of a network, and timm's."""


class CamNetwork(nn.Module):
    """Backbone features, a 1x1 convolution to one map a class, logits as the maps' spatial mean plus a bias.

    A linear layer after global average pooling, written the other way round (Zhou et al., CVPR 2016), so the class
    activation map costs nothing extra.

    Parameters
    ----------
    architecture
        A key of `ARCHITECTURES`.
    drop_path
        Share of the residual branches that are left out in training (Huang et al., ECCV 2016), up to the last block.

    Raises
    ------
    CommandError
        If there is no such network.
    """

    def __init__(self, architecture: str, drop_path: float = 0.0) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise CommandError(f"there is no network '{architecture}': choose one of {known}")
        self.architecture = architecture
        self.backbone = timm.create_model(ARCHITECTURES[architecture], pretrained=False, drop_path_rate=drop_path)
        self.backbone.reset_classifier(0, "")
        self.maps = nn.Conv2d(self.backbone.num_features, 2, kernel_size=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(2))
        configuration = self.backbone.pretrained_cfg
        self.register_buffer("mean", torch.tensor(configuration["mean"]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(configuration["std"]).reshape(1, 3, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """Classify.

        Parameters
        ----------
        crop
            float32 [B, 1, S, S], 0..1.

        Returns
        -------
        tuple of Tensor
            Logits, float32 [B, 2], benign and metastatic; maps, float32 [B, 2, h, w].
        """
        maps = self.maps(self.backbone.forward_features((crop - self.mean) / self.std))
        return maps.mean(dim=(2, 3)) + self.bias, maps
