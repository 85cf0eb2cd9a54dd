"""Put a bundle together: graphs, then ``bundle.json``, written beside and renamed when complete."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lymphcad_train.graphs import Cam, Preprocess

from lymphcad.bundle import Bundle, write_bundle
from lymphcad.errors import CommandError
from lymphcad_export.onnx_graphs import write_graphs

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_PACKAGES = ("lymphcad", "torch", "timm", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Meaning:
    """What gives a score its meaning, as training found it; the fields of `lymphcad.bundle.Manifest`."""

    name: str
    architecture: str
    threshold: float
    temperature: float
    evidence_scale: float
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


def export_bundle(
    out: Path,
    network: nn.Module,
    window: dict[str, Any],
    meaning: Meaning,
    finish: Callable[[Path], dict[str, Any]] | None = None,
) -> Bundle:
    """Export a network as a bundle with a float32 CNN, or with what `finish` makes of it.

    Parameters
    ----------
    out
        A folder that does not exist.
    network
        Takes float32 [B, 1, S, S], gives logits [B, 2] and maps [B, 2, h, w].
    window
        The fields of `lymphcad.bundle.Preprocess`.
    meaning
        The rest.
    finish
        Given the folder with the float32 graphs before it is a bundle: may change them, proves them, and returns the
        fields of the manifest that come of it. What it raises leaves no bundle.

    Returns
    -------
    Bundle
        Complete, with digests.

    Raises
    ------
    CommandError
        If the folder exists.
    """
    if out.exists():
        raise CommandError(f"'{out}' exists: name a new folder for the bundle")
    out.parent.mkdir(parents=True, exist_ok=True)
    # A kill or a full disk leaves a folder that no one takes for a bundle.
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        size = int(window["size"])
        preprocess = Preprocess(**window)
        map_size = maps_of(network, size)
        cam = Cam(meaning.temperature, meaning.evidence_scale, map_size, size)
        write_graphs(beside, preprocess, network, cam, size)
        fields = {
            **asdict(meaning),
            "preprocess": window,
            "map_size": map_size,
            "precision": "fp32",
            "versions": {name: version(name) for name in _PACKAGES},
        }
        if finish is not None:
            fields |= finish(beside)
        write_bundle(beside, fields)
        beside.chmod(0o755)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Bundle(out)


def maps_of(network: nn.Module, size: int) -> tuple[int, int]:
    """Return rows and columns of a network's maps for a crop of `size` pixels."""
    import torch

    with torch.inference_mode():
        maps = network.eval()(torch.zeros(1, 1, size, size))[1]
    return int(maps.shape[2]), int(maps.shape[3])
