"""The networks: an ImageNet architecture from timm under a head whose maps are the class activation maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lymphcad.errors import CommandError
from lymphcad_train.vision import timm


@dataclass(frozen=True)
class Architecture:
    """What is known of a network before it is built.

    Attributes
    ----------
    timm
        timm's name of it.
    drops_paths
        Whether it has residual branches that timm can leave out in training.
    """

    timm: str
    drops_paths: bool = False


PAPER = {
    "vgg16": Architecture("vgg16"),
    "vgg19": Architecture("vgg19"),
    "xception": Architecture("legacy_xception"),
    "inception_v3": Architecture("inception_v3"),
    "inception_resnet_v2": Architecture("inception_resnet_v2"),
    "densenet121": Architecture("densenet121"),
    "densenet169": Architecture("densenet169"),
    "resnet50": Architecture("resnet50", drops_paths=True),
}
"""The eight of Lee et al., Eur Radiol 2019;29:5452, by the usual reading: its abstract names ResNet50 only."""
EDGE = {"tf_efficientnet_lite0": Architecture("tf_efficientnet_lite0", drops_paths=True)}
"""For small machines."""
ARCHITECTURES = PAPER | EDGE


def architecture(name: str) -> Architecture:
    """Return what is known of a network.

    Parameters
    ----------
    name
        A key of `ARCHITECTURES`.

    Returns
    -------
    Architecture
        Of that name.

    Raises
    ------
    CommandError
        If there is no such network.
    """
    if name not in ARCHITECTURES:
        raise CommandError(f"there is no network '{name}': choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def native_size(name: str) -> int:
    """Return the side of the images that a network was made for, pixels; arguments as for `architecture`."""
    return int(timm.get_pretrained_cfg(architecture(name).timm).input_size[1])


class CamNetwork(nn.Module):
    """Backbone features, a 1x1 convolution to one map a class, logits as the maps' spatial mean plus a bias.

    A linear layer after global average pooling, written the other way round (Zhou et al., CVPR 2016), so the class
    activation map costs nothing extra.

    Parameters
    ----------
    name
        A key of `ARCHITECTURES`.
    drop_path
        Share of the residual branches that are left out in training (Huang et al., ECCV 2016), up to the last block;
        nothing is left out of a network that has none.

    Raises
    ------
    CommandError
        If there is no such network.
    """

    def __init__(self, name: str, drop_path: float = 0.0) -> None:
        super().__init__()
        known = architecture(name)
        options: dict[str, Any] = {"drop_path_rate": drop_path} if known.drops_paths else {}
        self.architecture = name
        self.backbone = timm.create_model(known.timm, pretrained=False, **options)
        configuration = self.backbone.pretrained_cfg
        if hasattr(self.backbone, "pre_logits"):  # VGG: two convolutions stand before the classifier
            self.backbone.pre_logits, self.backbone.head = nn.Identity(), nn.Identity()
        else:
            self.backbone.reset_classifier(0, "")
        self.maps = nn.Conv2d(self.backbone.num_features, 2, kernel_size=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(2))
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


def check_size(name: str, size: int) -> None:
    """Refuse a crop that is too small for a network's strides; nothing is computed.

    Parameters
    ----------
    name
        A key of `ARCHITECTURES`.
    size
        Side of the crop, pixels.

    Raises
    ------
    CommandError
        With the smallest size that it takes; if there is no such network.
    """
    with torch.device("meta"):
        network = CamNetwork(name).eval()

    def fits(side: int) -> bool:
        try:
            network(torch.empty(1, 1, side, side, device="meta"))
        except RuntimeError:
            return False
        return True

    if fits(size):
        return
    least = next(side for side in range(size + 1, native_size(name) + 1) if fits(side))
    raise CommandError(f"{name} takes crops of {least} pixels a side or more, not {size}: give a larger size")


class Mirrored(nn.Module):
    """A network that looks four times: at the crop, mirrored in both directions, and with rows and columns exchanged.

    Logits are the mean of the four, and so are the maps, turned back first; four times the work.

    Parameters
    ----------
    network
        As `CamNetwork`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """Classify; argument and results as of `CamNetwork.forward`."""
        looks = torch.cat([crop, crop.flip(3), crop.flip(2), crop.transpose(2, 3)])
        logits, maps = self.network(looks)
        plain, across, along, turned = maps.unflatten(0, (4, -1)).unbind()
        maps = (plain + across.flip(3) + along.flip(2) + turned.transpose(2, 3)) / 4
        return logits.unflatten(0, (4, -1)).mean(dim=0), maps


def as_served(network: nn.Module, *, mirrored: bool) -> nn.Module:
    """Return what scores: the network, or `Mirrored` around it."""
    return Mirrored(network) if mirrored else network
