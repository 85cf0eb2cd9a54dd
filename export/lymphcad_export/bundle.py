"""Put a bundle together: graphs, golden inputs, then ``bundle.json``, written beside and renamed when complete."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
from lymphcad_train.graphs import Cam, Preprocess

from lymphcad.bundle import BUNDLE_JSON, PRECISIONS, Bundle, Precision, write_bundle
from lymphcad.bundle import Preprocess as Window
from lymphcad.errors import CommandError
from lymphcad.golden import OUTPUTS, TOLERANCES, golden_inputs, widened, write_golden
from lymphcad.signature import SIGNATURE, read_private_key
from lymphcad_export.onnx_graphs import cnn_file, edge_file, write_edge, write_graphs
from lymphcad_export.sbom import SBOM, write_sbom
from lymphcad_export.scores import SERVED, open_graphs

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from lymphcad.bundle import Tolerance

_PACKAGES = ("lymphcad", "torch", "timm", "onnx", "onnxscript", "openvino", "nvidia-modelopt")


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
    sign: Path | None = None,
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
        Given the folder with the float32 graphs before it is a bundle: adds CNNs in other precisions, proves them, and
        returns the fields of the manifest that come of it, ``precisions`` above all; a CNN in another precision is
        taken out. What it raises leaves no bundle.
    sign
        File of the private key that signs it.

    Returns
    -------
    Bundle
        Complete, with digests.

    Raises
    ------
    CommandError
        If the folder exists or cannot be written to, or the key cannot be read.
    """
    key = None if sign is None else read_private_key(sign)
    if out.exists():
        raise CommandError(f"'{out}' exists: name a new folder for the bundle")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A kill leaves a folder that no one takes for a bundle.
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise CommandError(f"'{out}' cannot be made ({error.strerror}): name another folder for the bundle") from None
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
            "precisions": ["fp32"],
            "versions": {name: version(name) for name in _PACKAGES} | {"onnxruntime": onnxruntime.__version__},
        }
        if finish is not None:
            fields |= finish(beside)
        precisions: list[Precision] = fields["precisions"]
        _keep(beside, precisions)
        tolerances = _write_golden(beside, Window(**window), precisions)
        fields["golden"] = {name: tolerance.model_dump() for name, tolerance in tolerances.items()}
        write_sbom(beside / SBOM)
        write_bundle(beside, fields)
        if key is not None:
            (beside / SIGNATURE).write_bytes(key.sign((beside / BUNDLE_JSON).read_bytes()))
        beside.chmod(0o755)
        beside.rename(out)
    except OSError as error:
        raise CommandError(
            f"the bundle '{out}' could not be written ({error.strerror or error}): make room or name another folder"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Bundle(out)


def _keep(folder: Path, precisions: list[Precision]) -> None:
    """Leave the CNNs in these precisions only, each with its merged graph."""
    for precision in PRECISIONS:
        if precision not in precisions:
            cnn_file(folder, precision).unlink(missing_ok=True)
            edge_file(folder, precision).unlink(missing_ok=True)
        elif not edge_file(folder, precision).is_file():
            write_edge(folder, precision)


def _write_golden(folder: Path, window: Window, precisions: list[Precision]) -> dict[str, Tolerance]:
    """Write the golden inputs, what the served engine makes of them in each precision, and return the tolerances."""
    inputs = golden_inputs(window)
    outputs, crop = {}, {}
    tolerances = {"bf16": TOLERANCES["bf16"]}
    for precision in precisions:
        answer = open_graphs(folder, precision, SERVED)(inputs)
        other = open_graphs(folder, precision, "onnxruntime")(inputs)
        outputs[precision] = {name: answer[name] for name in OUTPUTS}
        crop = {"CROP": answer["CROP"]}
        tolerances[precision] = widened(TOLERANCES[precision], other, answer)
        tolerances["bf16"] = widened(tolerances["bf16"], other, answer)
    write_golden(folder, inputs | crop, outputs)
    return tolerances


def maps_of(network: nn.Module, size: int) -> tuple[int, int]:
    """Return rows and columns of a network's maps for a crop of `size` pixels."""
    import torch

    with torch.inference_mode():
        maps = network.eval()(torch.zeros(1, 1, size, size))[1]
    return int(maps.shape[2]), int(maps.shape[3])
