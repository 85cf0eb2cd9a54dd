"""Where the evidence stands: a penalty that keeps a heatmap from lighting up where the node is not."""

from __future__ import annotations

import torch
from torch import Tensor

NEAR = 0.25
"""Distance from the node within which evidence costs nothing, in fields of view: the disc that touches the middle
half of the crop. From here the cost rises evenly to 1 at the middle of the crop's sides."""
_LEAST = 1e-6


def cost_of_place(rows: int, columns: int) -> Tensor:
    """Return what evidence costs in each cell of a map, for its distance from the node.

    Parameters
    ----------
    rows, columns
        Of the map.

    Returns
    -------
    Tensor
        float32 [rows, columns], 0 within `NEAR` of the centre, 1 from half a field of view on.
    """
    down, across = ((torch.arange(cells) + 0.5) / cells - 0.5 for cells in (rows, columns))
    distance = torch.hypot(down[:, None], across[None])
    return ((distance - NEAR) / (0.5 - NEAR)).clamp(0, 1)


def stray_share(maps: Tensor) -> Tensor:
    """Return the share of the evidence, for and against, that stands away from the node.

    The logits are the mean of the maps, so the classification alone does not care in which cell evidence stands, and a
    network whose cells see the whole crop may keep it in the corners. That the node is in the middle is known, so this
    asks for the right answer for the right reason (Ross et al., IJCAI 2017, who penalise gradients in place of maps).

    Parameters
    ----------
    maps
        Floating point [B, 2, h, w], as of `lymphcad_train.networks.CamNetwork`.

    Returns
    -------
    Tensor
        float32 scalar, 0 to 1: the mean of the crops.
    """
    evidence = (maps[:, 1] - maps[:, 0]).float().abs()
    stray = (evidence * cost_of_place(*evidence.shape[1:]).to(evidence.device)).sum(dim=(1, 2))
    return (stray / (evidence.sum(dim=(1, 2)) + _LEAST)).mean()
